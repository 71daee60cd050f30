"""The front: what a training script calls.

The methods stand in one module a family; ``base`` has what they share.
"""

from __future__ import annotations

from sm_tblog.writer.curves import CurveMethods
from sm_tblog.writer.distributions import DistributionMethods
from sm_tblog.writer.embeddings import EmbeddingMethods
from sm_tblog.writer.exports import ExportMethods
from sm_tblog.writer.figures import FigureMethods
from sm_tblog.writer.files import FileMethods
from sm_tblog.writer.geometry import GeometryMethods
from sm_tblog.writer.graphs import GraphMethods
from sm_tblog.writer.hparams import HParamsMethods
from sm_tblog.writer.media import MediaMethods
from sm_tblog.writer.profiling import ProfilingMethods
from sm_tblog.writer.scalars import ScalarMethods
from sm_tblog.writer.tensors import TensorMethods
from sm_tblog.writer.texts import TextMethods
from sm_tblog.writer.traces import TraceMethods
from sm_tblog.writer.watching import WatchMethods

__all__ = ["SummaryWriter", "Writer"]


class Writer(
    CurveMethods,
    DistributionMethods,
    EmbeddingMethods,
    ExportMethods,
    FigureMethods,
    FileMethods,
    GeometryMethods,
    GraphMethods,
    HParamsMethods,
    MediaMethods,
    TraceMethods,
    ProfilingMethods,
    ScalarMethods,
    TensorMethods,
    TextMethods,
    WatchMethods,
):
    """Logs to TensorBoard from any training script.

    ::

        from sm_tblog import Writer

        with Writer("runs/first") as writer:
            for step, batch in enumerate(batches):
                writer.add_scalar("loss", train(batch), step)

    Any number of threads may use one writer. A forked child that logs writes into a file of its
    own; one that does not leaves no trace. A pickled or copied writer logs to the same folder, in
    a file of its own, from its first use on. Logging after ``close`` begins a new file.

    The arguments up to ``comet_config`` are those of ``torch.utils.tensorboard.SummaryWriter`` and
    tensorboardX's; the others are this library's own.

    Args:
        logdir: the log folder, a path or URL. By default ``runs/<date>_<host><comment>``; in a
            SageMaker training job the folder that the job uploads, see ``sm_tblog.sagemaker``.
        comment: the end of the default folder's name.
        purge_step: what earlier files in the folder hold at this step and after is superseded;
            for a run that resumes from a checkpoint. The mark is written at once.
        max_queue: rows that may wait before the worker is woken ahead of its tick, twice a second.
            By default 16,384. A small number costs processor time and gains nothing.
        flush_secs: at most so many seconds pass before what was logged is stored; by default what
            suits the place, 1 locally.
        filename_suffix: the end of every file's name.
        write_to_disk: ``False`` is ``enabled=False``.
        log_dir: another name of ``logdir``.
        comet_config: accepted for tensorboardX's sake if it asks for nothing.
        sinks: where batches go: names (``"events"``, ``"jsonl"``, ``"console"`` and those of the
            entry-point group ``sm_tblog.sinks``), objects with ``write``, ``flush`` and ``close``,
            or functions of a batch. By default ``["events"]``.
        resume: how to go on in a folder that holds earlier files of the run: ``"append"`` adds to
            them; a step supersedes what they hold from there on, in every tag and every run that
            this writer writes to. Another name of ``purge_step``.
        clean_tags: write tags as tensorboardX does: every character but letters, digits and
            ``-/_.`` becomes ``_``, and slashes at the beginning go.
        enabled: ``False`` makes every call do nothing.
        on_error: what happens to a failure on the worker besides being counted: ``"warn"`` says it
            once through the logger ``sm_tblog``, ``"raise"`` also has ``flush`` and ``close``
            raise it, a function is called with the exception.
        overflow: what happens when the memory for waiting rows is used up: ``"block"`` waits for
            the worker while it gets something done, ``"drop"`` drops new rows and counts them.
        rank_zero_only: be enabled only in the process of rank 0 of a distributed job.
        max_bytes: memory for rows that wait, for values that wait, and for what each sink keeps
            while its store refuses it.
        storage_options: passed to the store.

    Raises:
        InvalidTypeError: an argument is of the wrong kind.
        InvalidValueError: there is no such sink, or no store for the URL.
        MissingDependencyError: a sink or store needs a package that is not installed.
    """


SummaryWriter = Writer
"""The name under which the peers have it."""

"""The public interface: the writer that training scripts use.

Each module contains the methods for one kind of data; ``base`` contains what they share.
"""

from __future__ import annotations

from sm_tblog._compilation import uncompiled
from sm_tblog.writer.attributes import AttributeMethods
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
from sm_tblog.writer.naming import with_public_names
from sm_tblog.writer.profiling import ProfilingMethods
from sm_tblog.writer.scalars import ScalarMethods
from sm_tblog.writer.tensors import TensorMethods
from sm_tblog.writer.texts import TextMethods
from sm_tblog.writer.traces import TraceMethods
from sm_tblog.writer.watching import WatchMethods

__all__ = ["SummaryWriter", "Writer"]


@uncompiled
@with_public_names
class Writer(
    AttributeMethods,
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

    Any number of threads may share a writer. A forked child process that logs writes to its own
    file; one that does not log leaves no trace. A pickled or copied writer logs to the same
    directory, in its own file, from its first use on. Logging after ``close`` starts a new file.

    Every method that takes a step accepts it as ``global_step`` and as ``step``.

    The arguments up to ``comet_config`` are those of ``torch.utils.tensorboard.SummaryWriter`` and
    tensorboardX's ``SummaryWriter``; the others are specific to this library.

    Args:
        logdir: the log directory, a path or URL. By default ``runs/<date>_<host><comment>``; in a
            SageMaker training job, the directory that the job uploads, see ``sm_tblog.sagemaker``.
        comment: suffix of the default directory's name.
        purge_step: supersede the data in earlier files of the directory from this step on, when a
            run resumes from a checkpoint. The marker is written at once.
        max_queue: the number of buffered rows that wakes the worker thread before its next tick; it
            ticks twice a second. By default 16,384. A smaller number costs CPU time and gains
            nothing.
        flush_secs: the maximum time in seconds until logged data is stored. The default depends on
            the storage: it is 1 for directories, and 10 for buckets, mounted ones included.
        filename_suffix: suffix of every file name.
        write_to_disk: ``False`` is the same as ``enabled=False``.
        log_dir: alias of ``logdir``.
        comet_config: accepted for compatibility with tensorboardX, if it is empty or disables
            Comet.
        sinks: the destinations of batches: names (``"events"``, ``"jsonl"``, ``"console"`` and
            those of the entry-point group ``sm_tblog.sinks``), objects with ``write``, ``flush``
            and ``close``, or functions that take a batch. By default ``["events"]``.
        resume: how to continue in a directory that contains earlier files of the run. ``"append"``
            adds to them. A step supersedes their data from that step on, in every tag and every run
            that this writer writes to; this is an alias of ``purge_step``.
        clean_tags: clean tags as tensorboardX does: replace every character except letters, digits
            and ``-/_.`` by ``_``, and remove leading slashes.
        enabled: ``False`` makes every call do nothing.
        on_error: how to handle a failure on the worker thread, besides counting it: ``"warn"`` logs
            it once to the logger ``sm_tblog``; ``"raise"`` logs it too, and ``flush`` and ``close``
            raise it; a function is called with the exception instead.
        overflow: what to do when the memory for buffered rows is used up: ``"block"`` waits as long
            as the worker thread makes progress; ``"drop"`` drops new rows and counts them.
        rank_zero_only: enable the writer only in the process of rank 0 of a distributed job.
        max_bytes: memory limit in bytes, for buffered rows, for buffered values, and for the data
            that each sink keeps while its store rejects it. By default 32 MiB.
        storage_options: passed to the store. A local directory takes ``sync``: what ``flush`` does
            so that other machines see the data; see ``LocalStore``. Buckets take credentials, the
            endpoint and more; see "Straight to S3" in the documentation.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: the sink is unknown, or there is no store for the URL.
        MissingDependencyError: a sink or store needs a package that is not installed.
    """


SummaryWriter = Writer
"""Alias of ``Writer``, for scripts written for PyTorch or tensorboardX."""

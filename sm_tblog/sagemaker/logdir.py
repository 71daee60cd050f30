"""Where a training job logs, and whether that leaves the container.

=========================  ========================  ==============================================
the job has                ``Writer()`` logs to      which SageMaker uploads
=========================  ========================  ==============================================
a TensorBoardOutputConfig  its ``LocalPath``         while the job runs
none                       ``/opt/ml/output/data/``  at the end of the job, in ``output.tar.gz``
                           ``tensorboard``
=========================  ========================  ==============================================

What SageMaker uploads is not uploaded a second time. A job that must upload by itself, one of a
hyperparameter tuning job say, logs to what ``s3_logdir`` returns.

Each process has a run of its own if there are several: ``algo-2`` on the second of some hosts,
``algo-2-rank-9`` where a launcher has started several processes. A job that is started again, after
an interruption, has the same runs as before, in new files.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog import ranks
from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.sagemaker.environment import read_job, training_job

if TYPE_CHECKING:
    from sm_tblog.sagemaker.environment import TrainingJob

__all__ = ["as_s3_url", "default_logdir", "describe", "remark_on", "run_name", "s3_logdir"]

logger = logging.getLogger("sm_tblog")

_said: set[str] = set()


def default_logdir(comment: str = "") -> str:
    """Return the folder of a job's writer that names none.

    Args:
        comment: the end of the run's name.
    """
    job = read_job()
    folder = job.local_path or job.base / "output" / "data" / "tensorboard"
    return str(folder / run_name(job, comment))


def remark_on(logdir: str, *, is_given: bool) -> None:
    """Say, once, what becomes of a writer's local folder.

    Args:
        logdir: the folder.
        is_given: whether the user has named it. Then only what is amiss is said.
    """
    job = read_job()
    if not is_given:
        for remark in job.remarks:
            _say(logging.WARNING, remark)
    path = Path(logdir).absolute()
    level, message = describe(job, str(path))
    is_mounted = path.is_relative_to(job.base / "input")  # a file system that outlives the job, say
    if not is_given or (level >= logging.WARNING and not is_mounted):
        _say(level, message)


def describe(job: TrainingJob, logdir: str) -> tuple[int, str]:
    """Return what becomes of a local folder of a job, as a level of ``logging`` and a message."""
    path = Path(logdir)
    where = f"SageMaker job {job.name}: logging to {logdir}".replace(" :", ":")
    if job.is_local_mode:
        return logging.INFO, (
            f"{where}. In local mode nothing is uploaded while it runs, but by "
            "Writer(s3_logdir('s3://bucket/folder')) of sm_tblog.sagemaker"
        )
    if job.local_path is not None and path.is_relative_to(job.local_path):
        if job.s3_output_path is None:
            return logging.WARNING, (
                f"{where}, but the TensorBoardOutputConfig has no S3OutputPath: nothing is uploaded"
            )
        return logging.INFO, (
            f"{where}, which SageMaker uploads to {job.s3_output_path} while the job runs. "
            f"Look at it: sm-tblog open {job.name or 'JOB'}"
        )
    if job.checkpoint_path is not None and path.is_relative_to(job.checkpoint_path):
        return logging.INFO, f"{where}, which SageMaker uploads with the checkpoints"
    at_end = [
        folder for folder in ("output/data", "model") if path.is_relative_to(job.base / folder)
    ]
    fate = "is uploaded at the end of the job, in an archive" if at_end else "is never uploaded"
    if job.local_path is not None:
        advice = f"What is below {job.local_path} is: Writer() without a folder logs there"
    elif job.is_tuning:
        advice = (
            "Jobs of a tuning job can have no TensorBoardOutputConfig: to see it while the job "
            "runs, log to Writer(s3_logdir('s3://bucket/folder')) of sm_tblog.sagemaker"
        )
    else:
        advice = (
            "The job has no TensorBoardOutputConfig, so that the hosted TensorBoard does not list "
            "it: give it one, or log to Writer(s3_logdir('s3://bucket/folder')) of "
            "sm_tblog.sagemaker"
        )
    return logging.WARNING, f"{where}, which {fate}. {advice}"


def s3_logdir(s3_path: str | None = None, *, comment: str = "") -> str:
    """Return the URL to which a process of a training job uploads by itself.

    ::

        writer = Writer(s3_logdir())                         # beside what SageMaker uploads
        writer = Writer(s3_logdir("s3://my-bucket/tuning"))  # in a job without a config

    Args:
        s3_path: a URL, to which ``<job>/tensorboard-output`` is added, as SageMaker does. By
            default the place to which SageMaker itself uploads, so that both land together.
        comment: the end of the run's name.

    Returns:
        An ``s3://`` URL, with the run's name where there are several processes.

    Raises:
        InvalidTypeError: ``s3_path`` is not a str.
        InvalidValueError: it is no S3 URL; this is no training job, or one whose name this process
            does not know; or none is given, and the job has no TensorBoardOutputConfig.
    """
    job = training_job()
    if job is None:
        message = "s3_logdir: this is no SageMaker training job; give Writer an s3:// URL"
        raise InvalidValueError(message)
    if s3_path is not None and not job.name:
        message = "s3_logdir: this process was not told the job's name, as TRAINING_JOB_NAME"
        raise InvalidValueError(message)
    if s3_path is not None:
        target = "/".join((as_s3_url(s3_path).rstrip("/"), job.name, "tensorboard-output"))
    elif job.s3_output_path is not None:
        target = as_s3_url(job.s3_output_path)
    else:
        message = (
            "s3_logdir: the job has no TensorBoardOutputConfig that could name a place; give one: "
            "s3_logdir('s3://bucket/folder')"
        )
        raise InvalidValueError(message)
    return "/".join(part for part in (target.rstrip("/"), run_name(job, comment)) if part)


def run_name(job: TrainingJob, comment: str = "") -> str:
    """Return the folder of this process's run, below the job's; "" if there is only one."""
    rank = ranks.maybe_rank()
    if ranks.world_size() == 1:
        rank = None
    host = job.host if len(job.hosts) > 1 or rank is not None else ""
    name = "-".join(part for part in (host, "" if rank is None else f"rank-{rank}") if part)
    return f"{name}{comment}" if name else comment.lstrip("_- ")


def as_s3_url(url: Any) -> str:
    """Return an S3 path as SageMaker takes it, also ``https://``, as an ``s3://`` URL.

    Raises:
        InvalidTypeError: it is not a str.
        InvalidValueError: it is no S3 path.
    """
    if not isinstance(url, str):
        message = f"an S3 path is a str, s3://bucket/folder, got {url!r:.60}"
        raise InvalidTypeError(message)
    if re.match(r"s3://[^/]+", url):
        return url
    by_host = re.match(r"https://([^/]+)\.s3[.-][^/]*amazonaws\.com[^/]*/?(.*)", url)
    by_path = re.match(r"https://s3[.-][^/]*amazonaws\.com[^/]*/([^/]+)/?(.*)", url)
    found = by_path or by_host
    if found is None:
        message = f"{url!r} is no S3 path; one is s3://bucket/folder"
        raise InvalidValueError(message)
    return f"s3://{found[1]}/{found[2]}".rstrip("/")


def _say(level: int, message: str) -> None:
    """Say something once; at the first process of a host as loud as it should be."""
    if message not in _said:
        _said.add(message)
        logger.log(logging.INFO if ranks.local_rank() else level, "%s", message)

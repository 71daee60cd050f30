"""The log directory of a training job, and whether SageMaker uploads it.

=========================  ========================  ==============================================
the job has                ``Writer()`` logs to      which SageMaker uploads
=========================  ========================  ==============================================
a TensorBoardOutputConfig  its ``LocalPath``         while the job runs
none                       ``/opt/ml/output/data/``  at the end of the job, in ``output.tar.gz``
                           ``tensorboard``
=========================  ========================  ==============================================

The writer does not upload what SageMaker uploads. A job that must upload by itself, such as one of
a hyperparameter tuning job, logs to the URL that ``s3_logdir`` returns.

If there are several processes, each has its own run: ``algo-2`` on the second of several hosts,
``algo-2-rank-9`` if a launcher has started several processes. A job that is restarted after an
interruption has the same runs as before, in new files.
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

__all__ = ["as_s3_url", "default_logdir", "describe", "report_logdir", "run_name", "s3_logdir"]

logger = logging.getLogger("sm_tblog")

_logged: set[str] = set()


def default_logdir(comment: str = "") -> str:
    """Return the log directory of a writer that was created without one.

    Args:
        comment: a suffix of the run's name.
    """
    job = read_job()
    folder = job.local_path or job.base / "output" / "data" / "tensorboard"
    return str(folder / run_name(job, comment))


def report_logdir(logdir: str, *, is_given: bool) -> None:
    """Log, once, whether SageMaker uploads a writer's local log directory.

    Args:
        logdir: the directory.
        is_given: whether the user has chosen it. Then only problems are logged.
    """
    job = read_job()
    if not is_given:
        for warning in job.warnings:
            _log_once(logging.WARNING, warning)
    path = Path(logdir).absolute()
    level, message = describe(job, str(path))
    is_mounted = path.is_relative_to(job.base / "input")  # e.g. a file system that outlives the job
    if not is_given or (level >= logging.WARNING and not is_mounted):
        _log_once(level, message)


def describe(job: TrainingJob, logdir: str) -> tuple[int, str]:
    """Return a ``logging`` level and a message on whether a local directory is uploaded."""
    path = Path(logdir)
    where = f"SageMaker job {job.name}: logging to {logdir}".replace(" :", ":")
    if job.is_local_mode:
        return logging.INFO, (
            f"{where}. In local mode SageMaker uploads nothing while the job runs; to upload, log "
            "to Writer(s3_logdir('s3://bucket/folder')) of sm_tblog.sagemaker"
        )
    if job.local_path is not None and path.is_relative_to(job.local_path):
        if job.s3_output_path is None:
            return logging.WARNING, (
                f"{where}, but the TensorBoardOutputConfig has no S3OutputPath: nothing is uploaded"
            )
        return logging.INFO, (
            f"{where}, which SageMaker uploads to {job.s3_output_path} while the job runs. "
            f"To view it: sm-tblog open {job.name or 'JOB'}"
        )
    if job.checkpoint_path is not None and path.is_relative_to(job.checkpoint_path):
        return logging.INFO, f"{where}, which SageMaker uploads with the checkpoints"
    at_end = [
        folder for folder in ("output/data", "model") if path.is_relative_to(job.base / folder)
    ]
    outcome = "is uploaded at the end of the job, in an archive" if at_end else "is never uploaded"
    if job.local_path is not None:
        advice = f"Writer() without an argument logs to {job.local_path}, which is uploaded"
    elif job.is_tuning:
        advice = (
            "Jobs of a tuning job cannot have a TensorBoardOutputConfig: to see it while the job "
            "runs, log to Writer(s3_logdir('s3://bucket/folder')) of sm_tblog.sagemaker"
        )
    else:
        advice = (
            "The job has no TensorBoardOutputConfig, so the hosted TensorBoard does not list it: "
            "add one, or log to Writer(s3_logdir('s3://bucket/folder')) of sm_tblog.sagemaker"
        )
    return logging.WARNING, f"{where}, which {outcome}. {advice}"


def s3_logdir(s3_path: str | None = None, *, comment: str = "") -> str:
    """Return a log directory in S3 for a training job that uploads by itself.

    ::

        writer = Writer(s3_logdir())                         # next to what SageMaker uploads
        writer = Writer(s3_logdir("s3://my-bucket/tuning"))  # in a job without a config

    Args:
        s3_path: an S3 URL, to which ``<job>/tensorboard-output`` is appended, as SageMaker does.
            By default, the location that SageMaker itself uploads to, so that both are together.
        comment: a suffix of the run's name.

    Returns:
        An ``s3://`` URL, which ends with the run's name if there are several processes.

    Raises:
        InvalidTypeError: ``s3_path`` is not a str.
        InvalidValueError: ``s3_path`` is not an S3 URL; or this is not a training job, or its name
            is not known; or ``s3_path`` is None and the job has no TensorBoardOutputConfig.
    """
    job = training_job()
    if job is None:
        message = "s3_logdir: this is not a SageMaker training job; pass an s3:// URL to Writer"
        raise InvalidValueError(message)
    if s3_path is not None and not job.name:
        message = "s3_logdir: the job's name is not known; set TRAINING_JOB_NAME"
        raise InvalidValueError(message)
    if s3_path is not None:
        target = "/".join((as_s3_url(s3_path).rstrip("/"), job.name, "tensorboard-output"))
    elif job.s3_output_path is not None:
        target = as_s3_url(job.s3_output_path)
    else:
        message = (
            "s3_logdir: the job has no TensorBoardOutputConfig with a location; pass one: "
            "s3_logdir('s3://bucket/folder')"
        )
        raise InvalidValueError(message)
    return "/".join(part for part in (target.rstrip("/"), run_name(job, comment)) if part)


def run_name(job: TrainingJob, comment: str = "") -> str:
    """Return the name of this process's run in the job's directory; "" if there is only one."""
    rank = ranks.maybe_rank()
    if ranks.world_size() == 1:
        rank = None
    host = job.host if len(job.hosts) > 1 or rank is not None else ""
    name = "-".join(part for part in (host, "" if rank is None else f"rank-{rank}") if part)
    return f"{name}{comment}" if name else comment.lstrip("_- ")


def as_s3_url(url: Any) -> str:
    """Return an S3 path in a form that SageMaker accepts, ``https://`` included, as ``s3://``.

    Raises:
        InvalidTypeError: the path is not a str.
        InvalidValueError: the path is not an S3 path.
    """
    if not isinstance(url, str):
        message = f"an S3 path must be a str, s3://bucket/folder, got {url!r:.60}"
        raise InvalidTypeError(message)
    if re.match(r"s3://[^/]+", url):
        return url
    point = re.match(
        r"https://([^/.]+)-(\d{12})\.s3-accesspoint\.(?:dualstack\.)?([^/.]+)\.amazonaws[^/]*/?(.*)",
        url,
    )
    if point is not None:
        name, account, region, folder = point.groups()
        partition = "aws-cn" if region.startswith("cn-") else "aws"
        partition = "aws-us-gov" if region.startswith("us-gov-") else partition
        bucket = f"arn:{partition}:s3:{region}:{account}:accesspoint/{name}"
        return f"s3://{bucket}/{folder}".rstrip("/")
    by_host = re.match(r"https://([^/]+)\.s3(?:express)?[.-][^/]*amazonaws\.com[^/]*/?(.*)", url)
    by_path = re.match(r"https://s3[.-][^/]*amazonaws\.com[^/]*/([^/]+)/?(.*)", url)
    found = by_host or by_path
    if found is None:
        message = f"{url!r} is not an S3 path, such as s3://bucket/folder"
        raise InvalidValueError(message)
    return f"s3://{found[1]}/{found[2]}".rstrip("/")


def _log_once(level: int, message: str) -> None:
    """Log a message once: at its level in the first process of a host, at INFO in the others."""
    if message not in _logged:
        _logged.add(message)
        logger.log(logging.INFO if ranks.local_rank() else level, "%s", message)

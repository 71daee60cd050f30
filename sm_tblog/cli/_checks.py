"""The local checks of ``sm-tblog doctor``: machine, files and packages. They send no requests.

A check returns findings; it neither prints nor raises. ``_checks_aws`` has the checks that query
servers.
"""

from __future__ import annotations

import logging
import platform
import shutil
import socket
import tempfile
import time
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import sm_tblog
from sm_tblog import ranks
from sm_tblog.sagemaker import training_job
from sm_tblog.sagemaker.environment import studio_metadata
from sm_tblog.sagemaker.logdir import default_logdir, describe
from sm_tblog.storage import spool
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from sm_tblog.sagemaker import TrainingJob

__all__ = ["Finding", "check_logdir", "check_machine", "check_packages", "version_of"]

GIB = 1 << 30
MIN_FREE_BYTES = 1 * GIB
"""Free bytes below which a disk counts as nearly full."""

DEPENDENCIES = ("numpy", "protobuf", "crc32c", "fsspec")
STORES = ("botocore", "boto3", "s3fs", "gcsfs", "adlfs")
FRAMEWORKS = (
    *("torch", "tensorflow", "jax", "keras", "lightning", "pytorch-lightning", "transformers"),
    *("accelerate", "xgboost", "lightgbm", "catboost", "scikit-learn"),
)
VIEWERS = ("tensorboard", "xprof", "tensorboardX", "tensorflow-io")
SAGEMAKER = ("sagemaker", "sagemaker-training", "smdebug")
SYSTEM = ("psutil", "nvidia-ml-py")


class Finding(NamedTuple):
    """One result of a check.

    Attributes:
        level: ``ok``, ``note``, ``warning``, or ``problem`` if logging will fail.
        text: the finding.
        advice: the suggested fix, or "".
    """

    level: str
    text: str
    advice: str = ""


def check_machine() -> list[Finding]:
    """Describe this machine, the job or Studio it belongs to, and this process's rank."""
    job, studio = training_job(), studio_metadata()
    findings = [
        Finding(
            "note",
            f"sm_tblog {sm_tblog.__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}, host {socket.gethostname()}",
        )
    ]
    if job is not None:
        kind = "training job"
        if job.is_tuning:
            kind += " of a hyperparameter tuning job"
        if job.is_local_mode:
            kind += ", in local mode"
        findings.append(Finding("ok", f"SageMaker {kind}: {job.name or 'name unknown'}"))
        if not job.hosts:
            source = f"{job.base}/input/config/resourceconfig.json"
            text = f"no hosts in {source}: all processes log to the same run"
            findings.append(Finding("warning", text))
        else:
            findings.append(Finding("note", f"host {job.host} of {', '.join(job.hosts)}"))
        findings += [Finding("warning", warning) for warning in job.warnings]
    elif studio.get("DomainId"):
        who = f"{studio.get('UserProfileName', 'a shared space')} in {studio['DomainId']}"
        findings.append(Finding("ok", f"SageMaker Studio: {who}"))
    else:
        findings.append(Finding("note", "neither a SageMaker training job nor Studio"))
    rank, world = ranks.maybe_rank(), ranks.world_size()
    if rank is not None:
        text = f"rank {rank} of {world or '?'}, local rank {ranks.local_rank()}"
        findings.append(Finding("note", text))
    return findings


def check_logdir(logdir: str) -> list[Finding]:
    """Report where logs go, whether they can be written there, and what awaits upload.

    Args:
        logdir: the directory or URL given by the user; "" for a writer's default.
    """
    job = training_job()
    findings = []
    url = logdir or _default(job)
    if scheme_of(url) == "file":
        folder = local_path(url).absolute()
        if job is not None:
            level, message = describe(job, str(folder))
            text, _, advice = message.partition(". ")
            findings.append(Finding("warning" if level > logging.INFO else "ok", text, advice))
        else:
            findings.append(Finding("note", f"{'' if logdir else 'Writer() '}logs to {url}"))
        findings.append(_check_folder(folder, "the log directory"))
        if job is not None and job.local_path is not None:
            own = spool.default_folder().absolute()
            if own.is_relative_to(job.local_path):
                text = f"the spool {own} is inside the directory that SageMaker uploads"
                findings.append(Finding("warning", text, "Set SM_TBLOG_SPOOL to another directory"))
    else:
        findings.append(Finding("note", f"logs to {url}, spooled in {spool.default_folder()}"))
        findings.append(_check_folder(spool.default_folder(), "the spool"))
    findings += _check_spool()
    if job is not None:
        findings.append(_check_checkpoints(job))
    return findings


def _default(job: TrainingJob | None) -> str:
    """Return the log directory of a writer that is given none."""
    if job is None:
        return str(Path("runs", f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}"))
    return default_logdir()


def _check_folder(folder: Path, what: str) -> Finding:
    """Check whether a directory, which may not exist yet, is writable."""
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            free = shutil.disk_usage(parent).free
    except OSError as error:
        text = f"{what} is not writable: {error}"
        return Finding("problem", text, "Change its permissions, or use another directory")
    room = f"{free / GIB:,.1f} GiB free"
    if free < MIN_FREE_BYTES:
        return Finding("warning", f"{what} is nearly full: {room}", "Free some disk space")
    return Finding("ok", f"{what} is writable, {room}")


def _check_spool() -> list[Finding]:
    folder = spool.default_folder()
    left = list(folder.glob(f"*{spool.SUFFIX}")) if folder.is_dir() else []
    if not left:
        return []
    size = sum(path.stat().st_size for path in left if path.exists())
    text = f"{_count(left)} ({size:,} bytes) waiting to be uploaded in {folder}"
    return [Finding("warning", text, "If no running process is uploading them: sm-tblog upload")]


def _count(files: list[Path]) -> str:
    return "1 file" if len(files) == 1 else f"{len(files):,} files"


def _check_checkpoints(job: TrainingJob) -> Finding:
    if job.checkpoint_path is None:
        return Finding(
            "note",
            "the job saves no checkpoints",
            "It starts over after a spot interruption: add a CheckpointConfig, and pass the "
            "checkpoint's step to Writer(resume=step)",
        )
    files = [path for path in job.checkpoint_path.rglob("*") if path.is_file()]
    return Finding("ok", f"checkpoints in {job.checkpoint_path}: {_count(files)}")


def check_packages(url: str) -> list[Finding]:
    """Report the relevant packages that are installed, and what is missing.

    Args:
        url: the log directory, which may require more packages.
    """
    findings = []
    for what, names in (
        ("dependencies", DEPENDENCIES),
        ("frameworks", FRAMEWORKS),
        ("viewers", VIEWERS),
        ("stores", STORES),
        ("SageMaker", SAGEMAKER),
        ("system metrics", SYSTEM),
    ):
        versions = {name: version_of(name) for name in names}
        found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        findings.append(Finding("note", f"{what}: {found or 'none'}"))
    if scheme_of(url) in ("s3", "s3a") and not version_of("botocore"):
        text = "botocore, which logging to S3 requires, is not installed"
        findings.append(Finding("problem", text, "pip install 'sm-tblog[s3]'"))
    if not version_of("psutil"):
        text = "SystemMetrics requires psutil, which is not installed"
        findings.append(Finding("note", text, "pip install 'sm-tblog[system]'"))
    if not version_of("tensorboard"):
        text = "TensorBoard is not installed here"
        findings.append(Finding("note", text, "To view logs here: pip install tensorboard"))
    elif scheme_of(url) in ("s3", "s3a"):
        findings += _check_viewing()
    return findings


def _check_viewing() -> list[Finding]:
    """Check whether TensorBoard can read S3 with the packages installed."""
    if version_of("tensorflow") and not version_of("tensorflow-io"):
        text = "TensorBoard uses TensorFlow's file systems here, which do not support S3"
        advice = "pip install tensorflow-io, or view logs from an environment without TensorFlow"
        return [Finding("warning", text, advice)]
    if not version_of("boto3") and not version_of("tensorflow"):
        text = "TensorBoard requires boto3 to read s3://"
        return [Finding("note", text, "To view the logs here: pip install boto3")]
    return []


def version_of(distribution: str) -> str:
    """Return the version of an installed package, or "", without importing it."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""

"""What ``sm-tblog doctor`` looks at: this machine, its files and packages. No network.

A check returns findings; it prints nothing and raises nothing. See ``_checks_aws`` for those that
ask a server.
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

__all__ = ["Finding", "check_logdir", "check_place", "check_software", "version_of"]

GIB = 1 << 30
LITTLE = 1 * GIB
"""Bytes of room below which a disk is nearly full."""

OURS = ("numpy", "protobuf", "crc32c", "fsspec")
STORES = ("botocore", "boto3", "s3fs", "gcsfs", "adlfs")
FRAMEWORKS = (
    *("torch", "tensorflow", "jax", "keras", "lightning", "pytorch-lightning", "transformers"),
    *("accelerate", "xgboost", "lightgbm", "catboost", "scikit-learn"),
)
VIEWERS = ("tensorboard", "xprof", "tensorboardX", "tensorflow-io")
SAGEMAKER = ("sagemaker", "sagemaker-training", "smdebug")
SYSTEM = ("psutil", "nvidia-ml-py")


class Finding(NamedTuple):
    """What a check has found.

    Attributes:
        level: ``ok``, ``note``, ``warning``, or ``problem``, which something will fail by.
        text: what it is.
        advice: what to do about it; "" for nothing.
    """

    level: str
    text: str
    advice: str = ""


def check_place() -> list[Finding]:
    """Say what this machine is, and which of its processes this one is."""
    job, studio = training_job(), studio_metadata()
    findings = [
        Finding(
            "note",
            f"sm_tblog {sm_tblog.__version__}, Python {platform.python_version()}, "
            f"{platform.system()} {platform.machine()}, host {socket.gethostname()}",
        )
    ]
    if job is not None:
        kind = "local mode of a SageMaker training job" if job.is_local_mode else "training job"
        if job.is_tuning:
            kind += " of a hyperparameter tuning job"
        findings.append(Finding("ok", f"SageMaker {kind}: {job.name or 'name not known'}"))
        if not job.hosts:
            text = f"no hosts in {job.base}/input/config/resourceconfig.json"
            findings.append(Finding("warning", text, "All processes log to one run"))
        else:
            findings.append(Finding("note", f"host {job.host}, of {', '.join(job.hosts)}"))
        findings += [Finding("warning", remark) for remark in job.remarks]
    elif studio.get("DomainId"):
        who = f"{studio.get('UserProfileName', 'a shared space')} in {studio['DomainId']}"
        findings.append(Finding("ok", f"SageMaker Studio: {who}"))
    else:
        findings.append(Finding("note", "no SageMaker training job, and no Studio"))
    rank, world = ranks.maybe_rank(), ranks.world_size()
    if rank is not None:
        text = f"rank {rank} of {world or '?'}, local rank {ranks.local_rank()}"
        findings.append(Finding("note", text))
    return findings


def check_logdir(logdir: str) -> list[Finding]:
    """Say where logs go, whether they can, and what is left of earlier ones.

    Args:
        logdir: a folder or URL that the user has named; "" for what a writer takes by itself.
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
        findings.append(_check_folder(folder, "the log folder"))
        if job is not None and job.local_path is not None:
            own = spool.default_folder().absolute()
            if own.is_relative_to(job.local_path):
                text = f"the spool, {own}, is in the folder that SageMaker uploads"
                findings.append(Finding("warning", text, "Set SM_TBLOG_SPOOL to another folder"))
    else:
        findings.append(Finding("note", f"logs to {url}, by way of {spool.default_folder()}"))
        findings.append(_check_folder(spool.default_folder(), "the spool"))
    findings += _check_spool()
    if job is not None:
        findings.append(_check_checkpoints(job))
    return findings


def _default(job: TrainingJob | None) -> str:
    """Return where a writer that names no folder logs to."""
    if job is None:
        return str(Path("runs", f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}"))
    return default_logdir()


def _check_folder(folder: Path, what: str) -> Finding:
    """Say whether a folder, which may not be there yet, can be written to."""
    parent = next(path for path in (folder, *folder.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=parent):
            free = shutil.disk_usage(parent).free
    except OSError as error:
        text = f"{what} cannot be written to: {error}"
        return Finding("problem", text, "Change its permissions, or name another folder")
    room = f"{free / GIB:,.1f} GiB free"
    if free < LITTLE:
        return Finding("warning", f"{what} has little room: {room}", "Make room there")
    return Finding("ok", f"{what} can be written to, {room}")


def _check_spool() -> list[Finding]:
    folder = spool.default_folder()
    left = list(folder.glob(f"*{spool.SUFFIX}")) if folder.is_dir() else []
    if not left:
        return []
    size = sum(path.stat().st_size for path in left if path.exists())
    what = "1 file" if len(left) == 1 else f"{len(left):,} files"
    text = f"{what} of {size:,} bytes to be uploaded: {folder}"
    return [Finding("warning", text, "Unless a process is at it: sm-tblog upload")]


def _check_checkpoints(job: TrainingJob) -> Finding:
    if job.checkpoint_path is None:
        return Finding(
            "note",
            "the job keeps no checkpoints",
            "After a spot interruption it begins anew: give it a CheckpointConfig, and "
            "Writer(resume=step) the step of the checkpoint",
        )
    count = sum(1 for path in job.checkpoint_path.rglob("*") if path.is_file())
    return Finding("ok", f"checkpoints in {job.checkpoint_path}: {count:,} files")


def check_software(url: str) -> list[Finding]:
    """Say which packages that matter there are, in which versions.

    Args:
        url: what is logged to, for what it needs.
    """
    findings = []
    for what, names in (
        ("sm_tblog's own", OURS),
        ("frameworks", FRAMEWORKS),
        ("viewers", VIEWERS),
        ("stores", STORES),
        ("SageMaker", SAGEMAKER),
        ("sensors", SYSTEM),
    ):
        versions = {name: version_of(name) for name in names}
        found = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
        findings.append(Finding("note", f"{what}: {found or 'none'}"))
    if scheme_of(url) in ("s3", "s3a") and not version_of("botocore"):
        text = "botocore, which writes to S3, is not installed"
        findings.append(Finding("problem", text, "pip install 'sm-tblog[s3]'"))
    if not version_of("psutil"):
        text = "SystemMetrics needs psutil"
        findings.append(Finding("note", text, "pip install 'sm-tblog[system]'"))
    if not version_of("tensorboard"):
        text = "TensorBoard is not installed here"
        findings.append(Finding("note", text, "To look at logs from here: pip install tensorboard"))
    elif scheme_of(url) in ("s3", "s3a"):
        findings += _check_viewing()
    return findings


def _check_viewing() -> list[Finding]:
    """Say whether TensorBoard can read S3, by the package that it takes."""
    if version_of("tensorflow") and not version_of("tensorflow-io"):
        text = "TensorBoard reads S3 by TensorFlow's file systems here, which lack it"
        advice = "pip install tensorflow-io, or look from an environment without TensorFlow"
        return [Finding("warning", text, advice)]
    if not version_of("boto3") and not version_of("tensorflow"):
        text = "TensorBoard needs boto3 to read s3://"
        return [Finding("note", text, "To look at the logs from here: pip install boto3")]
    return []


def version_of(distribution: str) -> str:
    """Return the version of an installed package, "" where there is none; imports nothing."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""

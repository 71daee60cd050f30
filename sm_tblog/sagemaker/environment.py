"""Information about the training job in whose container this process runs.

SageMaker writes a few JSON files to ``/opt/ml/input/config`` for every image. This module does not
depend on the environment variables of SageMaker's training toolkit, which only some images set. The
host comes from the files too, because the machine's host name is not ``algo-1``.
``SAGEMAKER_BASE_DIR`` replaces ``/opt/ml``.

Reading never raises: a missing or damaged file counts as empty, and the job's ``warnings`` mention
a damaged one.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from sm_tblog import ranks

__all__ = ["TrainingJob", "base_folder", "read_job", "studio_metadata", "training_job"]

TUNING = "_tuning_objective_metric"
"""The hyperparameter that SageMaker passes to every job of a hyperparameter tuning job."""


class TrainingJob(NamedTuple):
    """The training job that this process is part of.

    Attributes:
        name: the job's name; "" if it is not known.
        base: the directory ``/opt/ml``.
        region: the job's AWS region; "" if it is not known.
        host: the name of this host in ``hosts``, such as ``algo-1``; "" if it is not known.
        hosts: the names of all hosts of the job.
        has_config: whether the job has a TensorBoardOutputConfig.
        local_path: the directory that SageMaker uploads while the job runs; None without a
            TensorBoardOutputConfig.
        s3_output_path: the URL that SageMaker uploads it to, which ends in
            ``<job>/tensorboard-output``; None if it is not known.
        checkpoint_path: the directory of checkpoints, which SageMaker restores when it restarts an
            interrupted job; None if the job has none.
        is_tuning: whether the job belongs to a hyperparameter tuning job.
        is_local_mode: whether an SDK runs the job on the user's machine, where nothing is uploaded.
        warnings: messages about problems with the files.
    """

    name: str
    base: Path
    region: str
    host: str
    hosts: tuple[str, ...]
    has_config: bool
    local_path: Path | None
    s3_output_path: str | None
    checkpoint_path: Path | None
    is_tuning: bool
    is_local_mode: bool
    warnings: tuple[str, ...]


def training_job() -> TrainingJob | None:
    """Return the training job that this process is part of, or None outside a job."""
    return read_job() if ranks.is_in_training_job() else None


def read_job() -> TrainingJob:
    """Return the training job that files and environment variables describe, however incomplete."""
    base = base_folder()
    warnings: list[str] = []
    folder = base / "input" / "config"
    resources = _read(folder / "resourceconfig.json", warnings)
    tensorboard = _tensorboard_config(folder, warnings)
    checkpoints = _read(folder / "checkpointconfig.json", warnings)
    hosts = resources.get("hosts")
    instance = resources.get("current_instance_type")
    s3_output_path = _text(tensorboard or {}, "S3OutputPath")
    local_path = None
    if tensorboard is not None:
        local_path = Path(_text(tensorboard, "LocalPath") or base / "output" / "tensorboard")
    return TrainingJob(
        name=os.environ.get("TRAINING_JOB_NAME", "") or _name_in(s3_output_path),
        base=base,
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "",
        host=_text(resources, "current_host") or os.environ.get("SM_CURRENT_HOST", ""),
        hosts=tuple(map(str, hosts)) if isinstance(hosts, list) else (),
        has_config=tensorboard is not None,
        local_path=local_path,
        s3_output_path=s3_output_path or None,
        checkpoint_path=_checkpoint_path(base, checkpoints),
        is_tuning=TUNING in _read(folder / "hyperparameters.json", warnings),
        is_local_mode=str(instance).startswith("local"),
        warnings=tuple(warnings),
    )


def base_folder() -> Path:
    """Return the directory ``/opt/ml``."""
    return Path(ranks.sagemaker_base())


def studio_metadata() -> dict[str, Any]:
    """Return SageMaker Studio's metadata of this machine; an empty dict outside Studio."""
    return _read(base_folder() / "metadata" / "resource-metadata.json", [])


def _tensorboard_config(folder: Path, warnings: list[str]) -> dict[str, Any] | None:
    """Return the job's TensorBoardOutputConfig, from the files that SageMaker's libraries use."""
    named = os.environ.get("TENSORBOARD_CONFIG_FILE_PATH")
    paths = [Path(named)] if named else []
    for path in (*paths, folder / "tensorboardoutputconfig.json"):
        if config := _read(path, warnings):
            return config
    if named and not Path(named).exists():
        warnings.append(f"TENSORBOARD_CONFIG_FILE_PATH names {named}, which does not exist")
    return None


def _name_in(s3_output_path: str) -> str:
    """Return the job's name from its S3 path, for a process without the environment variables."""
    parts = s3_output_path.rstrip("/").split("/")
    return parts[-2] if parts[-1] == "tensorboard-output" else ""


def _checkpoint_path(base: Path, config: dict[str, Any]) -> Path | None:
    path = Path(_text(config, "LocalPath") or base / "checkpoints")
    return path if config or path.is_dir() else None


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _read(path: Path, warnings: list[str]) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one if the file is missing or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.append(f"{path} cannot be read: {error}")
        return {}
    if not isinstance(content, dict):
        warnings.append(f"{path} does not contain a JSON object")
        return {}
    return content

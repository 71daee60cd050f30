"""What a training job's container says of itself.

SageMaker puts a few JSON files under ``/opt/ml/input/config``, whatever image runs. The variables
that its training toolkit sets besides exist in some images only, and are not relied on; the host
name is that of the machine and not ``algo-1``. ``SAGEMAKER_BASE_DIR`` is another place for
``/opt/ml``.

Reading never raises: a file that is missing or damaged counts as empty, and is remarked on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from sm_tblog import ranks

__all__ = ["TrainingJob", "base_folder", "read_job", "studio_metadata", "training_job"]

TUNING = "_tuning_objective_metric"
"""The hyperparameter that every job of a hyperparameter tuning job is given."""


class TrainingJob(NamedTuple):
    """The training job that this process is part of.

    Attributes:
        name: the job's; "" where the process was not told.
        base: the folder ``/opt/ml``.
        region: the job's; "" where the process was not told.
        host: this one's among ``hosts``, ``algo-1`` say; "" if there is none.
        hosts: all of the job's.
        has_config: whether the job was given a TensorBoardOutputConfig.
        local_path: the folder that SageMaker uploads while the job runs; None without a config.
        s3_output_path: where to, a URL that ends in ``<job>/tensorboard-output``; None where that
            is not known.
        checkpoint_path: the folder of checkpoints, which a job that goes on after an interruption
            finds as it was; None if the job has none.
        is_tuning: whether it is one of a hyperparameter tuning job's.
        is_local_mode: whether an SDK runs it on the user's machine, where nothing is uploaded.
        remarks: what is odd about the files.
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
    remarks: tuple[str, ...]


def training_job() -> TrainingJob | None:
    """Return the training job that this process is part of; None outside of one."""
    return read_job() if ranks.is_in_training_job() else None


def read_job() -> TrainingJob:
    """Return what the files and variables of a training job say, however little."""
    base = base_folder()
    remarks: list[str] = []
    folder = base / "input" / "config"
    resources = _read(folder / "resourceconfig.json", remarks)
    tensorboard = _tensorboard_config(folder, remarks)
    checkpoints = _read(folder / "checkpointconfig.json", remarks)
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
        is_tuning=TUNING in _read(folder / "hyperparameters.json", remarks),
        is_local_mode=str(instance).startswith("local"),
        remarks=tuple(remarks),
    )


def base_folder() -> Path:
    """Return the folder ``/opt/ml``."""
    return Path(ranks.sagemaker_base())


def studio_metadata() -> dict[str, Any]:
    """Return what SageMaker Studio says of this machine; nothing outside of it."""
    return _read(base_folder() / "metadata" / "resource-metadata.json", [])


def _tensorboard_config(folder: Path, remarks: list[str]) -> dict[str, Any] | None:
    """Return the job's TensorBoardOutputConfig, from where SageMaker's own libraries look."""
    named = os.environ.get("TENSORBOARD_CONFIG_FILE_PATH")
    paths = [Path(named)] if named else []
    for path in (*paths, folder / "tensorboardoutputconfig.json"):
        if config := _read(path, remarks):
            return config
    if named and not Path(named).exists():
        remarks.append(f"TENSORBOARD_CONFIG_FILE_PATH names {named}, which does not exist")
    return None


def _name_in(s3_output_path: str) -> str:
    """Return the job's name, for a process that a launcher has started without the variables."""
    parts = s3_output_path.rstrip("/").split("/")
    return parts[-2] if parts[-1] == "tensorboard-output" else ""


def _checkpoint_path(base: Path, config: dict[str, Any]) -> Path | None:
    path = Path(_text(config, "LocalPath") or base / "checkpoints")
    return path if config or path.is_dir() else None


def _text(values: dict[str, Any], name: str) -> str:
    value = values.get(name)
    return value if isinstance(value, str) else ""


def _read(path: Path, remarks: list[str]) -> dict[str, Any]:
    """Return a JSON file's object; an empty one where there is no such file."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        remarks.append(f"{path} cannot be read: {error}")
        return {}
    if not isinstance(found, dict):
        remarks.append(f"{path} holds no object")
        return {}
    return found

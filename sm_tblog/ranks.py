"""The rank of this process in a distributed job, and whether it runs in a SageMaker job."""

from __future__ import annotations

import os
import sys
from typing import Any

__all__ = [
    "is_in_training_job",
    "local_rank",
    "maybe_rank",
    "rank",
    "sagemaker_base",
    "world_size",
]


def rank() -> int:
    """Return this process's rank in a distributed job, 0 outside one; see ``maybe_rank``."""
    return maybe_rank() or 0


def maybe_rank() -> int | None:
    """Return this process's rank in a distributed job, None outside one.

    Uses ``torch.distributed`` if it is initialized, otherwise the variables that launchers set:
    ``RANK`` (torchrun, SageMaker), ``OMPI_COMM_WORLD_RANK`` and ``PMI_RANK`` (MPI),
    ``SLURM_PROCID`` (srun).
    """
    distributed = _torch_distributed()
    if distributed is not None:
        return int(distributed.get_rank())
    return _first_number("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


def world_size() -> int | None:
    """Return the number of processes in the distributed job, None if unknown."""
    distributed = _torch_distributed()
    if distributed is not None:
        return int(distributed.get_world_size())
    return _first_number("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")


def local_rank() -> int:
    """Return this process's rank among the processes on its host, 0 if unknown.

    Uses the variables that launchers set: ``LOCAL_RANK`` (torchrun, Accelerate, DeepSpeed),
    ``OMPI_COMM_WORLD_LOCAL_RANK``, ``MPI_LOCALRANKID`` and ``PMI_LOCAL_RANK`` (MPI),
    ``SLURM_LOCALID`` (srun).
    """
    found = _first_number(
        "LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "MPI_LOCALRANKID",
        "PMI_LOCAL_RANK",
        "SLURM_LOCALID",
    )
    return found or 0


def is_in_training_job() -> bool:
    """Return whether this process runs in the container of a SageMaker training job.

    Processes that a launcher starts on other hosts may lack the job's environment variables, so
    SageMaker's configuration file is checked first.
    """
    base = sagemaker_base()
    return os.path.isfile(f"{base}/input/config/resourceconfig.json") or (  # noqa: PTH113 - faster
        "TRAINING_JOB_NAME" in os.environ and os.path.isdir(base)  # noqa: PTH112 - faster
    )


def sagemaker_base() -> str:
    """Return SageMaker's base folder in the container."""
    return os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"


def _torch_distributed() -> Any:
    """Return ``torch.distributed`` if it is initialized, otherwise None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def _first_number(*variables: str) -> int | None:
    """Return the first of these environment variables that is a number, None if there is none."""
    for variable in variables:
        value = os.environ.get(variable, "")
        if value.isdigit():
            return int(value)
    return None

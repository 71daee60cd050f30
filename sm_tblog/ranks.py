"""Who this process is in a distributed job, and whether it runs in a SageMaker training job."""

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
    """Return this process's rank in a distributed job, 0 if there is none; see ``maybe_rank``."""
    return maybe_rank() or 0


def maybe_rank() -> int | None:
    """Return this process's rank in a distributed job, None if it is in none.

    Asks ``torch.distributed`` where it is initialized, then the variables that launchers set:
    ``RANK`` (torchrun, SageMaker), ``OMPI_COMM_WORLD_RANK`` and ``PMI_RANK`` (MPI),
    ``SLURM_PROCID`` (srun).
    """
    distributed = _torch_distributed()
    if distributed is not None:
        return int(distributed.get_rank())
    return _first_number("RANK", "OMPI_COMM_WORLD_RANK", "PMI_RANK", "SLURM_PROCID")


def world_size() -> int | None:
    """Return how many processes the distributed job has, None where nobody says."""
    distributed = _torch_distributed()
    if distributed is not None:
        return int(distributed.get_world_size())
    return _first_number("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_NTASKS")


def local_rank() -> int:
    """Return this process's rank among those of its host, 0 if there is none.

    That is what launchers set: ``LOCAL_RANK`` (torchrun, Accelerate, DeepSpeed),
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
    """Return whether this process is in a SageMaker training job's container.

    Processes that a launcher starts on other hosts may lack the job's variables, so the files that
    SageMaker makes tell as well.
    """
    base = sagemaker_base()
    return os.path.isfile(f"{base}/input/config/resourceconfig.json") or (  # noqa: PTH113 - quick
        "TRAINING_JOB_NAME" in os.environ and os.path.isdir(base)  # noqa: PTH112 - quick
    )


def sagemaker_base() -> str:
    """Return the folder that is SageMaker's in a container."""
    return os.environ.get("SAGEMAKER_BASE_DIR") or "/opt/ml"


def _torch_distributed() -> Any:
    """Return ``torch.distributed`` where it is initialized, or else None."""
    distributed = sys.modules.get("torch.distributed")
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return distributed
    return None


def _first_number(*variables: str) -> int | None:
    """Return the first of these variables of the environment that is a number."""
    for variable in variables:
        value = os.environ.get(variable, "")
        if value.isdigit():
            return int(value)
    return None

"""Names of sessions and their files, on which all ranks agree without communicating.

A viewer shows the files of one folder, ``plugins/profile/<session>``, as the hosts of one session.
So all ranks of a job must independently choose the same name:

- If the script sets a name, the session has that name. A step-driven session also has its first
  step: ``first-step12``.
- Otherwise, in a job of several processes, the name consists of the job's name and a suffix. For a
  step-driven session the suffix is its first step: ``4711-step1002``. For any other session it is
  the number of sessions that the process has opened: ``4711-session1``. The job's name is the one
  that the launcher puts into the environment of all processes, plus the number of restarts, if
  any. Ranks that run the same steps therefore agree.
- In a single process, the name is the time, in the format that other profilers use, and the first
  step, if any: ``2026_11_26_20_51_03-step12``.

A session is never overwritten, because viewers cache derived data next to it. If the log directory
is local and already has a file of this rank under the chosen name, from an earlier start of the
script, the name gets a numeric suffix: ``first-2``. In that start every rank wrote a file, so all
ranks choose the same suffix.
"""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING, Any

from sm_tblog import ranks
from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Container

__all__ = ["FOLDER", "check_name", "file_stem", "free_name", "job_name", "session_name"]

FOLDER = "plugins/profile"
"""The folder of all sessions, relative to the log directory."""

_JOB = (
    "TORCHELASTIC_RUN_ID",  # torchrun; "none" if not set
    "TRAINING_JOB_NAME",  # SageMaker
    "SLURM_JOB_ID",
    "LSB_JOBID",
    "PBS_JOBID",
    "PMIX_NAMESPACE",  # mpirun
    "MASTER_PORT",
)
_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def check_name(name: Any) -> None:
    """Raise an error if a session name is invalid. None stands for a generated name.

    Raises:
        InvalidTypeError: the name is not a str.
        InvalidValueError: the name is not a valid folder name on all systems.
    """
    if name is not None and not isinstance(name, str):
        message = f"profile: the session name must be a str, got {name!r:.60}"
        raise InvalidTypeError(message)
    if name is not None and not re.fullmatch(r"[\w+-](?:[\w .+-]{0,98}[\w+-])?", name, re.ASCII):
        message = (
            f"profile: the session name must be a valid folder name: 1 to 100 letters, digits, "
            f"spaces or ._+-, with no dot or space at its ends; got {name!r:.120}"
        )
        raise InvalidValueError(message)


def job_name() -> str:
    """Return the name that all processes of a job have for it; "" in a single process."""
    if (ranks.world_size() or 1) < 2:
        return ""
    found = (os.environ.get(variable, "") for variable in _JOB)
    name = next((name for name in found if name not in ("", "none")), "job")
    restarts = next((os.environ[name] for name in _RESTARTS if name in os.environ), "0")
    name = re.sub(r"[^\w+-]", "_", name, flags=re.ASCII)[:60]
    return name if restarts == "0" else f"{name}-restart{restarts}"


def session_name(given: str | None, step: int | None, opened: int) -> str:
    """Return the name for a session. It may be taken already.

    Args:
        given: the name that the script has set; None for a generated one.
        step: the first step of a step-driven session; None for any other session.
        opened: the number of sessions that this process has opened, including this one.
    """
    if given is not None:
        return given if step is None else f"{given}-step{step}"
    job = job_name()
    if not job:
        stamp = time.strftime("%Y_%m_%d_%H_%M_%S")
        return stamp if step is None else f"{stamp}-step{step}"
    return f"{job}-session{opened}" if step is None else f"{job}-step{step}"


def free_name(name: str, logdir: str, taken: Container[str], own: str | None = None) -> str:
    """Return a session name, with a numeric suffix if the name is taken.

    Args:
        name: a name from ``session_name``.
        logdir: the log directory. Existing sessions are looked up only if it is local.
        taken: the names that this process has used.
        own: a glob pattern: a session that contains a matching file is taken. By default it matches
            the files of this rank.
    """
    folder = local_path(logdir) / FOLDER if scheme_of(logdir) == "file" else None
    own = own or f"{_rank_prefix()}*.xplane.pb"
    number, candidate = 1, name
    while candidate in taken or (folder is not None and any((folder / candidate).glob(own))):
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def file_stem() -> str:
    """Return the name of this process's file without its suffix: the viewer's "host"."""
    import socket  # importing it takes half as long as importing this package

    return _rank_prefix() + re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)


def _rank_prefix() -> str:
    world = ranks.world_size() or 1
    return f"rank{ranks.rank():0{len(str(world - 1))}d}-" if world > 1 else ""

"""What a session and its files are called, so that all ranks agree without asking each other.

A viewer shows the files of one folder, ``plugins/profile/<session>``, as the hosts of one session.
So all ranks of a job have to come to the same name, each by itself:

- A name that the script gives is the session's.
- Otherwise, in a job of several processes, it is the job's name and, of a step-driven session, its
  first step: ``4711-step1002``; of another, how many this process has opened: ``4711-session1``.
  The job's name is what its launcher has put into the environment of all of its processes, and a
  count of restarts, if there was one. Ranks that do the same steps so agree.
- A process by itself agrees with nobody: the name is the time, as others write it, and the first
  step, if there is one: ``2026_11_26_20_51_03-step12``.

A session is never written over, for viewers keep what they have made of it beside it. In a local
folder, a name for which this rank has a file already, from an earlier start of the script, gets a
number behind it: ``first-2``. All ranks of that start had a file each, so they agree again.
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
"""Where sessions are looked for, below the log folder."""

_JOB = (
    "TORCHELASTIC_RUN_ID",  # torchrun; "none" where nobody has given one
    "TRAINING_JOB_NAME",  # SageMaker
    "SLURM_JOB_ID",
    "LSB_JOBID",
    "PBS_JOBID",
    "PMIX_NAMESPACE",  # mpirun
    "MASTER_PORT",
)
_RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")


def check_name(name: Any) -> None:
    """Raise if a session cannot have a name; None is for a name of our choice.

    Raises:
        InvalidTypeError: it is not a str.
        InvalidValueError: it cannot be the name of a folder everywhere.
    """
    if name is not None and not isinstance(name, str):
        message = f"profile: a session's name is a str, got {name!r:.60}"
        raise InvalidTypeError(message)
    if name is not None and not re.fullmatch(r"[\w+-](?:[\w .+-]{0,98}[\w+-])?", name, re.ASCII):
        message = (
            f"profile: a session's name is a folder's: up to 100 letters, digits, spaces, or "
            f"any of ._+-, and no dot or space at its ends; got {name!r:.120}"
        )
        raise InvalidValueError(message)


def job_name() -> str:
    """Return what all processes of a distributed job call it, "" in a process by itself."""
    if (ranks.world_size() or 1) < 2:
        return ""
    found = (os.environ.get(variable, "") for variable in _JOB)
    name = next((name for name in found if name not in ("", "none")), "job")
    restarts = next((os.environ[name] for name in _RESTARTS if name in os.environ), "0")
    name = re.sub(r"[^\w+-]", "_", name, flags=re.ASCII)[:60]
    return name if restarts == "0" else f"{name}-restart{restarts}"


def session_name(given: str | None, step: int | None, opened: int) -> str:
    """Return a session's name, which may be taken.

    Args:
        given: by the script.
        step: its first step, of a step-driven one.
        opened: how many sessions this process has opened, this one included.
    """
    if given is not None:
        return given if step is None else f"{given}-step{step}"
    job = job_name()
    if not job:
        stamp = time.strftime("%Y_%m_%d_%H_%M_%S")
        return stamp if step is None else f"{stamp}-step{step}"
    return f"{job}-session{opened}" if step is None else f"{job}-step{step}"


def free_name(name: str, logdir: str, taken: Container[str], own: str | None = None) -> str:
    """Return a session's name, or that with a number behind it if it is taken.

    Args:
        name: as ``session_name`` returns it.
        logdir: the log folder. Whether there is such a session is looked up if it is local.
        taken: the names that this process has used.
        own: matches the names of files that take a name; by default those of this rank.
    """
    folder = local_path(logdir) / FOLDER if scheme_of(logdir) == "file" else None
    own = own or f"{_rank_prefix()}*.xplane.pb"
    number, candidate = 1, name
    while candidate in taken or (folder is not None and any((folder / candidate).glob(own))):
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def file_stem() -> str:
    """Return what this process's file is called, without its ending; the viewer's "host"."""
    import socket  # takes as long to import as half of this package

    return _rank_prefix() + re.sub(r"[^\w.-]", "_", socket.gethostname(), flags=re.ASCII)


def _rank_prefix() -> str:
    world = ranks.world_size() or 1
    return f"rank{ranks.rank():0{len(str(world - 1))}d}-" if world > 1 else ""

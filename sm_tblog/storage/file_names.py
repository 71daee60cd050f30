"""Names of growing files, which sort in the order in which the files are created.

TensorBoard reads the files of a run in name order, compares names as plain strings, and never goes
back to a file whose name sorts before the one that it is reading. A name therefore starts with the
time: ``<prefix>.<seconds>.<host>.<process>.<counter>.<random><suffix>``. The seconds are at least
those of the previous name of the process, even if the clock was set back. The counter orders the
names of one second; after 9999 of them, the next second begins early. The random part separates
containers that share a host name and a process ID.

Another process, whose clock differs, may already have written to the folder. So a store that can
list its folder passes the names that it finds to ``later_name``, which advances the seconds of a
name until it sorts after all of them.
"""

from __future__ import annotations

import os
import re
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["is_timed", "later_name", "new_name", "prefix_of"]

MAX_COUNT = 9999
"""The last number of a second; a larger one would not have four digits and sort before it."""

_TIMED = re.compile(r"((?:.*?\.)?)([0-9]{10,})(\..*)", re.DOTALL)
_DIGITS = re.compile(r"[0-9]+")

_lock = threading.Lock()
_last = (0, MAX_COUNT)  # seconds and number of the last name of this process
_advanced: dict[tuple[str, str], str] = {}
"""The last name that had to be advanced, by folder and prefix; few folders have one."""


def new_name(prefix: str, suffix: str = "") -> str:
    """Return a unique name that sorts after all names this process has made with this prefix."""
    import socket  # importing it takes longer than importing this package's storage

    host = re.sub(r"[^\w.-]", "_", socket.gethostname()) or "localhost"
    seconds, number = _next_number()
    unique = os.urandom(4).hex()
    return f"{prefix}.{seconds:010d}.{host}.{os.getpid()}.{number:04d}.{unique}{suffix}"


def later_name(folder: str, name: str, names: Iterable[str]) -> str:
    """Return a name that sorts after those in its folder, by advancing its seconds if necessary.

    Args:
        folder: the path or URL of the folder.
        name: any name. One without seconds is returned unchanged.
        names: the names in the folder. Those with another prefix are ignored, and so are those
            without seconds, as no time sorts after them.
    """
    match = _TIMED.fullmatch(name)
    if match is None:
        return name
    prefix, _, rest = match.groups()
    later = {one for one in names if one.startswith(prefix) and one > name}
    later.add(_advanced.get((folder, prefix), ""))
    for latest in sorted(later, reverse=True):
        found = _DIGITS.match(latest, len(prefix))
        for seconds in _later_times(found.group()) if found else ():
            advanced = f"{prefix}{seconds}{rest}"
            if advanced > max(latest, name):
                _advanced[folder, prefix] = advanced
                return advanced
    return name


def is_timed(name: str) -> bool:
    """Return whether a name has seconds, so that ``later_name`` can advance it."""
    return _TIMED.fullmatch(name) is not None


def prefix_of(name: str) -> str:
    """Return what precedes the seconds of a name, and the whole of a name without seconds."""
    match = _TIMED.fullmatch(name)
    return name if match is None else match[1]


def _next_number() -> tuple[int, int]:
    global _last  # noqa: PLW0603 - one order for the whole process
    now = int(time.time())
    with _lock:
        seconds, number = _last
        if now > seconds:
            _last = now, 0
        elif number < MAX_COUNT:
            _last = seconds, number + 1
        else:
            _last = seconds + 1, 0
        return _last


def _later_times(digits: str) -> Iterator[str]:
    """Iterate over times of at least ten digits that may sort after one of any number of digits."""
    seconds = digits[:10].ljust(10, "0")
    if len(digits) < len(seconds):
        yield seconds
    for one in (seconds, digits):
        advanced = str(int(one) + 1)
        if len(advanced) <= len(one):  # not after 9999999999
            yield advanced.zfill(len(one)).ljust(10, "0")
    yield f"{digits}0".ljust(10, "0")


def _reset_after_fork() -> None:
    """Let a child's names sort after the parent's of this second: its process ID may not."""
    global _lock, _last  # noqa: PLW0603 - a fork may have happened while it was held
    _lock = threading.Lock()
    _last = _last[0], MAX_COUNT


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_after_fork)

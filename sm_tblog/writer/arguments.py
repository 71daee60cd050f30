"""Argument checks shared by the writer's methods."""

from __future__ import annotations

import math
import operator
import os
import re
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError
from sm_tblog._types import MAX_TAG_LENGTH, as_utf8, too_long
from sm_tblog.arrays.convert import as_number, as_step
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.local import local_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog._types import PathLike

__all__ = [
    "absolute",
    "as_first_step",
    "as_given",
    "as_run",
    "as_tag_cleaner",
    "as_url",
    "as_wall_time",
    "check_at_least",
    "check_flag",
    "check_mapping",
    "check_pillow",
    "check_tag",
    "is_same_place",
]


_COLLAPSED_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/(?!/)")
"""A scheme, longer than the letter of a drive, and a single slash."""


def check_tag(tag: Any) -> None:
    """Raise if a tag is not a str, or is absurdly long.

    Raises:
        InvalidTypeError: it is not a str.
        InvalidValueError: it has more than ``MAX_TAG_LENGTH`` characters.
    """
    if not isinstance(tag, str):
        message = f"a tag must be a str, got {tag!r:.60} ({type(tag).__name__})"
        raise InvalidTypeError(message)
    if len(tag) > MAX_TAG_LENGTH:
        raise InvalidValueError(too_long(tag))


def check_mapping(values: Any, what: str) -> None:
    """Raise if ``values`` is not a mapping.

    Args:
        values: the argument to check.
        what: its name in the error message.

    Raises:
        InvalidTypeError: it is not.
    """
    if not hasattr(values, "items"):
        message = f"{what}: expected a mapping of tags to numbers, got {values!r:.60}"
        raise InvalidTypeError(message)


def as_run(name: Any) -> str:
    """Return a run's name as a relative path below the log directory.

    Raises:
        InvalidTypeError: it is not a str.
        InvalidValueError: it is empty, or not below the log directory.
    """
    if not isinstance(name, str):
        message = f"a run's name must be a str, got {name!r:.60}"
        raise InvalidTypeError(message)
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        message = f"a run's name must be a path below the log directory, got {name!r:.60}"
        raise InvalidValueError(message)
    return as_utf8("/".join(parts))


def as_first_step(step: Any, name: str) -> int:
    """Return the step from which on existing data is superseded.

    Raises:
        InvalidTypeError: it is not an integer. ``True`` and a float are refused: as steps they
            would hide data that was meant to stay.
        InvalidValueError: it does not fit an int64.
    """
    number = as_step(step, name)
    try:
        is_bool = isinstance(step, (bool, np.bool_))
        is_integer = not is_bool and operator.index(step) == number
    except TypeError:
        is_integer = False
    if not is_integer:
        message = (
            f"{name} must be an integer, the first step to be logged again, got {step!r}; "
            f'to keep all existing data, use resume="append", the default'
        )
        raise InvalidTypeError(message)
    return number


_END_OF_TIME = 253_402_300_800
"""The year 10,000, which no datetime reaches. Today's milliseconds are far beyond it."""

_TOO_LATE = "; divide milliseconds by 1e3, nanoseconds by 1e9"


def as_wall_time(walltime: Any) -> float:
    """Return a wall time as seconds since the epoch.

    Args:
        walltime: seconds since the epoch, a number as for ``as_number``; or a ``datetime``, where
            one without a time zone is local time, a pandas ``Timestamp`` or ``np.datetime64``.

    Raises:
        InvalidTypeError: it is neither.
        InvalidValueError: it is NaN, at which TensorBoard's default loader stops reading the file;
            infinite, which it leaves out; or before 1970 or after 9999.
    """
    try:
        if hasattr(type(walltime), "timestamp"):
            seconds = float(walltime.timestamp())
        elif (kind := _time_kind(walltime)) == "M":
            seconds = _seconds_of(walltime)
        else:
            seconds = float(as_number(str(walltime) if kind == "m" else walltime, "walltime"))
    except (TypeError, ValueError, OverflowError) as error:
        message = (
            f"walltime must be seconds since the epoch or a datetime, got {walltime!r:.60} "
            f"({type(walltime).__name__})"
        )
        kind_of_error = InvalidTypeError if isinstance(error, TypeError) else InvalidValueError
        raise kind_of_error(message) from error
    if not 0 <= seconds < _END_OF_TIME:
        message = (
            f"walltime must be seconds since the epoch, from 1970 to 9999, got {walltime!r:.60}"
            f"{_TOO_LATE if seconds >= _END_OF_TIME else ''}"
        )
        raise InvalidValueError(message)
    return seconds


def _time_kind(value: Any) -> str:
    """Return the kind of a NumPy dtype, which is "M" for datetimes and "m" for timedeltas."""
    return str(getattr(getattr(value, "dtype", None), "kind", ""))


def _seconds_of(datetime: Any) -> float:
    """Return one NumPy datetime as seconds since the epoch; NaN for NaT."""
    import numpy as np

    [time] = np.asarray(datetime).reshape(-1).astype("datetime64[us]")
    return math.nan if np.isnat(time) else float(time.astype(np.int64)) / 1e6


def check_at_least(name: str, value: Any, minimum: int) -> None:
    """Raise if a setting is not a number, or is less than ``minimum``.

    None stands for the default, except for ``max_bytes``.

    Raises:
        InvalidTypeError: it is not a number.
        InvalidValueError: it is less than ``minimum``.
    """
    if value is None and name != "max_bytes":
        return
    if not isinstance(value, (int, float)) or value < minimum:
        message = f"{name} must be a number of at least {minimum}, got {value!r}"
        raise (InvalidValueError if isinstance(value, (int, float)) else InvalidTypeError)(message)


def check_flag(name: str, value: Any) -> None:
    """Raise if a flag is a str, of which every one but ``""`` would be true.

    Raises:
        InvalidTypeError: it is.
    """
    if isinstance(value, str):
        message = f"{name} must be a bool, got {value!r}"
        raise InvalidTypeError(message)


def as_tag_cleaner(enabled: bool) -> Callable[[str], str]:
    """Return the function that makes of a tag what is stored.

    If ``enabled``, it cleans tags as tensorboardX does: it replaces every character except letters,
    digits and ``-/_.`` by ``_``, and removes leading slashes. Otherwise it only replaces what UTF-8
    cannot encode.
    """
    return _clean_tag if enabled else as_utf8


def _clean_tag(tag: str) -> str:
    return re.sub(r"[^-/\w.]", "_", tag).lstrip("/")


def as_url(logdir: PathLike | None) -> str:
    """Return a path or URL as a str, ``~`` expanded; ``""`` for None.

    Raises:
        InvalidTypeError: it is neither.
        InvalidValueError: it is a URL with one slash, as ``Path("s3://bucket")`` makes it.
    """
    if logdir is None:
        return ""
    try:
        url = os.fspath(logdir)
    except TypeError as error:
        message = f"logdir must be a path or URL, got {logdir!r}"
        raise InvalidTypeError(message) from error
    url = os.fsdecode(url)
    if _COLLAPSED_URL.match(url):
        message = (
            f"logdir: {url!r} is neither a path nor a URL. A Path cannot hold a URL; pass a str "
            f"with two slashes: {url.replace(':/', '://', 1)!r}"
        )
        raise InvalidValueError(message)
    return os.path.expanduser(url)  # noqa: PTH111 - it leaves every other path as it is


def as_given(logdir: Any, url: str) -> Any:
    """Return a path or URL in the type of ``logdir``, as the user passed it.

    Args:
        logdir: a str, bytes, any ``os.PathLike``, or None.
        url: the path or URL as a str.

    Returns:
        ``logdir`` itself if it is this path or URL, a new object of its type otherwise, or ``url``
        if the type cannot be made from a str.
    """
    if logdir is None or isinstance(logdir, str):
        return logdir if logdir == url else url
    if isinstance(logdir, bytes):
        return os.fsencode(url)
    if os.fsdecode(logdir) == url:
        return logdir
    try:
        converted = type(logdir)(url)
        return converted if os.fsdecode(converted) == url else url
    except Exception:  # noqa: BLE001 - a path type of the user's own
        return url


def is_same_place(logdir: Any, url: str) -> bool:
    """Return whether an object is this path or URL, ``~`` expanded."""
    try:
        return as_url(logdir) == url
    except (InvalidTypeError, InvalidValueError):
        return False


def absolute(logdir: str) -> str:
    """Return where a log directory is: an absolute path, links resolved, or the URL.

    Files are opened long after the writer is made. They belong in the directory that had this name
    then, whatever the working directory is and wherever a link points by now.

    Raises:
        InvalidValueError: no directory can have this name.
    """
    if scheme_of(logdir) != "file":
        return logdir
    try:
        return os.path.realpath(local_path(logdir))
    except ValueError as error:  # a NUL, or half of a surrogate pair
        message = f"logdir: no directory can be called {logdir!r:.60}: {error}"
        raise InvalidValueError(message) from error


@cache
def check_pillow(method: str) -> None:
    """Raise if Pillow is not installed, without importing it.

    Raises:
        MissingDependencyError: it is not.
    """
    from importlib.util import find_spec  # importing it takes as long as importing this package

    if find_spec("PIL") is None:
        message = f"{method} needs Pillow: pip install 'sm-tblog[media]'"
        raise MissingDependencyError(message)

"""Checks of what a caller gives, shared by the writer's methods."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError, MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sm_tblog._types import PathLike

__all__ = [
    "as_run",
    "as_tag_cleaner",
    "as_url",
    "check_at_least",
    "check_mapping",
    "check_pillow",
    "check_tag",
]


def check_tag(tag: Any) -> None:
    """Raise if a tag is not a str.

    Raises:
        InvalidTypeError: it is not.
    """
    if not isinstance(tag, str):
        message = f"a tag is a str, got {tag!r:.60} ({type(tag).__name__})"
        raise InvalidTypeError(message)


def check_mapping(values: Any, what: str) -> None:
    """Raise if ``values`` is not a mapping.

    Raises:
        InvalidTypeError: it is not.
    """
    if not hasattr(values, "items"):
        message = f"{what}: a mapping of numbers by tag is needed, got {values!r:.60}"
        raise InvalidTypeError(message)


def as_run(name: Any) -> str:
    """Return a run's name as a folder below the log folder.

    Raises:
        InvalidTypeError: it is not a str.
        InvalidValueError: it is empty, or not below the log folder.
    """
    if not isinstance(name, str):
        message = f"a run's name is a str, got {name!r:.60}"
        raise InvalidTypeError(message)
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or PurePosixPath(name).is_absolute():
        message = f"a run's name is a path below the log folder, not {name!r:.60}"
        raise InvalidValueError(message)
    return "/".join(parts)


def check_at_least(name: str, value: Any, least: int) -> None:
    """Raise if a setting is not a number of at least so much; None is its default.

    Raises:
        InvalidTypeError: it is not a number.
        InvalidValueError: it is less.
    """
    if value is None and name != "max_bytes":
        return
    if not isinstance(value, (int, float)) or value < least:
        message = f"{name} is a number, {least} or more, not {value!r}"
        raise (InvalidValueError if isinstance(value, (int, float)) else InvalidTypeError)(message)


def as_tag_cleaner(wanted: bool) -> Callable[[str], str] | None:
    """Return tensorboardX's cleaning of tags, if it is wanted.

    Every character but letters, digits and ``-/_.`` becomes ``_``; slashes at the beginning go.
    """
    return _clean if wanted else None


def _clean(tag: str) -> str:
    return re.sub(r"[^-/\w.]", "_", tag).lstrip("/")


def as_url(logdir: PathLike | None) -> str:
    """Return a path or URL as a str, "" for None.

    Raises:
        InvalidTypeError: it is neither.
    """
    if logdir is None:
        return ""
    try:
        url = os.fspath(logdir)
    except TypeError as error:
        message = f"logdir is a path or URL, got {logdir!r}"
        raise InvalidTypeError(message) from error
    return os.fsdecode(url)


@cache
def check_pillow(method: str) -> None:
    """Raise if Pillow is not installed; it is not imported here.

    Raises:
        MissingDependencyError: it is not.
    """
    from importlib.util import find_spec  # takes as long to import as this package

    if find_spec("PIL") is None:
        message = f"{method} needs Pillow: pip install 'sm-tblog[media]'"
        raise MissingDependencyError(message)

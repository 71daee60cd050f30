"""The exceptions of this library.

::

    TBLogError
    ├── InvalidTypeError (TypeError, NotImplementedError)
    │                                     invalid call: an argument has an unsupported type
    ├── InvalidValueError (ValueError)    invalid call: an argument has an unusable value
    ├── MissingDependencyError (ImportError)  an optional package is missing; tells what to install
    ├── StoreError (OSError)              a store did not accept data, which is kept and retried
    ├── SinkError (RuntimeError)          a sink failed, or an item could not be built
    ├── FlushTimeoutError (TimeoutError)  not everything was stored within the deadline
    ├── CorruptRecordError (ValueError)   an event file's bytes differ from what was written
    └── RuleViolationError (RuntimeError)  a rule whose action is to stop training has fired

An invalid call raises immediately. Everything that fails later, on the worker thread, is counted
and logged once to the logger ``sm_tblog``. ``flush()`` and ``close()`` also raise it if the writer
was created with ``on_error="raise"``. Such a fault never stops training on its own.
"""

from __future__ import annotations

import logging
from typing import Any

__all__ = [
    "CorruptRecordError",
    "FlushTimeoutError",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingDependencyError",
    "RuleViolationError",
    "SinkError",
    "StoreError",
    "TBLogError",
]


class TBLogError(Exception):
    """Base class of all exceptions that this library raises on purpose."""


class InvalidTypeError(TBLogError, TypeError, NotImplementedError):
    """An argument has a type that cannot be logged.

    It is also a ``NotImplementedError``, because torch's and tensorboardX's writers raise that for
    a value that they cannot convert to an array, and scripts catch it.
    """


class InvalidValueError(TBLogError, ValueError):
    """An argument has a supported type but an unusable value."""


class MissingDependencyError(TBLogError, ImportError):
    """A required optional package is not installed."""


class StoreError(TBLogError, OSError):
    """A store did not accept some bytes, which are kept and retried."""


class SinkError(TBLogError, RuntimeError):
    """A sink failed, or a value could not be built on the worker thread."""


class FlushTimeoutError(TBLogError, TimeoutError):
    """``flush()`` or ``close()`` reached its deadline before everything was stored."""


class CorruptRecordError(TBLogError, ValueError):
    """A record's checksum does not match its bytes.

    Attributes:
        offset: the start of the record, in bytes from the start of the stream.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class RuleViolationError(TBLogError, RuntimeError):
    """A rule with the action ``"stop"`` has fired. This is the only fault that may end training.

    Attributes:
        alert: the rule's alert, a ``sm_tblog.rules.Alert``.
    """

    def __init__(self, message: str, alert: Any = None) -> None:
        super().__init__(message)
        self.alert = alert


def _name_library(record: logging.LogRecord) -> bool:
    """Begin a message with the library's name.

    A script that does not configure logging shows messages without the logger's name, and its user
    would not know where they come from.
    """
    if not str(record.msg).startswith("sm_tblog"):
        record.msg = f"sm_tblog: {record.msg}"
    return True


logging.getLogger("sm_tblog").addFilter(_name_library)

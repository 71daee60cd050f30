"""The exceptions of this library.

::

    TBLogError
    ├── InvalidTypeError (TypeError)      a bad call: the argument is of the wrong kind
    ├── InvalidValueError (ValueError)    a bad call: the right kind, but not usable
    ├── MissingDependencyError (ImportError)  an extra is not installed; says what to install
    ├── StoreError (OSError)              bytes did not reach their place; kept and offered again
    ├── SinkError (RuntimeError)          a sink failed, or an item could not be built
    ├── FlushTimeoutError (TimeoutError)  not everything was stored within the deadline
    ├── CorruptRecordError (ValueError)   an event file's bytes are not what was written
    └── RuleViolationError (RuntimeError)  a rule that is to stop the training has fired

A bad call raises at the call. Everything that goes wrong later, on the worker, is counted, said
once through the logger ``sm_tblog``, and raised by ``flush()`` and ``close()`` if the writer was
made with ``on_error="raise"``; it never stops training by itself.
"""

from __future__ import annotations

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
    """The base of every exception that this library raises on purpose."""


class InvalidTypeError(TBLogError, TypeError):
    """An argument is of a kind that cannot be logged."""


class InvalidValueError(TBLogError, ValueError):
    """An argument is of the right kind but its value cannot be used."""


class MissingDependencyError(TBLogError, ImportError):
    """An optional package is needed and not installed."""


class StoreError(TBLogError, OSError):
    """A store did not take some bytes. They are kept and offered again."""


class SinkError(TBLogError, RuntimeError):
    """A sink failed, or a value could not be built on the worker."""


class FlushTimeoutError(TBLogError, TimeoutError):
    """``flush()`` or ``close()`` reached its deadline before everything was stored."""


class CorruptRecordError(TBLogError, ValueError):
    """A record's checksum does not match its bytes.

    Attributes:
        offset: where the record begins, in bytes from the start of the stream.
    """

    def __init__(self, message: str, offset: int) -> None:
        super().__init__(message)
        self.offset = offset


class RuleViolationError(TBLogError, RuntimeError):
    """A rule with the action ``"stop"`` has fired. The only fault that is to end a training.

    Attributes:
        alert: what the rule says, a ``sm_tblog.rules.Alert``.
    """

    def __init__(self, message: str, alert: Any = None) -> None:
        super().__init__(message)
        self.alert = alert

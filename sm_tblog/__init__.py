"""Fast, fault-tolerant TensorBoard logging for any training script.

::

    from sm_tblog import Writer

    with Writer("runs/first") as writer:
        for step in range(1000):
            writer.add_scalar("loss", loss, step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import (
    CorruptRecordError,
    FlushTimeoutError,
    InvalidTypeError,
    InvalidValueError,
    MissingDependencyError,
    RuleViolationError,
    SinkError,
    StoreError,
    TBLogError,
)
from sm_tblog.writer import SummaryWriter, Writer

if TYPE_CHECKING:
    from sm_tblog import rules
    from sm_tblog.indexing import Index, index, read_many
    from sm_tblog.profile.schedule import Schedule
    from sm_tblog.profile.traces import import_trace, torch_trace_handler
    from sm_tblog.readers import Run, Runs, follow, read
    from sm_tblog.system.metrics import SystemMetrics

__version__ = "0.1.0"

__all__ = [
    "CorruptRecordError",
    "FlushTimeoutError",
    "Index",
    "InvalidTypeError",
    "InvalidValueError",
    "MissingDependencyError",
    "RuleViolationError",
    "Run",
    "Runs",
    "Schedule",
    "SinkError",
    "StoreError",
    "SummaryWriter",
    "SystemMetrics",
    "TBLogError",
    "Writer",
    "__version__",
    "follow",
    "import_trace",
    "index",
    "read",
    "read_many",
    "rules",
    "torch_trace_handler",
]


_LAZY = {
    "Index": "sm_tblog.indexing",
    "Run": "sm_tblog.readers",
    "Runs": "sm_tblog.readers",
    "Schedule": "sm_tblog.profile.schedule",
    "SystemMetrics": "sm_tblog.system.metrics",
    "follow": "sm_tblog.readers",
    "import_trace": "sm_tblog.profile.traces",
    "index": "sm_tblog.indexing",
    "read": "sm_tblog.readers",
    "read_many": "sm_tblog.indexing",
    "torch_trace_handler": "sm_tblog.profile.traces",
}
"""Modules of the public names that are imported on first use."""

_LAZY_PACKAGES = {"readers", "rules"}
"""Public packages that are imported on first use."""


def __getattr__(name: str) -> Any:
    import importlib

    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    if name in _LAZY_PACKAGES:
        return importlib.import_module(f"sm_tblog.{name}")
    message = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(message)

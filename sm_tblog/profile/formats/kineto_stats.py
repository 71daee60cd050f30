"""Values of kineto's traces as stats that the viewer recognizes.

A trace may contain anything: a wrong value becomes 0 or text, and never raises an exception.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "COPIES",
    "FILLS",
    "KERNELS",
    "args_of",
    "as_int",
    "device_event_stats",
    "device_stats",
    "hashable",
    "operator_stat",
    "shown_args",
]

KERNELS = frozenset({"kernel", "Kernel"})
COPIES = frozenset({"gpu_memcpy", "Memcpy"})
FILLS = frozenset({"gpu_memset", "Memset"})

_OMITTED_ARGS = frozenset({
    *("External id", "external id", "Ev Idx", "Record function id"),
    *("Python id", "Python parent id", "Python module id", "finished", "cbid", "correlation"),
    *("device", "context", "stream", "queued"),
    *("registers per thread", "shared memory", "grid", "block", "est. achieved occupancy %"),
})  # fmt: skip
"""Arguments of events that are useless to the user or are converted to other stats."""

_MAX_VALUE_LENGTH = 1000
"""Characters. Longer values, such as the shapes of 1000 inputs, are truncated."""

_MAX_INTEGER = 2**63 - 1
"""Numbers beyond it, such as ``1e99999999``, count as wrong values."""

_encode = json.JSONEncoder(default=float).encode


def device_event_stats(
    category: Any, args: Mapping[str, Any], operators: Mapping[Any, str]
) -> dict[str, Any]:
    """Return the stats of a kernel, copy or fill.

    Args:
        category: one of ``KERNELS``, ``COPIES`` or ``FILLS``.
        args: the arguments of the event.
        operators: the stats of the operators that may have launched it, by their ids.
    """
    stats = shown_args(args)
    correlation = args.get("correlation")
    if isinstance(correlation, int):
        stats["correlation_id"] = correlation
    operator = operators.get(hashable(args.get("External id", args.get("external id"))))
    if operator is not None:
        stats["tf_op"] = operator
    if category in KERNELS:
        stats["kernel_details"] = (
            f"regs:{as_int(args.get('registers per thread'))} "
            f"static_shared:{as_int(args.get('shared memory'))} dynamic_shared:0 "
            f"grid:{_dimensions(args.get('grid'))} block:{_dimensions(args.get('block'))} "
            f"occ_pct:{_as_float(args.get('est. achieved occupancy %'))}"
        )
    elif isinstance(args.get("bytes"), int):
        stats.pop("bytes", None)
        key = "memcpy_details" if category in COPIES else "memset_details"
        stats[key] = f"num_bytes:{args['bytes']}"
    return stats


def device_stats(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the stats of a device that the viewer uses."""
    name = str(properties.get("name", ""))
    numbers = {
        "core_count": properties.get("numSms"),
        "memory_size": properties.get("totalGlobalMem"),
        "compute_cap_major": properties.get("computeMajor"),
        "compute_cap_minor": properties.get("computeMinor"),
    }
    return {
        "gpu_device_name": name,
        "device_vendor": "AMD" if "AMD" in name or "Instinct" in name else "Nvidia",
        **{key: value for key, value in numbers.items() if isinstance(value, int)},
    }


@lru_cache(maxsize=10_000)
def operator_stat(name: str) -> str:
    """Return an operator's name and type in the format ``name:type`` of the viewer's tables.

    The name must not contain a colon, so ``aten::mm`` becomes ``aten__mm:mm``.
    """
    kind = re.sub(r"\W+", "_", re.split(r"::|: ", name)[-1], flags=re.ASCII).strip("_") or "op"
    scope = re.sub(r"[^\w.-]+", "__", name, flags=re.ASCII)
    return f"{scope}:{kind}"


def shown_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments to show when the user clicks on an event."""
    return {
        key: value if isinstance(value, (int, float)) else _as_stat(value)
        for key, value in args.items()
        if key not in _OMITTED_ARGS and value not in (None, "", [])
    }


def _as_stat(value: Any) -> float | str:
    if isinstance(value, (float, Decimal)):
        return float(value)
    try:
        text = value if isinstance(value, str) else _encode(value)
    except RecursionError:
        text = "…"
    return text[:_MAX_VALUE_LENGTH]


def args_of(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of an event; empty if they are not an object."""
    args = event.get("args")
    return args if isinstance(args, dict) else {}


def as_int(value: Any) -> int:
    """Return a number as an integer of 64 bits; 0 for anything else."""
    is_number = isinstance(value, (int, Decimal)) and -_MAX_INTEGER <= value <= _MAX_INTEGER
    return int(value) if is_number else 0


def _as_float(value: Any) -> float:
    """Return a number as a float; 0 for anything else."""
    is_number = isinstance(value, (int, float, Decimal)) and -_MAX_INTEGER <= value <= _MAX_INTEGER
    return float(value) if is_number else 0


def _dimensions(value: Any) -> str:
    """Return the dimensions of a grid in the viewer's format."""
    numbers = [as_int(one) for one in value[:3]] if isinstance(value, list) else []
    return ",".join(map(str, numbers or (1, 1, 1)))


def hashable(value: Any) -> Any:
    """Return a value to compare with others: a number, or text for anything else."""
    return value if value is None or isinstance(value, (int, str)) else str(_as_stat(value))

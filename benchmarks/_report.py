"""Figures as a table and as JSON, with facts about the machine."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from benchmarks._measure import Figure

__all__ = ["as_json", "machine_facts", "print_figures"]

_PACKAGES = ("sm-tblog", "numpy", "protobuf", "torch", "tensorboard", "tensorboardX", "tbparse")
_WIDTH = 150
"""Minimum width of the table in columns; a narrower one is hard to read."""

_HEADINGS = ("benchmark", "medians", "result", "95 % interval", "target", "")


def machine_facts() -> dict[str, str]:
    """Return the facts about the machine and the versions that a reader needs."""
    facts = {
        "processor": _processor(),
        "cores": str(os.cpu_count()),
        "load average before": " ".join(f"{load:.2f}" for load in os.getloadavg()),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }
    installed = {found.metadata["Name"]: found.version for found in metadata.distributions()}
    return {**facts, **{name: installed.get(name, "not installed") for name in _PACKAGES}}


def print_figures(figures: Sequence[Figure], facts: Mapping[str, str]) -> None:
    """Print a table, with Rich if it is installed."""
    print(*(f"{name}: {fact}" for name, fact in facts.items()), sep=", ")
    print(*(figure.note for figure in figures if figure.note), sep="\n")
    rows = [_cells(figure) for figure in figures]
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(_HEADINGS, *rows, strict=True)]
        for row in (_HEADINGS, *rows):
            print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
        return
    table = Table(*_HEADINGS)
    for row in rows:
        table.add_row(*row)
    Console(width=max(Console().width, _WIDTH)).print(table)


def as_json(figures: Sequence[Figure], facts: Mapping[str, str]) -> str:
    """Return facts and figures as JSON."""
    records = [
        {
            **figure._asdict(),
            "target": None if figure.target is None else figure.target._asdict(),
            "verdict": _verdict(figure),
        }
        for figure in figures
    ]
    return json.dumps({"machine": dict(facts), "figures": records}, indent=2)


def _cells(figure: Figure) -> tuple[str, ...]:
    target = figure.target
    return (
        figure.name,
        ", ".join(f"{who} {_number(m)} {figure.unit}" for who, m in figure.medians.items()),
        f"{_number(figure.result)} {figure.result_unit}",
        " to ".join(map(_number, figure.interval)),
        "" if target is None else f"{'>=' if target.at_least else '<='} {_number(target.bound)}",
        _verdict(figure),
    )


def _verdict(figure: Figure) -> str:
    """Return whether the target is met, or "unclear" if the interval contains it."""
    if figure.target is None:
        return ""
    verdicts = {figure.target.is_met_by(end) for end in figure.interval}
    if len(verdicts) == 2:
        return "unclear"
    return "met" if verdicts == {True} else "MISSED"


def _number(number: float) -> str:
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()

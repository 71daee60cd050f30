"""``sm-tblog estimate``: estimates the cost of logging to S3."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from sm_tblog.storage.estimate import estimate

__all__ = ["run"]

SCALAR_BYTES = 45
"""Size of a scalar's record with a short tag, in bytes."""


def run(
    scalars: Annotated[float, typer.Option(min=0, help="Scalars per second.")] = 10.0,
    kilobytes: Annotated[
        float, typer.Option(min=0, help="Kilobytes of other data per second.")
    ] = 0.0,
    hours: Annotated[float, typer.Option(min=0.001, help="Duration of the run, in hours.")] = 24.0,
    flush_secs: Annotated[float, typer.Option(min=0.1, help="Seconds between uploads.")] = 10.0,
    versioned: Annotated[bool, typer.Option(help="The bucket has versioning enabled.")] = False,
    watchers: Annotated[
        int, typer.Option(min=0, help="TensorBoard processes that watch the run.")
    ] = 1,
) -> None:
    """Estimate the cost of logging directly to S3: bytes, requests and dollars.

    Runs the real upload code on a store that only counts, so no network or account is needed.
    Prices are those of S3 Standard in us-east-1.
    """
    rate = scalars * SCALAR_BYTES + kilobytes * 1000
    result = estimate(hours * 3600, rate, flush_secs, copies=not versioned, watchers=watchers)
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("logged", f"{result.logged / 1e6:,.1f} MB")
    table.add_row("uploaded", f"{result.uploaded / 1e6:,.1f} MB")
    table.add_row("objects", f"{result.objects:,}")
    for operation, count in sorted(result.requests.items(), key=lambda item: -item[1]):
        table.add_row(f"  {operation}", f"{count:,}")
    table.add_row("writing", f"{result.writing_usd:,.2f} USD")
    table.add_row(f"viewing ({_count(watchers, 'TensorBoard')})", f"{result.watching_usd:,.2f} USD")
    console = Console(highlight=False)
    console.print(f"{_count(hours, 'hour')}, one upload every {flush_secs:g} s:")
    console.print(table)


def _count(number: float, noun: str) -> str:
    return f"{number:g} {noun}{'' if number == 1 else 's'}"

"""``sm-tblog index``: writes an index of many runs, or brings it up to date."""

# No ``from __future__ import annotations``: Typer reads the annotations.

import os
import re
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sm_tblog import index

__all__ = ["run"]


def run(
    logdir: Annotated[str, typer.Argument(help="Log directory, a path or URL.")],
    to: Annotated[
        str,
        typer.Option(help="Folder of the index.", show_default="LOGDIR/sm_tblog_index"),
    ] = "",
    workers: Annotated[
        int, typer.Option(min=0, help="Processes that read runs.", show_default="one for each CPU")
    ] = 0,
    scheduler: Annotated[
        str, typer.Option(help="Address of a Dask scheduler whose workers read the runs.")
    ] = "",
    shard: Annotated[
        str,
        typer.Option(
            metavar="I/N",
            help="Read only the I-th of N parts of the runs, from 1 on. When all parts have been "
            "read, on any machines, run the command without this option.",
        ),
    ] = "",
    endpoint_url: Annotated[
        str, typer.Option(help="S3 server, if not AWS.", show_default="from the environment")
    ] = "",
    profile: Annotated[str, typer.Option(help="AWS profile of the shared configuration.")] = "",
) -> None:
    """Write an index of many runs as Parquet files, which open in a handful of requests.

    Only runs that are new or have changed are read. An interrupted command continues where it was.
    The exit code is 1 if a run could not be read.
    """
    options = {"endpoint_url": endpoint_url, "profile": profile}
    given = {name: value for name, value in options.items() if value}
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(file=sys.stderr),
        transient=True,
    ) as bar:
        task = bar.add_task("Reading runs", total=None)
        found = index(
            logdir,
            to or None,
            workers=workers or _cpus(),
            scheduler=scheduler or None,
            shard=_parse_shard(shard) if shard else None,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
            storage_options=given,
        )
    console = Console(highlight=False, soft_wrap=True)
    for damages in found.failed.values():
        console.print(f"not indexed: {damages[0]}", markup=False)
    if shard:
        console.print(f"Shard {shard} is complete in {found.path}", markup=False)
    else:
        console.print(f"{len(found):,} runs in {found.path}", markup=False)
    if found.failed:
        raise typer.Exit(1)


def _parse_shard(text: str) -> tuple[int, int]:
    parts = re.fullmatch(r"(\d+)/(\d+)", text)
    if parts is None:
        message = f"must be I/N, such as 1/4, got {text!r}"
        raise typer.BadParameter(message, param_hint="--shard")
    return int(parts[1]), int(parts[2])


def _cpus() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

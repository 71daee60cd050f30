"""``sm-tblog upload``: finishes the uploads that a process has left behind."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from sm_tblog.storage.object_store import upload_orphans
from sm_tblog.storage.spool import default_folder

__all__ = ["run"]


def run(
    spool: Annotated[
        Path | None,
        typer.Argument(help="A spool folder, or one file in it.", show_default="the user's own"),
    ] = None,
    endpoint_url: Annotated[
        str, typer.Option(help="The server, if it is not AWS.", show_default="the one it was for")
    ] = "",
    profile: Annotated[str, typer.Option(help="A profile of the shared configuration.")] = "",
    timeout: Annotated[float, typer.Option(min=1, help="Seconds for each file.")] = 300.0,
) -> None:
    """Upload what was logged to an object store and had not arrived when its process ended.

    Files that a living process holds are left to it. What is uploaded is removed. The exit code is
    1 if something could not be uploaded.
    """
    folder = default_folder() if spool is None else spool
    options = {"endpoint_url": endpoint_url, "profile": profile}
    given = {name: value for name, value in options.items() if value}
    console = Console(highlight=False, soft_wrap=True)
    results = []
    for file, error in upload_orphans(folder, given, timeout):
        results.append(error is None)
        state = "uploaded" if error is None else f"not uploaded: {error}"
        console.print(f"{file.url}/{file.name}  {file.size:,} bytes  {state}", markup=False)
    if not results:
        console.print(f"Nothing is left behind in {folder}", markup=False)
    if not all(results):
        raise typer.Exit(1)

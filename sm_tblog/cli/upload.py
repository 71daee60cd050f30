"""``sm-tblog upload``: finishes uploads that an ended process left in the spool."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from sm_tblog.cli._storage import (
    CABundle,
    EndpointURL,
    Options,
    Profile,
    Region,
    storage_options,
)
from sm_tblog.storage.object_store import upload_orphans
from sm_tblog.storage.spool import default_folder

__all__ = ["run"]


def run(
    spool: Annotated[
        Path | None,
        typer.Argument(help="Spool directory, or one file in it.", show_default="the user's spool"),
    ] = None,
    endpoint_url: EndpointURL = "",
    profile: Profile = "",
    region: Region = "",
    ca_bundle: CABundle = "",
    option: Options = [],  # noqa: B006 - Typer's way; not changed
    timeout: Annotated[
        float, typer.Option(min=1, help="Timeout for each file, in seconds.")
    ] = 300.0,
) -> None:
    """Upload logs that had not reached the object store when their process ended.

    Each file goes where its process logged to, with the options that were given there, except
    secrets. What you give here comes first.

    Files in use by a running process are skipped. Uploaded files are removed from the spool. The
    exit code is 1 if a file could not be uploaded.
    """
    folder = default_folder() if spool is None else spool

    def options(url: str) -> dict[str, Any]:
        return storage_options(url, endpoint_url, profile, region, ca_bundle, option)

    console = Console(highlight=False, soft_wrap=True)
    results = []
    for file, error in upload_orphans(folder, options, timeout):
        results.append(error is None)
        state = "uploaded" if error is None else f"not uploaded: {error}"
        console.print(f"{file.url}/{file.name}  {file.size:,} bytes  {state}", markup=False)
    if not results:
        console.print(f"Nothing to upload in {folder}", markup=False)
    if not all(results):
        raise typer.Exit(1)

"""The options that come before a command."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from typing import Annotated

import typer

import sm_tblog

__all__ = ["run"]


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(sm_tblog.__version__)
        raise typer.Exit


def run(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Do what the options before a command ask for."""

"""The options that precede a command, and how help texts show options."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

import sm_tblog

__all__ = ["Command", "Group", "run"]


class Command(TyperCommand):
    """A command whose help text shows no type for flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, including ``--help``."""
        return _hide_flag_types(super().get_params(ctx))


class Group(TyperGroup):
    """A group of commands whose help text shows no type for flags."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, including ``--help``."""
        return _hide_flag_types(super().get_params(ctx))


def _hide_flag_types(parameters: list[Any]) -> list[Any]:
    """Replace the type ``<bool>`` of each flag by nothing: a flag has no value to pass."""
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


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
    """Handle the options that precede a command."""

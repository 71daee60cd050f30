"""The command line: ``sm-tblog``, which is also ``python -m sm_tblog``.

A command is a module of this package with a function ``run``, and its name in ``COMMANDS``. The
modules take Typer and Rich for granted, so nothing but ``make_app`` imports them: the library does
without, and where they are missing ``main`` says in one line what to install.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from sm_tblog import MissingDependencyError, TBLogError

__all__ = ["COMMANDS", "main", "make_app"]

COMMANDS = ("demo", "doctor", "estimate", "open", "upload")


def main() -> None:
    """Run the command that the process's arguments name, and exit.

    The exit code is 0, 1 where the command failed, or 2 where the arguments are wrong. What this
    library raises on purpose is printed as one line, without a traceback.
    """
    try:
        make_app()()
    except TBLogError as error:
        sys.exit(f"sm-tblog: {error}")


def make_app() -> Any:
    """Return the ``typer.Typer`` with all commands.

    Raises:
        MissingDependencyError: Typer or Rich is not installed.
    """
    try:
        import rich  # noqa: F401 - the commands print with it
        import typer
    except ImportError as error:
        message = "the command line needs Typer and Rich: pip install 'sm-tblog[cli]'"
        raise MissingDependencyError(message) from error
    from sm_tblog.cli import _options

    app = typer.Typer(
        help="Logs to TensorBoard from any training script.",
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # a plain traceback is what an issue needs
    )
    app.callback()(_options.run)
    for name in COMMANDS:
        app.command(name)(importlib.import_module(f"{__name__}.{name}").run)
    return app

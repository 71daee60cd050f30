"""The command line: ``sm-tblog``, also available as ``python -m sm_tblog``.

A command is a module of this package that has a function ``run`` and is listed in ``COMMANDS``.
These modules import Typer and Rich unconditionally, so only ``make_app`` imports them: the library
works without both packages, and if one is missing ``main`` prints one line that says what to
install.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

from sm_tblog import MissingDependencyError, TBLogError

__all__ = ["COMMANDS", "main", "make_app"]

COMMANDS = ("demo", "doctor", "estimate", "index", "open", "upload")


def main() -> None:
    """Run the command given in ``sys.argv`` and exit.

    The exit code is 0 on success, 1 if the command fails, and 2 if the arguments are invalid. A
    ``TBLogError`` is printed as one line, without a traceback.
    """
    try:
        make_app()()
    except TBLogError as error:
        sys.exit(f"sm-tblog: {error}")


def make_app() -> Any:
    """Return the ``typer.Typer`` application with all commands.

    Raises:
        MissingDependencyError: Typer or Rich is not installed.
    """
    try:
        import rich  # noqa: F401 - the commands print with it
        import typer
    except ImportError as error:
        message = "the command line requires Typer and Rich: pip install 'sm-tblog[cli]'"
        raise MissingDependencyError(message) from error
    from sm_tblog.cli import _options

    app = typer.Typer(
        cls=_options.Group,
        help="Fast, fault-tolerant TensorBoard logging for any training script.",
        context_settings={"help_option_names": ["-h", "--help"]},
        add_completion=False,
        no_args_is_help=True,
        pretty_exceptions_enable=False,  # bug reports need a plain traceback
    )
    app.callback()(_options.run)
    for name in COMMANDS:
        command = importlib.import_module(f"{__name__}.{name}")
        app.command(name, cls=_options.Command)(command.run)
    return app

"""``sm-tblog open``: SageMaker's hosted TensorBoard in the browser."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from typing import Annotated

import typer
from rich.console import Console

from sm_tblog.sagemaker import open_tensorboard

__all__ = ["run"]


def run(
    job: Annotated[
        str | None,
        typer.Argument(help="A training job's name or ARN.", show_default="the app without a job"),
    ] = None,
    region: Annotated[
        str, typer.Option(help="The job's region.", show_default="the AWS configuration's")
    ] = "",
    browser: Annotated[
        bool, typer.Option(help="Open the browser; else only print the address.")
    ] = True,
    presign: Annotated[
        bool,
        typer.Option(
            "--presign",
            help="Sign in to a Studio domain by an address that lets in whoever has it. It is "
            "printed with --no-browser alone.",
        ),
    ] = False,
    domain_id: Annotated[str, typer.Option(help="That domain, d-….")] = "",
    user_profile: Annotated[str, typer.Option(help="A user profile of that domain.")] = "",
) -> None:
    """Open SageMaker's hosted TensorBoard on a training job."""
    url = open_tensorboard(
        job,
        open_browser=browser,
        region=region or None,
        presign=presign,
        domain_id=domain_id or None,
        user_profile_name=user_profile or None,
    )
    if not (presign and browser):
        Console(highlight=False, soft_wrap=True).print(url, markup=False)

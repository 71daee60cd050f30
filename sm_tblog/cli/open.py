"""``sm-tblog open``: opens SageMaker's hosted TensorBoard in the browser."""

# No ``from __future__ import annotations``: Typer reads the annotations.

from typing import Annotated

import typer
from rich.console import Console

from sm_tblog import TBLogError
from sm_tblog.sagemaker import open_tensorboard

__all__ = ["run"]

OPTIONS = {
    "region=": "--region",
    "domain_id": "--domain-id",
    "user_profile_name": "--user-profile",
}
"""The option for each argument that ``open_tensorboard`` names in error messages."""


def run(
    job: Annotated[
        str | None,
        typer.Argument(help="Name or ARN of a training job.", show_default="the app without a job"),
    ] = None,
    region: Annotated[
        str, typer.Option(help="Region of the job.", show_default="from the AWS configuration")
    ] = "",
    browser: Annotated[bool, typer.Option(help="Open the browser, or only print the URL.")] = True,
    presign: Annotated[
        bool,
        typer.Option(
            "--presign",
            help="Sign in to a Studio domain with a presigned URL. Anyone who has the URL can sign "
            "in with it, so it is printed only with --no-browser.",
        ),
    ] = False,
    domain_id: Annotated[str, typer.Option(help="ID of the Studio domain, d-….")] = "",
    user_profile: Annotated[str, typer.Option(help="User profile in the domain.")] = "",
) -> None:
    """Open a training job in SageMaker's hosted TensorBoard."""
    try:
        url = open_tensorboard(
            job,
            open_browser=browser,
            region=region or None,
            presign=presign,
            domain_id=domain_id or None,
            user_profile_name=user_profile or None,
        )
    except TBLogError as error:
        message = str(error)
        for argument, option in OPTIONS.items():
            message = message.replace(argument, option)
        raise TBLogError(message) from error
    if not (presign and browser):
        Console(highlight=False, soft_wrap=True).print(url, markup=False)

"""The ``storage_options`` that commands accept: those of a writer."""

# No ``from __future__ import annotations``: Typer reads the annotations.

import json
from typing import Annotated, Any

import typer

from sm_tblog.storage.s3_options import OF_WRITERS, OPTIONS, merged
from sm_tblog.storage.urls import is_s3

__all__ = ["CABundle", "EndpointURL", "Options", "Profile", "Region", "storage_options"]

EndpointURL = Annotated[
    str, typer.Option(help="S3 server, if not AWS.", show_default="as in the environment")
]
Profile = Annotated[str, typer.Option(help="AWS profile of the shared configuration.")]
Region = Annotated[str, typer.Option(help="The bucket's region.")]
CABundle = Annotated[
    str, typer.Option(help="File with the certificates of the server's private authority.")
]
Options = Annotated[
    list[str],
    typer.Option(
        "--option",
        metavar="NAME=VALUE",
        help="A storage option, such as requester_pays=true, or a request parameter, such as "
        "SSEKMSKeyId=alias/mine, ACL=bucket-owner-full-control or StorageClass=STANDARD_IA. May be "
        "repeated. VALUE is JSON if it is true, false or null, or begins with { or [.",
        show_default=False,
    ),
]


def storage_options(
    url: str, endpoint_url: str, profile: str, region: str, ca_bundle: str, options: list[str]
) -> dict[str, Any]:
    """Return the ``storage_options`` for a URL that a command line gives.

    For S3, the name of an option that a writer does not know is that of a request parameter. For
    other stores, only ``options`` are used, and passed to the file system.

    Raises:
        typer.BadParameter: an option has no value, or invalid JSON.
    """
    pairs = [(name, value) for name, value in map(_parse, options) if name not in OF_WRITERS]
    if not is_s3(url):
        return dict(pairs)
    given: dict[str, Any] = {"endpoint_url": endpoint_url, "profile": profile}
    given = {name: value for name, value in {**given, "region_name": region}.items() if value}
    if ca_bundle:
        given["client_kwargs"] = {"verify": ca_bundle}
    for name, value in pairs:
        one = {name: value} if name in OPTIONS else {"s3_additional_kwargs": {name: value}}
        given = merged(given, one)
    return given


def _parse(option: str) -> tuple[str, Any]:
    name, separator, value = option.partition("=")
    if not (name and separator):
        message = f"{option!r} is not NAME=VALUE"
        raise typer.BadParameter(message, param_hint="'--option'")
    if value not in ("true", "false", "null") and not value.startswith(("{", "[")):
        return name, value
    try:
        return name, json.loads(value)
    except ValueError as error:
        message = f"{option!r}: invalid JSON: {error}"
        raise typer.BadParameter(message, param_hint="'--option'") from error

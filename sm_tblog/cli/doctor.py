"""``sm-tblog doctor``: checks a container or laptop and suggests fixes."""

# No ``from __future__ import annotations``: Typer reads the annotations.

import sys
import textwrap
from collections import Counter
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from sm_tblog.cli import _checks, _checks_aws
from sm_tblog.cli._checks import Finding
from sm_tblog.cli._storage import (
    CABundle,
    EndpointURL,
    Options,
    Profile,
    Region,
    storage_options,
)
from sm_tblog.sagemaker import training_job
from sm_tblog.storage.base import scheme_of
from sm_tblog.storage.urls import is_s3

__all__ = ["run"]

INDENT = 11
STYLES = {"ok": "green", "note": "dim", "warning": "yellow", "problem": "bold red"}


def run(
    logdir: Annotated[
        str,
        typer.Argument(
            help="Directory or URL to log to. In a bucket, a small object is written, read and "
            "removed.",
            show_default="where Writer() logs",
        ),
    ] = "",
    job: Annotated[
        str, typer.Option(help="Ask SageMaker whether its TensorBoard lists this training job.")
    ] = "",
    endpoint_url: EndpointURL = "",
    profile: Profile = "",
    region: Region = "",
    ca_bundle: CABundle = "",
    option: Options = [],  # noqa: B006 - Typer's way; not changed
    network: Annotated[
        bool,
        typer.Option(help="Query servers, but only about what you name or the job uploads to."),
    ] = True,
    timeout: Annotated[
        float, typer.Option(min=0.1, help="Timeout of each request, in seconds.")
    ] = 10.0,
) -> None:
    """Check everything logging depends on and suggest fixes.

    A bucket is checked with the options that you would give a writer as storage_options.

    The exit code is 1 if there is a problem that will make logging fail.
    """
    current_job = training_job()
    url = logdir or (current_job.s3_output_path if current_job else None) or ""
    remote = url if scheme_of(url) != "file" else ""
    options = storage_options(url, endpoint_url, profile, region, ca_bundle, option)
    console = Console(highlight=False)
    counts: Counter[str] = Counter()

    def show(title: str, findings: list[Finding]) -> None:
        counts.update(finding.level for finding in findings)
        console.print(f"\n[bold]{title}[/]")
        _print(console, findings)

    show("This machine", _checks.check_machine())
    show("Logs", _checks.check_logdir(logdir))
    online = network and bool(is_s3(url) or job)
    of_s3 = options if is_s3(url) else {}
    show("AWS", _checks_aws.check_credentials(of_s3, online=online, timeout=timeout))
    if remote and network:
        with console.status("Checking the bucket"):
            findings = _checks_aws.check_bucket(remote, options, timeout)
        show("Bucket", findings)
    elif not remote:
        advice = "Check one: sm-tblog doctor s3://bucket/folder"
        show("Bucket", [Finding("note", "no bucket given, so none was checked", advice)])
    show("SageMaker's TensorBoard", _checks_aws.check_app(job if network else "", timeout))
    show("Packages", _checks.check_packages(remote))
    console.print()
    console.print(_summary(counts))
    if counts["problem"]:
        raise typer.Exit(1)


def _print(console: Console, findings: list[Finding]) -> None:
    """Print findings: wrapped in a terminal, one per line in a log, where they are copied from."""
    width = max(console.width - INDENT, 20) if console.is_terminal else sys.maxsize
    for level, text, advice in findings:
        for mark, words, style in ((level, text, ""), ("", advice, "cyan")):
            # Long URLs are not broken.
            lines = textwrap.wrap(words, width, break_long_words=False, break_on_hyphens=False)
            if lines:
                start = f"  {mark:{INDENT - 2}}"
                block = ("\n" + " " * INDENT).join(lines)
                line = Text.assemble((start, STYLES.get(mark, "")), (block, style))
                console.print(line, soft_wrap=True)


def _summary(counts: Counter[str]) -> Text:
    parts = [
        f"{count} {level}{'' if count == 1 else 's'}"
        for level in ("problem", "warning")
        if (count := counts[level])
    ]
    worst = "problem" if counts["problem"] else "warning" if counts["warning"] else "ok"
    return Text(", ".join(parts) or "No problems found.", STYLES[worst])

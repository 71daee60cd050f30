"""``sm-tblog demo``: trains small networks and logs every data type."""

# No ``from __future__ import annotations``: Typer reads the annotations.

import importlib
import importlib.util
import os
import shlex
import shutil
import subprocess
import sysconfig
import time
from collections import Counter
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from sm_tblog import MissingDependencyError, Schedule, Writer
from sm_tblog.cli import _demo_logging
from sm_tblog.cli._demo_recipes import RECIPES
from sm_tblog.cli._demo_training import (
    BATCH,
    Model,
    SklearnModel,
    TorchModel,
    Training,
    load_data,
)
from sm_tblog.sinks import Batch

__all__ = ["Backend", "run"]

TABS = {
    "audio": "Audio",
    "custom_scalars": "Custom Scalars",
    "graphs": "Graphs",
    "histograms": "Histograms, Distributions, Time Series",
    "hparams": "HParams",
    "images": "Images, Time Series",
    "mesh": "Mesh",
    "pr_curves": "PR Curves",
    "profile": "Profile: open its Trace Viewer",
    "projector": "Projector",
    "scalars": "Scalars, Time Series",
    "tensor": "Tensors: shown in no tab; read them back in Python",
    "text": "Text",
}
"""The tabs in which TensorBoard shows the data, by plugin name."""
PROFILE_HINT = ", which requires a plugin: pip install xprof"
PACKAGES = ("sklearn", "matplotlib", "PIL", "tensorboard", "threadpoolctl")
"""Packages that the demo requires in addition to those of the command line."""


class Backend(str, Enum):
    """The framework that trains the networks."""

    auto = "auto"
    torch = "torch"
    sklearn = "sklearn"


def run(
    logdir: Annotated[
        str,
        typer.Option(help="Log directory, a path or URL.", show_default="runs/demo-<date>-<time>"),
    ] = "",
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs per run.")] = 20,
    backend: Annotated[
        Backend, typer.Option(help="Framework to train with; auto is PyTorch if it is installed.")
    ] = Backend.auto,
) -> None:
    """Train three small networks to recognise digits, and log every data type.

    This takes less than half a minute, and requires no server or account.
    """
    logdir = logdir.rstrip("/") or f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}"
    console = Console(highlight=False)
    with console.status("Loading data and framework"):
        _check_packages()
        data = load_data()
        models = _make_models(backend)
    from threadpoolctl import threadpool_limits

    console.print(
        f"Training {len(models)} small networks with [bold]{models[0].framework}[/]"
        f" on {len(data.labels):,} images of digits"
    )
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TextColumn("{task.fields[scores]}"),
    )
    # One thread multiplies such small matrices faster than several do.
    with threadpool_limits(1), Progress(*columns, console=console) as progress:
        trainings = [
            Training(recipe, model, data, epochs)
            for recipe, model in zip(RECIPES, models, strict=True)
        ]
        counts: Counter[str] = Counter()
        writers = [_train(training, logdir, progress, counts) for training in trainings]
    _report(console, logdir, writers, counts)


def _check_packages() -> None:
    """Check that the packages of the extra ``demo`` are installed.

    Raises:
        MissingDependencyError: one of them is missing.
    """
    try:
        for package in PACKAGES:
            importlib.import_module(package)
    except ImportError as error:
        message = f"the demo requires {error.name}: pip install 'sm-tblog[demo]'"
        raise MissingDependencyError(message) from error


def _make_models(backend: Backend) -> list[Model]:
    # Otherwise PyTorch's profiler writes a line to stderr when it starts and stops. PyTorch reads
    # the variable when it is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    if backend is not Backend.sklearn:
        try:
            return [TorchModel() for _ in RECIPES]
        except MissingDependencyError:
            if backend is Backend.torch:
                raise
    return [SklearnModel() for _ in RECIPES]


def _train(training: Training, logdir: str, progress: Progress, counts: Counter[str]) -> Writer:
    """Train one model to the end and return its writer, closed."""

    def count(batch: Batch) -> None:
        counts["scalars"] += len(batch.scalars)
        counts.update(value.plugin for value in batch.values)
        counts["graphs"] += len(batch.events)
        for plugin, suffix in {"projector": "/tensors.bytes", "profile": ".xplane.pb"}.items():
            counts[plugin] += sum(file.name.endswith(suffix) for file in batch.files)

    task = progress.add_task(training.recipe.name, total=training.steps, scores="")
    url = f"{logdir}/{training.recipe.name}"
    schedule = Schedule(skip_first=training.steps // 2, warmup=1, active=5)
    with (
        Writer(url, sinks=["events", count], on_error="raise") as writer,
        writer.profiler(schedule, "demo") as profiler,
    ):
        for log in _demo_logging.AT_START:
            log(writer, training)
        for _ in range(training.epochs):
            for images, labels in writer.track(
                training.batches(), start=training.step + 1, examples=BATCH
            ):
                with writer.span("train", kind="compute"):
                    training.train_batch(images, labels)
                with writer.span("log", kind="logging"):
                    for log in _demo_logging.EACH_BATCH:
                        log(writer, training)
                profiler.step()
                progress.advance(task)
            training.measure()
            for log in _demo_logging.EACH_EPOCH:
                log(writer, training)
            loss, accuracy = training.validation.loss, training.validation.accuracy
            progress.update(task, scores=f"validation loss {loss:.3f}  accuracy {accuracy:4.0%}")
        for log in _demo_logging.AT_END:
            log(writer, training)
    return writer


def _report(console: Console, logdir: str, writers: Sequence[Writer], counts: Counter[str]) -> None:
    """Print what was logged, where it is, and how to view it."""
    size = sum(writer.stats().bytes_stored for writer in writers) / 1e6
    console.print(f"\nLogged {counts.total():,} values, {size:.1f} MB, to")
    # Text to be copied stays on one line, however long, and is not interpreted as markup.
    console.print(f"  {logdir}", style="cyan", markup=False, soft_wrap=True)
    console.print("TensorBoard shows them in these tabs:")
    for plugin, count in counts.most_common():
        is_missing = plugin == "profile" and importlib.util.find_spec("xprof") is None
        console.print(f"{count:7,}  {TABS[plugin]}{PROFILE_HINT if is_missing else ''}")
    tensorboard = _find_tensorboard()
    if tensorboard is None:
        console.print("\nTo view the runs, install TensorBoard and start it:")
        console.print("  pip install tensorboard", style="bold green")
    else:
        console.print("\nTo view the runs, start TensorBoard:")
    command = [tensorboard or "tensorboard", "--logdir", logdir]
    line = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    console.print(f"  {line}", style="bold green", markup=False, soft_wrap=True)
    console.print("Then open the URL that it prints in your browser.")


def _find_tensorboard() -> str | None:
    """Return the shell command for TensorBoard, preferably from this environment, or None."""
    on_path = shutil.which("tensorboard")
    in_environment = shutil.which("tensorboard", path=sysconfig.get_path("scripts"))
    if in_environment is None or in_environment == on_path:
        return on_path and "tensorboard"
    # A shell treats a relative path as a command only if it contains a directory.
    is_below = Path.cwd() in Path(in_environment).parents[1:]
    return os.path.relpath(in_environment) if is_below else in_environment

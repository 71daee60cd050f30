"""``sm-tblog demo``: a small real training, logged with every data type."""

# No ``from __future__ import annotations``: Typer reads the annotations.

import importlib
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
    "profile": "Profile, where its plugin is installed: pip install xprof",
    "projector": "Projector",
    "scalars": "Scalars, Time Series",
    "tensor": "none: tensors are there to be read back",
    "text": "Text",
}
"""Where TensorBoard shows what it shows by which plugin."""
PACKAGES = ("sklearn", "matplotlib", "PIL", "tensorboard", "threadpoolctl")
"""What the demo uses beside the command line's own."""


class Backend(str, Enum):
    """Which framework trains."""

    auto = "auto"
    torch = "torch"
    sklearn = "sklearn"


def run(
    logdir: Annotated[
        str,
        typer.Option(help="Log folder, a path or URL.", show_default="runs/demo-<date>-<time>"),
    ] = "",
    epochs: Annotated[int, typer.Option(min=1, help="How often a run sees every image.")] = 20,
    backend: Annotated[
        Backend, typer.Option(help="What trains; auto is PyTorch where it is installed.")
    ] = Backend.auto,
) -> None:
    """Train three small networks to read digits, and log every data type.

    Takes less than half a minute, and needs no server and no account.
    """
    logdir = logdir.rstrip("/") or f"runs/demo-{time.strftime('%Y%m%d-%H%M%S')}"
    console = Console(highlight=False)
    with console.status("Loading the data and the framework"):
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
    # Matrices so small are multiplied faster by one thread than by several.
    with threadpool_limits(1), Progress(*columns, console=console) as progress:
        trainings = [
            Training(recipe, model, data, epochs)
            for recipe, model in zip(RECIPES, models, strict=True)
        ]
        counts: Counter[str] = Counter()
        writers = [_train(training, logdir, progress, counts) for training in trainings]
    _report(console, logdir, writers, counts)


def _check_packages() -> None:
    """Raise if a package of the extra ``demo`` is missing.

    Raises:
        MissingDependencyError: it is.
    """
    try:
        for package in PACKAGES:
            importlib.import_module(package)
    except ImportError as error:
        message = f"the demo needs {error.name}: pip install 'sm-tblog[demo]'"
        raise MissingDependencyError(message) from error


def _make_models(backend: Backend) -> list[Model]:
    # PyTorch's profiler writes a line on stderr when it starts and stops, unless told not to
    # before PyTorch is imported.
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")
    if backend is not Backend.sklearn:
        try:
            return [TorchModel() for _ in RECIPES]
        except MissingDependencyError:
            if backend is Backend.torch:
                raise
    return [SklearnModel() for _ in RECIPES]


def _train(training: Training, logdir: str, progress: Progress, counts: Counter[str]) -> Writer:
    """Train one model to the end and return what logged it, closed."""

    def count(batch: Batch) -> None:
        counts["scalars"] += len(batch.scalars)
        counts.update(value.plugin for value in batch.values)
        counts["graphs"] += len(batch.events)
        for plugin, ending in {"projector": "/tensors.bytes", "profile": ".xplane.pb"}.items():
            counts[plugin] += sum(file.name.endswith(ending) for file in batch.files)

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
    """Say what was logged, where it is, and how to look at it."""
    size = sum(writer.stats().bytes_stored for writer in writers) / 1e6
    total = f"{counts.total():,} values, {size:.1f} MB"
    console.print(f"\nLogged {total}. TensorBoard shows them in its tabs:")
    for plugin, count in counts.most_common():
        console.print(f"{count:7,}  {TABS[plugin]}")
    console.print("to the folder")
    # What is to be copied stays on one line, however long, and as it is.
    console.print(f"  {logdir}", style="cyan", markup=False, soft_wrap=True)
    tensorboard = _find_tensorboard()
    if tensorboard is None:
        console.print("\nLook at it with TensorBoard, which is not installed here:")
        console.print("  pip install tensorboard", style="bold green")
    else:
        console.print("\nLook at it:")
    command = [tensorboard or "tensorboard", "--logdir", logdir]
    line = subprocess.list2cmdline(command) if os.name == "nt" else shlex.join(command)
    console.print(f"  {line}", style="bold green", markup=False, soft_wrap=True)
    console.print("and open the address that it prints.")


def _find_tensorboard() -> str | None:
    """Return how to call TensorBoard from a shell, this environment's if it has one."""
    on_path = shutil.which("tensorboard")
    own = shutil.which("tensorboard", path=sysconfig.get_path("scripts"))
    if own is None or own == on_path:
        return on_path and "tensorboard"
    # A shell takes a relative path for a command only if there is a folder in it.
    below = Path.cwd() in Path(own).parents[1:]
    return os.path.relpath(own) if below else own

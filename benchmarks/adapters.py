"""Keras' ``fit`` and Lightning's ``Trainer`` logging at every step, compared with their loggers.

A separate interpreter trains alternately with either logger. Only the time spent in the callback or
logger is counted, not the time that the framework needs to compute the numbers.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._measure import Target, figure, interleave
from benchmarks._writers import OURS, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._measure import Figure

__all__ = ["adapter_time"]

_TARGET = Target(10, at_least=True)
_METRICS = 4
"""Numbers logged per step, besides those that the framework adds."""


def adapter_time(rounds: int = 11, steps: int = 500) -> list[Figure]:
    """Return how many times less time our callback and logger take than the framework's own.

    Keras is only measured if TensorFlow is installed, because Keras' own callback needs it.
    """
    figures = []
    for framework, needs, environment in (
        ("lightning", "lightning", {}),
        ("keras", "tensorflow", {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"}),
    ):
        if find_spec(needs) is None:
            print(f"{framework} is skipped: {needs} is not installed")
            continue
        samples = _measured(framework, rounds, steps, environment)
        ratios = [own / ours for own, ours in zip(samples["own"], samples[OURS], strict=True)]
        name = f"{framework}, logging {_METRICS + 1} numbers per step, time in the logger"
        figures.append(figure(name, samples, "µs per step", ratios, "x", _TARGET))
    return figures


def _measured(
    framework: str, rounds: int, steps: int, environment: dict[str, str]
) -> dict[str, list[float]]:
    command = [sys.executable, "-m", __name__, framework, str(rounds), str(steps)]
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(done.stderr)
    samples: dict[str, list[float]] = json.loads(done.stdout.splitlines()[-1])
    return samples


class _Stopwatch:
    """Measures the total time spent in methods of an object."""

    def __init__(self, timed: Any, names: tuple[str, ...]) -> None:
        self.seconds = 0.0
        for name in names:
            setattr(timed, name, self._timed(getattr(timed, name)))

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                self.seconds += time.perf_counter() - begun

        return call


def _lightning(steps: int) -> dict[str, Callable[[str], float]]:
    import logging

    import lightning.pytorch as pl
    import torch
    from lightning.pytorch.loggers import TensorBoardLogger as LightningsOwn

    from sm_tblog.adapters.lightning import TensorBoardLogger

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)

    class Model(pl.LightningModule):  # type: ignore[misc]  # untyped here
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(8, 1)

        def training_step(self, batch: Any, _: int) -> Any:
            loss = self.layer(batch).square().mean()
            self.log_dict({f"metric_{i}": loss for i in range(_METRICS)})
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), 0.01)

    data = torch.utils.data.DataLoader(torch.ones(steps, 8))

    def run(kind: Any, folder: str) -> float:
        logger = kind(folder)
        timed = _Stopwatch(logger, ("log_metrics", "save"))
        trainer = pl.Trainer(
            logger=logger,
            max_epochs=1,
            log_every_n_steps=1,
            accelerator="cpu",
            enable_checkpointing=False,
            enable_model_summary=False,
            enable_progress_bar=False,
        )
        trainer.fit(Model(), data)
        return timed.seconds

    return {
        "own": lambda folder: run(LightningsOwn, folder),
        OURS: lambda folder: run(TensorBoardLogger, folder),
    }


def _keras(steps: int) -> dict[str, Callable[[str], float]]:
    import keras
    import numpy as np

    from sm_tblog.adapters.keras import TensorBoard

    data = np.ones((steps, 8), dtype="float32"), np.ones((steps, 1), dtype="float32")
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", metrics=["mae", "mse", "mape", "msle"][:_METRICS])

    def run(kind: Any, folder: str) -> float:
        callback = kind(folder, update_freq="batch", write_graph=False)
        timed = _Stopwatch(callback, ("on_train_batch_begin", "on_train_batch_end"))
        model.fit(*data, batch_size=1, callbacks=[callback], verbose=0)
        return timed.seconds

    return {
        "own": lambda folder: run(keras.callbacks.TensorBoard, folder),
        OURS: lambda folder: run(TensorBoard, folder),
    }


def _main(framework: str, rounds: int, steps: int) -> None:
    """Print the microseconds per step of each round, as JSON."""
    runs = {"lightning": _lightning, "keras": _keras}[framework](steps)
    with temporary_folder() as folder:
        turns = iter(range(10**9))

        def measured(name: str) -> float:
            return runs[name](f"{folder}/{name}-{next(turns)}") / steps * 1e6

        contestants = {name: lambda name=name: measured(name) for name in runs}
        interleave(contestants, 1)  # to warm up
        print(json.dumps(interleave(contestants, rounds)))


if __name__ == "__main__":
    _main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

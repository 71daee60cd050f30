"""What the demo logs: one function a data type, called at its time in every training.

A function takes the writer and the training as it stands, and is named in one of the tuples at the
end of the module.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sm_tblog.cli._demo_training import BATCH, HIDDEN

if TYPE_CHECKING:
    from sm_tblog import Writer
    from sm_tblog.cli._demo_training import Training

__all__ = ["AT_END", "AT_START", "EACH_BATCH", "EACH_EPOCH"]


def log_description(writer: Writer, training: Training) -> None:
    """Log a text: Markdown."""
    recipe, data = training.recipe, training.data
    writer.add_text(
        "about",
        f"""\
### {recipe.name}

One of the runs of `sm-tblog demo`: a small network, trained with {training.model.framework} to \
read hand-written digits of 8 by 8 pixels, {len(data.labels):,} to learn from and \
{len(data.validation_labels):,} to measure with.

What to look at:

{recipe.lesson}
""",
        0,
    )


def log_hyperparameters(writer: Writer, training: Training) -> None:
    """Log a text: a table, from rows of cells."""
    recipe = training.recipe
    writer.add_text(
        "hyperparameters",
        [
            ["**hyperparameter**", "**value**"],
            ["highest learning rate", f"{recipe.learning_rate:g}"],
            ["schedule", "5 % linear warm-up, then half a cosine"],
            ["images to learn from", f"{len(training.data.labels):,}"],
            ["hidden layers", f"{' and '.join(map(str, HIDDEN))} units, tanh"],
            ["optimizer", "stochastic gradient descent, no momentum"],
            ["batches", f"{training.steps:,} of {BATCH} images, {training.epochs} epochs"],
        ],
        0,
    )


def log_batch(writer: Writer, training: Training) -> None:
    """Log numbers after every batch: one by one, or many at a step."""
    writer.add_scalar("loss/batch", training.loss, training.step)
    squares = (float((layer.gradients**2).sum()) for layer in training.model.layers().values())
    optimizer = {
        "learning rate": training.learning_rate,
        "gradient norm": math.sqrt(sum(squares)),
    }
    writer.log({"optimizer": optimizer}, training.step)


def log_curves(writer: Writer, training: Training) -> None:
    """Log numbers that belong in one chart."""
    train, validation = training.train, training.validation
    for name in ("loss", "accuracy"):
        curves = {"train": getattr(train, name), "validation": getattr(validation, name)}
        writer.add_scalars(name, curves, training.step, layout=True)


def log_layers(writer: Writer, training: Training) -> None:
    """Log the distribution of arrays of any framework."""
    for name, layer in training.model.layers().items():
        writer.add_histogram(f"weights/{name}", layer.weights, training.step)
        writer.add_histogram(f"weight gradients/{name}", layer.gradients, training.step)


def log_confidence(writer: Writer, training: Training) -> None:
    """Log a distribution that was counted elsewhere."""
    confidence = training.validation.probabilities.max(axis=1).astype(np.float64)
    counts, edges = np.histogram(confidence, bins=50, range=(0, 1))
    writer.add_histogram_raw(
        "prediction/confidence",
        min=confidence.min(),
        max=confidence.max(),
        num=len(confidence),
        sum=confidence.sum(),
        sum_squares=(confidence**2).sum(),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=training.step,
    )


def log_mistakes(writer: Writer, training: Training) -> None:
    """Log a text at the end: what the model got wrong."""
    labels, probabilities = training.data.validation_labels, training.validation.probabilities
    guesses, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(guesses != labels)
    worst = wrong[np.argsort(-confidence[wrong])][:6]  # as many as fit in TensorBoard's card
    rows = [["**digit**", "**taken for**", "**with probability**"]]
    rows += [[str(labels[i]), str(guesses[i]), f"{confidence[i]:.0%}"] for i in worst]
    writer.add_text("worst mistakes", rows, training.step)


AT_START = (log_description, log_hyperparameters)
EACH_BATCH = (log_batch,)
EACH_EPOCH = (log_curves, log_layers, log_confidence)
AT_END = (log_mistakes,)

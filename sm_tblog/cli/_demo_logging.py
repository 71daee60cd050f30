"""What the demo logs: one function a data type, called at its time in every training.

A function takes the writer and the training as it stands, and is named in one of the tuples at the
end of the module.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sm_tblog.cli import _demo_views

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
    """Log what tells this run from the others, and by which numbers to compare them."""
    recipe = training.recipe
    writer.hparams(
        {
            "learning rate": recipe.learning_rate,
            "images": len(training.data.labels),
            "epochs": training.epochs,
        },
        metrics={"loss/validation": "min", "accuracy/validation": "max"},
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
        "predictions/confidence",
        min=confidence.min(),
        max=confidence.max(),
        num=len(confidence),
        sum=confidence.sum(),
        sum_squares=(confidence**2).sum(),
        bucket_limits=edges[1:].tolist(),
        bucket_counts=counts.tolist(),
        global_step=training.step,
    )


def log_graph(writer: Writer, training: Training) -> None:
    """Log what a model is made of."""
    writer.add_graph(*training.model.graph())


def lay_out_spread(writer: Writer, training: Training) -> None:  # noqa: ARG001 - as all are called
    """Lay out a chart with a margin; ``log_curves`` lays out its own."""
    tags = [f"loss of an image/{name}" for name in ("median", "lower quartile", "upper quartile")]
    writer.add_custom_scalars_marginchart(tags, category="loss", title="loss of an image")


def log_spread(writer: Writer, training: Training) -> None:
    """Log the numbers for it."""
    low, median, high = np.quantile(training.validation.losses, (0.25, 0.5, 0.75))
    numbers = {"lower quartile": low, "median": median, "upper quartile": high}
    writer.log({"loss of an image": numbers}, training.step)


def log_hardest(writer: Writer, training: Training) -> None:
    """Log an image in which some places are marked."""
    image, boxes, labels = _demo_views.hardest(training)
    writer.add_image_with_boxes(
        "predictions/hardest digits", image, boxes, training.step, dataformats="HWC", labels=labels
    )


def log_filters(writer: Writer, training: Training) -> None:
    """Log many images, shown side by side."""
    images = _demo_views.learnt(training, -1)
    writer.add_images("layer1/learnt", images, training.step, dataformats="NHWC")


def log_confusion(writer: Writer, training: Training) -> None:
    """Log a confusion matrix."""
    guesses = training.validation.probabilities.argmax(axis=1)
    writer.add_confusion_matrix(
        "predictions/confusion",
        training.data.validation_labels,
        guesses,
        training.step,
        class_names=range(10),
    )


def log_precision_and_recall(writer: Writer, training: Training) -> None:
    """Log a curve over all thresholds."""
    truth = training.data.validation_labels[:, np.newaxis] == np.arange(10)
    probabilities, step = training.validation.probabilities, training.step
    writer.add_pr_curve("precision and recall/all digits", truth, probabilities, step)
    for digit in range(10):
        tag = f"precision and recall/digit {digit}"
        writer.add_pr_curve(tag, truth[:, digit], probabilities[:, digit], step)


def log_video(writer: Writer, training: Training) -> None:
    """Log a video: what ``log_filters`` logs, from the first epoch to the last."""
    epochs = range(len(training.filters))
    frames = [_demo_views.mosaic(_demo_views.learnt(training, epoch), 8) for epoch in epochs]
    writer.add_video("layer1/learning", np.stack(frames), training.step, fps=6, dataformats="THWC")


def log_sound(writer: Writer, training: Training) -> None:
    """Log audio."""
    writer.add_audio(
        "loss/as a tone",
        _demo_views.sound(training),
        training.step,
        sample_rate=_demo_views.SAMPLE_RATE,
    )


def log_figure(writer: Writer, training: Training) -> None:
    """Log a figure of Matplotlib's."""
    writer.add_figure("predictions/reliability", _demo_views.reliability(training), training.step)


def log_landscape(writer: Writer, training: Training) -> None:
    """Log a surface in space."""
    vertices, colours, faces = _demo_views.landscape(training)
    material = {"cls": "MeshStandardMaterial", "color": "#ffffff", "roughness": 1, "metalness": 0}
    scene = {"material": material}  # white leaves the colours as they are
    writer.add_mesh("loss/landscape", vertices, colours, faces, scene, training.step)


def log_embedding(writer: Writer, training: Training) -> None:
    """Log points of many dimensions, with what is known of each."""
    data, probabilities = training.data, training.validation.probabilities
    guesses = probabilities.argmax(axis=1)
    writer.add_embedding(
        _demo_views.hidden(training.model.parameters(), data.validation_images),
        metadata={
            "digit": data.validation_labels,
            "taken for": guesses,
            "verdict": np.where(guesses == data.validation_labels, "right", "wrong"),
            "confidence": probabilities.max(axis=1).round(3),
        },
        label_img=_demo_views.sprites(data.validation_images),
        global_step=training.step,
        tag="hidden layer 2",
    )


def log_table(writer: Writer, training: Training) -> None:
    """Log a table, column by column."""
    labels = training.data.validation_labels
    guesses = training.validation.probabilities.argmax(axis=1)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, guesses), 1)
    right, shown, guessed = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    mistakes = counts - np.diag(right)
    table = {
        "digit": range(10),
        "images": shown,
        "recall": (right / shown).round(3),
        "precision": (right / np.maximum(guessed, 1)).round(3),
        "mistaken most often for": np.where(mistakes.any(axis=1), mistakes.argmax(axis=1), None),
    }
    writer.add_table("predictions/by digit", table, training.step)


def log_tensor(writer: Writer, training: Training) -> None:
    """Log an array as it is, to be read back."""
    writer.add_tensor("predictions/probabilities", training.validation.probabilities, training.step)


AT_START = (log_description, log_hyperparameters, log_graph, lay_out_spread, log_landscape)
EACH_BATCH = (log_batch,)
EACH_EPOCH = (
    log_curves,
    log_spread,
    log_layers,
    log_confidence,
    log_filters,
    log_hardest,
    log_confusion,
    log_precision_and_recall,
)
AT_END = (
    log_video,
    log_sound,
    log_figure,
    log_landscape,
    log_embedding,
    log_table,
    log_tensor,
)

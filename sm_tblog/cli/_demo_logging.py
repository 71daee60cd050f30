"""The logging of the demo: one function per data type.

Each function receives the writer and the current state of the training. The tuples at the end of
the module list the functions that the demo calls at the start, after each batch, after each epoch
and at the end.
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
    """Log Markdown text."""
    recipe, data = training.recipe, training.data
    writer.add_text(
        "about",
        f"""\
### {recipe.name}

One of the runs of `sm-tblog demo`: a small network trained with {training.model.framework} to \
recognise handwritten digits of 8 by 8 pixels, with {len(data.labels):,} training and \
{len(data.validation_labels):,} validation images.

What to look at:

{recipe.lesson}
""",
        0,
    )


def log_hyperparameters(writer: Writer, training: Training) -> None:
    """Log the hyperparameters of the run and the metrics by which to compare runs."""
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
    """Log scalars after every batch: one by one, or several in one call."""
    writer.add_scalar("loss/batch", training.loss, training.step)
    squared_norms = (
        float((layer.gradients**2).sum()) for layer in training.model.layers().values()
    )
    optimizer = {
        "learning rate": training.learning_rate,
        "gradient norm": math.sqrt(sum(squared_norms)),
    }
    writer.log({"optimizer": optimizer}, training.step)


def log_curves(writer: Writer, training: Training) -> None:
    """Log scalars that share a chart."""
    train, validation = training.train, training.validation
    for name in ("loss", "accuracy"):
        curves = {"train": getattr(train, name), "validation": getattr(validation, name)}
        writer.add_scalars(name, curves, training.step, layout=True)


def log_layers(writer: Writer, training: Training) -> None:
    """Log histograms of arrays of any framework."""
    for name, layer in training.model.layers().items():
        writer.add_histogram(f"weights/{name}", layer.weights, training.step)
        writer.add_histogram(f"weight gradients/{name}", layer.gradients, training.step)


def log_confidence(writer: Writer, training: Training) -> None:
    """Log a histogram that was computed elsewhere."""
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
    """Log the graph of a model."""
    writer.add_graph(*training.model.graph())


def lay_out_spread(writer: Writer, training: Training) -> None:  # noqa: ARG001 - all functions have this signature
    """Define a margin chart; ``log_curves`` defines its own charts."""
    tags = [f"loss of an image/{name}" for name in ("median", "lower quartile", "upper quartile")]
    writer.add_custom_scalars_marginchart(tags, category="loss", title="loss of an image")


def log_spread(writer: Writer, training: Training) -> None:
    """Log the scalars of the margin chart."""
    low, median, high = np.quantile(training.validation.losses, (0.25, 0.5, 0.75))
    quartiles = {"lower quartile": low, "median": median, "upper quartile": high}
    writer.log({"loss of an image": quartiles}, training.step)


def log_hardest(writer: Writer, training: Training) -> None:
    """Log an image with bounding boxes."""
    image, boxes, labels = _demo_views.hardest(training)
    writer.add_image_with_boxes(
        "predictions/hardest digits", image, boxes, training.step, dataformats="HWC", labels=labels
    )


def log_filters(writer: Writer, training: Training) -> None:
    """Log many images as a grid."""
    images = _demo_views.learnt(training, -1)
    writer.add_images("layer1/learnt", images, training.step, dataformats="NHWC")


def log_confusion(writer: Writer, training: Training) -> None:
    """Log a confusion matrix."""
    predicted = training.validation.probabilities.argmax(axis=1)
    writer.add_confusion_matrix(
        "predictions/confusion",
        training.data.validation_labels,
        predicted,
        training.step,
        class_names=range(10),
    )


def log_precision_and_recall(writer: Writer, training: Training) -> None:
    """Log precision-recall curves."""
    truth = training.data.validation_labels[:, np.newaxis] == np.arange(10)
    probabilities, step = training.validation.probabilities, training.step
    writer.add_pr_curve("precision and recall/all digits", truth, probabilities, step)
    for digit in range(10):
        tag = f"precision and recall/digit {digit}"
        writer.add_pr_curve(tag, truth[:, digit], probabilities[:, digit], step)


def log_video(writer: Writer, training: Training) -> None:
    """Log a video of the images of ``log_filters``, from the first epoch to the last."""
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
    """Log a Matplotlib figure."""
    writer.add_figure("predictions/reliability", _demo_views.reliability(training), training.step)


def log_landscape(writer: Writer, training: Training) -> None:
    """Log a mesh: a surface in 3D."""
    vertices, colours, faces = _demo_views.landscape(training)
    material = {"cls": "MeshStandardMaterial", "color": "#ffffff", "roughness": 1, "metalness": 0}
    scene = {"material": material}  # white does not alter the vertex colours
    writer.add_mesh("loss/landscape", vertices, colours, faces, scene, training.step)


def log_embedding(writer: Writer, training: Training) -> None:
    """Log an embedding: points of many dimensions, with metadata."""
    data, probabilities = training.data, training.validation.probabilities
    predicted = probabilities.argmax(axis=1)
    writer.add_embedding(
        _demo_views.hidden(training.model.parameters(), data.validation_images),
        metadata={
            "digit": data.validation_labels,
            "predicted": predicted,
            "verdict": np.where(predicted == data.validation_labels, "right", "wrong"),
            "confidence": probabilities.max(axis=1).round(3),
        },
        label_img=_demo_views.sprites(data.validation_images),
        global_step=training.step,
        tag="hidden layer 2",
    )


def log_table(writer: Writer, training: Training) -> None:
    """Log a table, column by column."""
    labels = training.data.validation_labels
    predicted = training.validation.probabilities.argmax(axis=1)
    counts = np.zeros((10, 10), int)
    np.add.at(counts, (labels, predicted), 1)
    right, shown, predictions = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    mistakes = counts - np.diag(right)
    table = {
        "digit": range(10),
        "images": shown,
        "recall": (right / shown).round(3),
        "precision": (right / np.maximum(predictions, 1)).round(3),
        "most often mistaken for": np.where(mistakes.any(axis=1), mistakes.argmax(axis=1), None),
    }
    writer.add_table("predictions/by digit", table, training.step)


def log_tensor(writer: Writer, training: Training) -> None:
    """Log a raw array, to be read back in Python."""
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

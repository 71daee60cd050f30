"""What the demo makes of a training to look at and to listen to: arrays and a figure.

Nothing here logs: ``_demo_logging`` does, and ``_demo_training`` trains.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog.cli._demo_training import SEED

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    from sm_tblog.cli._demo_training import FloatArray, IntArray, Training

    Parameters: TypeAlias = Sequence[tuple[FloatArray, FloatArray]]
    Float64Array: TypeAlias = npt.NDArray[np.float64]
    UInt8Array: TypeAlias = npt.NDArray[np.uint8]

__all__ = [
    "SAMPLE_RATE",
    "Boxed",
    "Surface",
    "hardest",
    "hidden",
    "landscape",
    "learnt",
    "mosaic",
    "reliability",
    "sound",
    "sprites",
]

FULL = 0.2
"""How much a weight must have changed to be shown in full colour."""
HIGH = 3.5
"""The loss at which the landscape is as high as half its width, and yellow."""
SAMPLE_RATE = 8000
"""Samples a second of the sound."""


def magnified(images: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    """Return images with each pixel a square; shape (n, h, w, …) to (n, times h, times w, …)."""
    return images.repeat(times, axis=1).repeat(times, axis=2)


def mosaic(images: npt.NDArray[Any], columns: int) -> npt.NDArray[Any]:
    """Return images side by side, in rows; shape (n, h, w, …) to (H, W, …)."""
    height, width, *channels = images.shape[1:]
    rows = images.reshape(-1, columns, height, width, *channels).swapaxes(1, 2)
    whole: npt.NDArray[Any] = rows.reshape(-1, columns * width, *channels)
    return whole


def as_grey(images: FloatArray) -> UInt8Array:
    """Return images of digits, shape (n, 64), as ink on paper, 0 to 255; shape (n, 8, 8)."""
    low, high = images.min(), images.max()
    grey: UInt8Array = ((high - images) * (255 / (high - low))).astype(np.uint8).reshape(-1, 8, 8)
    return grey


def learnt(training: Training, epoch: int) -> UInt8Array:
    """Return what the units of the first layer have learnt, as images with a white margin.

    It is their weights less those that they began with: blue below zero, red above.

    Args:
        training: whose model it is.
        epoch: after which; -1 is the last.

    Returns:
        Red, green and blue, 0 to 255; shape (64, 36, 36, 3).
    """
    part = np.clip((training.filters[epoch] - training.filters[0]) / FULL, -1, 1)
    colours = np.stack([1 + np.minimum(part, 0), 1 - abs(part), 1 - np.maximum(part, 0)], axis=-1)
    images = magnified((colours * 255).astype(np.uint8), 4)
    return np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], constant_values=255)


def sprites(images: FloatArray) -> UInt8Array:
    """Return images of digits, shape (n, 64), for the projector; shape (n, 32, 32)."""
    return magnified(as_grey(images), 4)


class Boxed(NamedTuple):
    """An image in which some places are marked.

    Attributes:
        image: grey, 0 to 255; shape (height, width, 1).
        boxes: left, top, right and bottom of each mark, in pixels; shape (n, 4).
        labels: what to write at each.
    """

    image: UInt8Array
    boxes: IntArray
    labels: list[str]


def hardest(training: Training, rows: int = 4, columns: int = 6) -> Boxed:
    """Return the images to measure with that a model does worst on, with its mistakes marked.

    The worst comes first. A label is the digit that the image is taken for.
    """
    worst = np.argsort(-training.validation.losses, kind="stable")[: rows * columns]
    images = magnified(as_grey(training.data.validation_images[worst]), 6)
    images = np.pad(images, [(0, 0), (5, 5), (5, 5)], constant_values=255)
    guesses = training.validation.probabilities[worst].argmax(axis=1)
    (wrong,) = np.nonzero(guesses != training.data.validation_labels[worst])
    side = images.shape[1]
    corners = np.stack([wrong % columns, wrong // columns], axis=1) * side
    return Boxed(
        mosaic(images, columns)[..., np.newaxis],
        np.concatenate([corners + 1, corners + side - 2], axis=1),
        [str(guess) for guess in guesses[wrong]],
    )


def reliability(training: Training) -> Any:
    """Return a figure of how often the model is right, by digit and by how sure it is."""
    from matplotlib.figure import Figure

    labels, probabilities = training.data.validation_labels, training.validation.probabilities
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    figure = Figure(figsize=(5, 2.8), dpi=140, layout="constrained")
    by_digit, by_confidence = figure.subplots(1, 2, sharey=True)
    by_digit.bar(range(10), [right[labels == digit].mean() for digit in range(10)])
    by_digit.set(xlabel="digit", xticks=range(10), ylabel="part read right", ylim=(0, 1))
    groups = np.array_split(np.argsort(confidence), 9)  # of 50 images each
    by_confidence.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
    by_confidence.plot(
        [confidence[group].mean() for group in groups],
        [right[group].mean() for group in groups],
        marker="o",
    )
    by_confidence.set(xlabel="probability given", xlim=(0, 1))
    return figure


def sound(training: Training) -> FloatArray:
    """Return the loss of each batch as a tone, an octave a nat above 220 Hz; in [-1, 1]."""
    frequency = 220 * 2 ** np.repeat(training.losses, SAMPLE_RATE // 100)
    tone = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
    fade = np.minimum(1, np.arange(len(tone)) / (SAMPLE_RATE // 50))
    return (0.5 * tone * fade * fade[::-1]).astype(np.float32)


def hidden(parameters: Parameters, images: FloatArray) -> FloatArray:
    """Return what the last hidden layer makes of each image; shape (n, 32)."""
    for weights, biases in parameters[:-1]:
        images = np.tanh(images @ weights + biases)
    return images


def _loss(parameters: Parameters, images: FloatArray, labels: IntArray) -> float:
    weights, biases = parameters[-1]
    scores = hidden(parameters, images) @ weights + biases
    scores -= scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
    return float(losses.mean())


def _alike(rng: np.random.Generator, array: FloatArray) -> FloatArray:
    """Return a random array of the same shape and length."""
    step = rng.normal(size=array.shape).astype(np.float32)
    alike: FloatArray = step * (np.linalg.norm(array) / np.linalg.norm(step))
    return alike


class Surface(NamedTuple):
    """A surface in space, of triangles.

    Attributes:
        vertices: x, y and z; shape (n, 3).
        colours: red, green and blue of each vertex, 0 to 255; shape (n, 3).
        faces: three vertices each, by number; shape (m, 3).
    """

    vertices: FloatArray
    colours: UInt8Array
    faces: IntArray


def landscape(training: Training, size: int = 21, reach: float = 1.0) -> Surface:
    """Return the loss around the parameters that a model has come to.

    Two random directions span a plane through them, each scaled array by array to the parameters'
    own length (after Li et al., "Visualizing the Loss Landscape of Neural Nets", 2018). The height
    is the loss on the images to measure with.

    Args:
        training: whose model it is.
        size: points along each direction.
        reach: how far to go each way, in lengths of the parameters.
    """
    from matplotlib import colormaps

    data, rng = training.data, np.random.default_rng(SEED)
    centre = training.model.parameters()
    directions = [[tuple(_alike(rng, array) for array in layer) for layer in centre] for _ in "xy"]
    along = np.linspace(-reach, reach, size, dtype=np.float32)
    loss = np.empty((size, size))
    for i, j in np.ndindex(size, size):
        there = [
            tuple(array + along[i] * x + along[j] * y for array, x, y in zip(*layer, strict=True))
            for layer in zip(centre, *directions, strict=True)
        ]
        loss[i, j] = _loss(there, data.validation_images, data.validation_labels)
    height = loss / HIGH
    x, y = np.meshgrid(along / reach, along / reach, indexing="ij")
    vertices = np.stack([x, height, y], axis=-1).reshape(-1, 3) @ _turn(30, 40)
    colours = colormaps["viridis"](height.ravel(), bytes=True)[:, :3]
    corner = np.arange(size * size).reshape(size, size)[:-1, :-1].ravel()
    halves = [(0, 1, size), (1, size + 1, size)]
    faces = np.concatenate([np.stack([corner + k for k in half], axis=1) for half in halves])
    return Surface(vertices.astype(np.float32), colours, faces)


def _turn(about_height: float, forwards: float) -> Float64Array:
    """Return the rotation that shows a surface from above: the tab looks along the z axis.

    Args:
        about_height: degrees about the y axis.
        forwards: degrees about the x axis, after that.
    """
    a, b = np.deg2rad([about_height, forwards])
    first = [[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]]
    second = [[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]]
    return np.array(first) @ np.array(second)

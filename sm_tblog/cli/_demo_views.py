"""Images, sounds, meshes and a figure that the demo derives from a training.

Nothing here logs: ``_demo_logging`` logs, and ``_demo_training`` trains.
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

FULL_COLOUR_CHANGE = 0.2
"""Change of a weight that is shown in full colour."""
PEAK_LOSS = 3.5
"""Loss that is shown in yellow in the landscape, at a height of half its width."""
SAMPLE_RATE = 8000
"""Sample rate of the sound, in Hz."""


def magnified(images: npt.NDArray[Any], times: int) -> npt.NDArray[Any]:
    """Return images magnified by pixel repetition: (n, h, w, …) to (n, times h, times w, …)."""
    return images.repeat(times, axis=1).repeat(times, axis=2)


def mosaic(images: npt.NDArray[Any], columns: int) -> npt.NDArray[Any]:
    """Return images arranged in rows as one image: (n, h, w, …) to (H, W, …)."""
    height, width, *channels = images.shape[1:]
    rows = images.reshape(-1, columns, height, width, *channels).swapaxes(1, 2)
    image: npt.NDArray[Any] = rows.reshape(-1, columns * width, *channels)
    return image


def as_grey(images: FloatArray) -> UInt8Array:
    """Return images of digits, shape (n, 64), as black on white, 0 to 255, shape (n, 8, 8)."""
    low, high = images.min(), images.max()
    grey: UInt8Array = ((high - images) * (255 / (high - low))).astype(np.uint8).reshape(-1, 8, 8)
    return grey


def learnt(training: Training, epoch: int) -> UInt8Array:
    """Return what the units of the first layer have learnt, as images with a white margin.

    The images show the change of the weights since the start: blue is negative, red positive.

    Args:
        training: the training.
        epoch: number of finished epochs; -1 for all.

    Returns:
        RGB images, 0 to 255, shape (64, 36, 36, 3).
    """
    change = np.clip((training.filters[epoch] - training.filters[0]) / FULL_COLOUR_CHANGE, -1, 1)
    colours = np.stack(
        [1 + np.minimum(change, 0), 1 - abs(change), 1 - np.maximum(change, 0)], axis=-1
    )
    images = magnified((colours * 255).astype(np.uint8), 4)
    return np.pad(images, [(0, 0), (2, 2), (2, 2), (0, 0)], constant_values=255)


def sprites(images: FloatArray) -> UInt8Array:
    """Return images of digits, shape (n, 64), for the Projector, shape (n, 32, 32)."""
    return magnified(as_grey(images), 4)


class Boxed(NamedTuple):
    """An image with bounding boxes.

    Attributes:
        image: greyscale image, 0 to 255, shape (height, width, 1).
        boxes: left, top, right and bottom of each box in pixels, shape (n, 4).
        labels: label of each box.
    """

    image: UInt8Array
    boxes: IntArray
    labels: list[str]


def hardest(training: Training, rows: int = 4, columns: int = 6) -> Boxed:
    """Return the validation images with the highest losses, with a box around each mistake.

    The image with the highest loss comes first. The label of a box is the predicted digit.
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
    """Return a figure of the accuracy by digit and by confidence."""
    from matplotlib.figure import Figure

    labels, probabilities = training.data.validation_labels, training.validation.probabilities
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    figure = Figure(figsize=(5, 2.8), dpi=140, layout="constrained")
    by_digit, by_confidence = figure.subplots(1, 2, sharey=True)
    by_digit.bar(range(10), [right[labels == digit].mean() for digit in range(10)])
    by_digit.set(xlabel="digit", xticks=range(10), ylabel="accuracy", ylim=(0, 1))
    groups = np.array_split(np.argsort(confidence), 9)  # 50 images in each
    by_confidence.plot([0, 1], [0, 1], color="grey", linestyle="dotted")
    by_confidence.plot(
        [confidence[group].mean() for group in groups],
        [right[group].mean() for group in groups],
        marker="o",
    )
    by_confidence.set(xlabel="confidence", xlim=(0, 1))
    return figure


def sound(training: Training) -> FloatArray:
    """Return the loss of each batch as a tone in [-1, 1]: 220 Hz at 0, an octave more per nat."""
    frequency = 220 * 2 ** np.repeat(training.losses, SAMPLE_RATE // 100)
    tone = np.sin(2 * np.pi * np.cumsum(frequency) / SAMPLE_RATE)
    fade = np.minimum(1, np.arange(len(tone)) / (SAMPLE_RATE // 50))
    return (0.5 * tone * fade * fade[::-1]).astype(np.float32)


def hidden(parameters: Parameters, images: FloatArray) -> FloatArray:
    """Return the activations of the last hidden layer for each image, shape (n, 32)."""
    for weights, biases in parameters[:-1]:
        images = np.tanh(images @ weights + biases)
    return images


def _loss(parameters: Parameters, images: FloatArray, labels: IntArray) -> float:
    weights, biases = parameters[-1]
    scores = hidden(parameters, images) @ weights + biases
    scores -= scores.max(axis=1, keepdims=True)
    losses = np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(labels)), labels]
    return float(losses.mean())


def _random_direction(rng: np.random.Generator, array: FloatArray) -> FloatArray:
    """Return a random array with the shape and norm of an array."""
    noise = rng.normal(size=array.shape).astype(np.float32)
    direction: FloatArray = noise * (np.linalg.norm(array) / np.linalg.norm(noise))
    return direction


class Surface(NamedTuple):
    """A surface in 3D, made of triangles.

    Attributes:
        vertices: x, y and z, shape (n, 3).
        colours: red, green and blue of each vertex, 0 to 255, shape (n, 3).
        faces: indices of the three vertices of each triangle, shape (m, 3).
    """

    vertices: FloatArray
    colours: UInt8Array
    faces: IntArray


def landscape(training: Training, size: int = 21, reach: float = 1.0) -> Surface:
    """Return the loss around the current parameters of a model, as a surface.

    Two random directions span a plane through the parameters. Each array of a direction is scaled
    to the norm of the corresponding parameter array (after Li et al., "Visualizing the Loss
    Landscape of Neural Nets", 2018). The height is the validation loss.

    Args:
        training: the training.
        size: number of points along each direction.
        reach: distance from the centre along each direction, relative to the parameters' norms.
    """
    from matplotlib import colormaps

    data, rng = training.data, np.random.default_rng(SEED)
    centre = training.model.parameters()
    directions = [
        [tuple(_random_direction(rng, array) for array in layer) for layer in centre] for _ in "xy"
    ]
    along = np.linspace(-reach, reach, size, dtype=np.float32)
    loss = np.empty((size, size))
    for i, j in np.ndindex(size, size):
        parameters = [
            tuple(array + along[i] * x + along[j] * y for array, x, y in zip(*layer, strict=True))
            for layer in zip(centre, *directions, strict=True)
        ]
        loss[i, j] = _loss(parameters, data.validation_images, data.validation_labels)
    height = loss / PEAK_LOSS
    x, y = np.meshgrid(along / reach, along / reach, indexing="ij")
    vertices = np.stack([x, height, y], axis=-1).reshape(-1, 3) @ _rotation(30, 40)
    colours = colormaps["viridis"](height.ravel(), bytes=True)[:, :3]
    corner = np.arange(size * size).reshape(size, size)[:-1, :-1].ravel()
    triangles = [(0, 1, size), (1, size + 1, size)]
    faces = np.concatenate([np.stack([corner + k for k in one], axis=1) for one in triangles])
    return Surface(vertices.astype(np.float32), colours, faces)


def _rotation(about_y: float, about_x: float) -> Float64Array:
    """Return the rotation that shows a surface from above, as the tab looks along the z axis.

    Args:
        about_y: rotation about the y axis, in degrees.
        about_x: subsequent rotation about the x axis, in degrees.
    """
    a, b = np.deg2rad([about_y, about_x])
    first = [[np.cos(a), 0, -np.sin(a)], [0, 1, 0], [np.sin(a), 0, np.cos(a)]]
    second = [[1, 0, 0], [0, np.cos(b), np.sin(b)], [0, -np.sin(b), np.cos(b)]]
    return np.array(first) @ np.array(second)

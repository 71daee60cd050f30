"""The trainings of the demo: a small network on scikit-learn's digits, by PyTorch or scikit-learn.

Nothing here logs. ``Training`` holds the complete state of one training, which the functions of
``_demo_logging`` read.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar

import numpy as np

from sm_tblog import MissingDependencyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import TypeAlias

    import numpy.typing as npt

    from sm_tblog.cli._demo_recipes import Recipe

    T = TypeVar("T")
    FloatArray: TypeAlias = npt.NDArray[np.float32]
    IntArray: TypeAlias = npt.NDArray[np.int64]

__all__ = [
    "BATCH",
    "Data",
    "Layer",
    "Model",
    "Scores",
    "SklearnModel",
    "TorchModel",
    "Training",
    "load_data",
]

HIDDEN = (64, 32)
"""Widths of the hidden layers."""
BATCH = 64
"""Number of images in a batch."""
CLASSES = np.arange(10)
SEED = 0
WARM_UP = 0.05
"""Fraction of the training during which the learning rate rises."""


class Data(NamedTuple):
    """Images of handwritten digits and their labels.

    Attributes:
        images: training images of 8 by 8 pixels, shape (n, 64). All images together have mean 0 and
            standard deviation 1.
        labels: training labels from 0 to 9, shape (n,).
        validation_images: validation images, shape (m, 64).
        validation_labels: validation labels, shape (m,).
    """

    images: FloatArray
    labels: IntArray
    validation_images: FloatArray
    validation_labels: IntArray


def load_data() -> Data:
    """Return scikit-learn's digits, with a quarter of them for validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32)
    images, validation_images, labels, validation_labels = train_test_split(
        images, labels.astype(np.int64), test_size=0.25, stratify=labels, random_state=SEED
    )
    return Data(images, labels, validation_images, validation_labels)


class Layer(NamedTuple):
    """The weights of one layer and their gradients, as arrays or tensors of the framework.

    Attributes:
        weights: current weights.
        gradients: gradients of the last batch's loss with respect to the weights, same shape.
    """

    weights: Any
    gradients: Any


class Model(Protocol):
    """A network trained batch by batch with stochastic gradient descent.

    Attributes:
        framework: name of the framework.
    """

    framework: str

    def graph(self) -> tuple[Any, ...]:
        """Return the arguments of ``Writer.add_graph``: a model and an input, or a ``GraphDef``."""

    def train_batch(self, images: FloatArray, labels: IntArray, learning_rate: float) -> Any:
        """Perform one step and return the loss before it, a number or a one-element array."""

    def probabilities(self, images: FloatArray) -> FloatArray:
        """Return the predicted probability of each digit for each image, shape (n, 10)."""

    def layers(self) -> Mapping[str, Layer]:
        """Return the layers by name, from input to output."""

    def parameters(self) -> Sequence[tuple[FloatArray, FloatArray]]:
        """Return each layer's weights, shape (inputs, outputs), and biases, from input to output.

        The arrays are views of the model's own memory.
        """


class TorchModel:
    """A PyTorch network.

    Raises:
        MissingDependencyError: PyTorch is not installed.
    """

    framework = "PyTorch"

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            message = "PyTorch is not installed: pip install torch, or use --backend sklearn"
            raise MissingDependencyError(message) from error
        self._torch = torch
        torch.set_num_threads(1)  # faster than several for such a small network
        torch.manual_seed(SEED)
        modules: list[Any] = []
        for inputs, outputs in zip((64, *HIDDEN), (*HIDDEN, 10), strict=True):
            modules += (torch.nn.Linear(inputs, outputs), torch.nn.Tanh())
        self._network = torch.nn.Sequential(*modules[:-1])

    def graph(self) -> tuple[Any, ...]:
        """See ``Model``."""
        return self._network, self._torch.zeros(1, 64)

    def train_batch(self, images: FloatArray, labels: IntArray, learning_rate: float) -> Any:
        """See ``Model``."""
        torch = self._torch
        scores = self._network(torch.from_numpy(images))
        loss = torch.nn.functional.cross_entropy(scores, torch.from_numpy(labels))
        self._network.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in self._network.parameters():
                parameter.sub_(learning_rate * parameter.grad)
        return loss.detach()

    def probabilities(self, images: FloatArray) -> FloatArray:
        """See ``Model``."""
        torch = self._torch
        with torch.no_grad():
            scores = self._network(torch.from_numpy(images))
            probabilities: FloatArray = torch.softmax(scores, dim=1).numpy()
        return probabilities

    def layers(self) -> Mapping[str, Layer]:
        """See ``Model``."""
        return _named([Layer(one.weight, one.weight.grad) for one in self._linear()])

    def parameters(self) -> Sequence[tuple[FloatArray, FloatArray]]:
        """See ``Model``."""
        with self._torch.no_grad():
            return [(one.weight.numpy().T, one.bias.numpy()) for one in self._linear()]

    def _linear(self) -> list[Any]:
        return [module for module in self._network if hasattr(module, "weight")]


class SklearnModel:
    """A scikit-learn network.

    ``MLPClassifier`` exposes neither its gradients nor a way to change its learning rate. A step of
    plain gradient descent with a learning rate of 1 equals the negative gradient, so each step is
    made with that rate; the parameters are then corrected to the intended learning rate.
    """

    framework = "scikit-learn"

    def __init__(self) -> None:
        from sklearn.neural_network import MLPClassifier

        self._network = MLPClassifier(
            HIDDEN,
            activation="tanh",
            solver="sgd",
            alpha=0.0,  # no weight decay, which would be part of the step
            momentum=0.0,
            learning_rate_init=1.0,
            random_state=SEED,
        )
        # The first call creates the parameters and performs a step, so they are reset after it.
        self._network.partial_fit(np.zeros((10, 64), np.float32), CLASSES, classes=CLASSES)
        rng = np.random.default_rng(SEED)
        for weights, biases in zip(self._network.coefs_, self._network.intercepts_, strict=True):
            bound = math.sqrt(6 / sum(weights.shape))  # Glorot and Bengio, 2010
            weights[...] = rng.uniform(-bound, bound, weights.shape)
            biases[...] = 0
        self._gradients: list[Any] = []

    def graph(self) -> tuple[Any, ...]:
        """See ``Model``. scikit-learn has no graph of its layers, so it is built here."""
        from tensorboard.compat.proto.graph_pb2 import GraphDef

        graph = GraphDef()

        def add(name: str, op: str, inputs: Sequence[str], *shape: int) -> str:
            node = graph.node.add(name=name, op=op, input=inputs)
            output = node.attr["_output_shapes"].list.shape.add()
            for size in shape:
                output.dim.add(size=size)
            return name

        last = add("image", "Placeholder", [], 1, 64)
        for name, (parameters, _) in _named(self.parameters()).items():
            inputs, outputs = parameters.shape
            weights = add(f"{name}/weights", "Variable", [], inputs, outputs)
            biases = add(f"{name}/biases", "Variable", [], outputs)
            last = add(f"{name}/product", "MatMul", [last, weights], 1, outputs)
            last = add(f"{name}/sum", "Add", [last, biases], 1, outputs)
            activation = "Softmax" if name == "output" else "Tanh"
            last = add(f"{name}/{activation.lower()}", activation, [last], 1, outputs)
        return (graph,)

    def train_batch(self, images: FloatArray, labels: IntArray, learning_rate: float) -> Any:
        """See ``Model``."""
        parameters = [*self._network.coefs_, *self._network.intercepts_]
        previous = [array.copy() for array in parameters]
        self._network.partial_fit(images, labels)
        self._gradients = [old - new for old, new in zip(previous, parameters, strict=True)]
        for array, old, gradient in zip(parameters, previous, self._gradients, strict=True):
            array[...] = old - learning_rate * gradient
        return self._network.loss_

    def probabilities(self, images: FloatArray) -> FloatArray:
        """See ``Model``."""
        probabilities: FloatArray = self._network.predict_proba(images)
        return probabilities

    def layers(self) -> Mapping[str, Layer]:
        """See ``Model``."""
        weights = self._network.coefs_
        gradients = self._gradients[: len(weights)]  # those of the biases follow
        return _named([Layer(*pair) for pair in zip(weights, gradients, strict=True)])

    def parameters(self) -> Sequence[tuple[FloatArray, FloatArray]]:
        """See ``Model``."""
        return list(zip(self._network.coefs_, self._network.intercepts_, strict=True))


def _named(layers: Sequence[T]) -> dict[str, T]:
    names = [f"layer{number}" for number in range(1, len(layers))]
    return dict(zip([*names, "output"], layers, strict=True))


class Scores(NamedTuple):
    """Metrics of a model on a set of images.

    Attributes:
        losses: cross-entropy of each image in nats, shape (n,).
        loss: mean of ``losses``.
        accuracy: fraction of the images whose most probable digit is correct.
        probabilities: predicted probability of each digit for each image, shape (n, 10).
    """

    losses: FloatArray
    loss: float
    accuracy: float
    probabilities: FloatArray


def score(model: Model, images: FloatArray, labels: IntArray) -> Scores:
    """Evaluate a model on a set of images."""
    probabilities = model.probabilities(images)
    of_labels = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(of_labels, np.finfo(np.float32).tiny))
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return Scores(losses, float(losses.mean()), float(accuracy), probabilities)


def schedule(progress: float) -> float:
    """Return the learning rate relative to its peak, given the fraction of the training done.

    It rises linearly during warm-up, then falls to 0 along half a cosine.
    """
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


class Training:
    """The state of one training: settings, progress and current metrics.

    Every epoch has the same number of batches regardless of the number of training images, so that
    steps are comparable between runs.

    Attributes:
        recipe: settings of the run.
        model: model that is trained.
        data: training and validation data.
        epochs: total number of epochs.
        steps: total number of batches.
        step: number of batches done.
        learning_rate: learning rate of the last batch.
        loss: loss of the last batch before its step, a number or a one-element array.
        losses: losses of all batches so far.
        filters: weights of the units of the first layer, shape (64, 8, 8): before the first epoch
            and after each epoch.
        train: latest metrics on the training images.
        validation: latest metrics on the validation images.
    """

    def __init__(self, recipe: Recipe, model: Model, data: Data, epochs: int) -> None:
        self.recipe = recipe
        self.model = model
        self.data = data._replace(
            images=data.images[: recipe.images], labels=data.labels[: recipe.images]
        )
        self.epochs = epochs
        self.steps = epochs * (len(data.labels) // BATCH)
        self.step = 0
        self.learning_rate = 0.0
        self.loss: Any = math.nan
        self.losses: list[float] = []
        self.filters: list[FloatArray] = []
        self._images_per_epoch = len(data.labels)
        self._rng = np.random.default_rng(SEED)
        self.measure()

    def batches(self) -> Iterator[tuple[FloatArray, IntArray]]:
        """Yield the batches of one epoch, as images and labels."""
        images, labels, _, _ = self.data
        order = self._rng.permutation(np.resize(np.arange(len(labels)), self._images_per_epoch))
        # An incomplete last batch is dropped: its gradient would be mostly noise.
        for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            yield images[batch], labels[batch]

    def train_batch(self, images: FloatArray, labels: IntArray) -> None:
        """Perform one step on a batch."""
        self.step += 1
        self.learning_rate = self.recipe.learning_rate * schedule(self.step / self.steps)
        self.loss = self.model.train_batch(images, labels, self.learning_rate)
        self.losses.append(float(self.loss))

    def measure(self) -> None:
        """Evaluate the model and record the filters of the first layer, at the end of an epoch."""
        data = self.data
        self.train = score(self.model, data.images, data.labels)
        self.validation = score(self.model, data.validation_images, data.validation_labels)
        weights, _ = self.model.parameters()[0]
        self.filters.append(weights.T.reshape(-1, 8, 8).copy())

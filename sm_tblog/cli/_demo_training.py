"""What the demo trains: a small network on scikit-learn's digits, by PyTorch or scikit-learn.

Nothing here logs. ``Training`` holds all that there is to know about one training while it goes
on, and the functions of ``_demo_logging`` look at it.
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
"""Images in a batch."""
CLASSES = np.arange(10)
SEED = 0
WARM_UP = 0.05
"""The part of a training in which the learning rate rises."""


class Data(NamedTuple):
    """Images of hand-written digits, and which digits they are.

    Attributes:
        images: to train on, shape (n, 64): 8 by 8 pixels, of mean 0 and deviation 1 over all.
        labels: shape (n,), from 0 to 9.
        validation_images: to measure with, shape (m, 64).
        validation_labels: shape (m,).
    """

    images: FloatArray
    labels: IntArray
    validation_images: FloatArray
    validation_labels: IntArray


def load_data() -> Data:
    """Return scikit-learn's digits, a quarter of them for validation."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = ((images - images.mean()) / images.std()).astype(np.float32)
    images, validation_images, labels, validation_labels = train_test_split(
        images, labels.astype(np.int64), test_size=0.25, stratify=labels, random_state=SEED
    )
    return Data(images, labels, validation_images, validation_labels)


class Layer(NamedTuple):
    """The parameters of one layer, as arrays of the framework's own kind.

    Attributes:
        weights: as they are now.
        gradients: of the last batch's loss, by the weights; shaped like them.
    """

    weights: Any
    gradients: Any


class Model(Protocol):
    """A network that is trained batch by batch with stochastic gradient descent.

    Attributes:
        framework: its name.
    """

    framework: str

    def graph(self) -> tuple[Any, ...]:
        """Return what ``Writer.add_graph`` takes: a model and an input, or a ``GraphDef``."""

    def train_batch(self, images: FloatArray, labels: IntArray, learning_rate: float) -> Any:
        """Take one step and return the loss before it, a number or an array with one element."""

    def probabilities(self, images: FloatArray) -> FloatArray:
        """Return how likely each image shows each digit; shape (n, 10)."""

    def layers(self) -> Mapping[str, Layer]:
        """Return the layers by name, from the image to the digit."""

    def parameters(self) -> Sequence[tuple[FloatArray, FloatArray]]:
        """Return each layer's weights, shape (inputs, outputs), and biases; they stay the model's.

        The layers go from the image to the digit.
        """


class TorchModel:
    """A network of PyTorch's.

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
        torch.set_num_threads(1)  # so small a network is faster on one than shared among several
        torch.manual_seed(SEED)
        modules: list[Any] = []
        for wide, narrow in zip((64, *HIDDEN), (*HIDDEN, 10), strict=True):
            modules += (torch.nn.Linear(wide, narrow), torch.nn.Tanh())
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
    """A network of scikit-learn's.

    ``MLPClassifier`` neither tells its gradients nor lets its learning rate be changed. But a step
    of plain gradient descent at a learning rate of 1 *is* the gradient: so it takes such a step,
    and the parameters are then put where the wanted learning rate leads.
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
        # The first call makes the parameters, and takes a step of its own: begin anew after it.
        self._network.partial_fit(np.zeros((10, 64), np.float32), CLASSES, classes=CLASSES)
        rng = np.random.default_rng(SEED)
        for weights, biases in zip(self._network.coefs_, self._network.intercepts_, strict=True):
            bound = math.sqrt(6 / sum(weights.shape))  # Glorot and Bengio, 2010
            weights[...] = rng.uniform(-bound, bound, weights.shape)
            biases[...] = 0
        self._gradients: list[Any] = []

    def graph(self) -> tuple[Any, ...]:
        """See ``Model``; to scikit-learn a network is one thing, so its layers are drawn here."""
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
            wide, narrow = parameters.shape
            weights = add(f"{name}/weights", "Variable", [], wide, narrow)
            biases = add(f"{name}/biases", "Variable", [], narrow)
            last = add(f"{name}/product", "MatMul", [last, weights], 1, narrow)
            last = add(f"{name}/sum", "Add", [last, biases], 1, narrow)
            squash = "Softmax" if name == "output" else "Tanh"
            last = add(f"{name}/{squash.lower()}", squash, [last], 1, narrow)
        return (graph,)

    def train_batch(self, images: FloatArray, labels: IntArray, learning_rate: float) -> Any:
        """See ``Model``."""
        parameters = [*self._network.coefs_, *self._network.intercepts_]
        before = [array.copy() for array in parameters]
        self._network.partial_fit(images, labels)
        self._gradients = [old - new for old, new in zip(before, parameters, strict=True)]
        for array, old, gradient in zip(parameters, before, self._gradients, strict=True):
            array[...] = old - learning_rate * gradient
        return self._network.loss_

    def probabilities(self, images: FloatArray) -> FloatArray:
        """See ``Model``."""
        probabilities: FloatArray = self._network.predict_proba(images)
        return probabilities

    def layers(self) -> Mapping[str, Layer]:
        """See ``Model``."""
        weights = self._network.coefs_
        gradients = self._gradients[: len(weights)]  # those by the biases come after
        return _named([Layer(*pair) for pair in zip(weights, gradients, strict=True)])

    def parameters(self) -> Sequence[tuple[FloatArray, FloatArray]]:
        """See ``Model``."""
        return list(zip(self._network.coefs_, self._network.intercepts_, strict=True))


def _named(layers: Sequence[T]) -> dict[str, T]:
    names = [f"layer{number}" for number in range(1, len(layers))]
    return dict(zip([*names, "output"], layers, strict=True))


class Scores(NamedTuple):
    """How good a model is on a set of images.

    Attributes:
        losses: each image's cross-entropy, in nats; shape (n,).
        loss: their mean.
        accuracy: the part of the images that the likeliest digit is right for.
        probabilities: how likely each image shows each digit; shape (n, 10).
    """

    losses: FloatArray
    loss: float
    accuracy: float
    probabilities: FloatArray


def score(model: Model, images: FloatArray, labels: IntArray) -> Scores:
    """Return how good a model is on these images."""
    probabilities = model.probabilities(images)
    of_truth = probabilities[np.arange(len(labels)), labels]
    losses = -np.log(np.maximum(of_truth, np.finfo(np.float32).tiny))
    accuracy = (probabilities.argmax(axis=1) == labels).mean()
    return Scores(losses, float(losses.mean()), float(accuracy), probabilities)


def schedule(progress: float) -> float:
    """Return the learning rate, as a part of the highest, at a part of the training done.

    It rises on a straight line and falls on half a cosine to 0.
    """
    if progress < WARM_UP:
        return progress / WARM_UP
    return (1 + math.cos(math.pi * (progress - WARM_UP) / (1 - WARM_UP))) / 2


class Training:
    """One training: what it does, how far it is, and how good the model is by now.

    Every epoch has as many batches, however few images there are to learn from, so that the steps
    of all runs compare.

    Attributes:
        recipe: what it does.
        model: what it trains.
        data: what there is to learn from and to measure with.
        epochs: how many there will be.
        steps: how many batches there will be.
        step: batches done.
        learning_rate: of the last batch.
        loss: of the last batch, before its step; a number or an array with one element.
        losses: of all batches so far.
        filters: what each unit of the first layer looks for, shape (64, 8, 8); before the first
            epoch and after each.
        train: how good the model was on the images learnt from, when last measured.
        validation: how good it was on the others.
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
        self._images_an_epoch = len(data.labels)
        self._rng = np.random.default_rng(SEED)
        self.measure()

    def batches(self) -> Iterator[tuple[FloatArray, IntArray]]:
        """Iterate over an epoch's batches: images and labels."""
        images, labels, _, _ = self.data
        order = self._rng.permutation(np.resize(np.arange(len(labels)), self._images_an_epoch))
        # The few images that are left over would make a batch whose gradient is mostly noise.
        for batch in order[: len(order) // BATCH * BATCH].reshape(-1, BATCH):
            yield images[batch], labels[batch]

    def train_batch(self, images: FloatArray, labels: IntArray) -> None:
        """Take one step."""
        self.step += 1
        self.learning_rate = self.recipe.learning_rate * schedule(self.step / self.steps)
        self.loss = self.model.train_batch(images, labels, self.learning_rate)
        self.losses.append(float(self.loss))

    def measure(self) -> None:
        """Find out how good the model is, at the end of an epoch."""
        data = self.data
        self.train = score(self.model, data.images, data.labels)
        self.validation = score(self.model, data.validation_images, data.validation_labels)
        weights, _ = self.model.parameters()[0]
        self.filters.append(weights.T.reshape(-1, 8, 8).copy())

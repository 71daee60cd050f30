"""A callback for Keras 3 that logs what Keras' own does, on every backend, without TensorFlow.

Options, folders, tags and steps are those of ``keras.callbacks.TensorBoard``:

=====================================  =========  ==================================  ============
what                                   run        tag                                 step
=====================================  =========  ==================================  ============
logs and learning rates of an epoch    train,     ``epoch_<name>``, ``val_`` is left  epoch, 0 on
                                       validation out
logs of a batch, with ``update_freq``  train      ``batch_<name>``                    batch, 1 on
the end of an evaluation               validation ``evaluation_<name>_vs_iterations`` iterations
weights, with ``histogram_freq``       train      ``<path>/histogram``, ``…/image``   epoch
the model, with ``write_graph``        train      ``keras``, and a graph              0
embeddings, with ``embeddings_freq``   (none)     the layer's name                    epoch
batches, with ``profile_batch``        train      a session of the Profile tab
gradients, … with ``watch_freq``       train      as ``Writer.watch`` has them        batch, 1 on
=====================================  =========  ==================================  ============

Of several processes the chief logs.
"""

from __future__ import annotations

import contextlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog import (
    InvalidValueError,
    MissingDependencyError,
    TBLogError,
    Writer,
)
from sm_tblog.adapters._arguments import as_batches, as_frequency
from sm_tblog.adapters._target import Target, missing

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy.typing as npt

try:
    import keras
except ImportError as error:
    if error.name == "tensorflow":
        _MESSAGE = "Keras has no backend: set KERAS_BACKEND=torch or jax, or pip install tensorflow"
        raise MissingDependencyError(_MESSAGE) from error
    _PACKAGE = "keras"
    raise missing(_PACKAGE, error) from error

__all__ = ["TensorBoard"]

logger = logging.getLogger("sm_tblog")

_Callback: Any = keras.callbacks.Callback

_MOST_IMAGES = 3
"""Images of a weight that are shown, as many as ``tf.summary.image`` shows."""


class TensorBoard(_Callback):
    """Keras' ``TensorBoard`` callback on a ``Writer``.

    ::

        model.fit(x, y, epochs=5, callbacks=[TensorBoard("logs")])

    Args:
        log_dir: the log folder, a path or URL; or a ``Writer``, which is left open.
        histogram_freq: log histograms of the weights every so many epochs; 0 for never.
        write_graph: log the model, as TensorBoard's conceptual graph and as one of layers and
            what flows between them.
        write_images: log the weights as images as well, with the histograms.
        write_steps_per_second: log how many steps a second an epoch and a logged batch make.
        update_freq: log losses and metrics every so many batches as well; ``"batch"`` is 1,
            ``"epoch"`` never.
        profile_batch: a batch, or the first and last of several as a pair or ``"a,b"``, counted
            from 1, to be profiled for the Profile tab; 0 for none.
        embeddings_freq: log the weights of ``Embedding`` layers every so many epochs; 0 for never.
        embeddings_metadata: a file with a label, or tab-separated labels, for each row of the
            embeddings; or a mapping from layers' names to such files. A relative path is looked
            for in the log folder, too.
        watch_freq: log what each layer's weights, their updates and, with the torch backend, their
            gradients are like, every so many batches; 0 for never. See ``Writer.watch``.
        rules: what judges these, as in ``Writer.watch``.

    Attributes:
        log_dir: the log folder.

    Raises:
        InvalidTypeError: an argument is of the wrong kind.
        InvalidValueError: it is out of range.
    """

    def __init__(
        self,
        log_dir: Any = "logs",
        histogram_freq: int = 0,
        write_graph: bool = True,
        write_images: bool = False,
        write_steps_per_second: bool = False,
        update_freq: int | str = "epoch",
        profile_batch: Any = 0,
        embeddings_freq: int = 0,
        embeddings_metadata: str | Mapping[str, str] | None = None,
        *,
        watch_freq: int = 0,
        rules: Any = "warn",
    ) -> None:
        super().__init__()
        self._target = Target(log_dir)
        self.log_dir = log_dir.log_dir if isinstance(log_dir, Writer) else str(log_dir)
        self.histogram_freq = as_frequency("histogram_freq", histogram_freq)
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        if update_freq != "epoch":
            self.update_freq = as_frequency("update_freq", self.update_freq, least=1)
        self.embeddings_freq = as_frequency("embeddings_freq", embeddings_freq)
        self.embeddings_metadata = embeddings_metadata
        self.watch_freq = as_frequency("watch_freq", watch_freq)
        self.rules = rules
        self._profiled = as_batches(profile_batch)
        # With nothing to do after a batch, Keras need not wait for its results.
        self.async_safe = update_freq == "epoch" and not watch_freq and not self._profiled
        self._runs: dict[str, Writer] = {}
        self._is_chief = True
        self._is_training = False
        self._train_batch = 0
        self._epoch_began = self._batch_began = 0.0
        self._iterations_before = 0
        self._watch: Any = None
        self._profile = contextlib.ExitStack()
        self._step: Any = None

    @property
    def train_writer(self) -> Writer:
        """The writer of the run ``train``, for whatever else is to be logged."""
        return self._run("train")

    @property
    def val_writer(self) -> Writer:
        """The writer of the run ``validation``."""
        return self._run("validation")

    def _run(self, name: str) -> Writer:
        if name not in self._runs:
            self._runs[name] = self._writer.child(name)
        return self._runs[name]

    @property
    def _writer(self) -> Writer:
        return self._target.writer if self._is_chief else Writer(self.log_dir, enabled=False)

    def set_model(self, model: Any) -> None:
        """Take the model, and log what it consists of."""
        super().set_model(model)
        self._is_chief = not self._target.is_owned or _is_chief(model)
        self._end_looking()  # Keras does not say that a training ends by an exception
        self._runs = {}
        if self.write_graph:
            self._log_layers()
        if self.embeddings_freq:
            self._check_metadata()

    def on_train_begin(self, logs: Any = None) -> None:
        """Count batches from 1; log the model's graph, for now it is built."""
        del logs
        self._is_training = True
        self._train_batch = 0
        if self.write_graph:
            self.train_writer.add_graph(self.model)
        if self.watch_freq:
            self._watch = self.train_writer.watch(
                self.model, every=self.watch_freq, rules=self.rules, step=lambda: self._train_batch
            )

    def on_train_end(self, logs: Any = None) -> None:
        """Store everything; close the files if the writer was made here."""
        del logs
        self._is_training = False
        self._end_looking()
        self._target.close()

    def _end_looking(self) -> None:
        self._profile.close()
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    def on_test_end(self, logs: Any = None) -> None:
        """Log an evaluation's results by the number of training steps before it."""
        iterations = getattr(self.model.optimizer, "iterations", None)
        if iterations is not None and logs:
            _log(self.val_writer, "evaluation_{}_vs_iterations", logs, _as_number(iterations))
        if not self._is_training:
            self._target.flush()

    def on_train_batch_begin(self, batch: Any, logs: Any = None) -> None:
        """Count the batch; begin what is to last until its end."""
        del logs
        self._train_batch += 1
        if self._watch is not None:
            self._watch.on_train_batch_begin(batch)
        if self._train_batch in self._profiled:
            self._begin_profiled_batch()
        self._batch_began = time.perf_counter()

    def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
        """Log losses and metrics, if it is their turn."""
        elapsed = time.perf_counter() - self._batch_began
        if self._train_batch in self._profiled:
            self._end_profiled_batch()
        if self._watch is not None:
            self._watch.on_train_batch_end(batch)
        if self.update_freq == "epoch" or self._train_batch % int(self.update_freq):
            return
        values = dict(logs) if isinstance(logs, dict) else {}
        if self.write_steps_per_second:
            values["steps_per_second"] = 1 / max(elapsed, 1e-9)
        _log(self.train_writer, "batch_{}", values, self._train_batch)

    def _begin_profiled_batch(self) -> None:
        backend = keras.backend.backend()
        if self._train_batch == self._profiled[0]:
            engines: Any = dict.fromkeys({"torch", "jax", "tensorflow"} - {backend}, False)
            try:
                self._profile.enter_context(self.train_writer.profile(**engines))
            except TBLogError as error:  # another profiler runs, say
                logger.warning("profile_batch: nothing is profiled: %s", error)
        self._step = self.train_writer.step_span(self._train_batch)
        self._step.__enter__()

    def _end_profiled_batch(self) -> None:
        self._step.__exit__(None, None, None)
        if self._train_batch == self._profiled[-1]:
            self._profile.close()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Begin to count steps."""
        del epoch, logs
        if self.write_steps_per_second:
            self._iterations_before = _as_number(self.model.optimizer.iterations)
            self._epoch_began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log losses, metrics and learning rates, and what is due of weights and embeddings."""
        if logs:
            train = {k: v for k, v in logs.items() if not k.startswith("val_")}
            train.update(self._learning_rates())
            if self.write_steps_per_second:
                steps = _as_number(self.model.optimizer.iterations) - self._iterations_before
                train["steps_per_second"] = steps / max(
                    time.perf_counter() - self._epoch_began, 1e-9
                )
            _log(self.train_writer, "epoch_{}", train, epoch)
            validation = {k[4:]: v for k, v in logs.items() if k.startswith("val_")}
            if validation:
                _log(self.val_writer, "epoch_{}", validation, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            self._log_weights(epoch)
        if self.embeddings_freq and epoch % self.embeddings_freq == 0:
            self._log_embeddings(epoch)

    def _learning_rates(self) -> dict[str, Any]:
        optimizer = self.model.optimizer
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of one that scales the loss
        if hasattr(optimizer, "optimizers"):
            return {f"learning_rate_{one.name}": _rate(one) for one in optimizer.optimizers}
        if isinstance(optimizer, keras.optimizers.Optimizer):
            return {"learning_rate": _rate(optimizer)}
        return {}

    def _log_layers(self) -> None:
        """Log the model as TensorBoard's conceptual graph."""
        if type(self.model).__name__ not in {"Functional", "Sequential"}:
            return
        try:
            config = self.model.to_json()
        except Exception as error:  # noqa: BLE001 - a layer's own, which need not have one
            logger.warning("the model is not logged, it cannot be made JSON: %s", error)
            return
        self.train_writer.add_tensor("keras", config, 0, plugin="graph_keras_model", content=b"1")

    def _log_weights(self, epoch: int) -> None:
        for layer in self.model.layers:
            for weight in layer.weights:
                name = weight.path.replace(":", "_")
                self.train_writer.add_histogram(f"{name}/histogram", weight, epoch)
                if self.write_images:
                    image = _as_images(keras.ops.convert_to_numpy(weight))
                    if image is not None:
                        self.train_writer.add_images(
                            f"{name}/image",
                            image,
                            epoch,
                            dataformats="NHWC",
                            grid=False,
                            max_outputs=_MOST_IMAGES,
                        )

    def _embeddings(self) -> list[Any]:
        return [one for one in self.model.layers if isinstance(one, keras.layers.Embedding)]

    def _check_metadata(self) -> None:
        if isinstance(self.embeddings_metadata, (str, type(None))):
            return
        unknown = {*self.embeddings_metadata} - {layer.name for layer in self._embeddings()}
        if unknown:
            message = (
                f"embeddings_metadata: the model has no Embedding layers called {sorted(unknown)}"
            )
            raise InvalidValueError(message)

    def _log_embeddings(self, epoch: int) -> None:
        for layer in self._embeddings():
            labels, header = self._labels_of(layer)
            self._writer.add_embedding(
                layer.embeddings, labels, global_step=epoch, tag=layer.name, metadata_header=header
            )

    def _labels_of(self, layer: Any) -> tuple[Any, list[str] | None]:
        """Return the labels of an embedding's rows and, if they have several, what these are."""
        path = self.embeddings_metadata
        if path is not None and not isinstance(path, str):
            path = path.get(layer.name)
        if path is None:
            return None, None
        found = next(filter(Path.is_file, (Path(self.log_dir, path), Path(path))), None)
        lines = [] if found is None else found.read_text(encoding="utf-8").splitlines()
        rows: list[Any] = [line.split("\t") for line in lines]
        header = rows.pop(0) if rows and len(rows[0]) > 1 else None
        if len(rows) == layer.embeddings.shape[0]:
            return (lines if header is None else rows), header
        logger.warning(
            "embeddings_metadata: %s has %d labels for the %d rows of %r; they are left out",
            *(path, len(rows), layer.embeddings.shape[0], layer.name),
        )
        return None, None

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings, without the model: a copy is given its own by Keras."""
        fresh: dict[str, Any] = {
            "_model": None,
            "_runs": {},
            "_watch": None,
            "_profile": contextlib.ExitStack(),
        }
        return {**self.__dict__, **fresh}


def _log(writer: Writer, name: str, values: Mapping[str, Any], step: int) -> None:
    """Log numbers as TensorFlow 2 does."""
    for key, value in values.items():
        writer.add_scalar(name.format(key), value, step, new_style=True)


def _as_number(iterations: Any) -> int:
    return int(keras.ops.convert_to_numpy(iterations))


def _rate(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _is_chief(model: Any) -> bool:
    """Return whether this process logs, as far as the backend knows; the writer asks launchers."""
    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.process_index() == 0)
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's
    return bool(getattr(getattr(strategy, "extended", None), "should_save_summary", True))


def _as_images(weight: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return a weight as images of shape (N, H, W, C), as Keras lays it out; None if it is none."""
    image: npt.NDArray[Any] = np.clip(np.squeeze(weight), 0, 1)  # as TensorFlow does
    if image.ndim == 1:  # a bias
        image = image[None, :, None, None]
    elif image.ndim == 2:  # a dense kernel, lying
        image = (image.T if image.shape[0] > image.shape[1] else image)[None, :, :, None]
    elif image.ndim == 3:  # kernels of a convolution, each an image
        if keras.backend.image_data_format() == "channels_last":
            image = np.moveaxis(image, 2, 0)
        image = image[..., None]
    return image if image.ndim == 4 and image.shape[-1] in {1, 3, 4} else None

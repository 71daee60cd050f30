"""A callback for Keras 3 that logs what Keras' own does, on every backend, without TensorFlow.

Options, directories, tags and steps are the same as those of ``keras.callbacks.TensorBoard``:

=====================================  =========  ==================================  ============
content                                run        tag                                 step
=====================================  =========  ==================================  ============
logs and learning rates of an epoch    train,     ``epoch_<name>``, without ``val_``  epoch from 0
                                       validation
logs of a batch, with ``update_freq``  train      ``batch_<name>``                    batch from 1
results of an evaluation               validation ``evaluation_<name>_vs_iterations`` iterations
weights, with ``histogram_freq``       train      ``<path>/histogram``, ``…/image``   epoch
the model, with ``write_graph``        train      ``keras``, and a graph              0
embeddings, with ``embeddings_freq``   (none)     the name of the layer               epoch
batches, with ``profile_batch``        train      a session of the Profile tab
statistics, with ``watch_freq``        train      those of ``Writer.watch``           batch from 1
=====================================  =========  ==================================  ============

In a job with several processes, only the chief logs.
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

_MAX_IMAGES = 3
"""The maximum number of images of a weight, the default of ``tf.summary.image``."""


class TensorBoard(_Callback):
    """Keras' ``TensorBoard`` callback, based on a ``Writer``.

    ::

        model.fit(x, y, epochs=5, callbacks=[TensorBoard("logs")])

    Args:
        log_dir: the log directory, a path or URL, or a ``Writer``, which stays open.
        histogram_freq: the interval in epochs at which to log histograms of the weights; 0 for
            never.
        write_graph: whether to log the model, as TensorBoard's conceptual graph and as a graph of
            layers with the data flow between them.
        write_images: whether to log the weights as images too, along with the histograms.
        write_steps_per_second: whether to log the steps per second of each epoch and each logged
            batch.
        update_freq: the interval in batches at which to log losses and metrics, in addition to
            every epoch. ``"batch"`` means 1, ``"epoch"`` never.
        profile_batch: the batch to profile for the Profile tab, or the first and last of several
            as a pair or as ``"a,b"``; counted from 1. 0 for none.
        embeddings_freq: the interval in epochs at which to log the weights of ``Embedding`` layers;
            0 for never.
        embeddings_metadata: a file with one line for each row of the embeddings, which contains a
            label or several tab-separated labels; or a mapping from layer names to such files. A
            relative path is searched for in the log directory too.
        watch_freq: the interval in batches at which to log statistics of each layer's weights,
            their updates and, with the torch backend, their gradients; 0 for never. See
            ``Writer.watch``.
        rules: the rules that judge these statistics, as in ``Writer.watch``.

    Attributes:
        log_dir: the log directory.

    Raises:
        InvalidTypeError: an argument has the wrong type.
        InvalidValueError: an argument is out of range.
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
        self.log_dir = str(log_dir.log_dir if isinstance(log_dir, Writer) else log_dir)
        self.histogram_freq = as_frequency("histogram_freq", histogram_freq)
        self.write_graph = write_graph
        self.write_images = write_images
        self.write_steps_per_second = write_steps_per_second
        self.update_freq = 1 if update_freq == "batch" else update_freq
        if update_freq != "epoch":
            self.update_freq = as_frequency("update_freq", self.update_freq, minimum=1)
        self.embeddings_freq = as_frequency("embeddings_freq", embeddings_freq)
        self.embeddings_metadata = embeddings_metadata
        self.watch_freq = as_frequency("watch_freq", watch_freq)
        self.rules = rules
        self._profiled = as_batches(profile_batch)
        # If there is nothing to do after a batch, Keras does not have to wait for its results.
        self.async_safe = update_freq == "epoch" and not watch_freq and not self._profiled
        self._runs: dict[str, Writer] = {}
        self._is_chief = True
        self._is_training = False
        self._train_batch = 0
        self._epoch_start = self._batch_start = 0.0
        self._iterations_before = 0
        self._watch: Any = None
        self._profile = contextlib.ExitStack()
        self._step: Any = None

    @property
    def train_writer(self) -> Writer:
        """The writer of the run ``train``, for logging anything else."""
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
        """Set the model, and log its layers."""
        super().set_model(model)
        self._is_chief = not self._target.is_owned or _is_chief(model)
        self._stop_monitoring()  # Keras does not report a training that ended with an exception
        self._runs = {}
        if self.write_graph:
            self._log_layers()
        if self.embeddings_freq:
            self._check_metadata()

    def on_train_begin(self, logs: Any = None) -> None:
        """Count batches from 1. Log the model's graph, which requires a built model."""
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
        """Store everything. Close the files, unless a writer was given."""
        del logs
        self._is_training = False
        self._stop_monitoring()
        self._target.close()

    def _stop_monitoring(self) -> None:
        self._profile.close()
        if self._watch is not None:
            self._watch.remove()
            self._watch = None

    def on_test_end(self, logs: Any = None) -> None:
        """Log the results of an evaluation. The step is the number of training steps so far."""
        iterations = getattr(self.model.optimizer, "iterations", None)
        if iterations is not None and logs:
            _log(self.val_writer, "evaluation_{}_vs_iterations", logs, _as_number(iterations))
        if not self._is_training:
            self._target.flush()

    def on_train_batch_begin(self, batch: Any, logs: Any = None) -> None:
        """Count the batch, and start measuring and profiling it."""
        del logs
        self._train_batch += 1
        if self._watch is not None:
            self._watch.on_train_batch_begin(batch)
        if self._train_batch in self._profiled:
            self._begin_profiled_batch()
        self._batch_start = time.perf_counter()

    def on_train_batch_end(self, batch: Any, logs: Any = None) -> None:
        """Log losses and metrics if they are due."""
        elapsed = time.perf_counter() - self._batch_start
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
            except TBLogError as error:  # for example, another profiler is running
                logger.warning("profile_batch: not profiled: %s", error)
        self._step = self.train_writer.step_span(self._train_batch)
        self._step.__enter__()

    def _end_profiled_batch(self) -> None:
        self._step.__exit__(None, None, None)
        if self._train_batch == self._profiled[-1]:
            self._profile.close()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start counting steps."""
        del epoch, logs
        if self.write_steps_per_second:
            self._iterations_before = _as_number(self.model.optimizer.iterations)
            self._epoch_start = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Log losses, metrics and learning rates, and weights and embeddings if they are due."""
        if logs:
            train = {k: v for k, v in logs.items() if not k.startswith("val_")}
            train.update(self._learning_rates())
            if self.write_steps_per_second:
                steps = _as_number(self.model.optimizer.iterations) - self._iterations_before
                train["steps_per_second"] = steps / max(
                    time.perf_counter() - self._epoch_start, 1e-9
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
        optimizer = getattr(optimizer, "inner_optimizer", optimizer)  # of a LossScaleOptimizer
        if hasattr(optimizer, "optimizers"):
            return {f"learning_rate_{one.name}": _rate(one) for one in optimizer.optimizers}
        if isinstance(optimizer, keras.optimizers.Optimizer):
            return {"learning_rate": _rate(optimizer)}
        return {}

    def _log_layers(self) -> None:
        """Log the model's configuration for TensorBoard's conceptual graph."""
        if type(self.model).__name__ not in {"Functional", "Sequential"}:
            return
        try:
            config = self.model.to_json()
        except Exception as error:  # noqa: BLE001 - a custom layer may have no config
            logger.warning("model not logged: it cannot be converted to JSON: %s", error)
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
                            max_outputs=_MAX_IMAGES,
                        )

    def _embeddings(self) -> list[Any]:
        return [layer for layer in self.model.layers if isinstance(layer, keras.layers.Embedding)]

    def _check_metadata(self) -> None:
        if isinstance(self.embeddings_metadata, (str, type(None))):
            return
        unknown = {*self.embeddings_metadata} - {layer.name for layer in self._embeddings()}
        if unknown:
            message = (
                f"embeddings_metadata: the model has no Embedding layers named {sorted(unknown)}"
            )
            raise InvalidValueError(message)

    def _log_embeddings(self, epoch: int) -> None:
        for layer in self._embeddings():
            labels, header = self._labels_of(layer)
            self._writer.add_embedding(
                layer.embeddings, labels, global_step=epoch, tag=layer.name, metadata_header=header
            )

    def _labels_of(self, layer: Any) -> tuple[Any, list[str] | None]:
        """Return the labels of an embedding's rows and, if each has several, the header."""
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
            "embeddings_metadata: %s has %d labels for the %d rows of %r; labels not logged",
            *(path, len(rows), layer.embeddings.shape[0], layer.name),
        )
        return None, None

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings without the model: Keras sets the model of a copy."""
        reset: dict[str, Any] = {
            "_model": None,
            "_runs": {},
            "_watch": None,
            "_profile": contextlib.ExitStack(),
        }
        return {**self.__dict__, **reset}


def _log(writer: Writer, name: str, values: Mapping[str, Any], step: int) -> None:
    """Log numbers in the format of TensorFlow 2."""
    for key, value in values.items():
        writer.add_scalar(name.format(key), value, step, new_style=True)


def _as_number(iterations: Any) -> int:
    return int(keras.ops.convert_to_numpy(iterations))


def _rate(optimizer: Any) -> float:
    return float(keras.ops.convert_to_numpy(optimizer.learning_rate))


def _is_chief(model: Any) -> bool:
    """Return whether this process is the backend's chief. The writer checks launchers' ranks."""
    if keras.backend.backend() == "jax":
        import jax

        return bool(jax.process_index() == 0)
    strategy = getattr(model, "distribute_strategy", None)  # of TensorFlow
    return bool(getattr(getattr(strategy, "extended", None), "should_save_summary", True))


def _as_images(weight: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """Return a weight as images of shape (N, H, W, C), arranged as in Keras, or None."""
    image: npt.NDArray[Any] = np.clip(np.squeeze(weight), 0, 1)  # like TensorFlow
    if image.ndim == 1:  # a bias
        image = image[None, :, None, None]
    elif image.ndim == 2:  # a dense kernel, in landscape format
        image = (image.T if image.shape[0] > image.shape[1] else image)[None, :, :, None]
    elif image.ndim == 3:  # convolution kernels, one image each
        if keras.backend.image_data_format() == "channels_last":
            image = np.moveaxis(image, 2, 0)
        image = image[..., None]
    return image if image.ndim == 4 and image.shape[-1] in {1, 3, 4} else None

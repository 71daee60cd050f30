"""Watch a Keras model with a callback that records it at regular intervals of batches.

================  =========  ============  =======
backend           weights    updates       gradients
================  =========  ============  =======
torch             yes        yes           yes
jax, tensorflow   yes        yes           no: they exist only inside the compiled step
================  =========  ============  =======

Layer outputs are not recorded, because Keras has no hooks. With JAX, the state of the model is
copied from the compiled step into its variables before and after a recorded batch.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidValueError
from sm_tblog.arrays.convert import unwrapped
from sm_tblog.arrays.deferred import protocol
from sm_tblog.watch.handle import Watch
from sm_tblog.watch.recorder import Layer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sm_tblog.watch.recorder import Recorder

__all__ = ["KerasWatch", "as_keras_watch", "is_keras_model", "keras_kinds"]

logger = logging.getLogger("sm_tblog")


def is_keras_model(model: Any) -> bool:
    """Return whether ``model`` is a Keras 3 layer or model."""
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "ops") and isinstance(model, keras.layers.Layer)


def keras_kinds(log: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return the kinds of arrays to watch, by default all that the backend supports.

    Raises:
        InvalidValueError: the backend does not support one of the given kinds.
    """
    backend = sys.modules["keras"].backend.backend()
    possible: tuple[str, ...] = ("parameters", "updates")
    if backend == "torch":
        possible = ("gradients", *possible)
    for kind in log or ():
        if kind not in possible:
            message = (
                f"log: a Keras model with the {backend} backend supports {', '.join(possible)}; "
                f"got {kind!r}"
            )
            raise InvalidValueError(message)
    return possible if log is None else log


def as_keras_watch(*args: Any) -> Watch:
    """Return a ``KerasWatch`` that is also a Keras callback, given the same arguments."""
    callback = sys.modules["keras"].callbacks.Callback
    watch: Watch = type("KerasWatch", (KerasWatch, callback), {})(*args)
    return watch


class KerasWatch(Watch):
    """A watch of a Keras model; pass it to ``fit(callbacks=[…])``.

    Args:
        model: the model.
        recorder: logs the arrays.
        every: the number of batches between log steps; the first batch is a log step.
        wanted: returns whether the parameter of a given name is watched.
        step_of: returns the step to log at, given the number of previous batches.
        removed: called when the watch ends.
    """

    def __init__(
        self,
        model: Any,
        recorder: Recorder,
        every: int,
        wanted: Callable[[str], bool],
        step_of: Callable[[int], int],
        removed: Callable[[], object] | None = None,
    ) -> None:
        sys.modules["keras"].callbacks.Callback.__init__(self)
        Watch.__init__(self, recorder.engine, removed)
        self._watched_model = model
        self._recorder = recorder
        self._every = every
        self._wanted = wanted
        self._step_of = step_of
        self._batches = 0
        self._before: dict[str, Any] = {}
        self._is_removed = self._has_failed = False

    def remove(self) -> None:
        """End the watch."""
        self._is_removed = True
        self._before = {}
        super().remove()

    def step(self, step: int | None = None) -> None:
        """Report an update made by a custom loop, without ``fit``.

        Args:
            step: the step to log at; by default ``writer.step``, or the number of calls.

        Raises:
            RuleViolationError: a rule with the action ``"stop"`` has fired.
        """
        self.check()
        self._record_if_due(step)
        self._copy_weights_if_due()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """Copy the weights before the update; raise if a rule with the action ``"stop"`` fired."""
        self.check()
        self._copy_weights_if_due()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - Keras' signature
        """Record the model."""
        self._record_if_due(None)

    def _copy_weights_if_due(self) -> None:
        if self._is_due and "updates" in self._recorder.kinds:
            self._safely(self._copy_weights)

    def _record_if_due(self, step: int | None) -> None:
        if self._is_due:
            self._safely(self._record_model, step)
        self._batches += 1
        self._before = {}

    @property
    def _is_due(self) -> bool:
        return self._batches % self._every == 0 and not self._is_removed

    def _copy_weights(self) -> None:
        _sync_variables(self._watched_model)
        weights = _weights(self._watched_model, self._wanted)
        self._before = {name: _copy(unwrapped(variable)) for name, variable in weights}

    def _record_model(self, step: int | None) -> None:
        _sync_variables(self._watched_model)
        at = self._step_of(self._batches) if step is None else step
        self._recorder.record(_layers(self._watched_model, self._wanted, self._before), at)

    def _safely(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function; log its first failure and let training continue."""
        try:
            function(*args)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception("watch: could not record a step; training continues")


def _sync_variables(model: Any) -> None:
    """Copy the state of JAX's trainer into the model's variables; other backends keep it there."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _weights(model: Any, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    for variable in model.trainable_variables:
        name = variable.path.replace(":", "_")
        if wanted(name):
            yield name, variable


def _copy(value: Any) -> Any:
    """Return the value of a variable, protected against changes by the next step."""
    how = protocol(value)
    if how == "torch":
        return value.detach().clone()
    return value if how == "tensorflow" else value.copy()


def _layers(model: Any, wanted: Callable[[str], bool], before: dict[str, Any]) -> Iterator[Layer]:
    for name, variable in _weights(model, wanted):
        value = unwrapped(variable)
        gradient = None
        if protocol(value) == "torch":
            value, gradient = value.detach(), value.grad
        old = before.get(name)
        yield Layer(
            name, value if old is None else old, gradient, None if old is None else value - old
        )

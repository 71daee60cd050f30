"""Watches a Keras model: a callback that looks at it after every so many batches.

================  =========  ============  =======
backend           weights    updates       gradients
================  =========  ============  =======
torch             yes        yes           yes
jax, tensorflow   yes        yes           no: they exist inside the compiled step only
================  =========  ============  =======

Outputs of layers are not looked at: Keras calls no hooks. With JAX the state of the model is
brought back from the compiled step before and after a batch that is looked at.
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
    """Return whether a model is a layer or model of Keras 3."""
    keras = sys.modules.get("keras")
    return keras is not None and hasattr(keras, "ops") and isinstance(model, keras.layers.Layer)


def keras_kinds(log: tuple[str, ...] | None) -> tuple[str, ...]:
    """Return what is to be watched, by default what the backend allows.

    Raises:
        InvalidValueError: it does not allow what is asked for.
    """
    backend = sys.modules["keras"].backend.backend()
    possible: tuple[str, ...] = ("parameters", "updates")
    if backend == "torch":
        possible = ("gradients", *possible)
    for kind in log or ():
        if kind not in possible:
            message = (
                f"log: of a Keras model with the {backend} backend {', '.join(possible)} can be "
                f"watched, not {kind}"
            )
            raise InvalidValueError(message)
    return possible if log is None else log


def as_keras_watch(*args: Any) -> Watch:
    """Return a ``KerasWatch`` that is a callback of Keras; takes what that does."""
    callback = sys.modules["keras"].callbacks.Callback
    watch: Watch = type("KerasWatch", (KerasWatch, callback), {})(*args)
    return watch


class KerasWatch(Watch):
    """A watch of a Keras model, to be given to ``fit(callbacks=[…])``.

    Args:
        model: the model.
        recorder: logs what is found.
        every: batches from one log step to the next; the first is one.
        wanted: tells whether the name of a parameter is.
        step_of: returns the step to log at, given the count of batches before.
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
        self._watched = model
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
        """Say that an update has been made by a loop of one's own, without ``fit``.

        Args:
            step: the step to log at; by default ``writer.step``, or the count of calls.

        Raises:
            RuleViolationError: a rule with the action ``"stop"`` has fired.
        """
        self.check()
        self._look_if_due(step)
        self._keep_if_due()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - as Keras calls it
        """Keep what an update is the difference to. May raise because of a rule."""
        self.check()
        self._keep_if_due()

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:  # noqa: ARG002 - as Keras calls it
        """Look at the model."""
        self._look_if_due(None)

    def _keep_if_due(self) -> None:
        if self._is_due and "updates" in self._recorder.kinds:
            self._safely(self._keep)

    def _look_if_due(self, step: int | None) -> None:
        if self._is_due:
            self._safely(self._look, step)
        self._batches += 1
        self._before = {}

    @property
    def _is_due(self) -> bool:
        return self._batches % self._every == 0 and not self._is_removed

    def _keep(self) -> None:
        _bring_back(self._watched)
        weights = _weights(self._watched, self._wanted)
        self._before = {name: _copy(unwrapped(variable)) for name, variable in weights}

    def _look(self, step: int | None) -> None:
        _bring_back(self._watched)
        at = self._step_of(self._batches) if step is None else step
        self._recorder.record(_layers(self._watched, self._wanted, self._before), at)

    def _safely(self, function: Callable[..., None], *args: Any) -> None:
        """Call a function; if it fails, say so once: training goes on."""
        try:
            function(*args)
        except Exception:
            if not self._has_failed:
                self._has_failed = True
                logger.exception("watch: a step could not be looked at; training goes on")


def _bring_back(model: Any) -> None:
    """Have JAX's trainer put its state into the model's variables; others keep it there."""
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()


def _weights(model: Any, wanted: Callable[[str], bool]) -> Iterator[tuple[str, Any]]:
    for variable in model.trainable_variables:
        name = variable.path.replace(":", "_")
        if wanted(name):
            yield name, variable


def _copy(value: Any) -> Any:
    """Return what a variable holds, safe from the next step."""
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

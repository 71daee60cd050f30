"""What a step of a PyTorch model is, given the steps of its optimizers.

PyTorch reports the steps of all optimizers, and optimizers nest: a subclass calls
``super().step()``, a wrapper calls the optimizers that it wraps. Several optimizers may also share
a model. So the following terms are defined here:

============  ====================================================================================
outer step    a step that is not part of another one in the same thread
round         outer steps that update different parameters. The next round begins when a parameter
              is updated again; the number of the round is the step count of the model
log step      complete when every awaited optimizer has made a step since it began
awaited       an optimizer that has made a step in the last ``patience`` rounds
============  ====================================================================================
"""

from __future__ import annotations

import gc
import threading
import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from collections.abc import Set as AbstractSet
    from types import FrameType

__all__ = ["OptimizerState", "StepCounter", "parameter_ids"]

MIN_PATIENCE = 10
"""The smallest number of rounds that a log step waits for an optimizer."""


class OptimizerState:
    """What is known of an optimizer.

    Attributes:
        ids: the ids of its parameters that are watched; empty if it has none.
        steps: the number of its outer steps.
        round: the round of its last outer step; -1 before the first.
        is_awaited: whether a log step waits for it.
    """

    def __init__(self) -> None:
        self.ids: frozenset[int] = frozenset()
        self.steps = 0
        self.round = -1
        self.is_awaited = False
        self._groups = -1

    def refresh(
        self, optimizer: Any, watched: Callable[[], Collection[int]], *, force: bool = False
    ) -> None:
        """Look for watched parameters again if the optimizer has other groups than before."""
        groups = len(optimizer.param_groups)
        if force or groups != self._groups:
            self._groups = groups
            self.ids = parameter_ids(optimizer).intersection(watched())


class StepCounter:
    """Counts the rounds of one model.

    Args:
        every: the number of rounds between log steps.
    """

    def __init__(self, every: int) -> None:
        self.round = -1
        self._every = every
        self._patience = max(every, MIN_PATIENCE)
        self._next = 0
        self._updated: AbstractSet[int] = frozenset()  # in this round
        self._optimizers: weakref.WeakKeyDictionary[Any, OptimizerState] = (
            weakref.WeakKeyDictionary()
        )
        self._running: dict[int, tuple[int, Any]] = {}  # by thread: the frame of an outer step

    def state_of(self, optimizer: Any) -> OptimizerState:
        """Return what is known of an optimizer."""
        state = self._optimizers.get(optimizer)
        if state is None:
            state = self._optimizers[optimizer] = OptimizerState()
        return state

    # Outer steps. ``frame`` is that of PyTorch's wrapper, which calls the hooks of one step.

    def is_nested(self, frame: FrameType) -> bool:
        """Return whether a step that begins is part of one that runs in this thread."""
        running = self._running.get(threading.get_ident())
        if running is None:
            return False
        above = frame.f_back
        while above is not None:
            if (id(above), above.f_code) == running:
                return True
            above = above.f_back
        return False  # that step has ended with an exception

    def enter(self, frame: FrameType) -> None:
        """Begin an outer step."""
        self._running[threading.get_ident()] = id(frame), frame.f_code

    def leave(self, frame: FrameType) -> bool:
        """End a step; return whether it was an outer one."""
        ident = threading.get_ident()
        if self._running.get(ident) != (id(frame), frame.f_code):
            return False
        del self._running[ident]
        return True

    def count(self, state: OptimizerState) -> None:
        """Count an outer step: it belongs to this round, or begins the next one."""
        if state.round == self.round or not state.ids.isdisjoint(self._updated):
            self.round += 1
            self._updated = state.ids
        else:
            if not isinstance(self._updated, set):
                self._updated = set(self._updated)
            self._updated.update(state.ids)
        state.round = self.round
        state.steps += 1

    # Log steps.

    @property
    def is_due(self) -> bool:
        """Whether a log step begins in this round."""
        return self.round >= self._next

    @property
    def may_be_due_next(self) -> bool:
        """Whether a log step begins in the next round."""
        return self.round + 1 >= self._next

    def end_log_step(self, *, in_this_round: bool = False) -> None:
        """Begin the next log step at the next multiple of ``every``, which may be this round."""
        first = self.round + (not in_this_round)
        self._next = -(-first // self._every) * self._every

    def is_overdue(self, since: int) -> bool:
        """Return whether a log step that began in a round has waited too long."""
        return self.round - since >= self._patience

    def awaited(self) -> set[OptimizerState]:
        """Return the optimizers that a log step waits for."""
        return {each for each in list(self._optimizers.values()) if each.is_awaited and each.ids}

    def refresh(self, watched: Collection[int]) -> None:
        """Look for watched parameters in all optimizers again."""
        for optimizer, state in list(self._optimizers.items()):
            state.refresh(optimizer, lambda: watched, force=True)

    def find_optimizers(self, ids: AbstractSet[int], watched: Collection[int]) -> None:
        """Await all existing optimizers that have one of some parameters.

        Until an optimizer makes its first step, nothing but the garbage collector knows it.
        """
        from torch.optim import Optimizer

        for each in gc.get_objects():
            if issubclass(type(each), Optimizer) and each not in self._optimizers:
                own = parameter_ids(each)
                if not own.isdisjoint(ids):
                    state = self.state_of(each)
                    state.refresh(each, lambda: watched, force=True)
                    state.is_awaited = True


def parameter_ids(optimizer: Any) -> frozenset[int]:
    """Return the ids of an optimizer's parameters."""
    return frozenset(id(p) for group in optimizer.param_groups for p in group["params"])

"""Watching a model during training, with rules that detect problems."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from sm_tblog import ranks
from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import as_step
from sm_tblog.writer.arguments import as_tag_cleaner, check_at_least, check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from sm_tblog.rules.base import Rule
    from sm_tblog.watch.handle import Watch
    from sm_tblog.watch.recorder import Recorder

__all__ = ["WatchMethods"]


class _WatchState:
    """The watches and recorders of a writer."""

    def __init__(self) -> None:
        self.watches: list[tuple[Any, Watch]] = []
        self.recorders: dict[str, Recorder] = {}


class WatchMethods(BaseWriter):
    """Methods that watch models and losses."""

    _watch_state: _WatchState | None = None

    def watch(
        self,
        model: Any,
        log: str | Sequence[str] | None = None,
        *,
        every: int = 100,
        include: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        rules: str | Callable[[Any], object] | Sequence[Rule] | None = "warn",
        histograms: int = 10,
        statistics: Sequence[str] | None = None,
        step: Callable[[], int] | None = None,
        rank_zero_only: bool = True,
    ) -> Watch:
        """Watch a model during training: gradients, weights, updates and layer outputs.

        One call before the training loop is enough. Statistics are computed on the model's device,
        at every ``every``-th step, and copied to the host without waiting for the device; nothing
        is computed in between. Failures are logged once and never interrupt training.

        **PyTorch**: a step is a step of the optimizer that has the parameters of the model, however
        many optimizers it calls. If several optimizers share the model, a logged step is complete
        when each has made a step since it began; the count is that of the one that steps most
        often. Gradients are recorded as the optimizer uses them: accumulated, clipped, unscaled. If
        updates are made without an optimizer, or by a compiled one, call ``step()`` of the returned
        watch after each. Outputs are recorded
        in the first forward pass of a step, in training mode; those inside code compiled by
        ``torch.compile`` are not recorded. Parameters that do not require gradients are left out.

        **Keras**: returns a callback for ``fit``. Outputs are not recorded, and gradients only with
        the PyTorch backend.

        **JAX**: see ``watch_tree``.

        Args:
            model: a ``torch.nn.Module``, wrapped or not, or a Keras model.
            log: the kinds to log, from ``"gradients"``, ``"parameters"``, ``"updates"`` and
                ``"activations"``; by default all that are available. Rules also receive the other
                kinds that they need.
            every: the interval between logged steps; the first step is logged.
            include: regular expressions that are searched for in the names of parameters and
                layers; matches are watched, by default all.
            exclude: regular expressions for names to leave out of those.
            rules: rules from ``sm_tblog.rules``; or the action of all rules that suit a model:
                ``"scalar"``, ``"warn"``, ``"stop"`` or a function that accepts an ``Alert``. None
                for no rules. ``"stop"`` raises ``RuleViolationError`` in the training thread, at
                the beginning of an optimizer's step, before its update.
            histograms: log histograms at every ``histograms``-th logged step; 0 for none.
            statistics: the statistics to log for each array, from ``mean``, ``std``, ``abs_mean``,
                ``norm``, ``min``, ``max``, ``zeros``, ``nan``, ``inf``, ``ratio``, ``changed`` and
                ``inactive``; by default a few that suit it.
            step: a function that returns the step to log at; by default ``writer.step`` if that is
                set, otherwise the number of steps, counted from 0.
            rank_zero_only: watch only in the process of rank 0 of a distributed job.

        Returns:
            A ``Watch`` with ``alerts``, ``remove()`` and ``step()``, which is also a context
            manager. It ends with the model, when the writer is closed, and when the same model is
            watched again.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: a kind is unknown.
        """
        from sm_tblog.rules.observation import KINDS
        from sm_tblog.watch.handle import Watch
        from sm_tblog.watch.keras_model import as_keras_watch, is_keras_model, keras_kinds
        from sm_tblog.watch.selection import as_filter, check_kinds
        from sm_tblog.watch.torch_model import TorchWatch, is_torch_model

        check_at_least("every", every, 1)
        given: Any = step
        if given is not None and not callable(given):
            message = f"step must be a function that returns the step, got {given!r:.60}"
            raise InvalidTypeError(message)
        name_filter = as_filter(include, exclude)
        kinds = None if log is None else check_kinds(log)
        open_watch: Any
        if is_keras_model(model):
            kinds, open_watch = keras_kinds(kinds), as_keras_watch
        elif is_torch_model(model):
            kinds, open_watch = kinds or KINDS, TorchWatch
        else:
            message = (
                f"watch: expected a PyTorch or Keras model, got {type(model).__name__}; for the "
                "parameters, gradients and updates of JAX, use watch_tree"
            )
            raise InvalidTypeError(message)
        recorder = self._make_recorder(kinds, rules, histograms, statistics)
        state = self._get_watch_state()
        for reference, watch in list(state.watches):
            if reference() is model:
                watch.remove()
        if not self._enabled or (rank_zero_only and ranks.rank() != 0):
            return Watch()
        end = self._attach_rules(recorder.engine)
        watch = open_watch(model, recorder, int(every), name_filter, self._step_function(step), end)
        state.watches.append((weakref.ref(model), watch))
        return watch  # type: ignore[no-any-return]

    def watch_tree(
        self,
        name: str,
        tree: Any,
        step: Any = None,
        *,
        gradients: Any = None,
        updates: Any = None,
        log: str | Sequence[str] = ("gradients", "parameters", "updates"),
        rules: str | Callable[[Any], object] | Sequence[Rule] | None = "warn",
        histograms: int = 1,
        statistics: Sequence[str] | None = None,
    ) -> Watch:
        """Watch a tree of arrays at one step: parameters of JAX, their gradients and updates.

        ::

            writer.watch_tree("model", params, step, gradients=grads, updates=updates)

        One compiled function computes all statistics on the device, and the results are copied at
        once; histograms are counted there too, and copied separately. Call this outside ``jit``, at
        the steps that you want to log, before a tree is donated.

        Args:
            name: prefix of the parameter names. ``"parameters"``, ``"gradients"`` and ``"updates"``
                mean that the tree contains these, and are passed in separate calls; the ratio of an
                update is known if the parameters of the same step were passed before.
            tree: a pytree of arrays; without JAX, nested dicts and sequences of arrays of any
                library. By default it contains parameters, before the update.
            step: any integer; by default ``writer.step``.
            gradients: a tree with the same structure.
            updates: a tree with the same structure: the values added to the parameters.
            log: the kinds to log, as in ``watch``.
            rules: as in ``watch``. They keep their state between calls; the rules of the first call
                with a name apply.
            histograms: log histograms at every ``histograms``-th call; 0 for none.
            statistics: as in ``watch``.

        Returns:
            A ``Watch`` with ``alerts``, and ``check()``, which raises if a rule with the action
            ``"stop"`` has fired.

        Raises:
            InvalidTypeError: the tree contains no arrays of numbers, or is being traced.
            InvalidValueError: the trees differ in structure.
        """
        from sm_tblog.rules.observation import KINDS
        from sm_tblog.watch.trees import as_layers

        check_tag(name)
        layers = as_layers(name, tree, gradients, updates)
        key = "" if name in KINDS else name
        return self.watch_layers(
            layers,
            step,
            key=key,
            log=log,
            rules=rules,
            histograms=histograms,
            statistics=statistics,
        )

    def watch_layers(
        self,
        layers: Iterable[Any],
        step: Any = None,
        *,
        key: str = "layers",
        log: str | Sequence[str] = ("gradients", "parameters", "updates"),
        rules: str | Callable[[Any], object] | Sequence[Rule] | None = "warn",
        histograms: int = 1,
        statistics: Sequence[str] | None = None,
    ) -> Watch:
        """Watch parameters given as arrays of any library, for other frameworks.

        Args:
            layers: name, weight, gradient and update of each parameter, None for those that are not
                available. The weight is the one before the update. The call copies all arrays or
                computes their statistics.
            step: any integer; by default ``writer.step``.
            key: calls with the same key share rules and their state.
            log: the kinds to log, as in ``watch``.
            rules: as in ``watch_tree``.
            histograms: as in ``watch_tree``.
            statistics: as in ``watch``.

        Returns:
            A ``Watch``, as in ``watch_tree``.

        Raises:
            InvalidTypeError: an object is not an array of numbers.
        """
        from sm_tblog.watch.handle import Watch
        from sm_tblog.watch.recorder import Layer
        from sm_tblog.watch.selection import check_kinds

        if not self._enabled:
            return Watch()
        try:
            given = [Layer(*layer) for layer in layers]
        except TypeError as error:
            message = f"layers: each must be a name, weight, gradient and update: {error}"
            raise InvalidTypeError(message) from error
        recorders = self._get_watch_state().recorders
        recorder = recorders.get(key)
        if recorder is None:
            recorder = self._make_recorder(check_kinds(log), rules, histograms, statistics)
            recorders[key] = recorder
            self._attach_rules(recorder.engine)
        recorder.record(given, self._as_step(step, "watch_layers"))
        return Watch(recorder.engine)

    def watch_rules(self, rules: str | Callable[[Any], object] | Sequence[Rule] = "warn") -> Watch:
        """Apply rules to the logged losses, and detect when nothing is logged.

        The rules judge scalars on the worker thread, by their tags; the calls that log them cost no
        more than before.

        Args:
            rules: rules from ``sm_tblog.rules`` that judge losses; or the action of all of these,
                as in ``watch``. With ``"stop"``, ``check()`` of the returned watch raises; call it
                where training may end. ``watch(model, rules=[…])`` accepts these rules too, and
                raises by itself.

        Returns:
            A ``Watch`` with ``alerts``, ``check()`` and ``remove()``; it ends when the writer is
            closed.

        Raises:
            InvalidTypeError: an object is not a rule.
            InvalidValueError: a rule judges layers.
        """
        from sm_tblog.rules.engine import RuleEngine, as_rules
        from sm_tblog.rules.losses import loss_rules
        from sm_tblog.watch.handle import Watch

        engine = RuleEngine(as_rules(rules, loss_rules))
        if engine.needs:
            message = f"watch_rules judges losses; pass {sorted(engine.layer_rule_names)} to watch"
            raise InvalidValueError(message)
        if not self._enabled:
            return Watch()
        watch = Watch(engine, self._attach_rules(engine))
        self._get_watch_state().watches.append((lambda: None, watch))
        return watch

    def close(self, timeout: float | None = None) -> bool:
        """Store everything, end all watches, close the files and stop the worker thread.

        Logging after this starts new files. The argument, the return value and the exceptions are
        those of ``flush``.
        """
        for _, watch in list(self._watch_state.watches) if self._watch_state else ():
            watch.finish()
        try:
            return super().close(timeout)
        finally:
            state, self._watch_state = self._watch_state, None
            for _, watch in state.watches if state else ():
                watch.remove()

    def __getstate__(self) -> dict[str, Any]:
        """Return the state of a copy, which watches nothing."""
        return {k: v for k, v in super().__getstate__().items() if k != "_watch_state"}

    def _child_state(self, run: str) -> dict[str, Any]:
        return {**super()._child_state(run), "_watch_state": None}

    def _get_watch_state(self) -> _WatchState:
        if self._watch_state is None:
            self._watch_state = _WatchState()
        return self._watch_state

    def _make_recorder(
        self, kinds: Sequence[str], rules: Any, histograms: int, statistics: Any
    ) -> Recorder:
        from sm_tblog.rules.engine import RuleEngine, as_rules
        from sm_tblog.rules.layers import layer_rules
        from sm_tblog.watch.recorder import Recorder, check_statistics

        check_at_least("histograms", histograms, 0)
        engine = RuleEngine(as_rules(rules, layer_rules))
        cleaner = as_tag_cleaner(self._config["clean_tags"])
        names = check_statistics(statistics)
        return Recorder(self._weak_put(), kinds, engine, names, int(histograms), cleaner)

    def _weak_put(self) -> Callable[..., None]:
        """Return a function that queues items as long as the writer exists."""
        reference = weakref.ref(self)

        def put(tag: str, build: Any, args: tuple[Any, ...], step: Any, nbytes: int) -> None:
            writer = reference()
            if writer is not None:
                writer._put(tag, build, args, step, None, nbytes)  # noqa: SLF001 - this class

        return put

    def _step_function(self, step: Callable[[], int] | None) -> Callable[[int], int]:
        """Return a function from the count of steps to the step to log at."""
        reference = weakref.ref(self)

        def step_of(count: int) -> int:
            if step is not None:
                return as_step(step(), "watch")
            writer = reference()
            own = 0 if writer is None else writer._step  # noqa: SLF001 - this class
            return own or count

        return step_of

    def _attach_rules(self, engine: Any) -> Callable[[], None]:
        """Pass scalars to the rules that judge them; return a function that ends this."""
        from sm_tblog.rules.engine import stall_timer
        from sm_tblog.rules.losses import StalledTraining

        processors = getattr(self._pipeline, "processors", [])
        put = self._weak_put()
        timers = [
            stall_timer(engine, rule, put)
            for rule in engine.rules
            if isinstance(rule, StalledTraining)
        ]
        for timer in timers:
            weakref.finalize(self, timer.stop).atexit = False
        added = [engine, *timers] if engine.judges_losses else timers
        processors += added

        def end() -> None:
            processors[:] = [each for each in processors if each not in added]
            for timer in timers:
                timer.stop()

        return end

"""Watching a model as it trains, and rules that say what is wrong with it."""

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


class _Watching:
    """What a writer watches."""

    def __init__(self) -> None:
        self.watches: list[tuple[Any, Watch]] = []
        self.recorders: dict[str, Recorder] = {}


class WatchMethods(BaseWriter):
    """What watches models."""

    _watching: _Watching | None = None

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
        """Watch a model as it trains: gradients, weights, updates and what its layers put out.

        One line before the training loop is all. Statistics are made on the model's device, at
        every so many steps, and travel at once without waiting for the device; in between nothing
        is computed. What goes wrong in it is said once, and never reaches the training.

        **PyTorch**: a step is one of an optimizer that has parameters of the model. Its gradients
        are looked at as it takes them: accumulated, clipped, unscaled. Where updates are made
        without an optimizer, call ``step()`` of what is returned after each. Outputs are looked at
        in the first forward pass of a step, in training mode; those of code that ``torch.compile``
        has compiled are not seen. What does not require gradients is left out.

        **Keras**: what is returned is a callback for ``fit``. There are no outputs, and gradients
        with the torch backend only.

        **JAX**: see ``watch_tree``.

        Args:
            model: a ``torch.nn.Module``, wrapped or not, or a Keras model.
            log: what is logged, of ``"gradients"``, ``"parameters"``, ``"updates"`` and
                ``"activations"``; by default all that there is. Rules look at what they need
                besides.
            every: steps from one that is logged to the next; the first is one.
            include: regular expressions, found in the names of parameters and layers to be
                watched; by default all.
            exclude: the same, for what is not to be watched after all.
            rules: rules of ``sm_tblog.rules``, or what all that suit a model shall do when they
                fire: ``"scalar"``, ``"warn"``, ``"stop"``, a function of an ``Alert``. None for no
                rules. ``"stop"`` raises ``RuleViolationError`` in the training thread, at the
                beginning of an optimizer's step, before its update.
            histograms: of the steps that are logged, every so many has histograms; 0 for none.
            statistics: what is logged of each array, of ``mean``, ``std``, ``abs_mean``, ``norm``,
                ``min``, ``max``, ``zeros``, ``nan``, ``inf``, ``ratio``, ``changed`` and
                ``inactive``; by default a few that suit it.
            step: returns the step to log at; by default it is ``writer.step`` if that is set, or
                else counts the optimizer's steps from 0.
            rank_zero_only: watch in the process of rank 0 of a distributed job only.

        Returns:
            A ``Watch``: ``alerts``, ``remove()``, ``step()``; also a context manager. It ends with
            the model, when the writer is closed, and when the same model is watched again.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: there is no such thing to be watched.
        """
        from sm_tblog.rules.observation import KINDS
        from sm_tblog.watch.handle import Watch
        from sm_tblog.watch.keras_model import as_keras_watch, is_keras_model, keras_kinds
        from sm_tblog.watch.selection import as_filter, check_kinds
        from sm_tblog.watch.torch_model import TorchWatch, is_torch_model

        check_at_least("every", every, 1)
        given: Any = step
        if given is not None and not callable(given):
            message = f"step is a function that returns the step, got {given!r:.60}"
            raise InvalidTypeError(message)
        wanted = as_filter(include, exclude)
        kinds = None if log is None else check_kinds(log)
        open_watch: Any
        if is_keras_model(model):
            kinds, open_watch = keras_kinds(kinds), as_keras_watch
        elif is_torch_model(model):
            kinds, open_watch = kinds or KINDS, TorchWatch
        else:
            message = (
                f"watch takes a model of PyTorch or Keras, got {type(model).__name__}; for JAX's "
                "parameters, gradients and updates use watch_tree"
            )
            raise InvalidTypeError(message)
        recorder = self._recorder(kinds, rules, histograms, statistics)
        watching = self._begin_watching()
        for one, watch in list(watching.watches):
            if one() is model:
                watch.remove()
        if not self._enabled or (rank_zero_only and ranks.rank() != 0):
            return Watch()
        end = self._begin_rules(recorder.engine)
        watch = open_watch(model, recorder, int(every), wanted, self._step_of(step), end)
        watching.watches.append((weakref.ref(model), watch))
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
        """Watch arrays in a tree: parameters of JAX, their gradients and updates, at one step.

        ::

            writer.watch_tree("model", params, step, gradients=grads, updates=updates)

        All of it is looked at by one compiled function on the device, and travels at once;
        histograms are counted there, and travel besides. Call it outside ``jit``, at the steps that
        are to be logged, before a tree is donated.

        Args:
            name: put before the parameters' names. ``"parameters"``, ``"gradients"`` and
                ``"updates"`` say that the tree holds these, and are called one after the other;
                an update's ratio is known if the parameters of the same step came before.
            tree: a pytree of arrays; without JAX, nested dicts and sequences of arrays of any
                library. By default it holds parameters, before the update.
            step: any integer; by default ``writer.step``.
            gradients: a tree of the same structure.
            updates: a tree of the same structure: what is added to the parameters.
            log: what is logged; as in ``watch``.
            rules: as in ``watch``. They go on from call to call; those of a name's first call
                count.
            histograms: every so many calls log histograms; 0 for none.
            statistics: as in ``watch``.

        Returns:
            A ``Watch``: its ``alerts``, and ``check()``, which raises if a rule with the action
            ``"stop"`` has fired.

        Raises:
            InvalidTypeError: the tree holds no arrays of numbers, or is being traced.
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
        """Watch what is at hand of parameters, as arrays of any library: for other frameworks.

        Args:
            layers: for each parameter name, weight, gradient and update, None for what is not at
                hand. The weight is that before the update; all are copied, or looked at, now.
            step: any integer; by default ``writer.step``.
            key: calls with one key share rules, and what they remember.
            log: what is logged; as in ``watch``.
            rules: as in ``watch_tree``.
            histograms: as in ``watch_tree``.
            statistics: as in ``watch``.

        Returns:
            As ``watch_tree``.

        Raises:
            InvalidTypeError: something is not an array of numbers.
        """
        from sm_tblog.watch.handle import Watch
        from sm_tblog.watch.recorder import Layer
        from sm_tblog.watch.selection import check_kinds

        if not self._enabled:
            return Watch()
        try:
            given = [Layer(*layer) for layer in layers]
        except TypeError as error:
            message = f"layers: each is a name, weight, gradient and update: {error}"
            raise InvalidTypeError(message) from error
        recorders = self._begin_watching().recorders
        recorder = recorders.get(key)
        if recorder is None:
            recorder = self._recorder(check_kinds(log), rules, histograms, statistics)
            recorders[key] = recorder
            self._begin_rules(recorder.engine)
        recorder.record(given, self._as_step(step, "watch_layers"))
        return Watch(recorder.engine)

    def watch_rules(self, rules: str | Callable[[Any], object] | Sequence[Rule] = "warn") -> Watch:
        """Have rules judge the losses that are logged, and notice when nothing is.

        They look at scalars on the background thread, by their tags; the calls that log them cost
        what they did.

        Args:
            rules: of ``sm_tblog.rules``, those that judge losses; or what all of them shall do when
                they fire, as in ``watch``. With ``"stop"``, ``check()`` of what is returned raises;
                call it where the training may end. ``watch(model, rules=[…])`` takes them too, and
                raises by itself.

        Returns:
            A ``Watch``: ``alerts``, ``check()``, ``remove()``; it ends when the writer is closed.

        Raises:
            InvalidTypeError: something is no rule.
            InvalidValueError: a rule judges layers.
        """
        from sm_tblog.rules.engine import RuleEngine, as_rules
        from sm_tblog.rules.losses import loss_rules
        from sm_tblog.watch.handle import Watch

        engine = RuleEngine(as_rules(rules, loss_rules))
        if engine.needs:
            message = f"watch_rules judges losses; give {sorted(engine.layer_rule_names)} to watch"
            raise InvalidValueError(message)
        if not self._enabled:
            return Watch()
        watch = Watch(engine, self._begin_rules(engine))
        self._begin_watching().watches.append((lambda: None, watch))
        return watch

    def close(self, timeout: float | None = None) -> bool:
        """Store everything, end every watch, close the files and end the worker.

        Logging again begins new files. Takes, returns and raises what ``flush`` does.
        """
        try:
            return super().close(timeout)
        finally:
            watching, self._watching = self._watching, None
            for _, watch in watching.watches if watching else ():
                watch.remove()

    def __getstate__(self) -> dict[str, Any]:
        """Return what ``BaseWriter`` does: a copy watches nothing."""
        return {k: v for k, v in super().__getstate__().items() if k != "_watching"}

    def _state_of_child(self, run: str) -> dict[str, Any]:
        return {**super()._state_of_child(run), "_watching": None}

    def _begin_watching(self) -> _Watching:
        if self._watching is None:
            self._watching = _Watching()
        return self._watching

    def _recorder(
        self, kinds: Sequence[str], rules: Any, histograms: int, statistics: Any
    ) -> Recorder:
        from sm_tblog.rules.engine import RuleEngine, as_rules
        from sm_tblog.rules.layers import layer_rules
        from sm_tblog.watch.recorder import Recorder, check_statistics

        check_at_least("histograms", histograms, 0)
        engine = RuleEngine(as_rules(rules, layer_rules))
        cleaner = as_tag_cleaner(self._config["clean_tags"])
        names = check_statistics(statistics)
        return Recorder(self._put_weakly(), kinds, engine, names, int(histograms), cleaner)

    def _put_weakly(self) -> Callable[..., None]:
        """Return what puts something on the writer, as long as there is one."""
        reference = weakref.ref(self)

        def put(tag: str, build: Any, args: tuple[Any, ...], step: Any, nbytes: int) -> None:
            writer = reference()
            if writer is not None:
                writer._put(tag, build, args, step, None, nbytes)  # noqa: SLF001 - one of us

        return put

    def _step_of(self, step: Callable[[], int] | None) -> Callable[[int], int]:
        """Return what tells the step to log at from the count of steps."""
        reference = weakref.ref(self)

        def step_of(count: int) -> int:
            if step is not None:
                return as_step(step(), "watch")
            writer = reference()
            return (writer.step if writer is not None else 0) or count

        return step_of

    def _begin_rules(self, engine: Any) -> Callable[[], None]:
        """Have the worker show scalars to rules that judge them; return what ends that."""
        from sm_tblog.rules.engine import stall_timer
        from sm_tblog.rules.losses import StalledTraining

        processors = getattr(self._pipeline, "processors", [])
        put = self._put_weakly()
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
            processors[:] = [one for one in processors if one not in added]
            for timer in timers:
                timer.stop()

        return end

"""Hyperparameters, and the metrics by which runs are compared."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog._types import Change, Series, as_utf8
from sm_tblog.arrays.convert import as_number
from sm_tblog.arrays.flatten import flatten
from sm_tblog.pipeline.best import BestTracker
from sm_tblog.pipeline.run_view import RunView
from sm_tblog.pipeline.worker import Pipeline
from sm_tblog.sinks.base import File
from sm_tblog.storage.base import scheme_of
from sm_tblog.writer.arguments import as_tag_cleaner, check_mapping, check_tag
from sm_tblog.writer.scalars import ScalarMethods

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import PurePath
    from types import TracebackType

    from sm_tblog._types import PathLike
    from sm_tblog.arrays.flatten import Plain

__all__ = ["HParamsMethods"]


class HParamsMethods(ScalarMethods):
    """Methods that log hyperparameters."""

    _hparams: dict[str, Plain]
    _best: BestTracker

    def _open(self) -> None:
        # A copy has the values and the best values of its original, but not its session.
        self.__dict__.setdefault("_hparams", {})
        self.__dict__.setdefault("_best", BestTracker())
        self._session_process = 0  # the process whose close() ends the session
        self._last_run = 0.0
        super()._open()
        self._best.run = ""  # a copy of a child is not a child
        if isinstance(self._pipeline, Pipeline):
            self._pipeline.processors.append(self._best)

    def _child_state(self, run: str) -> dict[str, Any]:
        own = {"_hparams": {}, "_best": BestTracker(), "_session_process": 0}
        return {**super()._child_state(run), **own}

    def hparams(
        self,
        values: Any,
        metrics: Mapping[str, str] | None = None,
        best: Mapping[str, Any] | None = None,
    ) -> None:
        """Log the hyperparameters of this run, and select the metrics by which runs are compared.

        The values belong to this run; no other run is created. Call it again to add or change
        values, also from a process that resumes the run. TensorBoard's HParams tab shows the values
        and the last point of every scalar of the run. Each metric named here gets an additional
        scalar, ``best/<tag>``, which gets a point whenever the metric improves from now on.

        ``close`` marks the run as successful; a ``with`` block that an exception leaves marks it as
        failed.

        TensorBoard keeps what it reads first of a run: restart it to see what a later call changes.

        Args:
            values: a mapping, which may be nested (parts are named ``part/name``), a namespace, or
                a dataclass, attrs or pydantic object. A value is a bool, a number or a string;
                None, which removes it; or an object with a text of its own, such as an enum member,
                a path, a date, a list, a class or a function.
            metrics: for each metric, the tag of a scalar of this run, and ``"min"`` or ``"max"``,
                whichever is best. NaN is never best.
            best: the best values so far of a resumed run, by tag: they are not read from its
                earlier files.

        Raises:
            InvalidTypeError: an argument is not a mapping, or a value has no text of its own.
            InvalidValueError: two names are equal or one is empty, an array does not have exactly
                one element, a mode is unknown, a best value is NaN or its metric is not named.
        """
        if not self._enabled:
            return
        flat = flatten(values, "hparams")
        modes = _check_modes({} if metrics is None else metrics)
        best_values = _check_best_values({} if best is None else best, modes)
        clean = as_tag_cleaner(self._config["clean_tags"])
        if isinstance(self._pipeline, RunView):
            self._best.run = self._pipeline.run
            if self._best not in self._pipeline.processors:
                self._pipeline.processors.append(self._best)
        for tag, mode in modes.items():
            self._best.watch(clean(tag), mode, best_values.get(tag))
        self._hparams.update(flat)
        self._session_process = os.getpid()
        now = self._clock()
        # Pass the dict itself: TensorBoard keeps what it reads first, so this should include the
        # values that later calls add before the worker thread builds the item.
        self._put("hparams", _build_session, (self._hparams, now), 0, now)

    def add_hparams(
        self,
        hparam_dict: Any,
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Mapping[str, Sequence[Any]] | str | None = None,
        run_name: PathLike | int | None = None,
        global_step: Any = None,
        *,
        name: PathLike | None = None,
    ) -> None:
        """Log hyperparameters and results as a separate run, as PyTorch and tensorboardX do.

        TensorBoard takes the columns of all such runs from a single one, so every call should name
        the same hyperparameters and metrics. ``hparams`` has no such limitation, and creates no
        run.

        Args:
            hparam_dict: values as in ``hparams``; those that are None are left out.
            metric_dict: numbers by tag, each as in ``add_scalar``.
            hparam_domain_discrete: all possible values of hyperparameters, as lists by name. As in
                tensorboardX, a str here is the run's name, and then a number in the next argument
                is the step.
            run_name: the run's directory below the log directory; by default the current time. An
                int is a name too. ``"."`` is the log directory itself.
            global_step: any integer; by default ``writer.step``.
            name: alias of ``run_name``.

        Raises:
            InvalidTypeError: an argument, a value or a metric has the wrong type.
            InvalidValueError: as in ``hparams``, or the run is not below the log directory.
        """
        if not self._enabled:
            return
        if isinstance(hparam_domain_discrete, str):  # tensorboardX's name
            name, hparam_domain_discrete = hparam_domain_discrete, None
            if global_step is None and hasattr(type(run_name), "__index__"):
                global_step, run_name = run_name, None
        values = flatten(hparam_dict, "add_hparams")
        domains = _check_domains(values, hparam_domain_discrete or {})
        check_mapping(metric_dict, "add_hparams: metric_dict")
        step = self._as_step(global_step, "add_hparams")
        given = run_name if name in (None, "") else name
        run = self._as_run(self._timestamp_name() if given in (None, "") else given)
        rows = ((Series(tag, run), tag, value) for tag, value in metric_dict.items())
        self._add_rows(rows, step, None)
        self._put("add_hparams", _build_run, (values, [*metric_dict], domains), step, None, run=run)

    def close(self, timeout: float | None = None) -> bool:
        """Mark the run of ``hparams`` as successful, if there is one, and close the writer.

        The argument, the return value and the exceptions are those of ``flush``.
        """
        self._end_session(succeeded=True)
        return super().close(timeout)

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the writer; mark the run of ``hparams`` as failed after an exception."""
        if kind is not None:
            self._end_session(succeeded=False)
        super().__exit__(kind, error, traceback)

    def _end_session(self, *, succeeded: bool) -> None:
        """End the session that this process started, if it is still open."""
        if self._session_process == os.getpid():
            self._session_process = 0
            now = self._clock()
            self._put("hparams", _build_end, (dict(self._hparams), succeeded, now), 0, now)

    def _as_run(self, name: Any) -> str:
        """Return a run's directory relative to the log directory.

        The name is joined to the log directory, as torch's and tensorboardX's writers do.
        """
        if hasattr(type(name), "__index__") and not isinstance(name, bool):
            name = str(name)  # of a trial, which is often a number
        if not isinstance(name, (str, os.PathLike)):
            message = f"add_hparams: a run's name must be a str, a path or an int, got {name!r:.60}"
            raise InvalidTypeError(message)
        name = os.fspath(name)
        is_local = scheme_of(self._location) == "file"
        root: PurePath = Path(self._location) if is_local else PurePosixPath("/")
        path = root / name
        if is_local and Path(name).is_absolute():
            path = Path(os.path.realpath(name))
        if ".." in Path(name).parts or not path.is_relative_to(root):
            message = f"add_hparams: run {name!r} is not below the log directory {self._log_dir!r}"
            raise InvalidValueError(message)
        run = as_utf8(path.relative_to(root).as_posix())
        return "" if run == "." else run

    def _timestamp_name(self) -> str:
        """Return the current time, increased if the clock has not advanced since the last call."""
        self._last_run = max(time.time(), self._last_run + 1e-6)
        return f"{self._last_run:.6f}"


def _check_modes(metrics: Any) -> dict[str, str]:
    if not hasattr(metrics, "items"):
        message = f"metrics: expected a mapping of tags to 'min' or 'max', got {metrics!r:.60}"
        raise InvalidTypeError(message)
    for tag, mode in metrics.items():
        check_tag(tag)
        if mode not in ("min", "max"):
            message = (
                f"metrics: {tag!r}: the mode must be 'min' or 'max', got {mode!r:.60}; the last "
                "value of every scalar is shown without naming it here"
            )
            raise InvalidValueError(message)
    return dict(metrics)


def _check_best_values(best: Any, modes: Mapping[str, str]) -> dict[str, float]:
    check_mapping(best, "best")
    best_values = {}
    for tag, value in best.items():
        best_values[tag] = float(as_number(value, tag))
        if tag not in modes:
            message = f"best: {tag!r} is not among the metrics of this call"
            raise InvalidValueError(message)
        if math.isnan(best_values[tag]):
            message = f"best: {tag!r}: NaN is not a best value; omit it if there is none yet"
            raise InvalidValueError(message)
    return best_values


def _check_domains(values: Mapping[str, Plain], domains: Any) -> dict[str, list[Plain]]:
    if not hasattr(domains, "items"):
        message = f"hparam_domain_discrete: expected a mapping of lists, got {domains!r:.60}"
        raise InvalidTypeError(message)
    checked = {}
    for given, domain in domains.items():
        name = as_utf8(str(given))
        if not isinstance(domain, (list, tuple)) or values.get(name) is None:
            message = (
                f"hparam_domain_discrete: expected a list for a hyperparameter that has a value, "
                f"got {domain!r:.60} for {name!r}"
            )
            raise InvalidTypeError(message)
        items = flatten(dict(enumerate(domain)), f"hparam_domain_discrete: {name!r}")
        checked[name] = list(items.values())
        if any(_kind(item) is not _kind(values[name]) for item in checked[name]):
            message = (
                f"hparam_domain_discrete: {name!r} is {values[name]!r:.60}, but its possible "
                f"values have another type: {domain!r:.60}"
            )
            raise InvalidTypeError(message)
    return checked


def _kind(value: Plain) -> type:
    return float if type(value) is int else type(value)


def _build_session(_: str, values: dict[str, Plain], now: float) -> list[Any]:
    from sm_tblog.summary import hparams as summary

    current = dict(values)
    change = Change(summary.updated_file, summary.encode_change(current, now))
    return [summary.start_value(current, now), File("", summary.FIRST_FILE, change)]


def _build_end(_: str, values: dict[str, Plain], succeeded: bool, now: float) -> list[Any]:
    from sm_tblog.summary import hparams as summary

    end = summary.end_value(succeeded=succeeded, ended=now)
    encoded = summary.encode_change(values, now, succeeded=succeeded)
    return [end, File("", summary.FIRST_FILE, Change(summary.updated_file, encoded))]


def _build_run(
    _: str, values: dict[str, Plain], metrics: list[str], domains: dict[str, list[Plain]]
) -> list[Any]:
    from sm_tblog.summary import hparams as summary

    return [
        summary.experiment_value(values, metrics, domains),
        summary.start_value(values),
        summary.end_value(succeeded=True),
    ]

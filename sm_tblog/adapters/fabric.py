"""A logger for Lightning Fabric that is Fabric's own, with this library's writer in it.

It serves ``lightning`` and ``lightning_fabric`` alike. Of the two, the class derives from the one
that was imported first, or that is installed; of the other it becomes what ``abc`` calls a virtual
subclass, as soon as a logger is made where that is loaded too. So ``isinstance`` is true for the
classes of whichever package the script uses.

The folders, versions and tags are Fabric's. Differences:

* A number that is still on a device is logged without waiting for the device.
* ``save`` does not wait: what was logged is stored within a second, or what the store asks for.
* Hyperparameters belong to the run, can be added to at any time, and need no metric.
"""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from sm_tblog import InvalidValueError, TBLogError, Writer
from sm_tblog.adapters._target import missing

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TensorBoardLogger"]

FAMILIES = {
    "lightning": ("lightning.fabric", "lightning.pytorch"),
    "pytorch-lightning": ("lightning_fabric", "pytorch_lightning"),
}
"""The packages that bring Fabric and Lightning, by what is installed for them."""


def _chosen_family() -> str:
    """Return the family that is loaded, or else the one that is installed, or else the first."""
    for name, modules in FAMILIES.items():
        if any(module in sys.modules for module in reversed(modules)):
            return name
    installed = (name for name, modules in FAMILIES.items() if find_spec(_top(modules[0])))
    return next(installed, "lightning")


def _top(module: str) -> str:
    return module.partition(".")[0]


FAMILY = _chosen_family()

_EXACT = 1 << 53
"""Integers below it are exact as floats."""


def load(part: int, name: str) -> Any:
    """Return a module of the family: of Fabric, part 0, or of Lightning, part 1.

    Raises:
        MissingDependencyError: it is not installed.
    """
    try:
        return import_module(f"{FAMILIES[FAMILY][part]}.{name}")
    except ImportError as error:
        raise missing(FAMILY, error) from error


def make_known(logger: Any, part: int) -> None:
    """Have the logger count as one of every family that is loaded."""
    for modules in FAMILIES.values():
        loggers = sys.modules.get(f"{modules[part]}.loggers")
        if loggers is not None and not isinstance(logger, loggers.TensorBoardLogger):
            loggers.TensorBoardLogger.register(type(logger))


_Logger: Any = load(0, "loggers.tensorboard").TensorBoardLogger
_rank_zero_only = load(0, "utilities.rank_zero").rank_zero_only
_dummy = load(0, "loggers.logger").rank_zero_experiment
_utilities = load(0, "utilities.logger")


class TensorBoardLogger(_Logger):
    """Fabric's ``TensorBoardLogger`` on a ``Writer``.

    ::

        fabric = Fabric(loggers=TensorBoardLogger())
        fabric.log("loss", loss, step)

    Args:
        root_dir: the folder for all experiments, a path or URL.
        name: the experiment's folder below it; ``""`` or None for none.
        version: the run's folder below that: a str as it is, a number as ``version_<number>``. By
            default the next number that is free.
        default_hp_metric: also log ``hp_metric`` as -1 with hyperparameters that come without a
            metric. Fabric does so by default; here it is needed for nothing.
        prefix: stands, with ``-``, before every metric's name.
        sub_dir: a folder below the version's.
        best: for metrics that runs are compared by, ``"min"`` or ``"max"`` by tag. Each has one
            more curve, ``best/<tag>``, which fills itself.
        kwargs: further arguments of ``Writer``.

    Raises:
        MissingDependencyError: neither tensorboard nor tensorboardX is installed, which Fabric's
            class asks for.
    """

    def __init__(
        self,
        root_dir: Any = ".",
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        default_hp_metric: bool = False,
        prefix: str = "",
        sub_dir: Any = None,
        *,
        best: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        try:
            super().__init__(
                root_dir=root_dir,
                name=name,
                version=version,
                default_hp_metric=default_hp_metric,
                prefix=prefix,
                sub_dir=sub_dir,
                **kwargs,
            )
        except ModuleNotFoundError as error:
            raise missing(error.name or "tensorboard", error) from error
        self._experiment: Writer | None = None
        self._best = dict(best or {})
        make_known(self, 0)

    @property
    def version(self) -> int | str:
        """The run's version; if none was given, the next that is free when this is first asked."""
        if self._version is None:
            self._fs.invalidate_cache()  # it may hold a bucket's list from before the last run
        version: int | str = super().version
        return version

    @property
    @_dummy
    def experiment(self) -> Writer:
        """The ``Writer``, made at its first use. On other ranks than 0, what does nothing."""
        if self._experiment is None:
            self._experiment = Writer(self.log_dir, **self._kwargs)
            if self._best:
                self._experiment.hparams({}, self._best)
        return self._experiment

    @_rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers.

        Args:
            metrics: anything like a number by name, on any device; a mapping makes each of its
                numbers a curve of a run of its own, in one chart.
            step: by default 0.

        Raises:
            InvalidValueError: a value cannot be logged. Others of the call may have been.
        """
        writer = self.experiment
        metrics = _utilities._add_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR)  # noqa: SLF001
        numbers = {}
        try:
            for name, value in metrics.items():
                if isinstance(value, dict):
                    writer.add_scalars(name, value, step)
                elif type(value) is int and abs(value) < _EXACT:
                    numbers[name] = float(value)  # quicker; trainers add the epoch
                else:
                    numbers[name] = value
            writer.log(numbers, step)
        except TBLogError as error:
            raise InvalidValueError(str(error)) from error  # Fabric's is a ValueError

    @_rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log hyperparameters of this run; more and others at any time.

        Args:
            params: a mapping, nested at will, or a namespace.
            metrics: numbers by name, logged as metrics are; or one, called ``hp_metric``. The
                HParams tab shows the last value of every metric, named here or not.
            step: of these metrics.
        """
        flat = _utilities._flatten_dict(_utilities._convert_params(params))  # noqa: SLF001
        self.experiment.hparams({k: _single(v) for k, v in self._sanitize_params(flat).items()})
        if metrics is None:
            metrics = {"hp_metric": -1} if self._default_hp_metric else {}
        elif not isinstance(metrics, dict):
            metrics = {"hp_metric": metrics}
        self.log_metrics(metrics, step)

    @_rank_zero_only
    def save(self) -> None:
        """Do nothing, for trainers call it at every step: what was logged is stored by itself.

        ``experiment.flush()`` waits for that.
        """

    @_rank_zero_only
    def finalize(self, status: str) -> None:
        """Store everything and close the files. Logging again goes on in new ones.

        Args:
            status: ``"failed"`` and ``"aborted"`` mark the run of the hyperparameters as failed.
        """
        if self._experiment is not None:
            if status in {"failed", "aborted"}:
                error = sys.exc_info()[1] or RuntimeError(status)
                self._experiment.__exit__(type(error), error, None)
            else:
                self._experiment.close()


def _single(value: Any) -> Any:
    """Return a tensor of several elements as text."""
    return str(value) if getattr(value, "numel", lambda: 1)() != 1 else value

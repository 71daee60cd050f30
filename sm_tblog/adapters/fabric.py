"""A logger for Lightning Fabric: Fabric's own, with this library's writer.

It works with both ``lightning`` and ``lightning_fabric``. The class derives from the logger of the
package that was imported first, or else of the one that is installed. If the other package is also
loaded when a logger is created, the class is registered as a virtual subclass (see ``abc``) of that
package's logger. So ``isinstance`` is true for the classes of whichever package the script uses.

Directories, versions and tags are the same as Fabric's. Differences:

* Logging a number that is still on a device does not wait for the device.
* ``save`` does not wait: data is stored within a second, or within the interval that the store
  requires.
* Hyperparameters belong to the run, can be added at any time, and need no metric.
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
"""The modules of Fabric and Lightning, by the name of the package that installs them."""


def _choose_family() -> str:
    """Return the family that is loaded, or else one that is installed, or else the first."""
    for name, modules in FAMILIES.items():
        if any(module in sys.modules for module in reversed(modules)):
            return name
    installed = (name for name, modules in FAMILIES.items() if find_spec(_top(modules[0])))
    return next(installed, "lightning")


def _top(module: str) -> str:
    return module.partition(".")[0]


FAMILY = _choose_family()

_EXACT_INT_LIMIT = 1 << 53
"""Integers of smaller magnitude are exact as floats."""


def load(part: int, name: str) -> Any:
    """Import a module of the chosen family: of Fabric (part 0) or of Lightning (part 1).

    Raises:
        MissingDependencyError: the package is not installed.
    """
    try:
        return import_module(f"{FAMILIES[FAMILY][part]}.{name}")
    except ImportError as error:
        raise missing(FAMILY, error) from error


def register_subclass(logger: Any, part: int) -> None:
    """Register the logger's class as a virtual subclass of the logger of each loaded family."""
    for modules in FAMILIES.values():
        loggers = sys.modules.get(f"{modules[part]}.loggers")
        if loggers is not None and not isinstance(logger, loggers.TensorBoardLogger):
            loggers.TensorBoardLogger.register(type(logger))


_Logger: Any = load(0, "loggers.tensorboard").TensorBoardLogger
_rank_zero_only = load(0, "utilities.rank_zero").rank_zero_only
_dummy = load(0, "loggers.logger").rank_zero_experiment
_utilities = load(0, "utilities.logger")


class TensorBoardLogger(_Logger):
    """Fabric's ``TensorBoardLogger``, based on a ``Writer``.

    ::

        fabric = Fabric(loggers=TensorBoardLogger())
        fabric.log("loss", loss, step)

    Args:
        root_dir: the directory of all experiments, a path or URL.
        name: the experiment's directory in ``root_dir``; ``""`` or None for none.
        version: the run's directory in the experiment's. A str is used as it is; a number means
            ``version_<number>``. By default, the next free number.
        default_hp_metric: whether to log ``hp_metric`` as -1 when hyperparameters are logged
            without a metric. Fabric does so by default; here, nothing needs it.
        prefix: a prefix of all metric names, followed by ``-``.
        sub_dir: a directory in the version's directory.
        best: ``"min"`` or ``"max"`` by tag, for the metrics by which you compare runs. The best
            value so far of each is logged automatically as ``best/<tag>``.
        kwargs: further arguments of ``Writer``.

    Raises:
        MissingDependencyError: neither tensorboard nor tensorboardX is installed; Fabric's class
            requires one of them.
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
        register_subclass(self, 0)

    @property
    def version(self) -> int | str:
        """The run's version. By default, the next free number when this is first read."""
        if self._version is None:
            self._fs.invalidate_cache()  # it may hold a bucket listing from before the last run
        version: int | str = super().version
        return version

    @property
    @_dummy
    def experiment(self) -> Writer:
        """The ``Writer``, created at first use; on ranks other than 0, a no-op object."""
        if self._experiment is None:
            self._experiment = Writer(self.log_dir, **self._kwargs)
            if self._best:
                self._experiment.hparams({}, self._best)
        return self._experiment

    @_rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Log numbers.

        Args:
            metrics: numbers by name, of any numeric type and on any device. A mapping of numbers
                becomes one chart with a run for each curve.
            step: any integer; by default 0.

        Raises:
            InvalidValueError: a value cannot be logged. Other values of the call may have been
                logged.
        """
        writer = self.experiment
        metrics = _utilities._add_prefix(metrics, self._prefix, self.LOGGER_JOIN_CHAR)  # noqa: SLF001
        numbers = {}
        try:
            for name, value in metrics.items():
                if isinstance(value, dict):
                    writer.add_scalars(name, value, step)
                elif type(value) is int and abs(value) < _EXACT_INT_LIMIT:
                    numbers[name] = float(value)  # a fast path: trainers add the epoch to each call
                else:
                    numbers[name] = value
            writer.log(numbers, step)
        except TBLogError as error:
            raise InvalidValueError(str(error)) from error  # Fabric raises a ValueError

    @_rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log hyperparameters of this run. You can add and change them at any time.

        Args:
            params: a mapping, possibly nested, or a namespace.
            metrics: numbers by name, logged like other metrics; or one number, logged as
                ``hp_metric``. The HParams tab shows the last value of every metric, whether or
                not it is listed here.
            step: the step of these metrics.
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
        """Do nothing: trainers call this at every step, and data is stored automatically.

        To wait until it is stored, call ``experiment.flush()``.
        """

    @_rank_zero_only
    def finalize(self, status: str) -> None:
        """Store everything and close the files. Logging again creates new files.

        Args:
            status: ``"failed"`` and ``"aborted"`` mark the run as failed in the HParams tab.
        """
        if self._experiment is not None:
            if status in {"failed", "aborted"}:
                error = sys.exc_info()[1] or RuntimeError(status)
                self._experiment.__exit__(type(error), error, None)
            else:
                self._experiment.close()


def _single(value: Any) -> Any:
    """Convert a tensor with several elements to text; return anything else unchanged."""
    return str(value) if getattr(value, "numel", lambda: 1)() != 1 else value

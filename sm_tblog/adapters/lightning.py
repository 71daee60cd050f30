"""A logger for Lightning: Lightning's own, with this library's writer.

It works with both ``lightning`` and ``pytorch_lightning``. See ``fabric`` for details, and for the
differences from Lightning's logger. Directories, versions, tags, checkpoints and ``hparams.yaml``
are the same as Lightning's.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog.adapters import fabric
from sm_tblog.adapters.fabric import load, register_subclass

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TensorBoardLogger"]

logger = logging.getLogger("sm_tblog")

_Logger: Any = load(1, "loggers.tensorboard").TensorBoardLogger
_save_hparams_to_yaml = load(1, "core.saving").save_hparams_to_yaml
_rank_zero_only = load(0, "utilities.rank_zero").rank_zero_only


class TensorBoardLogger(_Logger, fabric.TensorBoardLogger):
    """Lightning's ``TensorBoardLogger``, based on a ``Writer``.

    ::

        trainer = Trainer(logger=TensorBoardLogger())

    Args:
        save_dir: the directory of all experiments, a path or URL.
        name: the experiment's directory in ``save_dir``; ``""`` or None for none.
        version: the run's directory in the experiment's. A str is used as it is; a number means
            ``version_<number>``. By default, the next free number.
        log_graph: whether to log the model's graph, if it has an ``example_input_array``.
        default_hp_metric: whether to log ``hp_metric`` as -1 when hyperparameters are logged
            without a metric. Lightning does so by default; here, nothing needs it.
        prefix: a prefix of all metric names, followed by ``-``.
        sub_dir: a directory in the version's directory.
        best: ``"min"`` or ``"max"`` by tag, for the metrics by which you compare runs. The best
            value so far of each is logged automatically as ``best/<tag>``.
        kwargs: further arguments of ``Writer``.

    Raises:
        MissingDependencyError: neither tensorboard nor tensorboardX is installed; Lightning's class
            requires one of them.
    """

    def __init__(
        self,
        save_dir: Any = ".",
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = False,
        prefix: str = "",
        sub_dir: Any = None,
        *,
        best: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            save_dir=save_dir,
            name=name,
            version=version,
            log_graph=log_graph,
            default_hp_metric=default_hp_metric,
            prefix=prefix,
            sub_dir=sub_dir,
            best=best,
            **kwargs,
        )
        self._log_graph = log_graph  # Lightning's class requires tensorboard for it
        self._yaml: bytes | None = None
        self._is_yaml_due = True
        register_subclass(self, 1)

    @_rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log hyperparameters as in ``fabric``; the next ``save`` also writes them to a file."""
        more = {} if step is None else {"step": step}  # Lightning 2.4 has no such argument
        super().log_hyperparams(params, metrics, **more)
        self._is_yaml_due = True

    @_rank_zero_only
    def save(self) -> None:
        """Write ``hparams.yaml`` if hyperparameters have changed, and nothing else.

        Trainers call this at every step. Logged data is stored automatically; to wait until it is
        stored, call ``experiment.flush()``.
        """
        if not self._is_yaml_due:
            return
        self._is_yaml_due = False
        try:
            data = _as_yaml(self.hparams, self.NAME_HPARAMS_FILE)
        except Exception as error:  # noqa: BLE001 - values' own methods may raise anything
            logger.warning("%s cannot be written: %s", self.NAME_HPARAMS_FILE, error)
            return
        if data != self._yaml:
            # A resumed run keeps the file that it started with, as with Lightning.
            changed = self._yaml is not None
            self.experiment.add_file(self.NAME_HPARAMS_FILE, data, overwrite=changed)
            self._yaml = data


def _as_yaml(hparams: Any, name: str) -> bytes:
    """Return what Lightning writes for hyperparameters. Its function can only write to a file."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        _save_hparams_to_yaml(path, hparams)
        return path.read_bytes()

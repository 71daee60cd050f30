"""A logger for Lightning that is Lightning's own, with this library's writer in it.

It serves ``lightning`` and ``pytorch_lightning`` alike, see ``fabric``, which also says how it
differs. The folders, versions, tags, checkpoints and ``hparams.yaml`` are Lightning's.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sm_tblog.adapters import fabric
from sm_tblog.adapters.fabric import load, make_known

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["TensorBoardLogger"]

logger = logging.getLogger("sm_tblog")

_Logger: Any = load(1, "loggers.tensorboard").TensorBoardLogger
_save_hparams_to_yaml = load(1, "core.saving").save_hparams_to_yaml
_rank_zero_only = load(0, "utilities.rank_zero").rank_zero_only


class TensorBoardLogger(_Logger, fabric.TensorBoardLogger):
    """Lightning's ``TensorBoardLogger`` on a ``Writer``.

    ::

        trainer = Trainer(logger=TensorBoardLogger())

    Args:
        save_dir: the folder for all experiments, a path or URL.
        name: the experiment's folder below it; ``""`` or None for none.
        version: the run's folder below that: a str as it is, a number as ``version_<number>``. By
            default the next number that is free.
        log_graph: log the model's graph, if it has an ``example_input_array``.
        default_hp_metric: also log ``hp_metric`` as -1 with hyperparameters that come without a
            metric. Lightning does so by default; here it is needed for nothing.
        prefix: stands, with ``-``, before every metric's name.
        sub_dir: a folder below the version's.
        best: for metrics that runs are compared by, ``"min"`` or ``"max"`` by tag. Each has one
            more curve, ``best/<tag>``, which fills itself.
        kwargs: further arguments of ``Writer``.

    Raises:
        MissingDependencyError: neither tensorboard nor tensorboardX is installed, which
            Lightning's class asks for.
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
        self._log_graph = log_graph  # Lightning's class asks for tensorboard
        self._yaml: bytes | None = None
        self._is_yaml_due = True
        make_known(self, 1)

    @_rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Log hyperparameters, see ``fabric``, and have ``save`` write them into a file as well."""
        more = {} if step is None else {"step": step}  # which Lightning 2.4 does not know
        super().log_hyperparams(params, metrics, **more)
        self._is_yaml_due = True

    @_rank_zero_only
    def save(self) -> None:
        """Write ``hparams.yaml`` if there is something new for it, and nothing else.

        Trainers call this at every step. What was logged is stored by itself;
        ``experiment.flush()`` waits for that.
        """
        if not self._is_yaml_due:
            return
        self._is_yaml_due = False
        try:
            data = _as_yaml(self.hparams, self.NAME_HPARAMS_FILE)
        except Exception as error:  # noqa: BLE001 - whatever comes of a value's own methods
            logger.warning("%s cannot be written: %s", self.NAME_HPARAMS_FILE, error)
            return
        if data != self._yaml:
            # A run that is resumed keeps what it was begun with, as with Lightning.
            changed = self._yaml is not None
            self.experiment.add_file(self.NAME_HPARAMS_FILE, data, overwrite=changed)
            self._yaml = data


def _as_yaml(hparams: Any, name: str) -> bytes:
    """Return what Lightning writes; it writes files only."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        _save_hparams_to_yaml(path, hparams)
        return path.read_bytes()

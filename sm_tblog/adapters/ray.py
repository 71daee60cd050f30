"""Ray Tune: a callback.

::

    from sm_tblog.adapters.ray import TensorBoardLoggerCallback

    Tuner(train, run_config=RunConfig(callbacks=[TensorBoardLoggerCallback()])).fit()

It is Ray's own ``TBXLoggerCallback`` with another writer, so that Ray adds none of its own;
folders, tags and steps are the same. The hyperparameters of a trial are in its run from the
beginning, and not only when it has ended.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from sm_tblog import TBLogError, Writer
from sm_tblog.adapters._target import missing

try:
    from ray.tune.logger import TBXLoggerCallback
    from ray.tune.utils import flatten_dict
except ImportError as error:
    raise missing(package="'ray[tune]'", error=error) from error

if TYPE_CHECKING:
    from ray.tune.experiment.trial import Trial

__all__ = ["TensorBoardLoggerCallback"]


class TensorBoardLoggerCallback(TBXLoggerCallback):
    """Logs the results of trials to TensorBoard, each to the folder of its trial.

    Args:
        writer_options: arguments of each trial's ``Writer``, besides its folder.
    """

    def __init__(self, **writer_options: Any) -> None:
        # Not the base's, which needs tensorboardX.
        self._writer_options = writer_options
        self._trial_writer: dict[Trial, Writer] = {}
        self._trial_result: dict[Trial, dict[str, Any]] = {}

    def _summary_writer_cls(self, folder: str, **_: Any) -> Writer:
        """Return a writer. The base calls it by this name, as if it were a class."""
        return Writer(folder, **self._writer_options)

    def log_trial_start(self, trial: Trial) -> None:
        """Begin the run of a trial, with its hyperparameters."""
        super().log_trial_start(trial)
        if trial.evaluated_params:
            with contextlib.suppress(TBLogError):  # an object among them has no text
                self._trial_writer[trial].hparams(flatten_dict(trial.evaluated_params))

    def _try_log_hparams(self, trial: Trial, result: dict[str, Any]) -> None:
        """Do nothing: they have been logged."""

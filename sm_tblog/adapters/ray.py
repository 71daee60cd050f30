"""Ray Tune: a callback.

::

    from sm_tblog.adapters.ray import TensorBoardLoggerCallback

    Tuner(train, run_config=RunConfig(callbacks=[TensorBoardLoggerCallback()])).fit()

It derives from Ray's own ``TBXLoggerCallback``, with a different writer, so Ray does not add that
one as well. Directories, tags and steps are the same as Ray's. The hyperparameters of a trial are
in its run from the beginning, not only after it has ended.
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
    """Callback that logs the results of trials to TensorBoard, each to its trial's directory.

    Args:
        writer_options: arguments of each trial's ``Writer``, other than the log directory.
    """

    def __init__(self, **writer_options: Any) -> None:
        # super().__init__ would need tensorboardX.
        self._writer_options = writer_options
        self._trial_writer: dict[Trial, Writer] = {}
        self._trial_result: dict[Trial, dict[str, Any]] = {}

    def _summary_writer_cls(self, logdir: str, **_: Any) -> Writer:
        """Return a writer. The base class calls this attribute as if it were a class."""
        return Writer(logdir, **self._writer_options)

    def log_trial_start(self, trial: Trial) -> None:
        """Start the run of a trial, with its hyperparameters."""
        super().log_trial_start(trial)
        if trial.evaluated_params:
            with contextlib.suppress(TBLogError):  # a value cannot be converted to text
                self._trial_writer[trial].hparams(flatten_dict(trial.evaluated_params))

    def _try_log_hparams(self, trial: Trial, result: dict[str, Any]) -> None:
        """Do nothing: hyperparameters were logged when the trial started."""

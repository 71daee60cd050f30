"""LightGBM: a callback for ``train``, ``cv`` and the estimators of its scikit-learn interface.

::

    from sm_tblog.adapters.lightgbm import TensorBoardCallback

    lightgbm.train(params, data, valid_sets=[valid], callbacks=[TensorBoardCallback("runs/a")])

============================  ================================================================
tag                           what
============================  ================================================================
``<metric>/<data>``           a metric of a data set, each round; of ``cv`` the mean of the folds
``<metric>/<data>-std``       of ``cv``, the standard deviation
``best/<metric>/<data>``      the metric's best value so far, each time that it improves
``importance/<kind>``         bars of the features' importances
``importance/<kind>/<name>``  one feature's importance
============================  ================================================================

A step is a round, from 0; training that continues a model continues its steps, and supersedes what
the folder has of them. The parameters that were given are the run's hyperparameters.

LightGBM does not say that training has ended early. So a training ends with its last round, with
``close``, or when nothing refers to the callback any more, as after ``train``.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog import InvalidValueError
from sm_tblog.adapters._boosting import harmless, log_importance, log_metrics, log_parameters
from sm_tblog.adapters._target import Target, missing

try:
    from lightgbm import CVBooster
except ImportError as error:
    raise missing(package="lightgbm", error=error) from error

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from os import PathLike

    from lightgbm.callback import CallbackEnv
    from typing_extensions import Self

    from sm_tblog import Writer

__all__ = ["TensorBoardCallback"]

KINDS = ("gain", "split")

_BEFORE_EARLY_STOPPING = 25
"""Early stopping has order 30, and raises: what comes after it is not called."""


class TensorBoardCallback:
    """Logs what LightGBM trains to TensorBoard.

    It may be pickled and deep-copied. The file is begun by the first round; training again with it
    begins another file. In distributed training give it to one worker, or have the variable
    ``RANK`` set in each: then that of rank 0 logs.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        hparams: log the parameters that were given as hyperparameters of the run. A mapping is
            logged instead of them. Either way the best value of each metric is logged too.
        importance: which importances to log, of ``"gain"`` and ``"split"``. The bars need
            Matplotlib. Of ``cv`` it is the mean of the folds.
        importance_every: log them each so many rounds too, the numbers alone; 0 for the end only.
        top: how many features, those with the highest importance.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
        InvalidValueError: an importance is unknown.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        *,
        hparams: bool | Mapping[str, Any] = True,
        importance: Sequence[str] = KINDS,
        importance_every: int = 0,
        top: int = 20,
        **writer_options: Any,
    ) -> None:
        if isinstance(importance, str) or not set(importance) <= set(KINDS):
            message = f"importance is a sequence of some of {', '.join(KINDS)}; got {importance!r}"
            raise InvalidValueError(message)
        self.order = _BEFORE_EARLY_STOPPING
        self.before_iteration = False
        self._target = Target(logdir_or_writer, **writer_options)
        self._hparams = hparams
        self._importance = tuple(importance)
        self._importance_every = importance_every
        self._top = top
        self._training: _Training | None = None
        self._finish: Any = lambda: None

    def __call__(self, env: CallbackEnv) -> None:
        """Log a round.

        Args:
            env: what LightGBM says of it.
        """
        if env.iteration == env.begin_iteration or self._training is None:
            self._finish()  # the one before
            if env.begin_iteration:
                self._target = self._target.resumed(env.begin_iteration)
            self._training = _Training(self._target, self._importance, self._top)
            self._finish = weakref.finalize(self, self._training.finish)
            if self._hparams is not False:
                values = env.params if self._hparams is True else self._hparams
                log_parameters(self._target.writer, values, _modes(env))
        self._training.log(env)
        if env.iteration == env.end_iteration - 1:
            self.close()
        elif self._importance_every and (env.iteration + 1) % self._importance_every == 0:
            self._training.log_importance(figure=False)

    def close(self) -> None:
        """Log what the model has become, if it was not yet, and close the file."""
        self._training = None
        self._finish()

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return how to log, and nothing of a training."""
        return {**self.__dict__, "_training": None, "_finish": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Log to the same folder, in a file of its own."""
        self.__dict__.update(state)
        self._finish = lambda: None


class _Training:
    """What is logged of one training; outlives the callback, to log its end.

    Args:
        target: where.
        kinds: of importance.
        top: how many features.
    """

    def __init__(self, target: Target, kinds: Sequence[str], top: int) -> None:
        self._target = target
        self._kinds = kinds
        self._top = top
        self._model: Any = None
        self._step = 0

    def log(self, env: CallbackEnv) -> None:
        """Log the metrics of a round."""
        self._model, self._step = env.model, env.iteration
        values: dict[str, dict[str, float]] = {}
        for *names, value, _, std in map(_as_five, env.evaluation_result_list or ()):
            data, metric = _names(*names)
            values.setdefault(metric, {})[data] = value
            if std is not None:
                self._target.writer.add_scalar(f"{metric}/{data}-std", std, self._step)
        log_metrics(self._target.writer, values, self._step)

    def log_importance(self, *, figure: bool) -> None:
        """Log the importances of the model as it is."""
        for kind in self._kinds:
            with harmless(f"importance/{kind}"):
                scores, writer = _importance(self._model, kind), self._target.writer
                log_importance(writer, kind, scores, self._step, top=self._top, figure=figure)

    def finish(self) -> None:
        """Log the importances once more, with bars, and close."""
        self.log_importance(figure=True)
        self._target.close()
        self._model = None


def _as_five(result: Any) -> tuple[Any, ...]:
    """Return a data set, a metric, its value, whether more is better, and a deviation or None."""
    return (*result, None)[:5]


def _names(data: str, metric: str) -> tuple[str, str]:
    """Return the names of a data set and a metric.

    Before 4.7, ``cv`` had both in the second place, and ``cv_agg`` in the first.
    """
    if data == "cv_agg" and " " in metric:
        data, _, metric = metric.partition(" ")
    return data, metric


def _modes(env: CallbackEnv) -> dict[str, str]:
    """Return which is best by the tags of metrics, ``"min"`` or ``"max"``, as LightGBM says it."""
    return {
        "/".join(reversed(_names(*names))): "max" if maximize else "min"
        for *names, _, maximize, _ in map(_as_five, env.evaluation_result_list or ())
    }


def _importance(model: Any, kind: str) -> dict[str, float]:
    """Return the importance of each feature that a split uses; of ``cv`` the mean of its folds."""
    boosters = model.boosters if isinstance(model, CVBooster) else [model]
    scores = np.mean([booster.feature_importance(kind) for booster in boosters], axis=0)
    return {
        name: float(score)
        for name, score in zip(boosters[0].feature_name(), scores, strict=True)
        if score
    }

"""LightGBM: a callback for ``train``, ``cv`` and scikit-learn estimators.

::

    from sm_tblog.adapters.lightgbm import TensorBoardCallback

    lightgbm.train(params, data, valid_sets=[valid], callbacks=[TensorBoardCallback("runs/a")])

============================  ================================================================
tag                           content
============================  ================================================================
``<metric>/<data>``           a metric of a data set, each round; with ``cv``, the folds' mean
``<metric>/<data>-std``       with ``cv``, the standard deviation
``best/<metric>/<data>``      the metric's best value so far, whenever it improves
``importance/<kind>``         a bar chart of the feature importances
``importance/<kind>/<name>``  one feature's importance
============================  ================================================================

A step is a round, counted from 0. Training that continues a model continues its steps, and
supersedes the same steps already in the log directory. The parameters passed to LightGBM become the
run's hyperparameters.

LightGBM does not report that training has stopped early. So the end of a training is its last
round, a call of ``close``, or the moment when the callback is garbage-collected, such as after
``train``.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog import InvalidValueError
from sm_tblog.adapters._boosting import log_importance, log_metrics, log_parameters, warn_on_error
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

_ORDER = 25
"""Before early stopping, which has order 30: it raises, so later callbacks are not called."""


class TensorBoardCallback:
    """Callback that logs LightGBM training to TensorBoard.

    It can be pickled and deep-copied. The first round creates the file; training again with the
    same callback creates another file. In distributed training, pass it to one worker only, or set
    the environment variable ``RANK`` in each worker: then the worker of rank 0 logs.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        hparams: whether to log the parameters passed to LightGBM as hyperparameters of the run; or
            a mapping to log instead. In both cases, the best value of each metric is logged too.
        importance: the kinds of importance to log: ``"gain"``, ``"split"``, or both. With ``cv``,
            the mean of the folds is logged. The bar charts need Matplotlib.
        importance_every: the interval in rounds at which to log importances as numbers only, in
            addition to the end; 0 for the end only.
        top: the maximum number of features; those with the highest importance are logged.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
        InvalidValueError: a kind of importance is unknown.
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
            message = f"importance must be a list of some of {', '.join(KINDS)}; got {importance!r}"
            raise InvalidValueError(message)
        self.order = _ORDER
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
            env: LightGBM's description of the round.
        """
        if env.iteration == env.begin_iteration or self._training is None:
            self._finish()  # the previous training
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
        """Log the final importances unless they have been logged, and close the file."""
        self._training = None
        self._finish()

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings, without the state of a training."""
        return {**self.__dict__, "_training": None, "_finish": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Restore the settings. The copy logs to the same directory, in a file of its own."""
        self.__dict__.update(state)
        self._finish = lambda: None


class _Training:
    """The logging state of one training. It outlives the callback, to log the final importances.

    Args:
        target: the destination.
        kinds: the kinds of importance.
        top: the maximum number of features.
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
        for *names, value, _, std in map(_as_five_tuple, env.evaluation_result_list or ()):
            data, metric = _names(*names)
            values.setdefault(metric, {})[data] = value
            if std is not None:
                self._target.writer.add_scalar(f"{metric}/{data}-std", std, self._step)
        log_metrics(self._target.writer, values, self._step)

    def log_importance(self, *, figure: bool) -> None:
        """Log the current importances of the model."""
        for kind in self._kinds:
            with warn_on_error(f"importance/{kind}"):
                scores, writer = _importance(self._model, kind), self._target.writer
                log_importance(writer, kind, scores, self._step, top=self._top, figure=figure)

    def finish(self) -> None:
        """Log the final importances with bar charts, and close the file."""
        self.log_importance(figure=True)
        self._target.close()
        self._model = None


def _as_five_tuple(result: Any) -> tuple[Any, ...]:
    """Return (data set, metric, value, whether higher is better, deviation or None)."""
    return (*result, None)[:5]


def _names(data: str, metric: str) -> tuple[str, str]:
    """Return the names of a data set and a metric.

    Before LightGBM 4.7, ``cv`` passes ``"cv_agg"`` and ``"<data> <metric>"``.
    """
    if data == "cv_agg" and " " in metric:
        data, _, metric = metric.partition(" ")
    return data, metric


def _modes(env: CallbackEnv) -> dict[str, str]:
    """Return ``"min"`` or ``"max"`` by metric tag, from LightGBM's own flag."""
    return {
        "/".join(reversed(_names(*names))): "max" if maximize else "min"
        for *names, _, maximize, _ in map(_as_five_tuple, env.evaluation_result_list or ())
    }


def _importance(model: Any, kind: str) -> dict[str, float]:
    """Return the importance of each feature used in a split; with ``cv``, the folds' mean."""
    boosters = model.boosters if isinstance(model, CVBooster) else [model]
    scores = np.mean([booster.feature_importance(kind) for booster in boosters], axis=0)
    return {
        name: float(score)
        for name, score in zip(boosters[0].feature_name(), scores, strict=True)
        if score
    }

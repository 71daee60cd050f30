"""XGBoost: a callback for ``train``, ``cv`` and the estimators of its scikit-learn interface.

::

    from sm_tblog.adapters.xgboost import TensorBoardCallback

    xgboost.train(params, data, evals=[(data, "train")], callbacks=[TensorBoardCallback("runs/a")])

============================  ================================================================
tag                           what
============================  ================================================================
``<metric>/<data>``           a metric of a data set, each round; of ``cv`` the mean of the folds
``<metric>/<data>-std``       of ``cv``, the standard deviation
``best/<metric>/<data>``      the metric's best value so far, each time that it improves
``importance/<kind>``         bars of the features' importances
``importance/<kind>/<name>``  one feature's importance
``trees/<number>``            a tree as text, on request
============================  ================================================================

A step is a round, from 0; training that continues a model continues its steps, and supersedes what
the folder has of them. The model's parameters are the run's hyperparameters. In distributed
training the worker of rank 0 logs: XGBoost has reduced the metrics over all of them.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sm_tblog import InvalidValueError
from sm_tblog.adapters._boosting import (
    harmless,
    log_importance,
    log_metrics,
    log_parameters,
    log_trees,
)
from sm_tblog.adapters._target import Target, missing

try:
    from xgboost import collective
    from xgboost.callback import TrainingCallback
except ImportError as error:
    raise missing(package="xgboost", error=error) from error

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike

    from sm_tblog import Writer

__all__ = ["TensorBoardCallback"]

KINDS = ("gain", "weight", "cover", "total_gain", "total_cover")

TREES = 10
"""How many are shown, as in graphs."""

_MAXIMIZED = ("auc", "pre", "map", "ndcg")
"""What the names of metrics begin with of which more is better; ``mape`` is none."""

_ALIASES = ("alpha", "eta", "lambda", "min_split_loss", "n_jobs", "random_state")
"""Parameters that stand under another name too, of which XGBoost's two interfaces have one."""

_PARTS = ("generic_param", "gbtree", "gradient_booster", "learner_train_param", "objective")
"""Of a booster's configuration, besides ``<name>_train_param`` and ``<objective>_param``."""


class TensorBoardCallback(TrainingCallback):
    """Logs what XGBoost trains to TensorBoard.

    It may be pickled and deep-copied, as Spark and scikit-learn do. The file is begun by the first
    round, and closed when training ends; training again with it begins another file.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        hparams: log the parameters that the model has as hyperparameters of the run. A mapping is
            logged instead of them. Either way the best value of each metric is logged too.
        importance: which importances to log: some of ``"gain"``, ``"weight"``, ``"cover"``,
            ``"total_gain"`` and ``"total_cover"``. The bars need Matplotlib. ``gblinear`` has
            weights alone, its coefficients. Of ``cv`` it is the mean of the folds.
        importance_every: log them each so many rounds too, the numbers alone; 0 for the end only.
        top: how many features, those with the highest importance.
        trees: ``"text"`` or ``"graph"`` to log the first ten trees when training ends.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
        InvalidValueError: an importance or a form of trees is unknown.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        *,
        hparams: bool | Mapping[str, Any] = True,
        importance: Sequence[str] = ("gain", "weight", "cover"),
        importance_every: int = 0,
        top: int = 20,
        trees: Literal["text", "graph"] | None = None,
        **writer_options: Any,
    ) -> None:
        super().__init__()
        if isinstance(importance, str) or not set(importance) <= set(KINDS):
            message = f"importance is a sequence of some of {', '.join(KINDS)}; got {importance!r}"
            raise InvalidValueError(message)
        if trees not in (None, "text", "graph"):
            message = f"trees is 'text', 'graph' or None, got {trees!r}"
            raise InvalidValueError(message)
        self._target = Target(logdir_or_writer, **writer_options)
        self._hparams = hparams
        self._importance = tuple(importance)
        self._importance_every = importance_every
        self._top = top
        self._trees = trees
        self._is_chief = True
        self._begin(0)

    def _begin(self, start: int) -> None:
        self._start = self._step = start
        self._evals_log: Mapping[str, Mapping[str, Sequence[Any]]] = {}
        self._logged = 0  # rounds of it
        self._has_parameters = False

    def before_training(self, model: Any) -> Any:
        """Begin with the steps where the model's rounds end."""
        self._is_chief = collective.get_rank() == 0
        self._begin(model.num_boosted_rounds())
        if self._start and self._is_chief:
            self._target = self._target.resumed(self._start)
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Keep the log, which is told no more where an earlier callback stops the training."""
        del model
        self._step, self._evals_log = self._start + epoch, evals_log
        return False

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Log the round."""
        del evals_log
        self._log_parameters(model)
        self._log_rounds()
        if self._importance_every and (epoch + 1) % self._importance_every == 0:
            self._log_importance(model, figure=False)
        return False

    def after_training(self, model: Any) -> Any:
        """Log what the model has become, and close the file."""
        self._log_parameters(model)
        self._log_rounds()
        self._log_importance(model, figure=True)
        self._log_trees(model)
        self._target.close()
        self._evals_log = {}
        return model

    def _log_rounds(self) -> None:
        """Log what the log has and was not logged yet: of one round, or two after the last."""
        series = [
            (metric, data, scores)
            for data, by_metric in self._evals_log.items()
            for metric, scores in by_metric.items()
        ]
        begun = self._logged
        self._logged = max((len(scores) for _, _, scores in series), default=begun)
        if not self._is_chief:
            return
        for index in range(begun, self._logged):
            values: dict[str, dict[str, float]] = {}
            for metric, data, scores in series:
                score = scores[index]
                mean, *std = score if isinstance(score, tuple) else (score,)
                values.setdefault(metric, {})[data] = mean
                if std:
                    tag = f"{metric}/{data}-std"
                    self._target.writer.add_scalar(tag, std[0], self._start + index)
            log_metrics(self._target.writer, values, self._start + index)

    # What follows asks the model, and may have its workers talk to each other: so each of them
    # asks, and one logs.

    def _log_parameters(self, model: Any) -> None:
        if self._has_parameters or self._hparams is False:
            return
        self._has_parameters = True
        values: Mapping[str, Any] = {}
        with harmless("the parameters"):
            values = _parameters(_boosters(model)[0]) if self._hparams is True else self._hparams
        if self._is_chief:
            log_parameters(self._target.writer, values, _modes(self._evals_log))

    def _log_importance(self, model: Any, *, figure: bool) -> None:
        for kind in self._importance:
            scores: Mapping[str, float] = {}
            with harmless(f"importance/{kind}"):
                scores = _importance(_boosters(model), kind)
            if self._is_chief:
                step, top = self._step, self._top
                log_importance(self._target.writer, kind, scores, step, top=top, figure=figure)

    def _log_trees(self, model: Any) -> None:
        if self._trees is None or len(_boosters(model)) > 1:
            return
        with harmless("trees"):
            trees = model.get_dump(with_stats=True)
            if self._is_chief and self._trees == "graph":
                self._target.writer.add_graph(model)
            elif self._is_chief:
                log_trees(self._target.writer, trees[:TREES], self._step)


def _boosters(model: Any) -> list[Any]:
    """Return the boosters of the folds of ``cv``; or the one that is trained."""
    return [fold.bst for fold in model.cvfolds] if hasattr(model, "cvfolds") else [model]


def _modes(evals_log: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return which is best by the tags of metrics, ``"min"`` or ``"max"``.

    XGBoost itself goes by their names, in ``EarlyStopping``.
    """
    return {
        f"{metric}/{data}": ("max" if metric.startswith(_MAXIMIZED) and metric != "mape" else "min")
        for data, metrics in evals_log.items()
        for metric in metrics
    }


def _parameters(booster: Any) -> dict[str, Any]:
    """Return a booster's parameters, those that it has by default too, with the types they have."""
    return _leaves(json.loads(booster.save_config())["learner"])


def _leaves(part: Mapping[str, Any]) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in part.items():
        is_model = name.endswith("_model_param")
        if isinstance(value, dict):
            if name in _PARTS or (name.endswith("_param") and not is_model):
                leaves |= _leaves(value)
        elif isinstance(value, str) and value and name not in (*_ALIASES, "name"):
            leaves[name] = _plain(value)
    return leaves


def _plain(text: str) -> Any:
    """Return the number that a text of XGBoost stands for: floats are float32, written in full."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(str(np.float32(text)))
        except ValueError:
            return text


def _importance(boosters: Sequence[Any], kind: str) -> dict[str, float]:
    """Return the mean importance of each feature over some boosters.

    A feature that no split uses has none. The coefficients of several classes are averaged by
    their magnitudes.
    """
    if kind != "weight" and _is_linear(boosters[0]):
        return {}
    sums: dict[str, float] = {}
    for booster in boosters:
        for feature, score in booster.get_score(importance_type=kind).items():
            one = float(np.abs(score).mean()) if isinstance(score, list) else float(score)
            sums[str(feature)] = sums.get(str(feature), 0.0) + one / len(boosters)
    return sums


def _is_linear(booster: Any) -> bool:
    return bool(
        json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear"
    )

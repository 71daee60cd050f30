"""XGBoost: a callback for ``train``, ``cv`` and scikit-learn estimators.

::

    from sm_tblog.adapters.xgboost import TensorBoardCallback

    xgboost.train(params, data, evals=[(data, "train")], callbacks=[TensorBoardCallback("runs/a")])

============================  ================================================================
tag                           content
============================  ================================================================
``<metric>/<data>``           a metric of a data set, each round; with ``cv``, the folds' mean
``<metric>/<data>-std``       with ``cv``, the standard deviation
``best/<metric>/<data>``      the metric's best value so far, whenever it improves
``importance/<kind>``         a bar chart of the feature importances
``importance/<kind>/<name>``  one feature's importance
``trees/<number>``            a tree as text, if requested
============================  ================================================================

A step is a round, counted from 0. Training that continues a model continues its steps, and
supersedes the same steps already in the log directory. The model's parameters become the run's
hyperparameters. In distributed training, the worker of rank 0 logs: XGBoost has already reduced the
metrics over all workers.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sm_tblog import InvalidValueError
from sm_tblog.adapters._boosting import (
    log_importance,
    log_metrics,
    log_parameters,
    log_trees,
    warn_on_error,
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

MAX_TREES = 10
"""The maximum number of trees logged as text, the same as in a graph."""

_MAXIMIZED = ("auc", "pre", "map", "ndcg")
"""Prefixes of the metrics for which higher is better. ``mape`` is an exception."""

_ALIASES = ("alpha", "eta", "lambda", "min_split_loss", "n_jobs", "random_state")
"""Aliases to leave out: the configuration also lists these parameters under another name."""

_SECTIONS = ("generic_param", "gbtree", "gradient_booster", "learner_train_param", "objective")
"""Sections of a booster's config, besides ``<name>_train_param`` and ``<objective>_param``."""


class TensorBoardCallback(TrainingCallback):
    """Callback that logs XGBoost training to TensorBoard.

    It can be pickled and deep-copied, as Spark and scikit-learn do. The first round creates the
    file, and the end of training closes it. Training again with the same callback creates another
    file.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        hparams: whether to log the model's parameters as hyperparameters of the run; or a mapping
            to log instead. In both cases, the best value of each metric is logged too.
        importance: the kinds of importance to log, some of ``"gain"``, ``"weight"``, ``"cover"``,
            ``"total_gain"`` and ``"total_cover"``. ``gblinear`` has only ``"weight"``, its
            coefficients. With ``cv``, the mean of the folds is logged. The bar charts need
            Matplotlib.
        importance_every: the interval in rounds at which to log importances as numbers only, in
            addition to the end; 0 for the end only.
        top: the maximum number of features; those with the highest importance are logged.
        trees: the form, ``"text"`` or ``"graph"``, in which to log the first ten trees when
            training ends; by default they are not logged.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
        InvalidValueError: a kind of importance or a form of trees is unknown.
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
            message = f"importance must be a list of some of {', '.join(KINDS)}; got {importance!r}"
            raise InvalidValueError(message)
        if trees not in (None, "text", "graph"):
            message = f"trees must be 'text', 'graph' or None, got {trees!r}"
            raise InvalidValueError(message)
        self._target = Target(logdir_or_writer, **writer_options)
        self._hparams = hparams
        self._importance = tuple(importance)
        self._importance_every = importance_every
        self._top = top
        self._trees = trees
        self._is_chief = True
        self._reset(0)

    def _reset(self, start: int) -> None:
        self._start = self._step = start
        self._evals_log: Mapping[str, Mapping[str, Sequence[Any]]] = {}
        self._logged = 0  # number of rounds
        self._has_parameters = False

    def before_training(self, model: Any) -> Any:
        """Start the steps after the rounds that the model already has."""
        self._is_chief = collective.get_rank() == 0
        self._reset(model.num_boosted_rounds())
        if self._start and self._is_chief:
            self._target = self._target.resumed(self._start)
        return model

    def before_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Keep the metrics: an earlier callback that stops training skips ``after_iteration``."""
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
        """Log the remaining metrics, importances and trees, and close the file."""
        self._log_parameters(model)
        self._log_rounds()
        self._log_importance(model, figure=True)
        self._log_trees(model)
        self._target.close()
        self._evals_log = {}
        return model

    def _log_rounds(self) -> None:
        """Log the metrics of rounds not logged yet: one round, or two after the last."""
        series = [
            (metric, data, scores)
            for data, by_metric in self._evals_log.items()
            for metric, scores in by_metric.items()
        ]
        first = self._logged
        self._logged = max((len(scores) for _, _, scores in series), default=first)
        if not self._is_chief:
            return
        for index in range(first, self._logged):
            values: dict[str, dict[str, float]] = {}
            for metric, data, scores in series:
                score = scores[index]
                mean, *std = score if isinstance(score, tuple) else (score,)
                values.setdefault(metric, {})[data] = mean
                if std:
                    tag = f"{metric}/{data}-std"
                    self._target.writer.add_scalar(tag, std[0], self._start + index)
            log_metrics(self._target.writer, values, self._start + index)

    # The methods below read from the model, which may involve communication between all workers.
    # So every worker reads, and one of them logs.

    def _log_parameters(self, model: Any) -> None:
        if self._has_parameters or self._hparams is False:
            return
        self._has_parameters = True
        values: Mapping[str, Any] = {}
        with warn_on_error("parameters"):
            values = _parameters(_boosters(model)[0]) if self._hparams is True else self._hparams
        if self._is_chief:
            log_parameters(self._target.writer, values, _modes(self._evals_log))

    def _log_importance(self, model: Any, *, figure: bool) -> None:
        for kind in self._importance:
            scores: Mapping[str, float] = {}
            with warn_on_error(f"importance/{kind}"):
                scores = _importance(_boosters(model), kind)
            if self._is_chief:
                step, top = self._step, self._top
                log_importance(self._target.writer, kind, scores, step, top=top, figure=figure)

    def _log_trees(self, model: Any) -> None:
        if self._trees is None or len(_boosters(model)) > 1:
            return
        with warn_on_error("trees"):
            trees = model.get_dump(with_stats=True)
            if self._is_chief and self._trees == "graph":
                self._target.writer.add_graph(model)
            elif self._is_chief:
                log_trees(self._target.writer, trees[:MAX_TREES], self._step)


def _boosters(model: Any) -> list[Any]:
    """Return the boosters of all folds of ``cv``, or else the trained booster alone."""
    return [fold.bst for fold in model.cvfolds] if hasattr(model, "cvfolds") else [model]


def _modes(evals_log: Mapping[str, Iterable[str]]) -> dict[str, str]:
    """Return ``"min"`` or ``"max"`` by metric tag.

    The decision is based on the metrics' names, as in XGBoost's ``EarlyStopping``.
    """
    return {
        f"{metric}/{data}": ("max" if metric.startswith(_MAXIMIZED) and metric != "mape" else "min")
        for data, metrics in evals_log.items()
        for metric in metrics
    }


def _parameters(booster: Any) -> dict[str, Any]:
    """Return a booster's parameters, including defaults, converted to numbers where possible."""
    return _leaves(json.loads(booster.save_config())["learner"])


def _leaves(part: Mapping[str, Any]) -> dict[str, Any]:
    leaves: dict[str, Any] = {}
    for name, value in part.items():
        is_model = name.endswith("_model_param")
        if isinstance(value, dict):
            if name in _SECTIONS or (name.endswith("_param") and not is_model):
                leaves |= _leaves(value)
        elif isinstance(value, str) and value and name not in (*_ALIASES, "name"):
            leaves[name] = _plain(value)
    return leaves


def _plain(text: str) -> Any:
    """Convert XGBoost's text to a number if it is one. Floats are float32, written in full."""
    try:
        return int(text)
    except ValueError:
        try:
            return float(str(np.float32(text)))
        except ValueError:
            return text


def _importance(boosters: Sequence[Any], kind: str) -> dict[str, float]:
    """Return the mean importance of each feature over some boosters.

    Features that no split uses are left out. For several classes, the importance is the mean of the
    coefficients' magnitudes.
    """
    if kind != "weight" and _is_linear(boosters[0]):
        return {}
    sums: dict[str, float] = {}
    for booster in boosters:
        for feature, score in booster.get_score(importance_type=kind).items():
            mean = float(np.abs(score).mean()) if isinstance(score, list) else float(score)
            sums[str(feature)] = sums.get(str(feature), 0.0) + mean / len(boosters)
    return sums


def _is_linear(booster: Any) -> bool:
    return bool(
        json.loads(booster.save_config())["learner"]["gradient_booster"]["name"] == "gblinear"
    )

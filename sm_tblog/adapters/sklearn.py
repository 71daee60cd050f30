"""scikit-learn: a callback, training curves of fitted estimators, and search results.

::

    from sm_tblog.adapters.sklearn import TensorBoardCallback, log_search

    LogisticRegression().set_callbacks(TensorBoardCallback("runs/a", scoring="accuracy")).fit(x, y)
    GradientBoostingClassifier().fit(x, y, monitor=TensorBoardCallback("runs/b"))
    log_search(GridSearchCV(model, grid).fit(x, y), "runs/search")

Callbacks are new in scikit-learn 1.9. ``LogisticRegression`` calls them at each iteration;
pipelines, searches and ``StandardScaler`` call them at each of their steps. Gradient boosting
supports ``monitor`` in all versions. For other estimators, ``log_curves`` logs the curves that they
store during training. Searches are logged after they have ended. With ``verbose``, estimators print
to standard output, which cannot be logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog import InvalidTypeError
from sm_tblog.adapters._boosting import warn_on_error
from sm_tblog.adapters._target import Target, missing

try:
    from sklearn.metrics import check_scoring
except ImportError as error:
    raise missing(package="scikit-learn", error=error) from error

if TYPE_CHECKING:
    from collections.abc import Mapping
    from os import PathLike

    from sm_tblog import Writer

__all__ = ["TensorBoardCallback", "log_curves", "log_search"]

CURVE_ATTRIBUTES = (
    "loss_curve_",
    "validation_scores_",
    "train_score_",
    "validation_score_",
    "oob_scores_",
    "oob_improvement_",
)
"""Attributes in which estimators store one value per iteration."""


class TensorBoardCallback:
    """Callback that logs each iteration of a fit to TensorBoard.

    Set it on an estimator with ``set_callbacks``, or pass it to gradient boosting as ``monitor``.
    The estimator can be part of a pipeline or a search; if it is fitted several times, each fit is
    logged to a directory of its own. Set on a search, the callback logs the search's results like
    ``log_search``. It can be pickled: each process of ``n_jobs`` writes its own file.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        scoring: the scores to compute on the training data, logged as ``<estimator>/<name>``: a
            name, several names, or a function, as in scikit-learn. By default, the estimator's own
            score. ``False`` computes none. Scoring takes as long as predicting.
        validation: data ``(X, y)`` to score too, logged as ``<estimator>/validation_<name>``. In a
            pipeline, it must be in the form that the estimator receives from the pipeline.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer, or
            ``validation`` is not a pair.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        *,
        scoring: Any = None,
        validation: tuple[Any, Any] | None = None,
        **writer_options: Any,
    ) -> None:
        given: Any = validation
        if given is not None and not (isinstance(given, (tuple, list)) and len(given) == 2):
            message = f"validation must be a pair of X and y, got {given!r:.60}"
            raise InvalidTypeError(message)
        self._target = Target(logdir_or_writer, **writer_options)
        self._scoring = scoring
        self._validation = validation

    def setup(self, estimator: Any, context: Any) -> None:
        """Do nothing before a fit."""

    def on_fit_task_begin(self, estimator: Any, context: Any) -> None:
        """Do nothing before an iteration."""

    def on_fit_task_end(
        self,
        estimator: Any,
        context: Any,
        *,
        X: Any = None,  # noqa: N803 - scikit-learn passes it by name
        y: Any = None,
        metadata: Mapping[str, Any] | None = None,
        fitted_estimator: Any = None,
    ) -> bool:
        """Log an iteration, or the results of a search.

        Args:
            estimator: the estimator that is being fitted.
            context: scikit-learn's context of the task, which identifies the iteration.
            X: the training data.
            y: the training targets.
            metadata: further arguments of the scorer, such as ``sample_weight``.
            fitted_estimator: the estimator after the iteration.

        Returns:
            False, so that the fit continues.
        """
        if context.parent is None and hasattr(estimator, "cv_results_"):
            log_search(estimator, self._target.writer)
        is_iteration = context.parent is not None and context.source_task_name is None
        if fitted_estimator is None or self._scoring is False or not is_iteration:
            return False
        writer, scores = self._run(context), {}
        with warn_on_error("scores"):
            scorer = _scorer(estimator, self._scoring)
            if X is not None:
                scores = _named(scorer(fitted_estimator, X, y, **(metadata or {})))
            if self._validation is not None:
                for name, score in _named(scorer(fitted_estimator, *self._validation)).items():
                    scores[f"validation_{name}"] = score
        name = type(estimator).__name__
        for key, score in scores.items():
            writer.add_scalar(f"{name}/{key}", score, context.task_id)
        return False

    def teardown(self, estimator: Any, context: Any) -> None:
        """Store everything when a fit ends or fails. Close the file after the outermost fit."""
        del estimator
        if context.parent is None:
            self._target.close()
        else:
            self._target.flush()

    def __call__(self, iteration: int, estimator: Any, variables: Any) -> bool:
        """Log an iteration of gradient boosting, which calls its ``monitor`` like this.

        Args:
            iteration: the iteration, counted from 0.
            estimator: the estimator in its current state.
            variables: the local variables of the function that fits it.

        Returns:
            False, so that the fit continues.
        """
        del variables
        name = type(estimator).__name__
        for key in CURVE_ATTRIBUTES:
            curve = getattr(estimator, key, None)
            if curve is not None and len(curve) > iteration:
                tag = f"{name}/{key.removesuffix('_')}"
                self._target.writer.add_scalar(tag, curve[iteration], iteration)
        if iteration == estimator.n_estimators - 1:
            self._target.close()
        return False

    def _run(self, context: Any) -> Writer:
        """Return the writer of a fit, with its own directory if the fit is one of several."""
        names = [
            f"{task.source_task_name or task.task_name}-{task.task_id}"
            for task in _task_path(context)[1:-1]
            if not task.parent.sequential_subtasks
        ]
        writer = self._target.writer
        return writer.child("/".join(names)) if names else writer


def log_curves(
    estimator: Any, logdir_or_writer: str | PathLike[str] | Writer | None = None
) -> None:
    """Log the training curves that a fitted estimator has stored, one value per iteration.

    These are ``loss_curve_`` and ``validation_scores_`` of neural networks, and ``train_score_``,
    ``validation_score_``, ``oob_scores_`` and ``oob_improvement_`` of gradient boosting, as far as
    they exist. The tags are ``<estimator>/loss_curve`` and so on. After ``partial_fit``, the curves
    also begin with the first iteration.

    Args:
        estimator: the fitted estimator.
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.

    Raises:
        InvalidTypeError: the estimator stores no curves, or the second argument is neither a log
            directory nor a writer.
    """
    target = Target(logdir_or_writer)
    curves = {key: getattr(estimator, key, None) for key in CURVE_ATTRIBUTES}
    stored = {key: curve for key, curve in curves.items() if curve is not None and len(curve)}
    name = type(estimator).__name__
    if not stored:
        message = f"{name} stores no training curves, or is not fitted"
        raise InvalidTypeError(message)
    for key, curve in stored.items():
        for iteration, value in enumerate(curve):
            target.writer.add_scalar(f"{name}/{key.removesuffix('_')}", value, iteration)
    target.close()


def log_search(search: Any, logdir_or_writer: str | PathLike[str] | Writer | None = None) -> None:
    """Log the results of a search, with a run for each candidate to compare in the HParams tab.

    A candidate's directory is ``candidate-<number>``. Its hyperparameters are the candidate's
    parameters; its scalars are the means and standard deviations of scores and times, under the
    names in ``cv_results_``. The text ``cv_results`` is a table of all candidates, the best first.

    Args:
        search: a fitted search: a ``GridSearchCV``, or any other object with ``cv_results_``.
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.

    Raises:
        InvalidTypeError: the search has no results, or the second argument is neither a log
            directory nor a writer.
    """
    results = getattr(search, "cv_results_", None)
    if results is None:
        message = f"expected a fitted search, but {type(search).__name__} has no cv_results_"
        raise InvalidTypeError(message)
    target = Target(logdir_or_writer)
    metrics = [key for key in results if key.startswith(("mean_", "std_"))]
    parameters = [key for key in results if key.startswith("param_")]
    for number, values in enumerate(results["params"]):
        candidate = target.writer.child(f"candidate-{number}")
        candidate.hparams({name: _plain(value) for name, value in values.items()})
        candidate.log({key: results[key][number] for key in metrics}, 0)
        candidate.close()
    rank = next(key for key in results if key.startswith("rank_"))
    shown = [rank, *parameters, *(key for key in metrics if "_test_" in key)]
    order = np.argsort(results[rank], kind="stable")
    table = {key: [_cell(results[key][number]) for number in order] for key in shown}
    target.writer.add_table("cv_results", table, 0)
    target.close()


def _task_path(context: Any) -> list[Any]:
    """Return a task and all tasks that it is part of, the outermost first."""
    path = [context]
    while path[0].parent is not None:
        path.insert(0, path[0].parent)
    return path


def _scorer(estimator: Any, scoring: Any) -> Any:
    return check_scoring(estimator, [scoring] if isinstance(scoring, str) else scoring)


def _named(scores: Any) -> dict[str, float]:
    return dict(scores) if hasattr(scores, "items") else {"score": scores}


def _plain(value: Any) -> Any:
    """Convert a value to a valid hyperparameter: a number, a bool, a text, or None."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _cell(value: Any) -> Any:
    return "" if np.ma.is_masked(value) else _plain(value)

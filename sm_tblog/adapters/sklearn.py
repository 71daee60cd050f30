"""scikit-learn: a callback, curves of fitted estimators, results of searches.

::

    from sm_tblog.adapters.sklearn import TensorBoardCallback, log_search

    LogisticRegression().set_callbacks(TensorBoardCallback("runs/a", scoring="accuracy")).fit(x, y)
    GradientBoostingClassifier().fit(x, y, monitor=TensorBoardCallback("runs/b"))
    log_search(GridSearchCV(model, grid).fit(x, y), "runs/search")

Callbacks are new in scikit-learn 1.9, where ``LogisticRegression`` calls them at each iteration,
and pipelines, searches and ``StandardScaler`` at each of their steps. Gradient boosting has had
``monitor`` all along. Of the other estimators ``log_curves`` logs what they keep of their training,
and searches are logged when they have ended. What an estimator prints with ``verbose`` goes to the
standard output, and cannot be logged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog import InvalidTypeError
from sm_tblog.adapters._boosting import harmless
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

CURVES = (
    "loss_curve_",
    "validation_scores_",
    "train_score_",
    "validation_score_",
    "oob_scores_",
    "oob_improvement_",
)
"""What estimators keep of each iteration, under the names that they have for it."""


class TensorBoardCallback:
    """Logs each iteration of a fit to TensorBoard.

    Set on an estimator by ``set_callbacks``, or given to gradient boosting as ``monitor``. An
    estimator inside a pipeline or a search may have it: it is called there too, and a fit that is
    one of several is logged to a folder of its own. Set on a search it logs the search's results,
    as ``log_search`` does. It may be pickled: in each process of ``n_jobs`` it writes a file of its
    own.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        scoring: scores of the data that an iteration is fitted to, the tag ``<estimator>/<name>``:
            a name, several of them, or a function, as scikit-learn takes them; by default the
            estimator's own score. ``False`` computes none. Scoring takes as long as predicting.
        validation: data ``(X, y)`` that is scored too, as ``<estimator>/validation_<name>``. Inside
            a pipeline it has to be what the pipeline gives the estimator.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer, or ``validation`` is
            no pair.
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
            message = f"validation is a pair of X and y, got {given!r:.60}"
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
        X: Any = None,  # noqa: N803 - scikit-learn gives it by name
        y: Any = None,
        metadata: Mapping[str, Any] | None = None,
        fitted_estimator: Any = None,
    ) -> bool:
        """Log an iteration, or the results of a search.

        Args:
            estimator: whose fit it is.
            context: which iteration it is.
            X: what it was fitted to.
            y: what it was fitted to.
            metadata: such as ``sample_weight``.
            fitted_estimator: the estimator as it is after the iteration.

        Returns:
            False: the fit goes on.
        """
        if context.parent is None and hasattr(estimator, "cv_results_"):
            log_search(estimator, self._target.writer)
        is_iteration = context.parent is not None and context.source_task_name is None
        if fitted_estimator is None or self._scoring is False or not is_iteration:
            return False
        writer, scores = self._run(context), {}
        with harmless("scores"):
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
        """Have everything stored when a fit has ended or failed, and close the file of the last."""
        del estimator
        if context.parent is None:
            self._target.close()
        else:
            self._target.flush()

    def __call__(self, iteration: int, estimator: Any, variables: Any) -> bool:
        """Log an iteration of gradient boosting, which calls its ``monitor`` so.

        Args:
            iteration: how many came before.
            estimator: as it is.
            variables: of the function that fits it.

        Returns:
            False: the fit goes on.
        """
        del variables
        name = type(estimator).__name__
        for key in CURVES:
            curve = getattr(estimator, key, None)
            if curve is not None and len(curve) > iteration:
                tag = f"{name}/{key.removesuffix('_')}"
                self._target.writer.add_scalar(tag, curve[iteration], iteration)
        if iteration == estimator.n_estimators - 1:
            self._target.close()
        return False

    def _run(self, context: Any) -> Writer:
        """Return the writer of a fit: to a folder of its own if it is one of several."""
        several = [
            f"{one.source_task_name or one.task_name}-{one.task_id}"
            for one in _path(context)[1:-1]
            if not one.parent.sequential_subtasks
        ]
        writer = self._target.writer
        return writer.child("/".join(several)) if several else writer


def log_curves(
    estimator: Any, logdir_or_writer: str | PathLike[str] | Writer | None = None
) -> None:
    """Log what a fitted estimator has kept of its training, iteration by iteration.

    These are, where it has them, ``loss_curve_`` and ``validation_scores_`` of neural networks,
    ``train_score_``, ``validation_score_``, ``oob_scores_`` and ``oob_improvement_`` of gradient
    boosting. The tags are ``<estimator>/loss_curve`` and so on. After ``partial_fit`` too, from the
    first iteration on.

    Args:
        estimator: fitted.
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.

    Raises:
        InvalidTypeError: the estimator has kept nothing; or the second argument is neither a folder
            nor a writer.
    """
    target = Target(logdir_or_writer)
    curves = {key: getattr(estimator, key, None) for key in CURVES}
    kept = {key: curve for key, curve in curves.items() if curve is not None and len(curve)}
    name = type(estimator).__name__
    if not kept:
        message = f"{name} keeps nothing of its training, or is not fitted"
        raise InvalidTypeError(message)
    for key, curve in kept.items():
        for iteration, value in enumerate(curve):
            target.writer.add_scalar(f"{name}/{key.removesuffix('_')}", value, iteration)
    target.close()


def log_search(search: Any, logdir_or_writer: str | PathLike[str] | Writer | None = None) -> None:
    """Log the results of a search: each candidate a run, to be compared in the HParams tab.

    A candidate's folder is ``candidate-<number>``. It has the parameters as hyperparameters, and as
    scalars the means and deviations of the scores, and the times, under the names that
    ``cv_results_`` has. The table of all candidates, the best first, is the text ``cv_results``.

    Args:
        search: fitted: a ``GridSearchCV``, or what else has ``cv_results_``.
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.

    Raises:
        InvalidTypeError: the search has no results; or the second argument is neither a folder nor
            a writer.
    """
    results = getattr(search, "cv_results_", None)
    if results is None:
        message = f"a fitted search has cv_results_, {type(search).__name__} does not"
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


def _path(context: Any) -> list[Any]:
    """Return a task and those that it is part of, the outermost first."""
    path = [context]
    while path[0].parent is not None:
        path.insert(0, path[0].parent)
    return path


def _scorer(estimator: Any, scoring: Any) -> Any:
    return check_scoring(estimator, [scoring] if isinstance(scoring, str) else scoring)


def _named(scores: Any) -> dict[str, float]:
    return dict(scores) if hasattr(scores, "items") else {"score": scores}


def _plain(value: Any) -> Any:
    """Return what a hyperparameter can be: a number or a text."""
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, (bool, int, float, str, type(None))) else str(value)


def _cell(value: Any) -> Any:
    return "" if np.ma.is_masked(value) else _plain(value)

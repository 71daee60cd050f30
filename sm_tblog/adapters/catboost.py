"""CatBoost: a callback for ``fit``.

::

    from sm_tblog.adapters.catboost import TensorBoardCallback

    model = CatBoostClassifier(allow_writing_files=False)
    with TensorBoardCallback("runs/a") as callback:
        model.fit(data, eval_set=valid, callbacks=[callback])
        callback.log_model(model)

Folders, tags and steps are those of the event files that CatBoost writes by itself: a run for each
data set, so that a chart has a curve for each.

====================  ===================================  =====================================
folder                tag                                  what
====================  ===================================  =====================================
``learn``             ``<metric>``                         a metric of the training data
``test``, ``test1``…  ``<metric>``                         of the data sets to evaluate
the log folder        ``importance/feature``, and          by ``log_model``: bars of the
                      ``importance/feature/<name>``        features' importances, and each
====================  ===================================  =====================================

In one thing CatBoost's own differ: of several data sets, it adds their numbers to the tags of all
but the last, ``<metric>:0``, so that each has charts of its own.

A step is a round, from 0, also where training continues a model. A training that resumes from a
snapshot supersedes what the log has of the rounds that are done again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.adapters._boosting import harmless, log_importance, log_parameters
from sm_tblog.adapters._target import Target, missing

try:
    import catboost  # noqa: F401 - so that the error names what is missing
except ImportError as error:
    raise missing(package="catboost", error=error) from error

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Self

    from sm_tblog import Writer

__all__ = ["TensorBoardCallback"]


class TensorBoardCallback:
    """Logs what CatBoost trains to TensorBoard.

    It may be pickled and deep-copied. The files are begun by the first round; CatBoost does not say
    when training ends, so ``close`` closes them, or the end of the script. Training again with it
    logs to the same files.

    Args:
        logdir_or_writer: the log folder, a path or URL; or a ``Writer``, which is not closed; by
            default the folder that ``Writer`` chooses.
        first_step: the step of the first round; of a model that ``init_model`` continues, its
            ``tree_count_``.
        writer_options: further arguments of ``Writer``, for a folder.

    Raises:
        InvalidTypeError: the first argument is neither a folder nor a writer.
    """

    def __init__(
        self,
        logdir_or_writer: str | PathLike[str] | Writer | None = None,
        *,
        first_step: int = 0,
        **writer_options: Any,
    ) -> None:
        self._target = Target(logdir_or_writer, **writer_options)
        self._first_step = first_step
        self._runs: dict[str, Writer] = {}
        self._logged: dict[tuple[str, str], int] = {}
        self._round = 0

    def after_iteration(self, info: Any) -> bool:
        """Log a round.

        Args:
            info: what CatBoost says of it: how many are done, and all values of each metric so far.

        Returns:
            True: training goes on.
        """
        if not 0 < self._round < info.iteration:
            self._begin(info.iteration)
        self._round = info.iteration
        step = self._first_step + info.iteration - 1
        for data, metrics in info.metrics.items():
            values = {}
            for metric, scores in metrics.items():
                # With metric_period there is not one of each round.
                if len(scores) > self._logged.get((data, metric), 0):
                    self._logged[data, metric] = len(scores)
                    values[metric] = scores[-1]
            if values:
                self._run(_folder(data)).log(values, step)
        return True

    def log_model(self, model: Any) -> None:
        """Log what a model was made with as hyperparameters, and what its features are worth.

        Args:
            model: a model of CatBoost, trained. Its importances are its ``feature_importances_``.
        """
        writer = self._target.writer
        with harmless("the parameters"):
            log_parameters(writer, model.get_all_params())
        with harmless("importances"):
            scores = zip(model.feature_names_, map(float, model.feature_importances_), strict=True)
            step = self._first_step + max(self._round - 1, 0)
            log_importance(writer, "feature", dict(scores), step, top=20)

    def close(self) -> None:
        """Have everything stored, and close the files. Logging again begins others."""
        self._target.close()

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return how to log, and nothing of a training."""
        return {**self.__dict__, "_runs": {}, "_logged": {}, "_round": 0}

    def _begin(self, iteration: int) -> None:
        """Begin a training, which resumes from a snapshot if it is not the first round that ends.

        Args:
            iteration: how many rounds are done.
        """
        self._logged.clear()
        if iteration > 1:
            self._runs.clear()
            self._target = self._target.resumed(self._first_step + iteration - 1)

    def _run(self, folder: str) -> Writer:
        if folder not in self._runs:
            self._runs[folder] = self._target.writer.child(folder)
        return self._runs[folder]


def _folder(data: str) -> str:
    """Return the folder that CatBoost itself writes the metrics of a data set to."""
    name, _, number = data.partition("_")
    return ("test" if name == "validation" else name) + (number if number != "0" else "")

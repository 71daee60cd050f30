"""CatBoost: a callback for ``fit``.

::

    from sm_tblog.adapters.catboost import TensorBoardCallback

    model = CatBoostClassifier(allow_writing_files=False)
    with TensorBoardCallback("runs/a") as callback:
        model.fit(data, eval_set=valid, callbacks=[callback])
        callback.log_model(model)

Directories, tags and steps are the same as in the event files that CatBoost itself writes: one run
for each data set, so that a chart has a curve for each.

====================  ===================================  =====================================
directory             tag                                  content
====================  ===================================  =====================================
``learn``             ``<metric>``                         a metric of the training data
``test``, ``test1``…  ``<metric>``                         a metric of an evaluation data set
the log directory     ``importance/feature``, and          from ``log_model``: a bar chart of the
                      ``importance/feature/<name>``        feature importances, and each number
====================  ===================================  =====================================

There is one difference: with several data sets, CatBoost adds a number to the tags of all but the
last, such as ``<metric>:0``, so that each has its own charts.

A step is a round, counted from 0, also when training continues a model. When training resumes from
a snapshot, the repeated rounds supersede the earlier ones in the log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog.adapters._boosting import log_importance, log_parameters, warn_on_error
from sm_tblog.adapters._target import Target, missing

try:
    import catboost  # noqa: F401 - only to raise an error if it is missing
except ImportError as error:
    raise missing(package="catboost", error=error) from error

if TYPE_CHECKING:
    from os import PathLike

    from typing_extensions import Self

    from sm_tblog import Writer

__all__ = ["TensorBoardCallback"]


class TensorBoardCallback:
    """Callback that logs CatBoost training to TensorBoard.

    It can be pickled and deep-copied. The first round creates the files. CatBoost does not report
    the end of training, so the files are closed by ``close``, or when the script ends. Training
    again with the same callback logs to the same files.

    Args:
        logdir_or_writer: the log directory, a path or URL, or a ``Writer``, which stays open. By
            default, the directory that ``Writer`` chooses.
        first_step: the step of the first round. To continue the steps of the model passed as
            ``init_model``, its ``tree_count_``.
        writer_options: further arguments of ``Writer``, unless the first argument is a writer.

    Raises:
        InvalidTypeError: the first argument is neither a log directory nor a writer.
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
        """Log the metrics of a round.

        Args:
            info: from CatBoost: the number of completed rounds, and all values of each metric so
                far.

        Returns:
            True, so that training continues.
        """
        if not 0 < self._round < info.iteration:
            self._start_training(info.iteration)
        self._round = info.iteration
        step = self._first_step + info.iteration - 1
        for data, metrics in info.metrics.items():
            values = {}
            for metric, scores in metrics.items():
                # With metric_period, not every round has a value.
                if len(scores) > self._logged.get((data, metric), 0):
                    self._logged[data, metric] = len(scores)
                    values[metric] = scores[-1]
            if values:
                self._run(_directory(data)).log(values, step)
        return True

    def log_model(self, model: Any) -> None:
        """Log a model's parameters as hyperparameters, and its feature importances.

        Args:
            model: a trained CatBoost model. The importances are its ``feature_importances_``.
        """
        writer = self._target.writer
        with warn_on_error("parameters"):
            log_parameters(writer, model.get_all_params())
        with warn_on_error("importances"):
            scores = zip(model.feature_names_, map(float, model.feature_importances_), strict=True)
            step = self._first_step + max(self._round - 1, 0)
            log_importance(writer, "feature", dict(scores), step, top=20)

    def close(self) -> None:
        """Store everything and close the files. Logging again creates new files."""
        self._target.close()

    def __enter__(self) -> Self:
        """Return the callback."""
        return self

    def __exit__(self, *error: object) -> None:
        """Close."""
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """Return the settings, without the state of a training."""
        return {**self.__dict__, "_runs": {}, "_logged": {}, "_round": 0}

    def _start_training(self, iteration: int) -> None:
        """Start a training, which resumes from a snapshot if several rounds are already complete.

        Args:
            iteration: the number of completed rounds.
        """
        self._logged.clear()
        if iteration > 1:
            self._runs.clear()
            self._target = self._target.resumed(self._first_step + iteration - 1)

    def _run(self, name: str) -> Writer:
        if name not in self._runs:
            self._runs[name] = self._target.writer.child(name)
        return self._runs[name]


def _directory(data: str) -> str:
    """Return the directory to which CatBoost itself writes the metrics of a data set."""
    name, _, number = data.partition("_")
    return ("test" if name == "validation" else name) + (number if number != "0" else "")

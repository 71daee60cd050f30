"""Shared code of the adapters for boosted trees: charts of metrics, importances, parameters.

A metric of several data sets is one chart in the Custom Scalars tab, with a curve for each set. Its
tags are ``logloss/train`` and ``logloss/validation_0``, for example. If something optional fails,
such as a parameter of an unusual type or a figure, it is left out with a warning and training goes
on.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sm_tblog import Writer

__all__ = ["log_importance", "log_metrics", "log_parameters", "log_trees", "warn_on_error"]

logger = logging.getLogger("sm_tblog")

BAR_HEIGHT = 0.22
"""The height of one bar in a figure, in inches, including the space around it."""


@contextlib.contextmanager
def warn_on_error(what: str) -> Iterator[None]:
    """Log a warning and suppress the exception if the block fails.

    Args:
        what: what the block logs, for the warning.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - any error of a framework or model
        logger.warning("%s not logged: %s", what, str(error).partition("\n")[0])


def log_metrics(writer: Writer, values: Mapping[str, Mapping[str, float]], step: int) -> None:
    """Log the metrics of a round.

    Args:
        writer: the writer to log with.
        values: for each metric, its values by data set.
        step: the round, counted from 0.
    """
    for metric, by_data in values.items():
        writer.add_scalars(metric, by_data, step, layout=True)


def log_parameters(
    writer: Writer, values: Mapping[str, Any], modes: Mapping[str, str] | None = None
) -> None:
    """Log a model's parameters as hyperparameters of the writer's run.

    Args:
        writer: the writer to log with.
        values: the parameters by name. Those that cannot be converted to text are left out.
        modes: ``"min"`` or ``"max"`` by metric tag, for metrics whose best value is logged too.
    """
    try:
        writer.hparams(values, modes)
    except (TypeError, ValueError):  # log one by one, with a warning for each that fails
        for name, value in values.items():
            with warn_on_error(f"the parameter {name!r}"):
                writer.hparams({name: value}, modes)


def log_importance(
    writer: Writer,
    kind: str,
    scores: Mapping[str, float],
    step: int,
    *,
    top: int,
    figure: bool = True,
) -> None:
    """Log feature importances, as scalars ``importance/<kind>/<feature>`` and as a bar chart.

    Args:
        writer: the writer to log with.
        kind: the kind of importance, such as ``"gain"``.
        scores: the importances by feature.
        step: the round, counted from 0.
        top: the maximum number of features; those with the highest absolute scores are logged.
        figure: whether to log the bar chart, the image ``importance/<kind>``. Needs Matplotlib.
    """
    highest = sorted(scores.items(), key=lambda item: abs(item[1]), reverse=True)[:top]
    if not highest:
        return
    writer.log({f"importance/{kind}/{feature}": score for feature, score in highest}, step)
    if figure and writer.enabled:
        with warn_on_error(f"bar chart of importance/{kind}"):
            writer.add_figure(f"importance/{kind}", _bars(kind, highest), step)


def log_trees(writer: Writer, trees: list[str], step: int) -> None:
    """Log trees as texts ``trees/<number>``.

    Args:
        writer: the writer to log with.
        trees: the text of each tree.
        step: the round, counted from 0.
    """
    for number, text in enumerate(trees):
        code = "\n".join(f"    {line.expandtabs(2)}" for line in text.splitlines())
        writer.add_text(f"trees/{number}", code, step)


def _bars(kind: str, scores: list[tuple[str, float]]) -> Any:
    from matplotlib.figure import Figure

    names, values = zip(*reversed(scores), strict=True)
    figure = Figure(figsize=(6.4, 0.9 + BAR_HEIGHT * len(names)), layout="constrained")
    axes = figure.subplots()
    axes.barh(range(len(names)), values)
    axes.set_yticks(
        range(len(names)), [name if len(name) < 40 else f"{name[:38]}…" for name in names]
    )
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(kind)
    axes.set_axisbelow(True)
    axes.grid(axis="x", alpha=0.3)
    return figure

"""What the adapters of boosted trees share: charts of metrics, importances, parameters.

A metric of several data sets is one chart of the Custom Scalars tab, with a curve for each set:
``logloss/train`` and ``logloss/validation_0`` are the tags. What only decorates a log, as a
parameter of an odd type or a figure, is left out and said where it fails: training goes on.
"""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sm_tblog import Writer

__all__ = ["harmless", "log_importance", "log_metrics", "log_parameters", "log_trees"]

logger = logging.getLogger("sm_tblog")

BAR = 0.22
"""The height of a bar of a figure, in inches, with the space around it."""


@contextlib.contextmanager
def harmless(what: str) -> Iterator[None]:
    """Say, and go on, if the block fails.

    Args:
        what: the block was to log.
    """
    try:
        yield
    except Exception as error:  # noqa: BLE001 - a framework's, a model's, or a missing package
        logger.warning("%s not logged: %s", what, str(error).partition("\n")[0])


def log_metrics(writer: Writer, values: Mapping[str, Mapping[str, float]], step: int) -> None:
    """Log the metrics of a round.

    Args:
        writer: logs them.
        values: for each metric its values by data set.
        step: the round, from 0.
    """
    for metric, by_data in values.items():
        writer.add_scalars(metric, by_data, step, layout=True)


def log_parameters(
    writer: Writer, values: Mapping[str, Any], modes: Mapping[str, str] | None = None
) -> None:
    """Log what a model was made with, as hyperparameters of the writer's run.

    Args:
        writer: logs them.
        values: by name; one that has no text is left out.
        modes: ``"min"`` or ``"max"`` by the tag of a metric, whose best values are to be logged.
    """
    try:
        writer.hparams(values, modes)
    except (TypeError, ValueError):  # one of them; each is said by itself
        for name, value in values.items():
            with harmless(f"the parameter {name!r}"):
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
    """Log how much each feature is used: scalars ``importance/<kind>/<feature>``, and bars.

    Args:
        writer: logs them.
        kind: of importance, as ``"gain"``.
        scores: by feature.
        step: the round, from 0.
        top: only so many features, those with the highest scores.
        figure: log bars, as the image ``importance/<kind>``, which needs Matplotlib.
    """
    highest = sorted(scores.items(), key=lambda item: abs(item[1]), reverse=True)[:top]
    if not highest:
        return
    writer.log({f"importance/{kind}/{feature}": score for feature, score in highest}, step)
    if figure and writer.enabled:
        with harmless(f"the bars of importance/{kind}"):
            writer.add_figure(f"importance/{kind}", _bars(kind, highest), step)


def log_trees(writer: Writer, trees: list[str], step: int) -> None:
    """Log trees as texts, ``trees/<number>``.

    Args:
        writer: logs them.
        trees: for each tree its text.
        step: the round, from 0.
    """
    for number, text in enumerate(trees):
        code = "\n".join(f"    {line.expandtabs(2)}" for line in text.splitlines())
        writer.add_text(f"trees/{number}", code, step)


def _bars(kind: str, scores: list[tuple[str, float]]) -> Any:
    from matplotlib.figure import Figure

    names, values = zip(*reversed(scores), strict=True)
    figure = Figure(figsize=(6.4, 0.9 + BAR * len(names)), layout="constrained")
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

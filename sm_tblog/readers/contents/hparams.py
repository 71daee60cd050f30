"""Hyperparameters, from the metadata of the hparams plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.format import schema
from sm_tblog.readers.contents.lazy import checked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sm_tblog.readers.point_table import Scalars

__all__ = ["HParams", "merged_hparams"]


class HParams(NamedTuple):
    """The hyperparameters of a run and its results.

    Attributes:
        values: the hyperparameters: bool, float, str or None, or a list of these. Integers are
            stored as floats.
        metrics: the last value of each metric. Metrics are the scalars that the run declares as
            such or, if it declares none, all its scalars, as in TensorBoard.
    """

    values: dict[str, Any]
    metrics: dict[str, float]


def merged_hparams(
    first: Iterable[bytes], others: Iterable[bytes], scalars: Mapping[str, Scalars]
) -> HParams:
    """Return the hyperparameters of a run.

    Args:
        first: contents of the plugin's data in the file that our writer rewrites at each change. If
            there are any, its values are complete.
        others: those in other files, in the order written. Later values replace earlier ones.
        scalars: the run's scalars.

    Raises:
        InvalidValueError: the contents cannot be decoded.
    """
    values: dict[str, Any] = {}
    names: dict[str, None] = {}
    has_session = has_complete = False
    for contents in (first, others):
        for content in contents:
            data = checked(_decoded, content, "the hyperparameters")
            for info in data.experiment.metric_infos:
                if not info.name.group:  # else of another run
                    names[info.name.tag] = None
            if data.HasField("session_start_info") and not has_complete:
                has_session = True
                values |= {
                    name: _plain(value) for name, value in data.session_start_info.hparams.items()
                }
        has_complete = has_session
    metrics = {
        tag: float(scalars[tag].value[-1])
        for tag in (names or (scalars if has_session else ()))
        if tag in scalars and len(scalars[tag].value)
    }
    return HParams(values, metrics)


def _decoded(content: bytes, _: str) -> Any:
    return schema.HParamsPluginData.FromString(content)


def _plain(value: Any) -> Any:
    kind = value.WhichOneof("kind")
    if kind is None or kind == "null_value":
        return None
    found = getattr(value, kind)
    return [_plain(item) for item in found.values] if kind == "list_value" else found

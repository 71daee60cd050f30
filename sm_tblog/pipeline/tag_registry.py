"""Keep each tag to one kind of data.

For each run and tag, TensorBoard keeps the first plugin it finds and shows no other kind of data.
So data of another kind under a tag that is already in use is logged as ``<tag>/<kind>``, with one
warning. The worker thread checks this, so a call that logs a number needs no lookup.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sm_tblog._types import Series, Value
    from sm_tblog.pipeline.faults import FaultLog

__all__ = ["TagRegistry"]

SCALARS = "scalars"


class TagRegistry:
    """The kinds of data of one writer, by run and tag.

    Args:
        faults: receives a warning for each tag that is renamed.
    """

    def __init__(self, faults: FaultLog) -> None:
        self._faults = faults
        self._kinds: dict[tuple[str, str], str] = {}

    def assign_series(self, series: Sequence[Series]) -> list[Series]:
        """Return the series, renamed where the tag holds another kind of data."""
        return [one._replace(tag=self._assign(one.run, one.tag, SCALARS)) for one in series]

    def assign_value(self, value: Value) -> Value:
        """Return the value, renamed if its tag holds another kind of data."""
        if not value.plugin:  # a message from elsewhere, whose kind only its field tells
            return value
        tag = self._assign(value.run, value.tag, value.plugin)
        if tag == value.tag:
            return value
        from sm_tblog.format import schema

        message = schema.Value.FromString(value.data)
        message.tag = tag
        return value._replace(tag=tag, data=message.SerializeToString())

    def _assign(self, run: str, tag: str, kind: str) -> str:
        known = self._kinds.setdefault((run, tag), kind)
        if known == kind:
            return tag
        renamed = self._assign(run, f"{tag}/{kind}", kind)
        self._faults.warn_once(
            f"kind {run} {tag} {kind}",
            f"the tag {tag!r} holds data of the plugin {known!r}, and TensorBoard shows only one "
            f"kind of data per tag; data of the plugin {kind!r} is logged as {renamed!r}",
        )
        return renamed

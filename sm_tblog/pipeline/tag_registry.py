"""One tag, one kind of data.

TensorBoard keeps, for each run and tag, the plugin that it meets first, and shows nothing of any
other kind. So what comes later under a tag that is taken is logged as ``<tag>/<kind>``, and that is
said once. It is found out by the worker: the call that logs a number looks nothing up.
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
        faults: told of tags that are taken.
    """

    def __init__(self, faults: FaultLog) -> None:
        self._faults = faults
        self._kinds: dict[tuple[str, str], str] = {}

    def assign_series(self, series: Sequence[Series]) -> list[Series]:
        """Return the curves with tags that are free."""
        return [one._replace(tag=self._free(one.run, one.tag, SCALARS)) for one in series]

    def assign_value(self, value: Value) -> Value:
        """Return a value with a tag that is free."""
        if not value.plugin:  # somebody else's message, which says what it is by its field
            return value
        tag = self._free(value.run, value.tag, value.plugin)
        if tag == value.tag:
            return value
        from sm_tblog.format import schema

        message = schema.Value.FromString(value.data)
        message.tag = tag
        return value._replace(tag=tag, data=message.SerializeToString())

    def _free(self, run: str, tag: str, kind: str) -> str:
        known = self._kinds.setdefault((run, tag), kind)
        if known == kind:
            return tag
        free = self._free(run, f"{tag}/{kind}", kind)
        self._faults.warn_once(
            f"kind {run} {tag} {kind}",
            f"the tag {tag!r} holds {known}, and TensorBoard shows one kind of data a tag: its "
            f"{kind} are logged as {free!r}",
        )
        return free

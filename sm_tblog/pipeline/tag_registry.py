"""Give each tag the name under which it is stored, and keep it to one kind of data.

For each run and tag, TensorBoard keeps the first plugin it finds and shows no other kind of data.
So data of another kind under a tag that is already in use is logged as ``<tag>/<kind>``, with one
warning. What was logged first keeps its name, in the order of the calls: ``make_batch`` asks in
that order, whichever part of the data is ready first. What a forked child's parent had logged, and
what the earlier files of a run hold, came before.

The worker thread does this, so a call that logs a number needs no lookup.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sm_tblog._types import Series, as_utf8

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from sm_tblog._types import Value
    from sm_tblog.pipeline.faults import FaultLog

__all__ = ["TagRegistry"]

SCALARS = "scalars"

UNKNOWN = ""
"""The kind of something that a forked child's parent had not built yet: anything but scalars."""


class TagRegistry:
    """The kinds of data of one writer, by run and tag.

    Args:
        faults: receives a warning for each tag that is renamed.
        rename: a function applied to every tag; its results can be encoded as UTF-8.
        find_kinds: returns the kinds of data by tag that earlier files of a run hold.
    """

    def __init__(
        self,
        faults: FaultLog,
        rename: Callable[[str], str] = as_utf8,
        find_kinds: Callable[[str], Mapping[str, str]] | None = None,
    ) -> None:
        self.faults = faults
        self._rename = rename
        self._find_kinds = find_kinds
        self._kinds: dict[str, dict[str, str]] = {}  # by run and tag

    def stored_tag(self, tag: str) -> str:
        """Return a tag as it is stored if no other kind of data has it."""
        return self._rename(tag)

    def is_new(self, series: str | Series) -> bool:
        """Return whether nothing has claimed the tag of a series."""
        run, tag = ("", series) if isinstance(series, str) else (series.run, series.tag)
        return self.stored_tag(tag) not in self._kinds.get(run, ())

    def claim(self, run: str, tag: str, kind: str = UNKNOWN) -> None:
        """Reserve a tag for data of this kind, unless another kind already has it."""
        self._kinds_of(run).setdefault(self.stored_tag(tag), kind)

    def claim_series(self, series: Iterable[str | Series]) -> None:
        """Reserve the tags of scalars."""
        for one in series:
            run, tag = ("", one) if isinstance(one, str) else (one.run, one.tag)
            self.claim(run, tag, SCALARS)

    def assign_series(self, series: Sequence[str | Series]) -> list[Series]:
        """Return the series, renamed where the tag holds another kind of data."""
        assigned = []
        for given in series:
            one = Series(given) if isinstance(given, str) else given
            tag = self._assign(one.run, self.stored_tag(one.tag), SCALARS)
            assigned.append(one if tag == one.tag else one._replace(tag=tag))
        return assigned

    def assign_value(self, value: Value) -> Value:
        """Return the value, renamed if its tag holds another kind of data."""
        if not value.plugin:  # a message from elsewhere, and TensorBoard shows it nowhere
            return value
        tag = self._assign(value.run, value.tag, value.plugin)
        if tag == value.tag:
            return value
        from sm_tblog.format import schema

        message = schema.Value.FromString(value.data)
        message.tag = tag
        return value._replace(tag=tag, data=message.SerializeToString())

    def _assign(self, run: str, tag: str, kind: str) -> str:
        kinds = self._kinds_of(run)
        known = kinds.setdefault(tag, kind)
        if known == UNKNOWN and kind != SCALARS:
            known = kinds[tag] = kind
        if known == kind:
            return tag
        renamed = self._assign(run, f"{tag}/{kind}", kind)
        holder = f"the plugin {known!r}" if known else "another plugin"
        self.faults.warn_once(
            f"kind {run} {tag} {kind}",
            f"the tag {tag!r} holds data of {holder}, and TensorBoard shows only one "
            f"kind of data per tag; data of the plugin {kind!r} is logged as {renamed!r}",
        )
        return renamed

    def _kinds_of(self, run: str) -> dict[str, str]:
        if run not in self._kinds:
            self._kinds[run] = {}
            if self._find_kinds is not None:
                with contextlib.suppress(Exception):  # nothing may cost the data at hand
                    self._kinds[run] |= self._find_kinds(run)
        return self._kinds[run]

"""Layouts of the Custom Scalars tab."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sm_tblog.summary import builder
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["LayoutMethods"]

_build_layout = builder("layout.layout_value")


class LayoutMethods(BaseWriter):
    """What lays out charts."""

    def _extend_chart(self, title: str, tags: Iterable[str]) -> None:
        """Write the layout anew if a chart gets curves that it did not have."""
        chart = self._charts.setdefault(title, [])
        new = [tag for name in tags if (tag := f"{title}/{name}") not in chart]
        if new:
            chart.extend(new)
            charts = {name: list(tags) for name, tags in self._charts.items()}
            self._put(title, _build_layout, (charts,), 0, None)

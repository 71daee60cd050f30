"""Texts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_at_least, check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["TextMethods"]

_build_text = builder("text.text_value")
_build_table = builder("table.table_value")


class TextMethods(BaseWriter):
    """What logs texts and tables."""

    def add_text(
        self,
        tag: str,
        text_string: str | Sequence[Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log Markdown text.

        Args:
            tag: the text's name, taken as it is.
            text_string: Markdown; a sequence of strings, or of rows of strings, makes a table.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, text or step is of the wrong kind.
        """
        if isinstance(text_string, bytes):
            text_string = text_string.decode(errors="replace")
        if not hasattr(text_string, "__iter__"):
            message = f"{tag!r}: a text is a str or a sequence of str, got {text_string!r:.60}"
            raise InvalidTypeError(message)
        text = _frozen(text_string)
        self._put(tag, _build_text, (text,), global_step, walltime, len(text))

    def add_table(
        self,
        tag: str,
        table: Any,
        global_step: Any = None,
        walltime: float | None = None,
        *,
        max_rows: int | None = 100,
    ) -> None:
        """Log a table, for the Text tab.

        Cells show what they hold: what Markdown or HTML would take for their own is escaped. The
        floats of a column have six significant digits at most, and equally many decimals. None is
        an empty cell.

        Args:
            tag: the table's name, taken as it is.
            table: a data frame of pandas or Polars; a mapping of columns by name; a sequence of
                mappings, a row each; or a sequence of rows, the first of them the header. Cells
                are numbers, tensors with one element, on any device, or anything that ``str``
                makes readable. The index of a pandas frame is shown if it is not just numbers of
                rows.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            max_rows: how many rows are shown; a last line says how many are not. None for all.

        Raises:
            InvalidTypeError: an argument is of the wrong kind.
            InvalidValueError: the table has no columns, its columns or rows are not as long as
                each other, or ``max_rows`` is less than one.
        """
        if self._enabled:
            check_tag(tag)
            check_at_least("max_rows", max_rows, 1)
            from sm_tblog.summary.table import as_table

            cells = as_table(table, max_rows, tag)
            self._put(tag, _build_table, (cells,), global_step, walltime, cells.nbytes)


def _frozen(text: Any) -> Any:
    """Return nested sequences of strings as tuples."""
    return (
        text
        if isinstance(text, str) or not hasattr(text, "__iter__")
        else tuple(map(_frozen, text))
    )

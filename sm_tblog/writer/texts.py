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
    """Methods that log texts and tables."""

    def add_text(
        self,
        tag: str,
        text_string: str | Sequence[Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log Markdown text.

        Args:
            tag: the text's name, used as is.
            text_string: Markdown; a sequence of strings, or of rows of strings, makes a table.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, text or step has the wrong type.
        """
        if isinstance(text_string, bytes):
            text_string = text_string.decode(errors="replace")
        if not hasattr(text_string, "__iter__"):
            message = f"{tag!r}: a text must be a str or a sequence of str, got {text_string!r:.60}"
            raise InvalidTypeError(message)
        text = _freeze(text_string)
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
        """Log a table for the Text tab.

        Cells show their content literally: Markdown and HTML syntax is escaped. The floats of a
        column have at most six significant digits, and the same number of decimals. None is an
        empty cell.

        Args:
            tag: the table's name, used as is.
            table: a pandas or Polars data frame; a mapping of column names to columns; a sequence
                of mappings, one per row; or a sequence of rows, the first of which is the header.
                Cells are numbers, tensors with one element, on any device, or anything that ``str``
                makes readable. The index of a pandas frame is shown unless it only numbers the
                rows.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.
            max_rows: the maximum number of rows shown; a last line gives the number of omitted
                rows. None shows all.

        Raises:
            InvalidTypeError: an argument has the wrong type.
            InvalidValueError: the table has no columns, its columns or rows differ in length, or
                ``max_rows`` is less than 1.
        """
        if self._enabled:
            check_tag(tag)
            check_at_least("max_rows", max_rows, 1)
            from sm_tblog.summary.table import as_table

            cells = as_table(table, max_rows, tag)
            self._put(tag, _build_table, (cells,), global_step, walltime, cells.nbytes)


def _freeze(text: Any) -> Any:
    """Return nested sequences of strings as tuples."""
    return (
        text
        if isinstance(text, str) or not hasattr(text, "__iter__")
        else tuple(map(_freeze, text))
    )

"""Texts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.summary import builder
from sm_tblog.writer.arguments import check_at_least, check_tag
from sm_tblog.writer.base import BaseWriter

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import TypeAlias

    _Text: TypeAlias = str | tuple[str, ...] | tuple[tuple[str, ...], ...]

__all__ = ["TextMethods"]

_MAX_DEPTH = 16
"""Levels of nesting beyond which a text is assumed to contain itself."""

_build_text = builder("text.text_value")
_build_table = builder("table.table_value")


class TextMethods(BaseWriter):
    """Methods that log texts and tables."""

    def add_text(
        self,
        tag: str,
        text_string: str | bytes | Iterable[Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Log Markdown text.

        Args:
            tag: the text's name, used as is.
            text_string: Markdown, as a str or as bytes in UTF-8. A sequence or array of texts makes
                a table with one column, a sequence of rows a table with several. Shorter rows are
                filled up; cells of other types are shown as their ``str``, and sequences in a row
                in brackets. Pass mappings and data frames to ``add_table``.
            global_step: any integer; by default ``writer.step``.
            walltime: seconds since the epoch; by default now.

        Raises:
            InvalidTypeError: the tag, text or step has the wrong type.
            InvalidValueError: the text contains itself.
        """
        if self._enabled:
            text = _as_text(text_string, tag)
            self._put(tag, _build_text, (text,), global_step, walltime, _size_of(text))

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


def _as_text(text: Any, tag: str) -> _Text:
    """Return a text as a str, a column of them as a tuple, or rows of them as a tuple of tuples.

    Raises:
        InvalidTypeError: it is none of these.
        InvalidValueError: it contains itself.
    """
    whole = _maybe_str(text)
    if whole is not None:
        return whole
    cells = None if _is_scalar(text) else _maybe_cells(text, tag)
    if cells is None:
        message = (
            f"{tag!r}: a text must be a str, a sequence of str or a sequence of rows, got "
            f"{text!r:.60} ({type(text).__name__})"
        )
        raise InvalidTypeError(message)
    inner = [_maybe_cells(cell, tag) for cell in cells]
    if all(row is None for row in inner):
        return tuple(_as_cell(cell, tag) for cell in cells)
    rows = [[cell] if row is None else row for cell, row in zip(cells, inner, strict=True)]
    width = max(map(len, rows))
    return tuple(
        (*(_as_cell(cell, tag) for cell in row), *[""] * (width - len(row))) for row in rows
    )


def _maybe_str(value: Any) -> str | None:
    """Return text of any type as a str; None for anything else."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()
    if isinstance(value, (bytes, bytearray)):
        return value.decode(errors="replace")
    return str.__str__(value) if isinstance(value, str) else None


def _is_scalar(value: Any) -> bool:
    return getattr(value, "shape", None) == ()


def _maybe_cells(value: Any, tag: str) -> list[Any] | None:
    """Return the elements of a sequence or array; None for anything that is one cell.

    Raises:
        InvalidTypeError: it is a mapping or a table, of which iterating yields only the names.
    """
    if _maybe_str(value) is not None or _is_scalar(value) or not hasattr(value, "__iter__"):
        return None
    if hasattr(value, "tolist"):  # the elements of most arrays are arrays
        return list(value.tolist())
    if hasattr(value, "keys") or hasattr(value, "iter_columns") or hasattr(value, "column_names"):
        message = (
            f"{tag!r}: a text must be a str or a sequence of str, got a {type(value).__name__}; "
            "use add_table for tables, and json.dumps for a mapping"
        )
        raise InvalidTypeError(message)
    return list(value)


def _as_cell(cell: Any, tag: str, depth: int = 2) -> str:
    """Return a cell as text; a sequence, which TensorBoard would not show, in brackets."""
    text = _maybe_str(cell)
    if text is not None:
        return text
    if _is_scalar(cell) and hasattr(cell, "item"):
        return str(cell.item())
    if (cells := _maybe_cells(cell, tag)) is None:
        return str(cell)
    if depth > _MAX_DEPTH:
        message = (
            f"{tag!r}: the text is nested more than {_MAX_DEPTH} levels deep; does it contain "
            "itself?"
        )
        raise InvalidValueError(message)
    return f"[{', '.join(_as_cell(one, tag, depth + 1) for one in cells)}]"


def _size_of(text: _Text) -> int:
    """Return the approximate memory of a text in bytes."""
    return len(text) if isinstance(text, str) else sum(64 + _size_of(cell) for cell in text)

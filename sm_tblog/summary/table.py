"""Tables: data frames, columns and rows as Markdown for the Text tab.

``as_table`` runs at the call: it copies the cells to show, and checks that every row has the length
of the header. ``table_value`` runs on the worker thread: it formats the cells, escapes Markdown and
HTML so that every cell is shown literally, and builds a Markdown table. TensorBoard converts that
to HTML and strips all attributes, including alignment; so the floats of a column have the same
number of decimals, which aligns them anyway.
"""

from __future__ import annotations

import math
from itertools import islice
from numbers import Number
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.arrays.convert import Deferred, as_number
from sm_tblog.summary.text import text_value

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = ["Table", "as_table", "table_value"]

_ESCAPES = str.maketrans(
    {
        **{chr(code): "\N{REPLACEMENT CHARACTER}" for code in (*range(32), 127)},
        **{character: f"\\{character}" for character in "\\`*_[]|"},
        "<": "&lt;",
        ">": "&gt;",
        "&": "&amp;",
        "\t": " ",
        "\n": "<br>",
    }
)


class Table(NamedTuple):
    """The cells to show.

    Attributes:
        header: the names of the columns.
        rows: rows of the length of the header; cells are numbers, strings, ``Deferred`` or None.
        total: the number of rows before truncation.
    """

    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    total: int

    @property
    def nbytes(self) -> int:
        """The approximate memory held by the cells, in bytes."""
        return sum(64 + len(cell) if isinstance(cell, str) else 64 for r in self.rows for cell in r)


def as_table(table: Any, max_rows: int | None, tag: str) -> Table:
    """Return a copy of the first rows of a table.

    Args:
        table: a pandas or Polars data frame; a mapping of columns; a sequence of mappings, one per
            row; or a sequence of sequences, of which the first is the header.
        max_rows: the maximum number of rows to copy; None for all.
        tag: the tag, for error messages.

    Raises:
        InvalidTypeError: ``table`` is of another type.
        InvalidValueError: ``table`` has no columns, or columns or rows of different lengths.
    """
    if hasattr(table, "iter_columns"):  # Polars
        return _of_columns([(c.name, c) for c in table.iter_columns()], max_rows, tag)
    if hasattr(table, "items"):
        return _of_columns([*_index_of(table), *table.items()], max_rows, tag)
    if isinstance(table, (str, bytes)) or not hasattr(table, "__iter__"):
        message = (
            f"{tag!r}: a table must be a data frame, a mapping of columns, a sequence of mappings, "
            f"or a sequence of rows with the header first; got {type(table).__name__} {table!r:.60}"
        )
        raise InvalidTypeError(message)
    rows = table if hasattr(table, "__len__") else list(table)
    if not len(rows):
        message = f"{tag!r}: a table without rows needs at least a header, got {table!r:.60}"
        raise InvalidValueError(message)
    if hasattr(next(iter(rows)), "items"):
        return _of_records(rows, max_rows, tag)
    return _of_rows(rows, max_rows, tag)


def _index_of(frame: Any) -> Iterable[tuple[Any, Any]]:
    """Return the levels of a pandas index, or none if it only numbers the rows."""
    index: Any = getattr(frame, "index", None)
    if not hasattr(index, "get_level_values") or hasattr(index, "step"):  # a RangeIndex has a step
        return []
    return [
        ("" if name is None else name, index.get_level_values(level))
        for level, name in enumerate(index.names)
    ]


def _of_columns(columns: Sequence[tuple[Any, Any]], max_rows: int | None, tag: str) -> Table:
    lengths = {}
    for name, column in columns:
        if isinstance(column, (str, bytes)) or not hasattr(column, "__len__"):
            message = (
                f"{tag!r}: a column must be a sequence of cells, but {name!r} is {column!r:.60}; "
                "for a table of one row pass a list with one mapping"
            )
            raise InvalidTypeError(message)
        lengths[name] = len(column)
    if len(set(lengths.values())) != 1:
        message = f"{tag!r}: the columns of a table must have equal lengths, got {lengths}"
        raise InvalidValueError(message)
    copies = [[_copy(cell, tag) for cell in islice(column, max_rows)] for _, column in columns]
    header = tuple(_title(name) for name, _ in columns)
    return Table(header, list(zip(*copies, strict=True)), next(iter(lengths.values())))


def _of_records(records: Any, max_rows: int | None, tag: str) -> Table:
    shown = list(islice(records, max_rows))
    for number, record in enumerate(shown):
        if not hasattr(record, "items"):
            message = f"{tag!r}: all rows must be mappings, but row {number} is {record!r:.60}"
            raise InvalidTypeError(message)
    names = list(dict.fromkeys(name for record in shown for name in record))
    if not names:
        message = f"{tag!r}: a table must have columns, got rows without any"
        raise InvalidValueError(message)
    rows = [tuple(_copy(record.get(name), tag) for name in names) for record in shown]
    return Table(tuple(map(_title, names)), rows, len(records))


def _of_rows(rows: Any, max_rows: int | None, tag: str) -> Table:
    shown = list(islice(rows, None if max_rows is None else max_rows + 1))
    for number, row in enumerate(shown):
        if isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
            message = f"{tag!r}: a row must be a sequence of cells, but row {number} is {row!r:.60}"
            raise InvalidTypeError(message)
        if len(row) != len(shown[0]) or not len(row):
            message = (
                f"{tag!r}: the header has {len(shown[0])} cells, but row {number} has {len(row)}"
            )
            raise InvalidValueError(message)
    copies = [tuple(_copy(cell, tag) for cell in row) for row in shown[1:]]
    return Table(tuple(map(_title, shown[0])), copies, len(rows) - 1)


def _title(name: Any) -> str:
    """Return a column's name, which pandas stores as a tuple if the header has several levels."""
    return " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _copy(cell: Any, tag: str) -> Any:
    """Return a cell as an immutable number or string, a ``Deferred`` or None."""
    if cell is None or isinstance(cell, (str, Number, np.generic)):
        return cell
    if math.prod(getattr(cell, "shape", (0,))) == 1:  # a tensor with one element
        return as_number(cell, tag)
    return str(cell)


def table_value(tag: str, table: Table) -> Any:
    """Return a ``Summary.Value`` of the text plugin that shows a table.

    Args:
        tag: the tag, used unchanged.
        table: at least one column; a last line states how many rows are left out.
    """
    header = [_escape(name) for name in table.header]
    columns = list(zip(*table.rows, strict=True)) or [()] * len(header)
    lines = [
        _line(header),
        _line(["---:" if _is_numeric(column) else "---" for column in columns]),
        *map(_line, zip(*map(_format, columns), strict=True)),
    ]
    left_out = table.total - len(table.rows)
    if left_out:
        rows = "row" if left_out == 1 else "rows"
        lines += ["", f"*… and {left_out:,} more {rows}*"]
    return text_value(tag, "\n".join(lines))


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _is_numeric(column: Iterable[Any]) -> bool:
    kinds = (Number, np.number, Deferred)
    return all(cell is None or isinstance(cell, kinds) for cell in column)


def _format(column: Sequence[Any]) -> list[str]:
    """Return the cells as Markdown; floats have six significant digits."""
    cells = [
        float(cell) if isinstance(cell, (float, np.floating, Deferred)) else cell for cell in column
    ]
    floats = [cell for cell in cells if isinstance(cell, float)]
    style = _common_style(floats)
    return [
        format(cell, style)
        if isinstance(cell, float)
        else ""
        if cell is None
        else _escape(str(cell))
        for cell in cells
    ]


def _common_style(floats: Iterable[float]) -> str:
    """Return a format with the same number of decimals for all, or with six digits for each.

    The largest number gets six significant digits, or fewer if no number needs that many; but no
    number is cut to fewer than three.
    """
    sizes = [abs(number) for number in floats if number and math.isfinite(number)]
    texts = [f"{size:.6g}" for size in sizes]
    if not texts or any("e" in text for text in texts):
        return ".6g"
    needed = max(len(text.partition(".")[2]) for text in texts)
    decimals = min(needed, max(5 - math.floor(math.log10(max(sizes))), 0))
    if decimals < needed and min(sizes) * 10**decimals < 100:
        return ".6g"
    return f".{decimals}f"


def _escape(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_ESCAPES)

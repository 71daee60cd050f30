"""Tables: data frames, columns and rows as Markdown for the Text tab.

``as_table`` runs at the call: it copies as many cells as will be shown, and sees to it that the
rows are as long as the header. ``table_value`` runs on the worker: it formats the cells, escapes
what Markdown or HTML would take for their own, so that every cell shows what it holds, and lays
them out as a table of Markdown. TensorBoard makes HTML of it and strips all attributes, alignment
too; so floats of a column are written with equally many decimals, and line up all the same.
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
    """The cells to be shown.

    Attributes:
        header: the names of the columns.
        rows: as long as the header each; cells are numbers, strings, ``Deferred`` or None.
        total: how many rows there were.
    """

    header: tuple[str, ...]
    rows: list[tuple[Any, ...]]
    total: int

    @property
    def nbytes(self) -> int:
        """About how much memory the cells keep."""
        return sum(64 + len(cell) if isinstance(cell, str) else 64 for r in self.rows for cell in r)


def as_table(table: Any, max_rows: int | None, tag: str) -> Table:
    """Return a copy of the first rows of a table.

    Args:
        table: a data frame of pandas or Polars; a mapping of columns; a sequence of mappings, a
            row each; or a sequence of sequences, the header first.
        max_rows: how many rows are copied at most; None for all.
        tag: named in errors.

    Raises:
        InvalidTypeError: it is no such thing.
        InvalidValueError: it has no columns, or they or the rows are not as long as each other.
    """
    if hasattr(table, "iter_columns"):  # Polars
        return _of_columns([(c.name, c) for c in table.iter_columns()], max_rows, tag)
    if hasattr(table, "items"):
        return _of_columns([*_index_of(table), *table.items()], max_rows, tag)
    if isinstance(table, (str, bytes)) or not hasattr(table, "__iter__"):
        message = (
            f"{tag!r}: a table is a data frame, a mapping of columns, a sequence of mappings, or "
            f"a sequence of rows with the header first; got {type(table).__name__} {table!r:.60}"
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
    """Return the levels of a pandas index that says more than a row's number does."""
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
                f"{tag!r}: a column is a sequence of cells, but {name!r} is {column!r:.60}; "
                "for a table of one row give a list with one mapping"
            )
            raise InvalidTypeError(message)
        lengths[name] = len(column)
    if len(set(lengths.values())) != 1:
        message = f"{tag!r}: a table needs columns of one length, got {lengths}"
        raise InvalidValueError(message)
    copies = [[_copied(cell, tag) for cell in islice(column, max_rows)] for _, column in columns]
    header = tuple(_title(name) for name, _ in columns)
    return Table(header, list(zip(*copies, strict=True)), next(iter(lengths.values())))


def _of_records(records: Any, max_rows: int | None, tag: str) -> Table:
    shown = list(islice(records, max_rows))
    for number, record in enumerate(shown):
        if not hasattr(record, "items"):
            message = f"{tag!r}: the rows are mappings, but row {number} is {record!r:.60}"
            raise InvalidTypeError(message)
    names = list(dict.fromkeys(name for record in shown for name in record))
    if not names:
        message = f"{tag!r}: a table has columns, got rows without any"
        raise InvalidValueError(message)
    rows = [tuple(_copied(record.get(name), tag) for name in names) for record in shown]
    return Table(tuple(map(_title, names)), rows, len(records))


def _of_rows(rows: Any, max_rows: int | None, tag: str) -> Table:
    shown = list(islice(rows, None if max_rows is None else max_rows + 1))
    for number, row in enumerate(shown):
        if isinstance(row, (str, bytes)) or not hasattr(row, "__len__"):
            message = f"{tag!r}: a row is a sequence of cells, but row {number} is {row!r:.60}"
            raise InvalidTypeError(message)
        if len(row) != len(shown[0]) or not len(row):
            message = (
                f"{tag!r}: the header has {len(shown[0])} cells and row {number} has {len(row)}"
            )
            raise InvalidValueError(message)
    copies = [tuple(_copied(cell, tag) for cell in row) for row in shown[1:]]
    return Table(tuple(map(_title, shown[0])), copies, len(rows) - 1)


def _title(name: Any) -> str:
    """Return a column's name; pandas has tuples where the header has several levels."""
    return " / ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _copied(cell: Any, tag: str) -> Any:
    """Return a number, string, ``Deferred`` or None that later changes do not reach."""
    if cell is None or isinstance(cell, (str, Number, np.generic)):
        return cell
    if math.prod(getattr(cell, "shape", (0,))) == 1:  # a tensor with one element
        return as_number(cell, tag)
    return str(cell)


def table_value(tag: str, table: Table) -> Any:
    """Return a ``Summary.Value`` of the text plugin that shows a table.

    Args:
        tag: the tag, taken as it is.
        table: at least one column; a last line says how many rows it leaves out.
    """
    header = [_escaped(name) for name in table.header]
    columns = list(zip(*table.rows, strict=True)) or [()] * len(header)
    lines = [
        _line(header),
        _line(["---:" if _is_numeric(column) else "---" for column in columns]),
        *map(_line, zip(*map(_formatted, columns), strict=True)),
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


def _formatted(column: Sequence[Any]) -> list[str]:
    """Return the cells as Markdown, floats with six significant digits."""
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
        else _escaped(str(cell))
        for cell in cells
    ]


def _common_style(floats: Iterable[float]) -> str:
    """Return a format that shows all with equally many decimals, or each with six digits.

    The largest number gets six significant digits, fewer if none needs so many; but no number is
    cut to less than three.
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


def _escaped(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n").translate(_ESCAPES)

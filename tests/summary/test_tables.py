"""Tables: TensorBoard's Text tab shows every cell unchanged."""

import html.parser
from collections import OrderedDict
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.text.text_plugin import text_array_to_html
from tensorboard.util.tensor_util import make_ndarray

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.summary.table import as_table, table_value

unhurried = settings(deadline=None)  # how long an example takes is not what is tested

HEADER = ["name", "size"]


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        yield writer


class Cells(html.parser.HTMLParser):
    """The cells of an HTML table, and the text after it."""

    def __init__(self, page):
        super().__init__()
        self.rows, self.after, self.tags = [], "", set()
        self._in_cell = False
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in {"td", "th"}:
            self.rows[-1].append("")
            self._in_cell = True
        elif tag == "br":
            self.rows[-1][-1] += "\n"

    def handle_endtag(self, tag):
        self._in_cell &= tag not in {"td", "th"}

    def handle_data(self, data):
        if self._in_cell:
            self.rows[-1][-1] += data
        else:
            self.after += data.strip()


def markdown(table, max_rows=None):
    (text,) = table_value("tag", as_table(table, max_rows, "tag")).tensor.string_val
    return text.decode()


def shown(table, max_rows=None):
    """What TensorBoard makes of a table."""
    array = np.array(markdown(table, max_rows).encode(), object)
    return Cells(text_array_to_html(array, enable_markdown=True))


def rows_of(table):
    return shown(table).rows


EXPECTED = [HEADER, ["conv", "9408"], ["head", "512"]]


@pytest.mark.parametrize(
    "table",
    [
        {"name": ["conv", "head"], "size": [9408, 512]},
        OrderedDict(name=("conv", "head"), size=np.array([9408, 512])),
        [{"name": "conv", "size": 9408}, {"size": 512, "name": "head"}],
        (HEADER, ("conv", 9408), ["head", np.int32(512)]),
        iter([HEADER, ("conv", 9408), ("head", 512)]),
        np.array([HEADER, ["conv", "9408"], ["head", "512"]]),
    ],
)
def test_columns_records_and_rows_make_the_same_table(table):
    assert rows_of(table) == EXPECTED


class TestPandas:
    @pytest.fixture(autouse=True)
    def _pandas(self):
        self.pandas = pytest.importorskip("pandas")

    def test_a_frame_is_shown_without_its_row_numbers(self):
        frame = self.pandas.DataFrame({"name": ["conv", "head"], "size": [9408, 512]})
        assert rows_of(frame) == EXPECTED
        assert rows_of(frame[::2]) == EXPECTED[:2]

    def test_an_index_that_says_something_is_shown(self):
        frame = self.pandas.DataFrame({"size": [1.5, 2.25]}, index=["conv", "head"])
        assert rows_of(frame) == [["", "size"], ["conv", "1.50"], ["head", "2.25"]]

    def test_levels_of_index_and_header_are_shown(self):
        frame = self.pandas.DataFrame({"a": [1, 1, 2], "b": ["x", "y", "x"], "c": [1.0, 2.0, 3.0]})
        grouped = frame.groupby(["a", "b"]).agg({"c": ["min", "max"]})
        assert rows_of(grouped) == [
            ["a", "b", "c / min", "c / max"],
            ["1", "x", "1", "1"],
            ["1", "y", "2", "2"],
            ["2", "x", "3", "3"],
        ]

    def test_columns_of_one_name_and_of_any_type_are_shown(self):
        times = self.pandas.to_datetime(["2020-01-01", None])
        columns = [times, [True, False], self.pandas.array([1, None], "Int64"), [None, "x"]]
        frame = self.pandas.concat([self.pandas.Series(c, name="c") for c in columns], axis=1)
        assert rows_of(frame) == [
            ["c"] * 4,
            ["2020-01-01 00:00:00", "True", "1", rows_of(frame)[1][3]],
            ["NaT", "False", "<NA>", "x"],
        ]


class PolarsColumn(list):
    def __init__(self, name, cells):
        super().__init__(cells)
        self.name = name


class PolarsFrame:
    """What Polars' frames offer."""

    def __init__(self, columns):
        self.columns = list(columns)
        self._columns = [PolarsColumn(name, cells) for name, cells in columns.items()]

    def iter_columns(self):
        return iter(self._columns)


COLUMNS = {"name": ["conv", "head"], "size": [9408, 512]}


def test_a_frame_with_what_polars_offers_is_a_table():
    assert rows_of(PolarsFrame(COLUMNS)) == EXPECTED


def test_a_frame_of_polars_is_a_table():
    polars = pytest.importorskip("polars")
    assert rows_of(polars.DataFrame(COLUMNS)) == EXPECTED


def test_records_may_lack_cells():
    records = [{"a": 1}, {"b": 2.5, "a": None}, {}]
    assert rows_of(records) == [["a", "b"], ["1", ""], ["", "2.5"], ["", ""]]


def test_a_table_without_rows_is_its_header():
    # TensorBoard's Markdown adds a row of empty cells.
    assert rows_of({"a": [], "b": []}) == [["a", "b"], ["", ""]]
    assert rows_of([["a", "b"]]) == [["a", "b"], ["", ""]]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([0.5, 0.25, 12], ["0.50", "0.25", "12"]),
        ([0.636962, 0.0409735, 0.81327], ["0.636962", "0.040974", "0.813270"]),
        ([1234.5678, 0.5], ["1234.57", "0.50"]),
        ([1e-5, 1.0, 3e8], ["1e-05", "1", "3e+08"]),
        ([12.25, 0.00123], ["12.25", "0.00123"]),
        ([1.0, 2.0], ["1", "2"]),
        ([0.0, -0.5], ["0.0", "-0.5"]),
        ([float("nan"), float("inf"), 0.5], ["nan", "inf", "0.5"]),
        ([np.float32(0.1), np.float16(0.25)], ["0.10", "0.25"]),
        ([1 / 3, None], ["0.333333", ""]),
        ([True, np.bool_(False)], ["True", "False"]),
        ([10**30, np.uint8(7)], [str(10**30), "7"]),
        ([Decimal("0.1"), Fraction(1, 3), 1j], ["0.1", "1/3", "1j"]),
        ([[1, 2], np.array([0.5]), np.zeros(2)], ["[1, 2]", "0.5", "[0. 0.]"]),
        ([b"x", np.datetime64("2020-01-01")], ["b'x'", "2020-01-01"]),
    ],
)
def test_cells_are_readable(cells, expected):
    assert [row[0] for row in rows_of({"column": cells})[1:]] == expected


def test_tensors_with_one_element_are_numbers():
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    cells = [torch.tensor(0.5, requires_grad=True), torch.tensor([2]), jax.numpy.array(0.25)]
    assert [row[0] for row in rows_of({"loss": cells})[1:]] == ["0.50", "2.00", "0.25"]


@unhurried
@given(
    st.lists(st.text(), min_size=1, max_size=4).flatmap(
        lambda header: st.tuples(
            st.just(header),
            st.lists(
                st.lists(
                    st.text()
                    | st.text("\\`*_[]()<>&|!#-+.:~$=\n\r\t1a ")
                    | st.sampled_from(["<b>x</b>", "&lt;", "[a](b)", "`a|b`", "\\|", "http://x"]),
                    min_size=len(header),
                    max_size=len(header),
                ),
                min_size=1,
                max_size=4,
            ),
        )
    )
)
def test_every_text_is_shown_as_it_is(table):
    header, rows = table
    found = shown([header, *rows])
    assert found.tags <= {"table", "thead", "tbody", "tr", "th", "td", "br"}

    def visible(text):
        controls = {*map(chr, range(32)), "\x7f"} - set("\t\n\r")
        plain = "".join("\ufffd" if letter in controls else letter for letter in text)
        return " ".join(plain.split())

    assert [[visible(cell) for cell in row] for row in found.rows] == [
        [visible(cell) for cell in row] for row in (header, *rows)
    ]


def test_line_breaks_are_kept():
    assert rows_of({"a": ["x\ny", "x\r\ny", "x\ry"]})[1:] == [["x\ny"]] * 3


@pytest.mark.parametrize(
    ("left_out", "says"),
    [(0, ""), (1, "… and 1 more row"), (2, "… and 2 more rows"), (1234, "… and 1,234 more rows")],
)
@pytest.mark.parametrize("form", ["columns", "records", "rows"])
def test_a_last_line_says_how_many_rows_are_left_out(form, left_out, says):
    column = list(range(3 + left_out))
    table = {
        "columns": {"a": column},
        "records": [{"a": number} for number in column],
        "rows": [["a"], *([number] for number in column)],
    }[form]
    found = shown(table, max_rows=3)
    assert found.rows == [["a"], ["0"], ["1"], ["2"]]
    assert found.after == says


def test_numbers_are_aligned_to_the_right_where_markdown_is_drawn_with_alignment():
    table = {
        "name": ["a", None],
        "int": [1, None],
        "float": [0.5, np.float32(1)],
        "mixed": [1, "x"],
    }
    assert markdown(table).splitlines()[1] == "| --- | ---: | ---: | --- |"


def test_tensorboard_reads_a_table(writer, tmp_path):
    writer.add_table("tables/layers", {"name": ["conv"]}, 3, 12.5)
    writer.flush()
    run = EventAccumulator(str(tmp_path)).Reload()
    assert run.SummaryMetadata("tables/layers").plugin_data.plugin_name == "text"
    (event,) = run.Tensors("tables/layers")
    assert (event.step, event.wall_time) == (3, 12.5)
    assert make_ndarray(event.tensor_proto).item() == b"| name |\n| --- |\n| conv |"


def test_a_hundred_rows_are_shown_unless_more_are_asked_for(writer, tmp_path):
    table = {"a": range(150)}
    for tag, options in (("few", {}), ("two", {"max_rows": 2}), ("all", {"max_rows": None})):
        writer.add_table(tag, table, **options)
    writer.flush()
    run = EventAccumulator(str(tmp_path)).Reload()

    def lines(tag):
        return make_ndarray(run.Tensors(tag)[0].tensor_proto).item().decode().splitlines()

    assert [len(lines(tag)) for tag in ("few", "two", "all")] == [104, 6, 152]


def test_a_table_may_change_after_the_call(writer, tmp_path):
    nested = [1]
    table = {"a": np.array([1, 2]), "b": [nested, "x"]}
    writer.add_table("kept", table)
    table["a"][:] = 7
    nested.append(2)
    table["b"].clear()
    writer.flush()
    run = EventAccumulator(str(tmp_path)).Reload()
    text = make_ndarray(run.Tensors("kept")[0].tensor_proto).item().decode()
    assert text.splitlines()[2:] == ["| 1 | \\[1\\] |", "| 2 | x |"]


@pytest.mark.parametrize(
    ("table", "error", "says"),
    [
        ("text", InvalidTypeError, "a data frame, .* got str 'text'"),
        (b"text", InvalidTypeError, "got bytes"),
        (3, InvalidTypeError, "got int 3"),
        (None, InvalidTypeError, "got NoneType None"),
        ([], InvalidValueError, "needs at least a header"),
        ({}, InvalidValueError, "columns of a table must have equal lengths, got {}"),
        ([{}], InvalidValueError, "must have columns"),
        ([[]], InvalidValueError, "header has 0 cells"),
        ({"lr": 0.1}, InvalidTypeError, "'lr' is 0.1; for a table of one row"),
        ({"lr": "ab"}, InvalidTypeError, "'lr' is 'ab'"),
        ({"a": [1], "b": [1, 2]}, InvalidValueError, "{'a': 1, 'b': 2}"),
        ([{"a": 1}, [2]], InvalidTypeError, r"mappings, but row 1 is \[2\]"),
        ([["a"], 2], InvalidTypeError, "row 1 is 2"),
        ([["a"], "b"], InvalidTypeError, "row 1 is 'b'"),
        (["a", "b"], InvalidTypeError, "row 0 is 'a'"),
        ([["a", "b"], [1]], InvalidValueError, "header has 2 cells, but row 1 has 1"),
    ],
)
def test_what_is_no_table_is_refused_at_the_call(writer, table, error, says):
    with pytest.raises(error, match=f"'my/tag'.*{says}"):
        writer.add_table("my/tag", table)


@pytest.mark.parametrize(
    ("max_rows", "error"),
    [(0, InvalidValueError), (-1, InvalidValueError), ("9", InvalidTypeError)],
)
def test_a_bad_number_of_rows_is_refused(writer, max_rows, error):
    with pytest.raises(error, match="max_rows must be a number of at least 1"):
        writer.add_table("tag", {"a": [1]}, max_rows=max_rows)


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    Writer(tmp_path / "none", enabled=False).add_table("tag", None)
    assert not (tmp_path / "none").exists()

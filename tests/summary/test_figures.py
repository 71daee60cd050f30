"""Figures and confusion matrices: the pixels that TensorBoard gets, and the thread that draws."""

import inspect
import io
import threading
import warnings

import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from sklearn.metrics import confusion_matrix
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sm_tblog import InvalidTypeError, InvalidValueError, MissingDependencyError, Writer
from sm_tblog.arrays.convert import Deferred
from sm_tblog.summary import confusion, heatmap
from sm_tblog.summary.confusion import confusion_value, count_pairs, matrix_value, normalized
from sm_tblog.summary.figure import draw_figures, figure_value
from sm_tblog.summary.heatmap import draw_matrix

mpl.use("agg")
plt = pytest.importorskip("matplotlib.pyplot")

unhurried = settings(deadline=None)  # how long an example takes is not what is tested

PEERS = ["torch.utils.tensorboard", "tensorboardX"]


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    yield
    plt.close("all")


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        yield writer


def pixels_of(encoded):
    return np.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


@pytest.fixture
def images_at(tmp_path):
    """``images_at(tag)``: step, wall time and pixels of the images that TensorBoard reads."""

    def read(tag, folder=tmp_path):
        run = EventAccumulator(str(folder), {"images": 0}).Reload()
        found = run.Images(tag)
        for event in found:
            assert (event.height, event.width) == pixels_of(event.encoded_image_string).shape[:2]
        return [(e.step, e.wall_time, pixels_of(e.encoded_image_string)) for e in found]

    return read


def drawing(title="A figure", size=(3, 2), **options):
    figure = plt.figure(figsize=size, **options)
    axes = figure.add_subplot()
    axes.plot([1, 10, 100], label=r"$\alpha^2$")
    axes.set_yscale("log")
    axes.legend()
    axes.set_title(title)
    return figure


def drawn(figure):
    """The pixels that Matplotlib itself draws."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


class Recorder(Figure):
    """Records the thread that draws it."""

    def draw(self, renderer):
        self.drawn_by = threading.current_thread()
        super().draw(renderer)


# Figures.


def test_a_figure_is_an_image_with_the_pixels_that_matplotlib_draws(writer, images_at):
    expected = drawn(drawing())
    writer.add_figure("figure", drawing(), 3, walltime=12.5)
    writer.flush()
    ((step, wall_time, pixels),) = images_at("figure")
    assert (step, wall_time) == (3, 12.5)
    np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize("peer", PEERS)
def test_arguments_are_the_peers(peer):
    theirs = inspect.signature(pytest.importorskip(peer).SummaryWriter.add_figure)
    assert list(inspect.signature(Writer.add_figure).parameters) == list(theirs.parameters)


@pytest.mark.parametrize("peer", PEERS)
@pytest.mark.parametrize("count", [None, 3])
def test_images_equal_the_peers(peer, count, tmp_path, images_at):
    read = []
    for name, writer in (
        ("ours", Writer(tmp_path / "ours")),
        ("theirs", pytest.importorskip(peer).SummaryWriter(str(tmp_path / "theirs"))),
    ):
        figures = [drawing(str(i), (2, 1)) for i in range(count or 1)]
        writer.add_figure("tag", figures if count else figures[0], 4, True, 7.0)
        writer.close()
        assert plt.get_fignums() == []
        read.append(images_at("tag", tmp_path / name))
    ((step, wall_time, ours),), ((their_step, their_time, theirs),) = read
    assert (step, wall_time) == (their_step, their_time)
    np.testing.assert_array_equal(ours, theirs)


def test_figures_of_several_sizes_stand_in_a_grid_on_white(writer, images_at):
    figures = [drawing(size=(1, 2)), drawing(size=(2, 1)), *[drawing(size=(1, 1))] * 7]
    small = drawn(figures[8])
    writer.add_figure("grid", figures)
    writer.flush()
    ((_, _, pixels),) = images_at("grid")
    assert pixels.shape == (400, 1600, 3)  # two rows of eight, at 100 pixels an inch
    np.testing.assert_array_equal(pixels[200:300, :100], small)
    assert (pixels[200:, 200:] == 255).all()
    assert (pixels[:200, 100:200] == 255).all()


def test_the_callers_thread_draws():
    figure = Recorder(figsize=(1, 1))
    draw_figures(figure, "tag")
    assert figure.drawn_by is threading.current_thread()


def test_a_figure_is_drawn_in_the_style_of_the_call(writer, images_at):
    with plt.style.context("dark_background"):
        expected = drawn(drawing())
        writer.add_figure("dark", drawing())
    writer.flush()
    np.testing.assert_array_equal(images_at("dark")[0][2], expected)


def test_a_figure_may_change_after_the_call(writer, images_at):
    figure = drawing()
    expected = drawn(figure)
    writer.add_figure("kept", figure, close=False)
    figure.axes[0].set_title("changed")
    figure.canvas.draw()
    writer.add_figure("changed", figure, close=False)
    writer.flush()
    np.testing.assert_array_equal(images_at("kept")[0][2], expected)
    assert (images_at("changed")[0][2] != expected).any()


def test_a_figure_stays_on_the_canvas_it_was_shown_on(writer):
    figure = drawing()
    shown_on = figure.canvas
    writer.add_figure("figure", figure, close=False)
    assert figure.canvas is shown_on
    assert plt.fignum_exists(figure.number)


@pytest.mark.parametrize("enabled", [True, False])
def test_close_closes_figures_and_nothing_else(tmp_path, enabled):
    other, one, two = drawing(), drawing(), drawing()
    with Writer(tmp_path, enabled=enabled) as writer:
        writer.add_figure("tag", [one, two.axes[0]])
    assert plt.get_fignums() == [other.number]


def test_a_figure_that_cannot_be_drawn_is_closed_and_refused_by_tag(writer):
    figure = drawing(r"$\unknown$")
    shown_on = figure.canvas
    with pytest.raises(InvalidValueError, match=r"'my/tag'.*cannot draw"):
        writer.add_figure("my/tag", figure, close=False)
    assert figure.canvas is shown_on
    with pytest.raises(InvalidValueError, match=r"'my/tag'.*cannot draw"):
        writer.add_figure("my/tag", figure)
    assert plt.get_fignums() == []


def test_a_figure_without_a_background_is_drawn_on_white(writer, images_at):
    figure = drawing(facecolor="none")
    figure.axes[0].set_facecolor((1, 0, 0, 0.5))
    writer.add_figure("clear", figure)
    writer.flush()
    ((_, _, pixels),) = images_at("clear")
    assert pixels[0, 0].tolist() == [255, 255, 255]
    colors, counts = np.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    assert colors[counts.argsort()[-2:]].tolist() == [[255, 255, 255], [255, 127, 127]]


class Grid:
    """Has a ``figure`` attribute, like a seaborn grid."""

    def __init__(self, figure):
        self.figure = figure


def test_what_belongs_to_a_figure_stands_for_it(writer, images_at):
    figure = drawing()
    panel = figure.subfigures(1, 2)[0].add_subplot()
    expected = drawn(figure)
    for number, owner in enumerate((figure.axes[0], panel, Grid(figure), Grid(panel))):
        writer.add_figure(str(number), owner, close=False)
    writer.flush()
    for number in range(3):
        np.testing.assert_array_equal(images_at(str(number))[0][2], expected)


class Plotly:
    def to_image(self, kind):
        raise AssertionError(kind)


class Endless:
    @property
    def figure(self):
        return self


@pytest.mark.parametrize(
    ("figure", "error", "says"),
    [
        (Plotly(), InvalidTypeError, r"test_figures\.Plotly; .*no HTML.*to_image.*add_image"),
        (plt, InvalidTypeError, "expects Matplotlib figures"),
        (np.zeros((3, 4, 4)), InvalidTypeError, "numpy.ndarray"),
        (None, InvalidTypeError, "NoneType"),
        (Endless(), InvalidTypeError, "Endless"),
        ([Figure(), 3], InvalidTypeError, "builtins.int"),
        ([], InvalidValueError, "no figure"),
    ],
)
def test_what_is_no_figure_is_refused_by_tag(writer, figure, error, says):
    with pytest.raises(error, match=f"'my/tag'.*{says}"):
        writer.add_figure("my/tag", figure)


def test_a_bad_tag_is_refused_and_the_figure_closed(writer):
    with pytest.raises(InvalidTypeError, match="a tag must be a str"):
        writer.add_figure(3, drawing())
    assert plt.get_fignums() == []


def test_figures_work_without_pyplot_and_refusing_works_without_matplotlib(run_script, tmp_path):
    done = run_script(
        """
        import sys
        from sm_tblog import InvalidTypeError, Writer

        with Writer(sys.argv[1], on_error="raise") as writer:
            try:
                writer.add_figure("tag", object())
            except InvalidTypeError as error:
                print(error)
            print("matplotlib" in sys.modules)
            from matplotlib.figure import Figure
            writer.add_figure("tag", Figure())
            print("matplotlib.pyplot" in sys.modules)
        """.replace("\n        ", "\n"),
        tmp_path,
    )
    said = "'tag': add_figure expects Matplotlib figures, got builtins.object\nFalse\nFalse\n"
    assert (done.stdout, done.stderr) == (said, "")
    run = EventAccumulator(str(tmp_path)).Reload()
    assert len(run.Images("tag")) == 1


@unhurried
@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=20))
def test_every_picture_has_its_place_in_the_grid(sizes):
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (*size, 4), np.uint8) for size in sizes]
    for picture in pictures:
        picture[..., 3] = 255
    message = figure_value("tag", pictures)
    pixels = pixels_of(message.image.encoded_image_string)
    height, width = np.max(sizes, axis=0)
    for number, picture in enumerate(pictures):
        row, column = divmod(number, 8)
        cell = pixels[row * height :, column * width :][: len(picture), : picture.shape[1]]
        np.testing.assert_array_equal(cell, picture[..., :3])


# Confusion matrices.

NAMES = ("cat", "dog", "bird")


def pairs(elements):
    return st.lists(st.tuples(elements, elements), min_size=1, max_size=60).map(
        lambda both: tuple(np.array(one) for one in zip(*both, strict=True))
    )


@unhurried
@given(
    pairs(st.integers(-3, 3)) | pairs(st.booleans()) | pairs(st.sampled_from(["a", "b b", "ü"])),
    st.sampled_from([None, "true", "pred", "all"]),
)
def test_counts_and_shares_equal_scikit_learns(both, normalize):
    counts, names = count_pairs(*both, None, "tag")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn's, about a matrix of one class
        theirs = confusion_matrix(*both, normalize=normalize)
    np.testing.assert_allclose(normalized(counts, normalize), theirs)
    assert list(names) == [str(one) for one in np.unique(both)]


@unhurried
@given(pairs(st.integers(0, 2)))
def test_numbers_and_names_of_classes_count_the_same(both):
    theirs = confusion_matrix(*both, labels=range(3))
    named = (np.array(NAMES)[one] for one in both)
    assert count_pairs(*both, NAMES, "tag")[0].tolist() == theirs.tolist()
    assert count_pairs(*named, NAMES, "tag")[0].tolist() == theirs.tolist()


def test_names_and_numbers_may_meet_if_the_names_are_given(writer, images_at):
    writer.add_confusion_matrix("mixed", ["cat", "bird"], [0, 1], class_names=NAMES)
    writer.add_confusion_matrix("numbers", [0, 2], [0, 1], class_names=NAMES)
    writer.flush()
    np.testing.assert_array_equal(images_at("mixed")[0][2], images_at("numbers")[0][2])


def test_both_methods_draw_the_same(writer, images_at):
    labels, predictions = [0, 1, 2, 2, 1, 0], [0, 2, 2, 2, 1, 1]
    matrix = confusion_matrix(labels, predictions)
    options = {"class_names": NAMES, "title": "Epoch 3", "normalize": "true"}
    writer.add_confusion_matrix("counted", labels, predictions, 3, 1.0, **options)
    writer.add_confusion_matrix_raw("given", matrix, 3, 1.0, **options)
    writer.flush()
    ((step, wall_time, counted),), ((_, _, given_),) = images_at("counted"), images_at("given")
    assert (step, wall_time) == (3, 1.0)
    np.testing.assert_array_equal(counted, given_)


def all_alike(writer, images_at, calls):
    for number, (labels, predictions) in enumerate(calls):
        writer.add_confusion_matrix(str(number), labels, predictions)
    writer.flush()
    first, *others = (images_at(str(number))[0][2] for number in range(len(calls)))
    for other in others:
        np.testing.assert_array_equal(first, other)


def test_classes_may_be_arrays_of_any_library_and_shape(writer, images_at):
    torch, jax = pytest.importorskip("torch"), pytest.importorskip("jax")
    labels, predictions = np.array([[0, 1, 2], [2, 1, 0]]), np.array([[0, 2, 2], [2, 1, 1]])
    calls = [
        (labels, predictions),
        (labels.tolist(), predictions.tolist()),
        (labels.ravel(), predictions.ravel().astype(np.uint64)),
        (torch.tensor(labels), torch.tensor(predictions)),
        (torch.tensor(labels, dtype=torch.bfloat16), torch.tensor(predictions).float()),
        (jax.numpy.array(labels), jax.numpy.array(predictions)),
        (jax.numpy.array(labels, "bfloat16"), predictions),
    ]
    all_alike(writer, images_at, calls)


def test_classes_may_be_strings_of_any_library(writer, images_at):
    pandas = pytest.importorskip("pandas")
    labels, predictions = ["cat", "dog", "cat"], ["cat", "cat", "bird"]
    calls = [
        (labels, predictions),
        (tuple(labels), np.array(predictions)),
        (pandas.Series(labels), pandas.Series(predictions, dtype="category")),
        (np.array(labels, object), pandas.Series(predictions).astype(object)),
    ]
    all_alike(writer, images_at, calls)


def test_the_arrays_may_change_after_the_call(writer, images_at):
    labels, matrix = np.array([0, 1, 1]), np.array([[2, 1], [0, 3]])
    for name in ("kept", "changed"):
        writer.add_confusion_matrix(f"labels {name}", labels, [0, 1, 0])
        writer.add_confusion_matrix_raw(f"matrix {name}", matrix)
        labels[:], matrix[:] = 0, 7
    writer.flush()
    for what in ("labels", "matrix"):
        kept, changed = (images_at(f"{what} {name}")[0][2] for name in ("kept", "changed"))
        assert kept.shape != changed.shape or (kept != changed).any()


@pytest.mark.parametrize(
    ("labels", "predictions", "options", "error", "says"),
    [
        ([0, 1], [0], {}, InvalidValueError, r"\(2,\).*\(1,\)"),
        ([0, 1], [[0.1, 0.9], [0.2, 0.8]], {}, InvalidValueError, "got floats; take the argmax"),
        ([0, 1], [[1, 0], [0, 1]], {}, InvalidValueError, r"\(2,\).*\(2, 2\); for scores.*argmax"),
        (
            [0, 3],
            [0, 1],
            {"class_names": NAMES},
            InvalidValueError,
            "names, but none for class 3",
        ),
        ([0, -1], [0, 1], {"class_names": NAMES}, InvalidValueError, "none for class -1"),
        (["cow"], ["cat"], {"class_names": NAMES}, InvalidValueError, "none for class 'cow'"),
        ([0, np.nan], [0, 1], {}, InvalidValueError, "floats"),
        ([], [], {}, InvalidValueError, "class_names are required"),
        ([0, None], [0, 1], {}, InvalidTypeError, "integers or strings"),
        ([0, 1j], [0, 1], {}, InvalidTypeError, "complex"),
        (
            ["cat", "dog"],
            [0, 1],
            {},
            InvalidTypeError,
            "class_names; got dtypes <U3 and int64",
        ),
        ([0], [0], {"class_names": "ab"}, InvalidTypeError, "sequence of names, got 'ab'"),
        ([0], [0], {"class_names": 2}, InvalidTypeError, "sequence of names, got 2"),
        ([0], [0], {"class_names": []}, InvalidValueError, "1 to 1,000 classes, got 0"),
        ([0], [0], {"class_names": range(1001)}, InvalidValueError, "got 1,001"),
        ([0], [0], {"normalize": "rows"}, InvalidValueError, "'true', 'pred' or 'all', got 'rows'"),
    ],
)
def test_bad_classes_are_refused_at_the_call(writer, labels, predictions, options, error, says):
    with pytest.raises(error, match=f"'my/tag'.*{says}"):
        writer.add_confusion_matrix("my/tag", labels, predictions, **options)


@pytest.mark.parametrize(
    ("matrix", "options", "error", "says"),
    [
        (np.zeros((2, 3)), {}, InvalidValueError, r"\(2, 3\); log labels.*add_confusion_matrix"),
        ([0, 1], {}, InvalidValueError, r"\(2,\)"),
        (np.zeros((0, 0)), {}, InvalidValueError, "1 to 1,000 classes, got 0"),
        (np.zeros((1001, 1001), bool), {}, InvalidValueError, "got 1,001"),
        (np.eye(2), {"class_names": NAMES}, InvalidValueError, "2 classes got 3 class_names"),
        ([[1, -1], [0, 1]], {}, InvalidValueError, "negative"),
        ([[1, np.nan], [0, 1]], {}, InvalidValueError, "non-finite"),
        ([["a", "b"]] * 2, {}, InvalidTypeError, "real numbers"),
    ],
)
def test_bad_matrices_are_refused_at_the_call(writer, matrix, options, error, says):
    with pytest.raises(error, match=f"'my/tag'.*{says}"):
        writer.add_confusion_matrix_raw("my/tag", matrix, **options)


@pytest.mark.parametrize(
    ("values", "error"), [([0, 3], InvalidValueError), ([0.5, 1], InvalidValueError)]
)
def test_classes_on_a_device_are_checked_by_the_worker(values, error):
    array = np.array(values)
    deferred = Deferred(lambda: array, array.shape, array.dtype)
    with pytest.raises(error, match="'my/tag'"):
        confusion_value("my/tag", deferred, deferred, NAMES, None, "")


def test_a_matrix_on_a_device_is_checked_by_the_worker():
    deferred = Deferred(lambda: -np.eye(2), (2, 2), np.dtype(float))
    with pytest.raises(InvalidValueError, match=r"'my/tag'.*negative"):
        matrix_value("my/tag", deferred, None, None, "")


def test_too_many_classes_are_found_by_the_worker():
    with pytest.raises(InvalidValueError, match=r"'my/tag'.*got 1,001"):
        confusion_value("my/tag", np.arange(1001), np.arange(1001), None, None, "")


def test_without_matplotlib_the_call_says_what_to_install(writer, monkeypatch):
    monkeypatch.setattr(confusion, "find_spec", lambda _: None)
    with pytest.raises(MissingDependencyError, match=r"pip install 'sm-tblog\[figure\]'"):
        writer.add_confusion_matrix("tag", [0], [0])
    with pytest.raises(MissingDependencyError, match=r"pip install 'sm-tblog\[figure\]'"):
        writer.add_confusion_matrix_raw("tag", [[1]])


def test_no_samples_make_an_empty_matrix(writer, images_at):
    writer.add_confusion_matrix_raw("empty", np.zeros((3, 3)), normalize="all", class_names=NAMES)
    writer.add_confusion_matrix("none", [], [], normalize="all", class_names=NAMES)
    writer.flush()
    np.testing.assert_array_equal(images_at("empty")[0][2], images_at("none")[0][2])


# The picture.


@pytest.mark.parametrize("count", [1, 2, 3, 10, 20, 21, 40, 100, 101, 250, 1000])
def test_a_picture_has_a_cell_of_its_color_for_each_number(count):
    matrix = np.eye(count) + 0.5 * np.eye(count, k=1)
    picture = draw_matrix(matrix, [""] * count, "", "")
    dark, middle = (heatmap._colors(np.array([share]))[0] for share in (1.0, 0.5))
    cell = heatmap._cell_size(count)
    found = [(picture == color).all(-1) for color in (dark, middle)]
    rows, columns = np.nonzero(found[0])
    top, left = rows.min(), columns.min()
    for number in range(count):
        # The corners of a cell are its color, but for the line between cells.
        y, x = top + number * cell + 1, left + number * cell + 1
        assert found[0][y, x]
        assert number == count - 1 or found[1][y, x + cell]
    assert max(picture.shape) < 2200


def test_numbers_are_written_where_they_fit():
    few, many = (draw_matrix(np.eye(n) * 10, [""] * n, "", "") for n in (3, 30))
    dark = heatmap._colors(np.array([1.0]))[0]
    # On the darkest cell a number is white; its letters' edges are shades between.
    for picture, count in ((few, 3), (many, 30)):
        rows, columns = np.nonzero((picture == dark).all(-1))
        top, left, cell = rows.min(), columns.min(), heatmap._cell_size(count)
        first = picture[top + 1 : top + cell - 1, left + 1 : left + cell - 1]
        assert (first == 255).all(-1).any() == (count == 3)


@pytest.mark.parametrize(
    ("number", "is_whole", "text"),
    [
        *[(0, True, "0"), (0, False, "0"), (7, True, "7"), (9999, True, "9999")],
        *[(12345, True, "12.3k"), (999_600, True, "1M"), (2_500_000, True, "2.5M")],
        *[(3e9, True, "3G"), (0.876, False, "0.88"), (1.0, False, "1.00"), (123.4, False, "123")],
    ],
)
def test_numbers_are_short(number, is_whole, text):
    assert heatmap._number(number, is_whole=is_whole) == text


@unhurried
@given(st.floats(0, 1))
def test_numbers_stand_out_from_their_cells(share):
    def luminance(color):  # relative, as WCAG 2.1 defines it, as the ratio below
        part = np.array(color) / 255
        linear = np.where(part <= 0.03928, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
        return float(linear @ (0.2126, 0.7152, 0.0722))

    colors = heatmap._colors(np.array([[share]]))
    inks = []
    sheet = heatmap._Canvas(None, Pen(inks), 0, 0, 40, 40)
    heatmap._write_numbers(sheet, [["1"]], None, colors)
    dark, light = sorted(map(luminance, (inks[0], colors[0, 0])))
    assert (light + 0.05) / (dark + 0.05) > 3.9


class Pen:
    def __init__(self, inks):
        self.inks = inks

    def text(self, at, text, ink, font, anchor):
        self.inks.append(ink)


@unhurried
@given(st.text() | st.sampled_from(["x" * 1000, "\ud800", "$not a formula", "\r\x1c\u2029"]))
def test_any_name_and_title_can_be_drawn(name):
    picture = draw_matrix(np.eye(2), [name, "other"], name, "")
    assert picture.shape[1] < 800


def test_a_longer_name_takes_more_room():
    short, long = (draw_matrix(np.eye(2), [name, "b"], "", "") for name in ("a", "a long name"))
    assert long.shape[0] > short.shape[0]
    assert long.shape[1] > short.shape[1]


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    silent = Writer(tmp_path / "none", enabled=False)
    silent.add_figure("tag", None)
    silent.add_confusion_matrix("tag", None, None)
    silent.add_confusion_matrix_raw("tag", None)
    assert not (tmp_path / "none").exists()

"""Images: PNGs as Pillow reads them, compared with other writers'; errors raised at the call."""

import io
import itertools
import logging
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.arrays import pixels as pixels_module
from sm_tblog.arrays.convert import Deferred
from sm_tblog.arrays.pixels import arranged, as_bytes, snapshot_pixels
from sm_tblog.format import schema
from sm_tblog.summary.image import boxes_value, grid_value, samples_value
from sm_tblog.summary.png import encode_png

Image = pytest.importorskip("PIL.Image")


def decoded(png):
    """Return what Pillow, which checks every checksum, reads; shape (H, W, C)."""
    Image.open(io.BytesIO(png)).verify()
    picture = np.asarray(Image.open(io.BytesIO(png)))
    return picture if picture.ndim == 3 else picture[..., np.newaxis]


def picture_of(value):
    """Return the pixels of a ``Summary.Value`` of one image, whose sizes are the PNG's."""
    picture = decoded(value.image.encoded_image_string)
    assert (value.image.height, value.image.width, value.image.colorspace) == picture.shape
    return picture


def logged_pictures(logdir, tag="image"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(logdir), {"images": 0}).Reload().Images(tag)
    return [decoded(event.encoded_image_string) for event in events]


def noise(*shape, dtype=np.uint8):
    values = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return values if dtype == np.uint8 else (values / 255).astype(dtype)


def photograph(height=96, width=128):
    """Return something like a photograph: smooth, with a little noise."""
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([x + y, 2 * x - y, 255 - y], -1) % 511
    grain = np.random.default_rng(0).integers(0, 5, smooth.shape)
    return (np.minimum(smooth, 510 - smooth) // 2 + grain).clip(0, 255).astype(np.uint8)


# PNG.


@given(npst.arrays(np.uint8, npst.array_shapes(min_dims=2, max_dims=2), elements=st.integers(0, 3)))
def test_a_png_of_few_colors_holds_its_pixels(picture):
    for channels in range(1, 5):
        stacked = np.stack([picture * (c + 1) for c in range(channels)], -1)
        assert (decoded(encode_png(stacked)) == stacked).all()


@given(npst.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.integers(1, 4))))
def test_a_png_holds_its_pixels(picture):
    assert (decoded(encode_png(picture)) == picture).all()


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("size", [(1, 1), (1, 70_000), (70_000, 1), (300, 300)])
def test_a_png_of_more_than_one_chunk_holds_its_pixels(size, channels):
    for picture in (noise(*size, channels), np.zeros((*size, channels), np.uint8)):
        assert (decoded(encode_png(picture)) == picture).all()


def test_a_png_of_a_transposed_array_holds_its_pixels():
    picture = photograph().transpose(1, 0, 2)[::-1]
    assert (decoded(encode_png(picture)) == picture).all()


@pytest.mark.parametrize(
    "picture",
    [
        photograph(),
        np.zeros((64, 64, 3), np.uint8),
        np.indices((64, 64, 3))[:2].sum(0).astype(np.uint8),
        np.kron(noise(8, 8, 1), np.ones((8, 8, 1), np.uint8)),
    ],
    ids=["photograph", "black", "gradient", "blocks"],
)
def test_a_png_is_not_much_larger_than_pillows(picture):
    file = io.BytesIO()
    Image.fromarray(picture.squeeze()).save(file, "PNG")
    assert len(encode_png(picture)) < 1.1 * len(file.getvalue()) + 500


# Layouts.


@pytest.mark.parametrize("layout", ["".join(axes) for axes in itertools.permutations("CHW")])
def test_every_order_of_three_axes(layout):
    picture = noise(5, 7, 3)
    array = arranged(picture, "HWC", layout)
    copy, found = snapshot_pixels(array, "tag", layout.lower())
    assert found == layout
    assert (picture_of(grid_value("tag", copy, found)[0]) == picture).all()


@pytest.mark.parametrize("layout", ["".join(axes) for axes in itertools.permutations("NCHW")])
def test_every_order_of_four_axes(layout):
    batch = noise(3, 5, 7, 3)
    array = arranged(batch, "NHWC", layout)
    grid = picture_of(grid_value("tag", *snapshot_pixels(array, "tag", layout))[0])
    assert (grid == np.concatenate(list(batch), axis=1)).all()


@pytest.mark.parametrize(
    ("shape", "dataformats", "layout"),
    [
        ((5, 7), "CHW", "HW"),
        ((5, 7), "HWC", "HW"),
        ((5, 7), "WH", "WH"),
        ((3, 5, 7), "CHW", "CHW"),
        ((9, 5, 7), "HW", "NHW"),
        ((9, 5, 7), "NHW", "NHW"),
        ((9, 3, 5, 7), "CHW", "NCHW"),
        ((9, 5, 7, 3), "hwc", "NHWC"),
    ],
)
def test_axes_that_need_not_be_named(shape, dataformats, layout):
    assert snapshot_pixels(np.zeros(shape), "tag", dataformats)[1] == layout


@pytest.mark.parametrize(
    ("shape", "dataformats", "says"),
    [
        ((5, 7, 3), "CHW", r"'my/tag': .*\(C, H, W\).*got \(5, 7, 3\); .*dataformats='HWC'"),
        ((5, 5, 7), "CHW", r"C from 1 to 4, got \(5, 5, 7\)$"),
        ((9, 5, 7), "NCHW", r"\(N, C, H, W\).*got \(9, 5, 7\)$"),
        ((9, 5, 7, 3), "NCHW", r"dataformats='NHWC'$"),
        ((3,), "CHW", r"got \(3,\)$"),
        ((), "CHW", r"got \(\)$"),
        ((2, 3, 4, 5, 6), "CHW", r"got \(2, 3, 4, 5, 6\)$"),
        ((3, 5, 7), "CHWX", "letters NCHW, including H, W; got 'CHWX'"),
        ((3, 5, 7), "CHH", "got 'CHH'"),
        ((3, 5, 7), "CH", "got 'CH'"),
        ((3, 5, 7), "", "got ''"),
        ((9, 3, 5, 7), "TCHW", "got 'TCHW'"),
        ((3, 0, 7), "CHW", r"got shape \(3, 0, 7\): no pixels"),
        ((0, 3, 5, 7), "NCHW", r"no pixels"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused_by_tag(shape, dataformats, says):
    with pytest.raises(InvalidValueError, match=says) as refused:
        snapshot_pixels(np.zeros(shape), "my/tag", dataformats)
    assert str(refused.value).startswith("'my/tag': ")


class Enormous:
    """An array that must not be read."""

    shape = (3, 1 << 15, 1 << 15)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was copied before it was refused")


def test_more_pixels_than_a_record_holds_are_refused_before_they_are_copied():
    with pytest.raises(InvalidValueError, match=r"\(3, 32768, 32768\): 3 GiB .* record holds 1"):
        snapshot_pixels(Enormous(), "tag", "CHW")


# Pixels.


def scaled(values, dtype):
    return as_bytes(np.array(values).astype(dtype))[0].tolist()


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([0, 1, 255], "u1", [0, 1, 255]),
        ([False, True], "?", [0, 255]),
        ([0, 255, 256, 65535], "u2", [0, 0, 1, 255]),
        ([0, 255, 256, 65535], ">u2", [0, 0, 1, 255]),
        ([0, 1, 1], "i8", [0, 255, 255]),
        ([0, 1, 2], "i8", [0, 1, 2]),
        ([0, 200, 255], "i2", [0, 200, 255]),
        ([0, 200, 255], "u4", [0, 200, 255]),
        ([0, 200, 256], "i4", [0, 200, 255]),
        ([-1, 0, 1], "i1", [0, 0, 1]),
        ([0.0, 0.5, 1.0], "f4", [0, 127, 255]),
        ([0.0, 0.5, 1.0], "f8", [0, 127, 255]),
        ([0.0, 0.5, 1.0], "f2", [0, 127, 255]),
        ([0.0, 0.5, 1.0], ">f4", [0, 127, 255]),
        ([-0.5, 0.5, 3.0], "f4", [0, 127, 255]),
        ([0.0, 0.5, 1.5], "f4", [0, 127, 255]),
        ([0.0, 1.9, 255.0], "f4", [0, 1, 255]),
        ([0.0, 300.0], "f8", [0, 255]),
        ([np.nan, 0.5], "f4", [0, 127]),
        ([np.nan, np.nan], "f8", [0, 0]),
        ([-np.inf, 0.5, np.inf], "f4", [0, 127, 255]),
        ([1e300, 0.5, -1e300], "f8", [255, 127, 0]),
    ],
)
def test_what_dtypes_mean(values, dtype, expected):
    assert scaled(values, dtype) == expected


@pytest.mark.parametrize("name", ["bfloat16", "float8_e4m3fn", "float8_e5m2"])
def test_narrow_floats_are_from_0_to_1(name):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    assert scaled([0.0, 0.5, 1.0], getattr(ml_dtypes, name)) == [0, 127, 255]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bytes_divided_by_255_come_out_as_they_went_in(dtype):
    levels = np.arange(256)
    assert (as_bytes((levels / 255).astype(dtype))[0] == levels).all()


@pytest.mark.parametrize(
    ("values", "dtype", "warning"),
    [
        ([0, 255], "u1", ""),
        ([0, 65535], "u2", ""),
        ([0, 255], "i8", ""),
        ([0.0, 1.001], "f4", ""),
        ([0.0, 200.0], "f4", "floats up to 200 are interpreted as pixels from 0 to 255"),
        ([-1.0, 1.0], "f4", "pixels from -1 to 1 are clipped to 0 to 1"),
        ([-1.0, 200.0], "f4", "pixels from -1 to 200 are clipped to 0 to 1"),
        ([0, 256], "i8", "pixels from 0 to 256 are clipped to 0 to 255"),
        ([0.5, np.nan], "f4", "1 of 2 values are NaN and drawn black"),
        (
            [-1.0, np.nan],
            "f4",
            "pixels from -1 to -1 are clipped to 0 to 1; 1 of 2 values are NaN and drawn black",
        ),
    ],
)
def test_what_is_not_as_its_dtype_says_is_remarked(values, dtype, warning):
    assert as_bytes(np.array(values, dtype))[1] == warning


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@settings(deadline=None)  # the first example imports torch
@given(values=npst.arrays(np.float64, (2, 4, 3), elements=st.floats(0, 1)))
def test_floats_from_0_to_1_are_drawn_as_by_torch(dtype, values):
    summary = pytest.importorskip("torch.utils.tensorboard.summary")
    theirs = summary.image("tag", values.astype(dtype), dataformats="HWC").value[0].image
    assert (as_bytes(values.astype(dtype))[0] == decoded(theirs.encoded_image_string)).all()


def test_pixels_of_more_than_one_chunk_keep_their_place(monkeypatch):
    monkeypatch.setattr(pixels_module, "_CHUNK", 16)
    levels = noise(5, 7, 3)
    for axes in itertools.permutations(range(3)):
        values = (levels / 255).transpose(axes)
        assert (as_bytes(values)[0] == levels.transpose(axes)).all()


# Beside the peers.


@pytest.fixture(params=["torch.utils.tensorboard", "tensorboardX"])
def peer(request):
    return pytest.importorskip(request.param).SummaryWriter


CALLS = {
    "CHW": lambda w: w.add_image("image", noise(3, 9, 7, dtype=np.float32), 5),
    "CHW, bytes": lambda w: w.add_image("image", noise(3, 9, 7), 5),
    "HWC": lambda w: w.add_image("image", noise(9, 7, 3), 5, None, "HWC"),
    "HW": lambda w: w.add_image("image", noise(9, 7), dataformats="HW", global_step=5),
    "1HW": lambda w: w.add_image("image", noise(1, 9, 7, dtype=np.float64), 5),
    "RGBA": lambda w: w.add_image("image", noise(4, 9, 7), 5),
    "grid": lambda w: w.add_images("image", noise(3, 3, 9, 7), 5),
    "grid of two rows": lambda w: w.add_images("image", noise(11, 9, 7, 3), 5, 1.0, "NHWC"),
    "grid of grey": lambda w: w.add_images("image", noise(9, 1, 9, 7, dtype=np.float32), 5),
    "batch as an image": lambda w: w.add_image("image", noise(3, 3, 9, 7), 5, dataformats="NCHW"),
    "boxes": lambda w: w.add_image_with_boxes(
        "image", noise(3, 40, 50), np.array([[3, 5, 30, 20], [10, 2, 45, 38.0]]), 5
    ),
    "boxes, rescaled": lambda w: w.add_image_with_boxes(
        "image", noise(40, 50, 3), np.array([[3, 5, 30, 20]]), 5, None, rescale=2, dataformats="HWC"
    ),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_the_same_call_draws_the_same_picture_as_the_peers(call, peer, tmp_path):
    for writer in (Writer(tmp_path / "ours"), peer(tmp_path / "peer")):
        call(writer)
        writer.close()
    (ours,), (theirs,) = logged_pictures(tmp_path / "ours"), logged_pictures(tmp_path / "peer")
    if ours.shape[-1] == 1:  # they make red, green and blue of grey
        ours = ours.repeat(3, -1)
    assert ours.shape == theirs.shape
    assert (ours == theirs).all()


def test_tensorboardx_has_dataformats_and_labels_in_another_place(tmp_path):
    picture, boxes = noise(40, 50, 3), np.array([[3, 5, 30, 35]])
    with Writer(tmp_path) as writer:
        add = writer.add_image_with_boxes
        add("image", picture, boxes, 0, None, 1, "HWC", ["cat"])
        add("image", picture, boxes, 1, None, "HWC", ["cat"])
        add("image", picture, boxes, 2, None, "HWC", labels="cat")
        add("image", picture, boxes, 3, None, "HWC", "cat")
        add("image", picture, boxes, 4, None, "HWC")
    *labelled, plain = logged_pictures(tmp_path)
    assert all((picture == labelled[0]).all() for picture in labelled)
    assert (plain != labelled[0]).any()


# Grids and samples.


def test_a_list_of_images_needs_no_batch_axis(tmp_path):
    batch = noise(3, 9, 7, 3)
    with Writer(tmp_path) as writer:
        writer.add_images("image", list(batch), 0, dataformats="HWC")
        writer.add_images("image", [Image.fromarray(picture) for picture in batch], 1)
        writer.add_images("image", list(batch.transpose(0, 3, 1, 2)), 2)
    for picture in logged_pictures(tmp_path):
        assert (picture == np.concatenate(list(batch), axis=1)).all()


def test_no_more_images_than_wanted(tmp_path):
    batch = noise(5, 9, 7, 3)
    with Writer(tmp_path) as writer:
        writer.add_images("image", batch, dataformats="NHWC", max_outputs=2)
    (grid,) = logged_pictures(tmp_path)
    assert (grid == np.concatenate(list(batch[:2]), axis=1)).all()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_samples_are_what_tensorflow_writes(count):
    metadata = pytest.importorskip("tensorboard.plugins.image.metadata")
    batch = noise(5, 9, 7, 3)
    value, warning = samples_value("tag", batch, "NHWC", count)
    assert warning == ""
    assert value.metadata.plugin_data.plugin_name == metadata.PLUGIN_NAME
    assert metadata.parse_plugin_metadata(value.metadata.plugin_data.content).version == 0
    assert value.metadata.data_class == schema.DATA_CLASS_BLOB_SEQUENCE
    assert [dim.size for dim in value.tensor.tensor_shape.dim] == [2 + count]
    width, height, *pngs = value.tensor.string_val
    assert (width, height) == (b"7", b"9")
    assert (np.stack([decoded(png) for png in pngs]) == batch[:count]).all()


@pytest.mark.parametrize("count", [0, -1, 1.5, "2", True])
def test_a_number_of_images_that_is_none_is_refused(count, tmp_path):
    says = rf"'my/tag': max_outputs must be a positive int, got {count!r}"
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match=says):
        writer.add_images("my/tag", noise(2, 3, 4, 5), max_outputs=count)


# Boxes.


def test_boxes_and_labels_stay_within_their_place():
    grey = np.full((40, 50), 128, np.uint8)
    boxes = np.array([[10.0, 5.0, 40.0, 30.0]])
    plain = picture_of(boxes_value("tag", grey, "HW", boxes, None, 1.0)[0])
    labelled = picture_of(boxes_value("tag", grey, "HW", boxes, ["cat"], 1.0)[0])
    red = (plain == (255, 0, 0)).all(-1)
    assert red[5, 10:40].all()
    assert red[5:30, 10].all()
    assert not red[7:28, 12:38].any()
    assert not red[:, 42:].any()
    changed = (labelled != plain).any(-1)
    assert changed[15:30, 10:30].any()
    assert not changed[:15].any()
    assert not changed[:, 35:].any()


@pytest.mark.parametrize("label", ["", " ", "\n", "猫 é", "a" * 300, 7])
def test_any_label_can_be_drawn(label, tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_image_with_boxes("image", noise(3, 40, 50), [[3, 5, 30, 35]], labels=[label])


@pytest.mark.parametrize(
    "boxes", [[], np.zeros((0, 4)), [3, 5, 30, 35], [[1e30, -1e30, 1e30, 30]], [[30, 35, 3, 5]]]
)
def test_any_number_of_boxes_wherever_they_are(boxes, tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_image_with_boxes("image", noise(3, 40, 50), boxes)
    assert logged_pictures(tmp_path)[0].shape == (40, 50, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"box_tensor": np.zeros((2, 3))}, InvalidValueError, r"\(boxes, 4\).*got \(2, 3\)"),
        ({"box_tensor": np.zeros((1, 2, 4))}, InvalidValueError, r"got \(1, 2, 4\)"),
        ({"box_tensor": [["a"] * 4]}, InvalidTypeError, "real numbers"),
        ({"labels": ["a", "b"]}, InvalidValueError, "got 2 labels for 1 boxes"),
        ({"labels": np.array(["a", "b"])}, InvalidValueError, "got 2 labels for 1 boxes"),
        ({"labels": 7}, InvalidTypeError, "labels must be a sequence of str, got 7"),
        ({"rescale": 0}, InvalidValueError, "rescale must be a positive number, got 0"),
        ({"rescale": float("nan")}, InvalidValueError, "got nan"),
        ({"rescale": 1e3}, InvalidValueError, "GiB of pixels"),
        ({"rescale": [1, 2]}, InvalidTypeError, "number"),
    ],
)
def test_bad_boxes_are_refused_by_tag(arguments, error, says, tmp_path):
    given = {"img_tensor": noise(3, 40, 50), "box_tensor": [[3, 5, 30, 35]], **arguments}
    with Writer(tmp_path) as writer, pytest.raises(error, match=f"^'my/tag': .*{says}"):
        writer.add_image_with_boxes("my/tag", **given)


def test_boxes_that_are_not_finite_lose_their_image_alone(tmp_path, caplog):
    with Writer(tmp_path) as writer:
        writer.add_image_with_boxes("image", noise(3, 40, 50), [[3, 5, np.nan, 35]])
        writer.add_image("image", noise(3, 40, 50))
    assert len(logged_pictures(tmp_path)) == 1
    assert "finite" in caplog.text


def test_an_image_with_alpha_keeps_it():
    value, _ = boxes_value("tag", np.zeros((40, 50, 4), np.uint8), "HWC", np.zeros((0, 4)), None, 1)
    assert not picture_of(value).any()


# Pillow's images.


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("1", 1, [255]),
        ("L", 200, [200]),
        ("LA", (200, 9), [200, 9]),
        ("RGB", (1, 2, 3), [1, 2, 3]),
        ("RGBA", (1, 2, 3, 4), [1, 2, 3, 4]),
        ("CMYK", (0, 0, 0, 255), [0, 0, 0]),
        ("YCbCr", (255, 128, 128), [255, 255, 255]),
        ("HSV", (0, 0, 255), [255, 255, 255]),
        ("I;16", 65535, [255]),
        ("I", 200, [200]),
        ("F", 0.5, [127]),
    ],
)
def test_pillows_images_of_every_mode(mode, color, expected):
    picture = Image.new(mode, (5, 3), color)
    value, warning = grid_value("tag", *snapshot_pixels(picture, "tag", "CHW"))
    assert picture_of(value)[1, 2].tolist() == expected
    assert warning == ""


def test_a_palette_is_looked_up():
    picture = Image.fromarray(noise(9, 7, 3)).quantize(4)
    value, _ = grid_value("tag", *snapshot_pixels(picture, "tag", "CHW"))
    assert (picture_of(value) == np.asarray(picture.convert("RGB"))).all()
    picture.info["transparency"] = 1
    value, _ = grid_value("tag", *snapshot_pixels(picture, "tag", "CHW"))
    assert (picture_of(value) == np.asarray(picture.convert("RGBA"))).all()
    assert 0 in picture_of(value)[..., 3]


def test_an_image_that_pillow_cannot_read_is_refused():
    file = io.BytesIO()
    Image.fromarray(noise(40, 50, 3)).save(file, "PNG")
    broken = Image.open(io.BytesIO(file.getvalue()[:200]))
    with pytest.raises(InvalidValueError, match="'my/tag': cannot read the image"):
        snapshot_pixels(broken, "my/tag", "CHW")


def test_pillows_images_of_several_sizes_are_refused():
    pictures = [Image.new("L", (5, 3)), Image.new("L", (6, 3))]
    with pytest.raises(InvalidTypeError, match="'my/tag'"):
        snapshot_pixels(pictures, "my/tag", "CHW")


# The writer.


@pytest.mark.parametrize(
    "image", ["image.png", b"image.png", None, [], object(), {"a": 1}, noise(3, 4, 5) * 1j]
)
def test_what_is_no_image_is_refused_by_tag(image, tmp_path):
    with Writer(tmp_path) as writer:
        with pytest.raises((InvalidTypeError, InvalidValueError), match="'my/tag'"):
            writer.add_image("my/tag", image)
        with pytest.raises((InvalidTypeError, InvalidValueError), match="'my/tag'"):
            writer.add_images("my/tag", image)


@pytest.mark.parametrize("dataformats", [None, 3, ["C", "H", "W"]])
def test_a_layout_that_is_no_str_is_refused(dataformats, tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="'my/tag': dataformats"):
        writer.add_image("my/tag", noise(3, 4, 5), dataformats=dataformats)


def test_tags_and_steps_are_checked_as_everywhere(tmp_path):
    with Writer(tmp_path) as writer:
        with pytest.raises(InvalidTypeError, match="a tag must be a str"):
            writer.add_image(3, noise(3, 4, 5))
        with pytest.raises(InvalidTypeError, match="'my/tag': a step must be an integer"):
            writer.add_image("my/tag", noise(3, 4, 5), "nine")


def test_an_image_is_as_it_was_at_the_call(tmp_path):
    picture = noise(3, 40, 50)
    expected = picture.transpose(1, 2, 0).copy()
    pillow = Image.fromarray(expected)
    boxes = np.array([[0, 0, 0, 0]])
    with Writer(tmp_path) as writer:
        writer.add_image("image", picture, 0)
        writer.add_image("image", pillow, 1)
        picture[:] = 0
        boxes[:] = 30
        pillow.paste(0, (0, 0, 50, 40))
    for found in logged_pictures(tmp_path):
        assert (found == expected).all()


@pytest.mark.parametrize("module", ["torch", "jax.numpy"])
def test_arrays_of_other_libraries(module, tmp_path):
    library = pytest.importorskip(module)
    picture = noise(3, 40, 50)
    with Writer(tmp_path) as writer:
        writer.add_image("image", library.asarray(picture), 0)
        writer.add_image("image", library.asarray(picture / np.float32(255)), 1)
        writer.add_images("image", [library.asarray(picture)] * 2, 2, dataformats="CHW")
    one, floats, two = logged_pictures(tmp_path)
    assert (one == picture.transpose(1, 2, 0)).all()
    assert (floats == one).all()
    assert (two == np.concatenate([one] * 2, axis=1)).all()


def on_device(array, reads, dtype=True):
    def read():
        reads.append(threading.current_thread())
        return array

    return Deferred(read, array.shape, array.dtype if dtype else None, array.nbytes)


def test_an_array_on_a_device_is_checked_at_the_call_and_read_by_the_worker(tmp_path):
    reads = []
    picture = on_device(noise(3, 40, 50), reads)
    boxes = on_device(np.array([[3, 5, 30, 35]]), reads)
    with Writer(tmp_path, on_error="raise") as writer:
        with pytest.raises(InvalidValueError, match=r"got \(3, 40, 50\)"):
            writer.add_image("my/tag", picture, dataformats="HWC")
        with pytest.raises(InvalidTypeError, match="complex128"):
            writer.add_image("my/tag", on_device(noise(3, 4, 5) * 1j, reads))
        assert reads == []
        writer.add_image("image", picture)
        writer.add_image_with_boxes("image", picture, boxes)
    assert len(reads) == 3
    assert threading.current_thread() not in reads
    assert len(logged_pictures(tmp_path)) == 2


def test_an_array_on_a_device_that_turns_out_to_be_none_loses_its_image_alone(tmp_path, caplog):
    with Writer(tmp_path) as writer:
        writer.add_image("image", on_device(noise(3, 4, 5) * 1j, [], dtype=False))
        writer.add_image("image", noise(3, 4, 5))
    assert len(logged_pictures(tmp_path)) == 1
    assert "complex128" in caplog.text


def test_a_warning_is_said_once_for_a_tag(tmp_path, caplog):
    caplog.set_level(logging.INFO, "sm_tblog")
    with Writer(tmp_path) as writer:
        for step in range(3):
            writer.add_image("my/tag", noise(3, 4, 5).astype(np.float32), step)
            writer.flush()
    assert caplog.text.count("interpreted as pixels from 0 to 255") == 1
    assert "'my/tag'" in caplog.text


def test_images_without_pillow_are_refused_at_the_call(run_script, tmp_path):
    source = """
import sys
sys.modules["PIL"] = None
import importlib.util
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *args: None if name == "PIL" else find(name, *args)
import numpy as np
from sm_tblog import Writer

image = np.zeros((3, 4, 5))
with Writer(sys.argv[1], on_error="raise") as writer:
    writer.add_scalar("a", 1.0, 0)
    for call in (
        lambda: writer.add_image("image", image),
        lambda: writer.add_images("image", image[None]),
        lambda: writer.add_image_with_boxes("boxes", image, [[1, 1, 2, 2]]),
        lambda: writer.add_embedding(np.eye(3), label_img=np.zeros((3, 3, 4, 5))),
    ):
        try:
            call()
        except ImportError as error:
            print(type(error).__name__, error)
"""
    done = run_script(source, tmp_path)
    assert done.returncode == 0, done.stderr
    says = "needs Pillow: pip install 'sm-tblog[media]'"
    calls = ["logging images"] * 2 + ["add_image_with_boxes", "label_img"]
    assert done.stdout.splitlines() == [f"MissingDependencyError {c} {says}" for c in calls]


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    writer = Writer(tmp_path / "none", enabled=False)
    writer.add_image("image", "no image")
    writer.add_images("image", "no image")
    writer.add_image_with_boxes("image", "no image", "no boxes")
    assert not (tmp_path / "none").exists()

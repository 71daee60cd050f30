"""Videos: animations as Pillow reads them, compared with other writers'; errors at the call."""

import importlib.util
import io
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sm_tblog import InvalidTypeError, InvalidValueError, MissingDependencyError, Writer
from sm_tblog.arrays.convert import Deferred
from sm_tblog.arrays.pixels import arranged, snapshot_pixels
from sm_tblog.summary.video import video_value
from sm_tblog.writer import media

Image = pytest.importorskip("PIL.Image")

CODECS = ("gif", "apng", "webp")


def decoded(animation):
    """Return frames as RGBA, shape (T, H, W, 4), and the milliseconds of each."""
    picture = Image.open(io.BytesIO(animation))
    frames, durations = [], []
    for i in range(getattr(picture, "n_frames", 1)):
        picture.seek(i)
        frames.append(np.asarray(picture.convert("RGBA")))
        durations.append(picture.info.get("duration", 0))
    return np.stack(frames), durations


def video_of(frames, layout="THWC", fps=4.0, codec="apng"):
    value, warning = video_value("tag", frames, layout, fps, codec)
    return *decoded(value.image.encoded_image_string), warning


def logged_videos(logdir, tag="video"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(logdir), {"images": 0}).Reload().Images(tag)


def film(frames=6, height=16, width=24, channels=3, videos=1):
    """Return a ball that moves over a shaded ground; shape (N, T, H, W, C)."""
    t, y, x = np.ogrid[:frames, :height, :width]
    ball = (x - 3 - 2 * t) ** 2 + (y - 8) ** 2 < 12
    ground = 8 * x + 4 * y + 0 * t
    shades = [np.where(ball, 250 - 60 * c, ground // (c + 1)) for c in range(channels)]
    one = np.stack(shades, -1).clip(0, 255).astype(np.uint8)
    return np.stack([one // (n + 1) for n in range(videos)])


def plain(levels, channels=3):
    """Return frames of one color each, shape (T, 8, 8, C)."""
    frames = np.asarray(levels, np.uint8).reshape(-1, 1, 1, 1)
    return frames.repeat(8, 1).repeat(8, 2).repeat(channels, 3)


# What is shown.


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_frames_are_like_the_pixels(codec, channels):
    frames = film(channels=channels)[0]
    if channels in (2, 4):  # a window that moves
        frames[..., -1] = np.where((np.arange(24) + np.ogrid[:6, :1, :1][0]) % 24 < 12, 255, 0)
    found, _, warning = video_of(frames, codec=codec)
    assert found.shape == (6, 16, 24, 4)
    assert warning == ""
    alpha = frames[..., -1] if channels in (2, 4) else np.full(frames.shape[:3], 255)
    assert (found[..., 3] == alpha).all()
    wanted = frames[..., :1].repeat(3, -1) if channels < 3 else frames[..., :3]
    error = np.abs(found[..., :3].astype(int) - wanted)[alpha == 255]
    assert error.mean() <= {"apng": 0, "gif": 5, "webp": 6}[codec]


@pytest.mark.parametrize("codec", ["gif", "apng"])
@pytest.mark.parametrize("channels", [1, 3])
@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 999), levels=st.integers(1, 256), still=st.integers(0, 256))
def test_frames_of_256_colors_are_exact(codec, channels, seed, levels, still):
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, levels, (4, 16, 16, channels)) * (255 // max(levels - 1, 1))
    frames = frames.astype(np.uint8)
    frames.reshape(4, 256, channels)[1:, :still] = frames.reshape(4, 256, channels)[:1, :still]
    found, durations, _ = video_of(frames, codec=codec)
    times = np.rint(np.array(durations) / 250).astype(int) if len(found) > 1 else 4
    shown = np.repeat(found, times, 0)  # still frames are merged
    assert (shown[..., :channels] == frames).all()


def test_a_palette_is_a_frames_own():
    """One palette of 256 colors for all frames could not hold these."""
    shade = np.arange(256, dtype=np.uint8).reshape(16, 16)
    nothing = np.zeros_like(shade)
    frames = np.stack(
        [np.stack([nothing] * c + [shade] + [nothing] * (2 - c), -1) for c in range(3)]
    )
    error = np.abs(video_of(frames, codec="gif")[0][..., :3].astype(int) - frames)
    assert error.max() <= 8


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("count", [1, 50])
def test_a_film_in_which_nothing_moves(codec, count):
    found, _, _ = video_of(plain([90] * count), codec=codec)
    assert found.shape == (1, 8, 8, 4)
    assert (found[0, 0, 0] == (90, 90, 90, 255)).all()


@pytest.mark.parametrize("codec", CODECS)
def test_it_begins_again_at_its_end(codec):
    value, _ = video_value("tag", film()[0], "THWC", 4.0, codec)
    picture = Image.open(io.BytesIO(value.image.encoded_image_string))
    assert picture.is_animated
    assert picture.info["loop"] == 0
    assert picture.format == {"gif": "GIF", "apng": "PNG", "webp": "WEBP"}[codec]
    assert (value.image.height, value.image.width, value.image.colorspace) == (16, 24, 3)
    assert value.metadata.plugin_data.plugin_name == "images"


@pytest.mark.parametrize("layout", ["".join(axes) for axes in itertools.permutations("NTCHW")][::7])
def test_orders_of_the_axes(layout):
    array = arranged(film(), "NTHWC", layout)
    copy, found = snapshot_pixels(array, "tag", layout.lower(), "NTCHW")
    assert found == layout
    assert (video_of(copy, found)[0][..., :3] == film()[0]).all()


@pytest.mark.parametrize(
    ("shape", "dataformats", "layout"),
    [
        ((2, 6, 3, 16, 24), "NTCHW", "NTCHW"),
        ((6, 3, 16, 24), "NTCHW", "TCHW"),
        ((6, 16, 24), "NTCHW", "THW"),
        ((6, 16, 24, 3), "NTHWC", "THWC"),
        ((6, 16, 24, 3), "THWC", "THWC"),
        ((6, 16, 24), "THW", "THW"),
        ((2, 6, 16, 24), "NTHW", "NTHW"),
    ],
)
def test_axes_that_need_not_be_there(shape, dataformats, layout):
    assert snapshot_pixels(np.zeros(shape), "tag", dataformats, "NTCHW")[1] == layout


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_floats_are_from_0_to_1(dtype):
    frames = film()[0]
    assert (video_of((frames / 255).astype(dtype))[0][..., :3] == frames).all()


def test_what_floats_mean_is_decided_for_all_frames():
    found, _, warning = video_of(plain([0, 1, 2, 200]).astype(np.float32))
    assert found[:, 0, 0, 0].tolist() == [0, 1, 2, 200]
    assert warning == "floats up to 200 are interpreted as pixels from 0 to 255"


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 7, 8, 9, 17])
def test_several_videos_are_side_by_side_as_in_the_peers(count):
    utils = pytest.importorskip("tensorboardX.utils")
    videos = film(frames=2, height=4, width=5, videos=count)
    theirs = utils._prepare_video(videos.transpose(0, 1, 4, 2, 3) / 255)
    found = video_of(videos, "NTHWC")[0]
    assert (found[..., :3] == np.rint(theirs * 255)).all()


# Time.


@settings(deadline=None)
@given(st.floats(0.02, 50), st.sampled_from(["gif", "apng"]))
def test_frames_keep_their_time(fps, codec):
    unit = 10 if codec == "gif" else 1
    found, durations, warning = video_of(plain([0, 90, 180] * 4), fps=fps, codec=codec)
    assert len(found) == 12
    assert warning == ""
    for count, end in enumerate(itertools.accumulate(durations), 1):
        assert end == pytest.approx(count * 1000 / fps, abs=unit / 2 + 0.01)


@pytest.mark.parametrize(
    ("codec", "fps", "most"),
    [("gif", 60, 50), ("gif", 1e9, 50), ("apng", 100, 91), ("webp", 100, 91)],
)
def test_what_browsers_do_not_play_is_slowed_and_said(codec, fps, most):
    _, durations, warning = video_of(plain([0, 90, 180]), fps=fps, codec=codec)
    assert sum(durations) == pytest.approx(3000 / most, abs=1)
    assert warning == f"browsers play at most {most} frames per second of {codec}, not {fps:g}"


def test_two_warnings_are_both_said():
    warning = video_of(plain([0, 90]).astype(np.float32), fps=100, codec="gif")[2]
    assert warning.startswith(
        "floats up to 90 are interpreted as pixels from 0 to 255; browsers play"
    )


def test_still_frames_keep_their_time():
    found, durations, _ = video_of(plain([0, 90, 90, 90, 180]), codec="gif")
    assert found[:, 0, 0, 0].tolist() == [0, 90, 180]
    assert durations == [250, 750, 250]


# The writer.


def test_the_writer_takes_every_argument(tmp_path):
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_video("video", film(videos=2).transpose(0, 1, 4, 2, 3), 3, 8, 1.5e9)
        writer.add_video("video", film()[0], global_step=4, dataformats="THWC", codec="apng")
        writer.add_video("video", film(videos=2), 5, 4, None, "NTHWC", codec="webp")
    events = logged_videos(tmp_path)
    assert [event.step for event in events] == [3, 4, 5]
    assert events[0].wall_time == 1.5e9
    (two, times), (one, slower), _ = (decoded(event.encoded_image_string) for event in events)
    assert two.shape == (6, 16, 48, 4)
    assert sum(times) == 750
    assert (one[..., :3] == film()[0]).all()
    assert sum(slower) == 1500


@pytest.mark.skipif(not importlib.util.find_spec("moviepy"), reason="the peer needs moviepy")
def test_the_same_call_shows_the_same_as_the_peer(tmp_path):
    peer = pytest.importorskip("tensorboardX").SummaryWriter
    video = (film(videos=3) // 64 * 64).transpose(0, 1, 4, 2, 3)
    shown = []
    for writer in (Writer(tmp_path / "ours"), peer(str(tmp_path / "theirs"))):
        writer.add_video("video", video, 3, 8)
        writer.close()
        shown += logged_videos(writer.logdir)
    (ours, times), (theirs, their_times) = (decoded(one.encoded_image_string) for one in shown)
    assert ours.shape == theirs.shape
    assert np.abs(ours.astype(int) - theirs).max() <= 1
    assert sum(times) == pytest.approx(sum(their_times), abs=30)


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ({"vid_tensor": np.zeros((6, 16, 24, 5))}, InvalidValueError, r"got \(6, 16, 24, 5\)$"),
        ({"vid_tensor": np.zeros((6, 16, 24, 3))}, InvalidValueError, "dataformats='NTHWC'$"),
        ({"vid_tensor": np.zeros((16, 24))}, InvalidValueError, r"got \(16, 24\)$"),
        ({"vid_tensor": np.zeros((1, 0, 3, 16, 24))}, InvalidValueError, "no pixels"),
        (
            {"vid_tensor": np.broadcast_to(np.uint8(0), (2000, 3, 1024, 1024))},
            InvalidValueError,
            r"\(2000, 3, 1024, 1024\): 5.86 GiB of pixels, but a record holds 1",
        ),
        ({"vid_tensor": "film.mp4"}, InvalidTypeError, ""),
        ({"vid_tensor": film() * 1j}, InvalidTypeError, "complex128"),
        ({"dataformats": "CHW"}, InvalidValueError, "letters NTCHW, including H, T, W; got"),
        ({"dataformats": None}, InvalidTypeError, "dataformats must be a str"),
        ({"fps": 0}, InvalidValueError, "fps must be a number of at least 0.02, got 0"),
        ({"fps": -4}, InvalidValueError, "got -4"),
        ({"fps": float("nan")}, InvalidValueError, "got nan"),
        ({"fps": float("inf")}, InvalidValueError, "got inf"),
        ({"fps": None}, InvalidTypeError, "NoneType"),
        (
            {"codec": "mp4"},
            InvalidValueError,
            "'gif', 'apng', 'webp', got 'mp4'; TensorBoard shows",
        ),
        ({"codec": "theora"}, InvalidValueError, "got 'theora'$"),
        ({"codec": None}, InvalidValueError, "got None$"),
        ({"global_step": "nine"}, InvalidTypeError, "a step must be an integer"),
    ],
)
def test_a_bad_video_is_refused_by_tag(arguments, error, says, tmp_path):
    given = {"vid_tensor": film().transpose(0, 1, 4, 2, 3), **arguments}
    with Writer(tmp_path) as writer, pytest.raises(error, match=f"^'my/tag': .*{says}"):
        writer.add_video("my/tag", **given)


def test_a_video_is_as_it_was_at_the_call(tmp_path):
    video = film().transpose(0, 1, 4, 2, 3)
    with Writer(tmp_path) as writer:
        writer.add_video("video", video, codec="apng")
        video[:] = 0
    found, _ = decoded(logged_videos(tmp_path)[0].encoded_image_string)
    assert (found[..., :3] == film()[0]).all()


def test_a_list_of_frames(tmp_path):
    frames = list(film()[0])
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_video("video", [Image.fromarray(frame) for frame in frames], 0, codec="apng")
        writer.add_video("video", frames, 1, dataformats="THWC", codec="apng")
    for event in logged_videos(tmp_path):
        assert (decoded(event.encoded_image_string)[0][..., :3] == frames).all()


def test_tensors_and_arrays_on_a_device(tmp_path):
    torch = pytest.importorskip("torch")
    video = film().transpose(0, 1, 4, 2, 3)
    deferred = Deferred(lambda: video, video.shape, None, video.nbytes)
    with Writer(tmp_path, on_error="raise") as writer:
        writer.add_video("video", torch.from_numpy(video), 0, codec="apng")
        writer.add_video("video", deferred, 1, codec="apng")
    for event in logged_videos(tmp_path):
        assert (decoded(event.encoded_image_string)[0][..., :3] == film()[0]).all()


def test_a_missing_pillow_is_named(tmp_path, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(media, "check_pillow", media.check_pillow.__wrapped__)
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "PIL" else find(name, *rest),
    )
    says = r"^add_video needs Pillow: pip install 'sm-tblog\[media\]'$"
    with Writer(tmp_path) as writer, pytest.raises(MissingDependencyError, match=says):
        writer.add_video("my/tag", film(), dataformats="NTHWC")


def test_a_pillow_without_webp_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("PIL.features.check", lambda feature: feature != "webp")
    says = "'my/tag': this build of Pillow has no WebP; use codec='gif' or 'apng'"
    with Writer(tmp_path) as writer, pytest.raises(MissingDependencyError, match=says):
        writer.add_video("my/tag", film(), dataformats="NTHWC", codec="webp")


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    Writer(tmp_path / "none", enabled=False).add_video("video", "no film", codec="none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("codec", "longest"), [("gif", 655.35), ("apng", 65.535)])
def test_a_long_still_is_cut_and_the_film_goes_on(channels, codec, longest):
    count = int(longest) + 20
    frames = plain([0, *[100] * count, 200], channels)
    if channels == 4:
        frames[..., 3] = 255
    shown, durations, warning = video_of(frames, fps=1, codec=codec)
    assert shown[:, 0, 0, 0].tolist() == [0, 100, 200]
    assert durations == [1000, int(longest) * 1000, 1000]
    assert f"stills are cut to {longest} s" in warning
    assert "the video is 20 s shorter" in warning


def test_frames_that_a_palette_makes_equal_are_one_still():
    rng = np.random.default_rng(0)
    photograph = rng.integers(0, 255, (16, 32, 3)).astype(np.uint8)
    frames = np.stack([photograph] * 700 + [photograph // 2])
    frames[1::2, 0, 0] ^= 1  # more than 256 colors, so that this may be lost
    shown, durations, _ = video_of(frames, fps=1, codec="gif")
    assert len(shown) >= 2
    assert max(durations) <= 655_350


def test_webp_shows_a_still_for_as_long_as_it_takes():
    if not importlib.import_module("PIL.features").check("webp"):
        pytest.skip("Pillow lacks WebP")
    shown, _, warning = video_of(plain([0, *[100] * 17_000, 200]), fps=1, codec="webp")
    assert sorted({int(level) for level in shown[:, 0, 0, 0]}) == [0, 100, 200]
    assert warning == ""

"""Audio: the WAV files, as the standard library reads them and compared with PyTorch's writer."""

import io
import threading
import wave

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.arrays.convert import Deferred
from sm_tblog.format import schema
from sm_tblog.summary.audio import audio_value


def decoded(wav):
    """Return samples of shape (length, channels), and the rate."""
    with wave.open(io.BytesIO(wav)) as reader:
        assert (reader.getsampwidth(), reader.getcomptype()) == (2, "NONE")
        frames = np.frombuffer(reader.readframes(reader.getnframes()), "<i2")
        return frames.reshape(-1, reader.getnchannels()), reader.getframerate()


def samples_of(samples, rate=44100):
    value, warning = audio_value("tag", np.asarray(samples), rate)
    return decoded(value.tensor.string_val[0])[0], warning


def logged_sounds(logdir, tag="sound"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    events = EventAccumulator(str(logdir), {"tensors": 0}).Reload().Tensors(tag)
    return [decoded(make_ndarray(event.tensor_proto).item()) for event in events]


def tone(length=50, channels=1, dtype=np.float32):
    return np.sin(np.arange(length)[:, np.newaxis] * (1 + np.arange(channels)) / 5).astype(dtype)


# Samples.


@pytest.mark.parametrize(
    ("samples", "dtype", "expected"),
    [
        ([-1.0, 0.0, 0.5, 1.0], "f4", [-32767, 0, 16383, 32767]),
        ([-1.0, 0.0, 0.5, 1.0], "f8", [-32767, 0, 16383, 32767]),
        ([-1.0, 0.0, 0.5, 1.0], "f2", [-32767, 0, 16383, 32767]),
        ([-1.0, 0.0, 0.5, 1.0], ">f4", [-32767, 0, 16383, 32767]),
        ([-2.0, 0.5, np.inf], "f4", [-32767, 16383, 32767]),
        ([np.nan, 0.5], "f4", [0, 16383]),
        ([np.nan, -np.inf], "f8", [0, -32767]),
        ([-32768, 0, 32767], "i2", [-32768, 0, 32767]),
        ([-32768, 0, 32767], ">i2", [-32768, 0, 32767]),
        ([-(2**31), 0, 65536, 2**31 - 1], "i4", [-32768, 0, 1, 32767]),
        ([0, 128, 255], "u1", [-32768, 0, 32512]),
    ],
)
def test_what_dtypes_mean(samples, dtype, expected):
    assert samples_of(np.array(samples).astype(dtype))[0].ravel().tolist() == expected


def test_narrow_floats_are_from_minus_1_to_1():
    ml_dtypes = pytest.importorskip("ml_dtypes")
    samples = np.array([-1.0, 0.5]).astype(ml_dtypes.bfloat16)
    assert samples_of(samples)[0].ravel().tolist() == [-32767, 16383]


@pytest.mark.parametrize(
    ("samples", "warning"),
    [
        ([-1.0, 1.0], ""),
        ([-1.5, 1.0], "samples up to 1.5 are clipped to -1 to 1"),
        ([0.5, np.nan, np.nan], "2 of 3 samples are NaN and silent"),
        (
            [2.0, np.nan],
            "1 of 2 samples are NaN and silent; samples up to 2 are clipped to -1 to 1",
        ),
    ],
)
def test_what_is_not_as_it_should_be_is_remarked(samples, warning):
    assert samples_of(samples)[1] == warning


@given(
    npst.arrays(st.sampled_from([np.float32, np.float64]), 9, elements=st.floats(-1, 1, width=32))
)
def test_a_float_is_at_most_one_step_from_its_sample(samples):
    found = samples_of(samples)[0].ravel()
    exact = samples.astype(np.float64) * 32767
    assert (np.abs(found - exact) < 1).all()
    assert (np.abs(found) <= np.abs(exact) + 0.01).all()


@pytest.mark.parametrize("dtype", ["?", "i1", "i8", "u2", "u4", "c8"])
def test_a_dtype_whose_range_is_not_known_is_refused_by_tag(dtype, tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match=r"^'my/tag': .*dtype"):
        writer.add_audio("my/tag", np.zeros(9, dtype))


# Shapes.


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        (tone().ravel(), tone()),
        (tone(), tone()),
        (tone().T, tone()),
        (tone()[np.newaxis], tone()),
        (tone(1), tone(1)),
        (np.float32(0.5).reshape(()), np.full((1, 1), 0.5)),
        (tone(50, 2), tone(50, 2)),
        (tone(50, 2).T, tone(50, 2)),
        (tone(50, 8).T[np.newaxis], tone(50, 8)),
    ],
)
def test_of_two_axes_the_shorter_is_the_channels(samples, expected):
    assert (samples_of(samples)[0] == samples_of(expected)[0]).all()
    assert samples_of(samples)[0].shape == expected.shape


def test_of_two_equal_axes_the_second_is_the_channels():
    found, _ = samples_of(np.array([[1, 2], [3, 4]], np.int16))
    assert found.tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("shape", [(0,), (1, 0), (9, 50), (3, 2, 50), (2, 0)])
def test_a_shape_that_is_no_sound_is_refused_by_tag(shape, tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError) as refused:
        writer.add_audio("my/tag", np.zeros(shape, np.float32))
    assert str(refused.value).startswith("'my/tag': a sound must have shape (L,), (C, L) or (L, C)")
    assert f"got {shape}" in str(refused.value)


class Enormous:
    """An array that must not be read."""

    shape = (1 << 30, 2)

    def __array__(self, dtype=None, copy=None):
        raise AssertionError("it was copied before it was refused")


def test_more_samples_than_a_record_holds_are_refused_before_they_are_copied(tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="1 GiB of 16-bit"):
        writer.add_audio("my/tag", Enormous())


# The writer.


@pytest.mark.parametrize(
    "samples", [tone().ravel(), tone().T, tone(dtype=np.float64).T, 2 * tone().ravel()]
)
@pytest.mark.filterwarnings("ignore:Conversion of an array")
def test_the_same_call_sounds_as_with_torch(samples, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    peer = pytest.importorskip("torch.utils.tensorboard").SummaryWriter
    for writer in (Writer(tmp_path / "ours"), peer(str(tmp_path / "theirs"))):
        writer.add_audio("sound", samples, 5, 8000)
        writer.close()
    ((ours, our_rate),) = logged_sounds(tmp_path / "ours")
    run = EventAccumulator(str(tmp_path / "theirs"), {"audio": 0}).Reload()
    theirs, their_rate = decoded(run.Audio("sound")[0].encoded_audio_string)
    assert our_rate == their_rate == 8000
    assert (ours == theirs).all()


def test_the_metadata_says_that_it_is_a_wav():
    metadata = pytest.importorskip("tensorboard.plugins.audio.metadata")
    value, _ = audio_value("tag", tone(), 44100)
    assert value.tag == "tag"
    assert value.metadata.plugin_data.plugin_name == metadata.PLUGIN_NAME
    content = metadata.parse_plugin_metadata(value.metadata.plugin_data.content)
    assert content.encoding == metadata.Encoding.Value("WAV")
    assert value.metadata.data_class == schema.DATA_CLASS_BLOB_SEQUENCE


@pytest.mark.parametrize(
    ("rate", "expected"), [(8000, 8000), (22050.4, 22050), (np.int64(16000), 16000), (1, 1)]
)
def test_a_sample_rate_is_any_number(rate, expected, tmp_path):
    with Writer(tmp_path) as writer:
        writer.add_audio("sound", tone(), sample_rate=rate)
    ((_, found),) = logged_sounds(tmp_path)
    assert found == expected


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 2**28, 0.5])
def test_a_sample_rate_out_of_range_is_refused_by_tag(rate, tmp_path):
    with (
        Writer(tmp_path) as writer,
        pytest.raises(InvalidValueError, match="'my/tag': sample_rate"),
    ):
        writer.add_audio("my/tag", tone(), sample_rate=rate)


@pytest.mark.parametrize("rate", [None, "44100", [44100, 1]])
def test_a_sample_rate_that_is_no_number_is_refused(rate, tmp_path):
    errors = (InvalidTypeError, InvalidValueError)
    with Writer(tmp_path) as writer, pytest.raises(errors, match="'my/tag'"):
        writer.add_audio("my/tag", tone(), sample_rate=rate)


@pytest.mark.parametrize("sound", ["sound.wav", b"RIFF", None, object(), ["a"]])
def test_what_is_no_sound_is_refused_by_tag(sound, tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidTypeError, match="'my/tag'"):
        writer.add_audio("my/tag", sound)


def test_a_sound_is_as_it_was_at_the_call(tmp_path):
    samples = tone()
    expected = samples_of(samples)[0]
    with Writer(tmp_path) as writer:
        writer.add_audio("sound", samples, 3)
        samples[:] = 0
    assert (logged_sounds(tmp_path)[0][0] == expected).all()


def test_a_tensor_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    with Writer(tmp_path) as writer:
        writer.add_audio("sound", torch.from_numpy(tone().T).requires_grad_())
    assert (logged_sounds(tmp_path)[0][0] == samples_of(tone())[0]).all()


def test_a_sound_on_a_device_is_checked_at_the_call_and_read_by_the_worker(tmp_path, caplog):
    reads = []

    def on_device(array, dtype):
        def read():
            reads.append(threading.current_thread())
            return array

        return Deferred(read, array.shape, dtype, array.nbytes)

    with Writer(tmp_path) as writer:
        with pytest.raises(InvalidTypeError, match="int64"):
            writer.add_audio("my/tag", on_device(np.zeros(9, np.int64), np.dtype(np.int64)))
        with pytest.raises(InvalidValueError, match=r"got \(9, 9\)"):
            writer.add_audio("my/tag", on_device(np.zeros((9, 9)), None))
        assert reads == []
        writer.add_audio("sound", on_device(tone(), None), 0)
        writer.add_audio("sound", on_device(np.zeros(9, np.int64), None), 1)
    assert threading.current_thread() not in reads
    ((found, _),) = logged_sounds(tmp_path)
    assert (found == samples_of(tone())[0]).all()
    assert "int64" in caplog.text


def test_a_disabled_writer_looks_at_nothing(tmp_path):
    Writer(tmp_path / "none", enabled=False).add_audio("sound", "no sound", sample_rate="none")
    assert not (tmp_path / "none").exists()

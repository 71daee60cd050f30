"""Values on their way from a device: the caller never waits for them, the worker reads them.

The device stands in for JAX's: an array that can be told to begin its copy, and that is waited for
when it is read.
"""

from __future__ import annotations

import logging
import threading

import numpy as np
import pytest

from sm_tblog import Writer

pytestmark = pytest.mark.usefixtures("worker_at_barriers_alone")


class OnDevice:
    """An array on a device that notes what is done to it, and by which thread."""

    def __init__(self, values, error=None):
        self._values = np.asarray(values, np.float32)
        self._error = error
        self.begun_by = []
        self.read_by = []

    @property
    def shape(self):
        return self._values.shape

    @property
    def nbytes(self):
        return self._values.nbytes

    def copy_to_host_async(self):
        self.begun_by.append(threading.current_thread())

    def __array__(self, dtype=None, copy=None):
        self.read_by.append(threading.current_thread())
        if self._error is not None:
            raise self._error
        return self._values

    def _would_wait(self, *_):
        pytest.fail("a conversion that waits for the device")

    item = tolist = __float__ = __int__ = __bool__ = __iter__ = __len__ = _would_wait


class SlowDevice(OnDevice):
    """One whose value arrives when it is told to."""

    def __init__(self, values):
        super().__init__(values)
        self.arrives = threading.Event()

    def __array__(self, dtype=None, copy=None):
        self.arrives.wait()
        return super().__array__(dtype, copy)


class DeviceError(Exception):
    """A library's own exception, of no kind that Python has."""


def _warnings(caplog):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "sm_tblog" and record.levelno >= logging.WARNING
    ]


CALLS = {
    "add_scalar": lambda writer, value: writer.add_scalar("tag", value, 3),
    "log": lambda writer, value: writer.log({"tag": value}, 3),
    "nested log": lambda writer, value: writer.log({"group": {"tag": value}}, 3),
    "add_scalars": lambda writer, value: writer.add_scalars("tag", {"curve": value}, 3),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_a_number_is_read_by_the_worker_alone(tmp_path, read_scalars, call, shape):
    value = OnDevice(np.full(shape, 2.5))
    with Writer(tmp_path) as writer:
        call(writer, value)
        assert value.begun_by == [threading.current_thread()]
        worker = writer._pipeline._worker
        assert writer.flush()
    assert set(value.read_by) == {worker}
    [tags] = read_scalars(tmp_path).values()
    assert list(tags.values()) == [[(3, 2.5)]]


def test_an_array_is_read_by_the_worker_alone(tmp_path, read_events, event_files):
    value = OnDevice([1.0, 2.0, 3.0])
    with Writer(tmp_path) as writer:
        writer.add_histogram("tag", value, 3)
        assert value.begun_by == [threading.current_thread()]
        worker = writer._pipeline._worker
        assert writer.flush()
    assert set(value.read_by) == {worker}
    [path] = event_files(tmp_path)
    [_, event] = read_events(path)
    assert event.summary.value[0].tag == "tag"


def test_the_shape_is_checked_at_the_call_without_reading(tmp_path):
    value = OnDevice([1.0, 2.0])
    with Writer(tmp_path) as writer, pytest.raises(ValueError, match="one element"):
        writer.add_scalar("tag", value, 0)
    assert value.read_by == value.begun_by == []


def test_the_caller_goes_on_while_a_value_has_not_arrived(tmp_path, read_scalars):
    value = SlowDevice(2.0)
    with Writer(tmp_path) as writer:
        writer.add_scalar("tag", value, 0)
        for step in range(1, 1000):
            writer.add_scalar("tag", float(step), step)
        assert not writer.flush(timeout=0)
        assert read_scalars(tmp_path) == {}
        value.arrives.set()
    expected = [(0, 2.0), *((step, float(step)) for step in range(1, 1000))]
    assert read_scalars(tmp_path) == {"": {"tag": expected}}


@pytest.mark.parametrize(
    "error",
    [RuntimeError, ValueError, TypeError, OverflowError, LookupError, OSError, DeviceError],
)
def test_a_number_that_cannot_be_read_is_left_out_counted_and_said_once(
    tmp_path, caplog, read_scalars, error
):
    with Writer(tmp_path) as writer:
        for step in range(10):
            writer.add_scalar("good", 1.0, step)
            writer.add_scalar("bad", OnDevice(0.0, error("lost in transit")), step)
            writer.add_scalar("late", OnDevice(2.0), step)
        assert not writer.flush()
        [message] = _warnings(caplog)
        assert "'bad'" in message
        assert "lost in transit" in message
        assert writer.stats().rows_dropped == writer.stats().errors == 10
        writer.add_scalar("good", 1.0, 10)
        assert writer.flush()
    assert read_scalars(tmp_path) == {
        "": {
            "good": [(step, 1.0) for step in range(11)],
            "late": [(step, 2.0) for step in range(10)],
        }
    }


@pytest.mark.parametrize("error", [RuntimeError, LookupError, DeviceError])
def test_an_array_that_cannot_be_read_is_left_out_counted_and_said_once(
    tmp_path, caplog, read_scalars, error
):
    with Writer(tmp_path) as writer:
        for step in range(10):
            writer.add_histogram("bad", OnDevice([0.0], error("lost in transit")), step)
            writer.add_scalar("good", 1.0, step)
        assert not writer.flush()
        [message] = _warnings(caplog)
        assert "'bad'" in message
        assert "lost in transit" in message
        assert writer.stats().rows_dropped == writer.stats().errors == 10
        assert writer.flush()
    assert read_scalars(tmp_path) == {"": {"good": [(step, 1.0) for step in range(10)]}}


def test_a_strict_writer_raises_for_a_number_that_cannot_be_read(tmp_path):
    writer = Writer(tmp_path, on_error="raise")
    writer.add_scalar("bad", OnDevice(0.0, DeviceError("lost in transit")), 7)
    with pytest.raises(ValueError, match=r"'bad'.*step 7.*lost in transit") as caught:
        writer.flush()
    assert isinstance(caught.value.__cause__, DeviceError)
    assert writer.close()

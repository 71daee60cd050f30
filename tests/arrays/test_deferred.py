"""Values on a device: the calling thread never waits for them, the worker thread reads them.

A fake JAX array starts its copy on request and waits for it when it is read. Other fakes stand for
arrays of CuPy and Numba, and for PyTorch tensors on a device.
"""

from __future__ import annotations

import logging
import sys
import threading
import types

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, Writer
from sm_tblog.arrays.convert import Deferred, as_number, snapshot

pytestmark = pytest.mark.usefixtures("worker_at_barriers_alone")


class OnDevice:
    """An array on a device that records the operations on it and their threads."""

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
    """An array whose value arrives on request."""

    def __init__(self, values):
        super().__init__(values)
        self.arrives = threading.Event()

    def __array__(self, dtype=None, copy=None):
        self.arrives.wait()
        return super().__array__(dtype, copy)


class DeviceError(Exception):
    """A library's own exception, not derived from a built-in error."""


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


def test_a_deferred_tells_its_layout_before_it_has_arrived():
    def not_yet():
        pytest.fail("nobody has asked for it")

    deferred = Deferred(not_yet, (2, 3), np.dtype(np.float32), 24)
    assert (deferred.shape, deferred.ndim, deferred.dtype, deferred.nbytes) == ((2, 3), 2, "f4", 24)
    assert (Deferred(not_yet).shape, Deferred(not_yet).dtype) == ((), None)


def test_an_array_of_a_wrong_kind_is_refused_without_reading():
    value = OnDevice([1.0])
    value.dtype = np.dtype(np.complex64)
    with pytest.raises(InvalidTypeError, match=r"'my/tag': .*real numbers.*complex64"):
        snapshot(value, "my/tag")
    with pytest.raises(InvalidTypeError, match="'my/tag'"):
        as_number(value, "my/tag")
    assert value.read_by == []


def test_a_list_of_arrays_on_a_device_is_on_its_way_as_one():
    host = np.zeros(2, np.float32)
    values = [OnDevice([1.0, 2.0]), host, OnDevice([3.0, 4.0])]
    deferred = snapshot([values, values], "tag")
    host[:] = 1
    assert (deferred.shape, deferred.dtype) == ((2, 3, 2), None)
    assert values[0].read_by == []
    assert deferred.array().tolist() == [[[1, 2], [0, 0], [3, 4]]] * 2
    with pytest.raises(InvalidTypeError, match=r"'my/tag'.*several shapes"):
        snapshot([OnDevice([1.0, 2.0]), OnDevice([1.0])], "my/tag")


# CuPy's arrays, and Numba's.


class CudaArray:
    """The interface of CuPy's arrays."""

    __cuda_array_interface__ = {}  # noqa: RUF012 - the protocol's name and type
    dtype = np.dtype(np.float32)

    def __init__(self, values, log):
        self.values, self.log = np.array(values, np.float32), log
        self.shape, self.nbytes = self.values.shape, self.values.nbytes

    def copy(self):
        self.log.append("copy")
        return CudaArray(self.values, self.log)

    def get(self):
        self.log.append("get")
        return self.values

    def __array__(self, dtype=None, copy=None):
        raise TypeError("implicit conversion is not allowed")


def test_cupys_arrays_are_copied_there_and_read_behind_an_event(monkeypatch):
    log = []
    event = types.SimpleNamespace(synchronize=lambda: log.append("synchronize"))
    stream = types.SimpleNamespace(record=lambda: log.append("record") or event)
    cupy = types.SimpleNamespace(cuda=types.SimpleNamespace(get_current_stream=lambda: stream))
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    array = CudaArray([1, 2], log)
    deferred = snapshot(array, "tag")
    array.values[:] = 7
    assert log == ["copy", "record"]
    assert (deferred.shape, deferred.dtype, deferred.nbytes) == ((2,), "f4", 8)
    assert deferred.array().tolist() == [1, 2]
    assert log == ["copy", "record", "synchronize", "get"]


class NumbaArray:
    __cuda_array_interface__ = {}  # noqa: RUF012 - the protocol's name and type
    shape = (2,)

    def copy_to_host(self):
        return np.array([1.0, 2.0])


def test_numbas_arrays_are_waited_for():
    assert snapshot(NumbaArray(), "tag").array().tolist() == [1, 2]


# PyTorch's tensors on a device: the host in disguise.


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


@pytest.fixture
def on_device(torch):
    """``on_device(tensor)``: a tensor that claims not to be in host memory."""

    class Tensor(torch.Tensor):
        is_cpu = False

    return lambda tensor: tensor.as_subclass(Tensor)


def test_a_tensor_is_copied_on_the_callers_stream_and_read_behind_an_event(
    torch, on_device, monkeypatch
):
    log = []
    event = types.SimpleNamespace(synchronize=lambda: log.append("synchronize"))
    stream = types.SimpleNamespace(record_event=lambda: log.append("record") or event)
    asked = []

    def copied(tensor, *args, **options):
        asked.append((args, options))
        log.append("copy")
        return torch.Tensor.clone(tensor)

    monkeypatch.setattr(torch.cpu, "current_stream", lambda device: stream)
    tensor = on_device(torch.ones(2, 3, dtype=torch.bfloat16, requires_grad=True))
    monkeypatch.setattr(type(tensor), "to", copied, raising=False)
    deferred = snapshot(tensor, "tag")
    assert (deferred.shape, deferred.dtype, deferred.nbytes) == ((2, 3), "f4", 12)
    assert log == ["copy", "record"]
    assert asked == [(("cpu",), {"non_blocking": True})]
    monkeypatch.undo()
    assert deferred.array().tolist() == [[1, 1, 1]] * 2
    assert log == ["copy", "record", "synchronize"]


def test_without_streams_the_worker_copies(torch, on_device, monkeypatch):
    monkeypatch.delattr(torch.cpu, "current_stream")
    tensor = on_device(torch.ones(2, dtype=torch.float64))
    deferred = snapshot(tensor, "tag")
    number = as_number(tensor[:1], "tag")
    tensor.zero_()
    assert (deferred.dtype, deferred.nbytes) == ("f8", 16)
    assert deferred.array().tolist() == [1, 1]
    assert float(number) == 1


def test_a_device_tensor_without_numbers_is_refused(torch, on_device):
    for tensor in (torch.ones(2, device="meta"), on_device(torch.ones(2, dtype=torch.complex64))):
        with pytest.raises(InvalidTypeError, match="'my/tag'"):
            snapshot(tensor, "my/tag")


def test_nothing_is_logged_into_a_graph_that_is_being_captured(torch, on_device, monkeypatch):
    monkeypatch.setattr(torch.cpu, "is_current_stream_capturing", lambda: True, raising=False)
    for read in (snapshot, as_number):
        with pytest.raises(InvalidTypeError, match=r"'my/tag'.*captured.*log outside"):
            read(on_device(torch.ones(1)), "my/tag")

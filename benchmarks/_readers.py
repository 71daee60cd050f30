"""The readers under comparison. Each reads all runs of a folder and returns the seconds it took."""

from __future__ import annotations

import subprocess
import tempfile
import warnings
from functools import cache
from pathlib import Path
from time import perf_counter, sleep
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._event_files import Shape

__all__ = ["ACCUMULATOR", "OURS", "RUST_SERVER", "TBPARSE", "available_readers"]

OURS = "sm_tblog"
TBPARSE = "tbparse"
ACCUMULATOR = "EventAccumulator"
RUST_SERVER = "Rust server"

_POLL_SECONDS = 0.005
_MAX_SECONDS = 120


def available_readers() -> dict[str, Callable[[Path, Shape], float]]:
    """Return the readers that are installed, by name."""
    readers: dict[str, Callable[[Path, Shape], float]] = {OURS: _read_ours}
    try:
        import tbparse  # noqa: F401
    except ImportError:
        pass
    else:
        readers[TBPARSE] = _read_with_tbparse
    readers[ACCUMULATOR] = _read_with_accumulators
    if _server_binary():
        readers[RUST_SERVER] = _read_with_server
    return readers


def _check(found: int, shape: Shape, reader: str) -> None:
    if found != shape.points:
        message = f"{reader} returned {found} scalars instead of {shape.points}"
        raise ValueError(message)


def _read_ours(folder: Path, shape: Shape) -> float:
    from sm_tblog.readers import read_all

    begun = perf_counter()
    found = 0
    for run in read_all(folder).values():
        found += sum(len(points.value) for points in run.scalars.values())
    took = perf_counter() - begun
    _check(found, shape, OURS)
    return took


def _read_with_tbparse(folder: Path, shape: Shape) -> float:
    from tbparse import SummaryReader

    begun = perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of pandas
        read = SummaryReader(str(folder), extra_columns={"wall_time"})
        # It returns the scalars of TensorFlow 2 as tensors.
        found = len(read.scalars) or len(read.tensors)
    took = perf_counter() - begun
    _check(found, shape, TBPARSE)
    return took


def _read_with_accumulators(folder: Path, shape: Shape) -> float:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    begun = perf_counter()
    found = 0
    for run in folder.iterdir():
        read = EventAccumulator(str(run), {"scalars": 0, "tensors": 0}).Reload()
        tags = read.Tags()
        found += sum(len(read.Scalars(tag)) for tag in tags["scalars"])
        found += sum(len(read.Tensors(tag)) for tag in tags["tensors"])
    took = perf_counter() - begun
    _check(found, shape, ACCUMULATOR)
    return took


def _server_binary() -> str:
    """Return the path of TensorBoard's data server, "" if there is none for this platform."""
    try:
        import tensorboard_data_server
    except ImportError:
        return ""
    return tensorboard_data_server.server_binary() or ""


def _read_with_server(folder: Path, shape: Shape) -> float:
    """Return the seconds until the server lists the last point of each curve, without start-up."""
    return max(_serve(folder, shape) - _startup_time(), 1e-6)


@cache
def _startup_time() -> float:
    """Return how long the server needs for one scalar."""
    from benchmarks._event_files import Shape, write_shape

    shape = Shape(1, 1, 1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "runs")
        write_shape(folder, OURS, shape)
        return min(_serve(folder, shape) for _ in range(3))


def _serve(folder: Path, shape: Shape) -> float:
    import grpc
    from tensorboard.data.proto import data_provider_pb2 as messages
    from tensorboard.data.proto.data_provider_pb2_grpc import TensorBoardDataProviderStub

    with tempfile.TemporaryDirectory() as temporary:
        port = Path(temporary, "port")
        command = [_server_binary(), f"--logdir={folder}", "--reload=once", "--port=0"]
        command += [f"--port-file={port}", "--samples-per-plugin=scalars=all"]
        begun = perf_counter()
        server = subprocess.Popen([*command, "--die-after-stdin"], stdin=subprocess.PIPE)
        try:
            while not (port.exists() and port.read_text(encoding="ascii").endswith("\n")):
                _wait(begun, server)
            address = f"localhost:{int(port.read_text(encoding='ascii'))}"
            with grpc.insecure_channel(address, _OPTIONS) as channel:
                stub = TensorBoardDataProviderStub(channel)
                request = messages.ListScalarsRequest(experiment_id="all")
                request.plugin_filter.plugin_name = "scalars"
                while not _is_complete(_ask(stub, request), shape):
                    _wait(begun, server)
            return perf_counter() - begun
        finally:
            server.kill()
            server.communicate()


_OPTIONS = (("grpc.max_receive_message_length", -1),)


def _wait(begun: float, server: subprocess.Popen[bytes]) -> None:
    if server.poll() is not None or perf_counter() - begun > _MAX_SECONDS:
        message = "TensorBoard's data server did not serve all points"
        raise RuntimeError(message)
    sleep(_POLL_SECONDS)


def _ask(stub: Any, request: Any) -> Any:
    import grpc

    try:
        return stub.ListScalars(request)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return None  # the server does not listen yet


def _is_complete(response: Any, shape: Shape) -> bool:
    if response is None:
        return False
    last = shape.steps - 1
    complete = [series.metadata.max_step == last for run in response.runs for series in run.tags]
    return len(complete) == shape.runs * shape.tags and all(complete)

"""TensorBoard's two loaders read exactly what was written.

``EventAccumulator`` is the Python loader; the data server is the Rust loader that TensorBoard uses
by default.
"""

import contextlib
import math
import subprocess
import sys

import numpy as np
import pytest

from sm_tblog import Writer

pytest.importorskip("tensorboard")


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A log directory, and the data logged: ``{(run, tag): [(step, wall_time, value), …]}``."""
    logdir = tmp_path_factory.mktemp("logs")
    rng = np.random.default_rng(0)
    expected = {}
    special = [0.0, -0.0, 1e-45, -1e300, math.inf, -math.inf, math.nan, 1 / 3]
    with Writer(logdir, on_error="raise") as writer:
        for step in range(2000):
            now = 1.7e9 + step * 0.1
            rows = {
                "loss": rng.random(),
                "layer/1/weights—ü": special[step % len(special)],
                "a" * 400: float(step),
            }
            for tag, value in rows.items():
                writer.add_scalar(tag, value, step, now)
                expected.setdefault(("", tag), []).append((step, now, value))
            writer.add_scalar("double", 1 / 3 + step, step, now, double_precision=True)
            expected.setdefault(("", "double"), []).append((step, now, 1 / 3 + step))
            writer.add_scalar("new", 0.5, step, now, new_style=True)
            expected.setdefault(("", "new"), []).append((step, now, 0.5))
            writer.add_scalars("both", {"x": 1.0, "y": 2.0}, step, now)
            for curve, value in (("x", 1.0), ("y", 2.0)):
                expected.setdefault((f"both_{curve}", "both"), []).append((step, now, value))
        writer.add_text("note", "# Title", 5, 1.7e9)
        writer.add_histogram("weights", rng.standard_normal(10_000), 5, walltime=1.7e9)
    return logdir, expected


def same(found, expected, double):
    if not double:
        with np.errstate(over="ignore"):
            expected = float(np.float32(expected))
    return found == expected or (math.isnan(found) and math.isnan(expected))


def test_the_event_accumulator_reads_what_was_written(logged):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    logdir, expected = logged
    for run in sorted({run for run, _ in expected}):
        accumulator = EventAccumulator(str(logdir / run), tensor_size_guidance={"scalars": 0})
        accumulator.Reload()
        tags = {tag for r, tag in expected if r == run}
        scalars = {
            tag
            for tag in accumulator.Tags()["tensors"]
            if accumulator.SummaryMetadata(tag).plugin_data.plugin_name == "scalars"
        }
        assert scalars == tags
        for tag in tags:
            events = accumulator.Tensors(tag)
            assert len(events) == len(expected[run, tag])
            for event, (step, wall_time, value) in zip(events, expected[run, tag], strict=True):
                assert (event.step, event.wall_time) == (step, wall_time)
                assert same(make_ndarray(event.tensor_proto).item(), value, tag == "double")


@pytest.fixture
def serve(tmp_path):
    """``serve(logdir)``: TensorBoard's data provider for a log directory, from the data server."""
    server = pytest.importorskip("tensorboard_data_server")
    grpc = pytest.importorskip("grpc")
    from tensorboard.data.grpc_provider import GrpcDataProvider
    from tensorboard.data.proto import data_provider_pb2_grpc

    binary = server.server_binary()
    if binary is None:
        pytest.skip("the data server has no binary for this platform")
    with contextlib.ExitStack() as stack:

        def start(logdir):
            port_file, error_file = tmp_path / "port", tmp_path / "error"
            command = [
                *(binary, f"--logdir={logdir}", "--reload=once", "--port=0", "--die-after-stdin"),
                *("--samples-per-plugin=scalars=all", f"--port-file={port_file}"),
                *(f"--error-file={error_file}", "--verbose"),
            ]
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            )
            stack.callback(process.stdin.close)
            assert any("Finished load cycle" in line for line in process.stderr)
            channel = grpc.insecure_channel(f"127.0.0.1:{port_file.read_text().strip()}")
            stack.enter_context(channel)
            stub = data_provider_pb2_grpc.TensorBoardDataProviderStub(channel)
            return GrpcDataProvider("", stub)

        yield start


@pytest.fixture
def data_server(logged, serve):
    logdir, _ = logged
    return serve(logdir)


def read_by_data_server(server):
    from tensorboard.context import RequestContext

    return server.read_scalars(
        RequestContext(), experiment_id="", plugin_name="scalars", downsample=10**6
    )


def test_the_data_server_reads_what_was_written(logged, data_server):
    _, expected = logged
    found = {
        ("" if run == "." else run, tag): points
        for run, tags in read_by_data_server(data_server).items()
        for tag, points in tags.items()
    }
    assert found.keys() == expected.keys()
    # Version 0.7.2 reads no float64 scalars of any writer; our writer warns about it.
    assert len(found.pop(("", "double"))) in (0, 2000)
    for key, points in found.items():
        assert len(points) == len(expected[key]), key
        for point, (step, wall_time, value) in zip(points, expected[key], strict=True):
            assert (point.step, point.wall_time) == (step, wall_time)
            assert same(point.value, value, double=False)  # it stores float32


@pytest.mark.parametrize("plugin", ["text", "histograms"])
def test_the_data_server_reads_the_other_plugins(data_server, plugin):
    from tensorboard.context import RequestContext

    data = data_server.read_tensors(
        RequestContext(), experiment_id="", plugin_name=plugin, downsample=10
    )
    ((tag, points),) = data["."].items()
    assert tag == {"text": "note", "histograms": "weights"}[plugin]
    assert points[0].step == 5
    if plugin == "text":
        assert points[0].numpy.item() == b"# Title"
    else:
        assert points[0].numpy[:, 2].sum() == 10_000


def test_every_loader_leaves_out_what_a_purge_step_supersedes(tmp_path, serve):
    from tensorboard.backend.event_processing import event_accumulator, plugin_event_accumulator

    for purge_step in (None, 6, 4):
        with Writer(tmp_path, purge_step=purge_step) as writer:
            for step in range(purge_step or 0, 10):
                writer.add_scalar("x", 1.0, step, new_style=True)
                writer.add_scalar("y", 1.0, step)
    classic = event_accumulator.EventAccumulator(str(tmp_path), {"scalars": 0}).Reload()
    assert [event.step for event in classic.Scalars("y")] == list(range(10))
    current = plugin_event_accumulator.EventAccumulator(str(tmp_path), {"tensors": 0}).Reload()
    for tag in ("x", "y"):
        assert [event.step for event in current.Tensors(tag)] == list(range(10))
    data = read_by_data_server(serve(tmp_path))["."]
    assert [point.step for point in data["x"]] == list(range(10))
    assert [point.step for point in data["y"]] == list(range(10))


def test_torch_reads_nothing_of_ours_into_its_pool():
    """Our messages and those of TensorBoard, tensorboardX and torch live in one process."""
    pytest.importorskip("tensorboardX")
    source = (
        "from sm_tblog.format import schema\n"
        "import tensorboardX, tensorboard.compat.proto.event_pb2\n"
        "try: import torch.utils.tensorboard\n"
        "except ImportError: pass\n"
        "print(schema.Event(step=3))"
    )
    command = [sys.executable, "-W", "ignore", "-c", source]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.strip() == "step: 3"

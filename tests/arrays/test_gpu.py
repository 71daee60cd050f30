"""Values on a GPU are logged without waiting for it, as they were at the call."""

import io

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sm_tblog import Writer

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"
)

STEPS = 50


@pytest.fixture(autouse=True)
def _waiting_is_an_error():
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def busy():
    """``busy()``: give the GPU enough work to delay everything queued after it."""
    matrix, product = (torch.zeros(8192, 8192, device="cuda") for _ in range(2))

    def queue():
        for _ in range(3):
            torch.mm(matrix, matrix, out=product)

    return queue


@pytest.fixture
def read(tmp_path):
    """``read()``: what TensorBoard finds in the folder."""

    def load():
        everything = dict.fromkeys(("scalars", "images", "tensors"), 0)
        return EventAccumulator(str(tmp_path), everything).Reload()

    return load


@pytest.fixture
def histograms(tmp_path):
    """``histograms(tag)``: those that TensorBoard finds in the folder."""

    def load(tag):
        run = EventAccumulator(str(tmp_path), {"histograms": 0}).Reload()
        return [event.histogram_value for event in run.Histograms(tag)]

    return load


def test_scalars_are_what_they_were_at_the_call(tmp_path, read_scalars, busy):
    loss = torch.zeros((), device="cuda")
    with Writer(tmp_path) as writer:
        for step in range(STEPS):
            busy()
            loss.add_(0.5)
            writer.add_scalar("loss", loss, step)
            late = not torch.cuda.current_stream().query()
            loss.mul_(1)
        loss.fill_(-1)
        assert late  # the GPU is not done with what the last call has logged
    expected = [(step, (step + 1) / 2) for step in range(STEPS)]
    assert read_scalars(tmp_path) == {"": {"loss": expected}}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int64])
def test_every_type_of_number_travels(tmp_path, read_scalars, dtype):
    values = torch.arange(4, device="cuda").to(dtype)
    with Writer(tmp_path) as writer:
        for step in range(4):
            writer.add_scalar("x", values[step], step)
            writer.log({"y": values[step]}, step)
    expected = [(step, float(step)) for step in range(4)]
    assert read_scalars(tmp_path) == {"": {"x": expected, "y": expected}}


def test_another_stream_is_waited_for(tmp_path, read_scalars, busy):
    stream = torch.cuda.Stream()
    value = torch.zeros((), device="cuda")
    with Writer(tmp_path) as writer, torch.cuda.stream(stream):
        busy()
        value.fill_(3)
        writer.add_scalar("x", value, 0)
        value.fill_(4)
    assert read_scalars(tmp_path) == {"": {"x": [(0, 3.0)]}}


def test_images_are_what_they_were_at_the_call(tmp_path, read):
    image_module = pytest.importorskip("PIL.Image")
    picture = torch.zeros(3, 64, 64, device="cuda", dtype=torch.uint8)
    with Writer(tmp_path) as writer:
        for step in range(STEPS):
            picture.fill_(step)
            writer.add_image("picture", picture, step)
        picture.fill_(255)
    for event in read().Images("picture"):
        pixels = np.asarray(image_module.open(io.BytesIO(event.encoded_image_string)))
        assert (pixels == event.step).all()
    assert len(read().Images("picture")) == STEPS


def test_embeddings_and_tensors_travel(tmp_path, read):
    points = torch.arange(12.0, device="cuda").reshape(4, 3)
    with Writer(tmp_path) as writer:
        writer.add_embedding(points, tag="points")
        writer.add_tensor("tensor", points)
        points.fill_(-1)
    expected = np.arange(12, dtype=np.float32).reshape(4, 3)
    [path] = tmp_path.glob("embeddings/points/*/tensors.bytes")
    np.testing.assert_array_equal(np.fromfile(path, "<f4").reshape(4, 3), expected)
    [event] = read().Tensors("tensor")
    assert event.tensor_proto.tensor_content == expected.tobytes()


def test_a_graph_that_is_captured_is_refused_by_name(tmp_path):
    value = torch.zeros((), device="cuda")
    graph = torch.cuda.CUDAGraph()
    torch.cuda.set_sync_debug_mode("default")
    with Writer(tmp_path) as writer, torch.cuda.graph(graph):
        value.add_(1)
        with pytest.raises(TypeError, match=r"'loss'.*captured"):
            writer.add_scalar("loss", value, 0)


def test_jax_arrays_travel_although_they_are_donated(tmp_path, read_scalars, histograms):
    jax = pytest.importorskip("jax")
    if jax.default_backend() == "cpu":
        pytest.skip("needs a GPU that JAX can use")
    add_in_place = jax.jit(lambda x: x + 1, donate_argnums=0)
    value, many = jax.numpy.zeros(()), jax.numpy.zeros(1000)
    with Writer(tmp_path) as writer:
        for step in range(STEPS):
            writer.add_scalar("loss", value, step)
            writer.add_histogram("many", many, step)
            value, many = value + 0.5, add_in_place(many)
    assert read_scalars(tmp_path)[""]["loss"] == [(step, step / 2) for step in range(STEPS)]
    assert [histo.min for histo in histograms("many")] == list(range(STEPS))


def test_cupy_arrays_travel(tmp_path, read_scalars, histograms):
    cupy = pytest.importorskip("cupy")
    torch.cuda.set_sync_debug_mode("default")
    value, many = cupy.zeros(()), cupy.zeros(1000)
    with Writer(tmp_path) as writer:
        for step in range(STEPS):
            value += 0.5
            many[:] = step
            writer.add_scalar("loss", value, step)
            writer.add_histogram("many", many, step)
        value += 100
        many[:] = -1
    expected = [(step, (step + 1) / 2) for step in range(STEPS)]
    assert read_scalars(tmp_path)[""]["loss"] == expected
    assert [histo.min for histo in histograms("many")] == list(range(STEPS))

"""Watching on a GPU: nothing waits for the GPU, and the results equal those on the host."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from sm_tblog import Writer
from sm_tblog.watch.statistics import as_statistics, rows_of

torch = pytest.importorskip("torch")
nn = torch.nn

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU that PyTorch can use"),
    # Warnings of PyTorch when the checks below are enabled.
    pytest.mark.filterwarnings("ignore:.*(prototype feature|TF32)"),
]


class Net(nn.Module):
    """Layers of all sizes: some are copied whole, some are reduced on the device."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(1000, 64)
        self.convolution = nn.Conv1d(64, 128, 3)
        self.norm = nn.BatchNorm1d(128)
        self.activation = nn.ReLU(inplace=True)
        self.wide = nn.Linear(128 * 14, 512)
        self.tanh = nn.Tanh()
        self.head = nn.Linear(512, 10)

    def forward(self, x):
        x = self.embedding(x).transpose(1, 2)
        x = self.activation(self.norm(self.convolution(x)))
        return self.head(self.tanh(self.wide(x.flatten(1))))


def batch(device, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    x = torch.randint(0, 1000, (64, 16), generator=generator)
    y = torch.randn(64, 10, generator=generator, dtype=dtype)
    return x.to(device), y.to(device)


def train(logdir, model, device, steps, *, sync="default", **options):
    """Train a model with a watch, and with PyTorch's check that nothing waits for the device."""
    x, y = batch(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    with Writer(logdir) as writer:
        watch = writer.watch(model, every=1, **options)
        for step in range(steps):
            torch.cuda.set_sync_debug_mode(sync if step else "default")  # the first step allocates
            loss = nn.functional.mse_loss(model(x), y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
        torch.cuda.set_sync_debug_mode("default")
        assert writer.flush()
        assert writer.stats().errors == 0
        return watch.alerts


@pytest.fixture(autouse=True)
def _default_mode():
    # The effects of TF32 and of atomics are not tested here.
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    torch.cuda.set_sync_debug_mode("default")


def test_the_check_would_notice_a_wait():
    torch.cuda.set_sync_debug_mode("error")
    with pytest.raises(RuntimeError):
        torch.ones(1, device="cuda").item()


@pytest.mark.parametrize("histograms", [0, 1])
def test_no_step_waits_for_the_device(tmp_path, caplog, histograms):
    torch.manual_seed(0)
    model = Net().cuda()
    train(tmp_path, model, "cuda", 5, sync="error", histograms=histograms)
    assert not [record for record in caplog.records if "could not record" in record.message]


def test_what_is_found_is_what_the_host_finds(tmp_path, read_scalars):
    torch.manual_seed(0)
    on_host = Net()
    on_device = copy.deepcopy(on_host).cuda()
    train(tmp_path / "host", on_host, "cpu", 2, statistics=("mean", "std", "norm", "min", "max"))
    train(
        tmp_path / "device", on_device, "cuda", 2, statistics=("mean", "std", "norm", "min", "max")
    )
    host, device = (read_scalars(tmp_path / name)[""] for name in ("host", "device"))
    assert device.keys() == host.keys()
    assert len(host) > 100
    for tag, points in host.items():
        if tag.startswith("rules/"):
            continue
        (step, expected), (got_step, got) = points[0], device[tag][0]
        assert step == got_step == 0
        assert got == pytest.approx(expected, rel=2e-3, abs=2e-6), tag


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("size", [1000, 100_000, 9_000_000])
def test_statistics_are_those_of_numpy(dtype, size):
    from sm_tblog.watch.collector import StatisticsCollector

    values = torch.randn(size, device="cuda").to(dtype)
    values[: size // 4] = 0
    collector = StatisticsCollector(histograms=True)
    pending = collector.collect(values, "values")
    collector.send()
    expected = as_statistics(rows_of(values.double().cpu().numpy()))
    values.fill_(7)
    assert pending.statistics == pytest.approx(expected, rel=1e-9)
    assert pending.counted() is not None


def test_gradients_are_unscaled_where_the_optimizer_does_it(tmp_path, read_scalars):
    torch.manual_seed(0)
    model = nn.Linear(300, 300, device="cuda")
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    scaler = torch.amp.GradScaler("cuda", init_scale=2.0**10)
    x = torch.randn(8, 300, device="cuda")
    with Writer(tmp_path) as writer:
        writer.watch(model, every=1, step=lambda: step)
        for step in range(3):
            optimizer.zero_grad()
            loss = model(x).square().mean()
            if step == 1:
                loss = loss * float("inf")
            scaler.scale(loss).backward()
            if step == 0:
                expected = float(model.weight.grad.norm()) / 2.0**10
            scaler.step(optimizer)
            scaler.update()
    tags = read_scalars(tmp_path)[""]
    norms = dict(tags["gradients/weight/norm"])
    assert norms.keys() == {0, 2}, "a step that is left out has no gradients"
    assert norms[0] == pytest.approx(expected, rel=1e-5)
    assert dict(tags["parameters/weight/norm"]).keys() == {0, 1, 2}


def test_half_of_a_model_on_the_host_is_watched_too(tmp_path, read_scalars):
    model = nn.Sequential(nn.Linear(20, 20), nn.Linear(20, 20, device="cuda"))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with Writer(tmp_path) as writer:
        writer.watch(model, every=1)
        model[1](model[0](torch.randn(4, 20)).cuda()).sum().backward()
        optimizer.step()
    tags = read_scalars(tmp_path)[""]
    assert {"gradients/0.weight/norm", "gradients/1.weight/norm"} <= tags.keys()


class TestJAX:
    @pytest.fixture(autouse=True)
    def _jax(self):
        self.jax = pytest.importorskip("jax")
        if self.jax.default_backend() == "cpu":
            pytest.skip("needs a GPU that JAX can use")

    def test_what_is_found_in_a_tree_is_what_the_host_finds(self, tmp_path, read_scalars):
        rng = np.random.default_rng(0)
        arrays = {"a": rng.normal(size=(300, 400)), "b": {"c": rng.normal(size=7)}}
        arrays = self.jax.tree.map(lambda x: x.astype(np.float32), arrays)
        on_device = self.jax.tree.map(self.jax.numpy.asarray, arrays)
        updates = self.jax.tree.map(lambda x: 0.5 * x, on_device)
        with Writer(tmp_path) as writer:
            writer.watch_tree("net", on_device, 3, gradients=on_device, updates=updates)
        tags = read_scalars(tmp_path)[""]
        for name, values in (("a", arrays["a"]), ("b/c", arrays["b"]["c"])):
            [(step, norm)] = tags[f"gradients/net/{name}/norm"]
            assert step == 3
            assert norm == pytest.approx(np.linalg.norm(values), rel=1e-5)
            assert tags[f"updates/net/{name}/ratio"] == [(3, pytest.approx(0.5, rel=1e-5))]

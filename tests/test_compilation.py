"""Code that ``torch.compile`` compiles may log: Dynamo leaves our functions alone."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys

import pytest

from sm_tblog import Writer, _compilation
from sm_tblog._compilation import REASON
from sm_tblog.readers import read_all

torch = pytest.importorskip("torch")

pytestmark = pytest.mark.filterwarnings("ignore")


def _spanned(writer, x):
    with writer.span("part"):
        return x * 2


CALLS = {
    "add_scalar": lambda writer, x: writer.add_scalar("tag", x.mean(), 3),
    "add_scalar of a number": lambda writer, x: writer.add_scalar("tag", 1.0, 3),
    "log": lambda writer, x: writer.log({"tag": x.mean(), "group": {"tag": 1.0}}, 3),
    "add_scalars": lambda writer, x: writer.add_scalars("tag", {"a": x.mean(), "b": 1.0}, 3),
    "add_histogram": lambda writer, x: writer.add_histogram("tag", x, 3),
    "add_image": lambda writer, x: writer.add_image("tag", x.clamp(0, 1)[None], 3),
    "add_tensor": lambda writer, x: writer.add_tensor("tag", x, 3),
    "add_text": lambda writer, x: writer.add_text("tag", "text", 3),
    "child": lambda writer, x: writer.child("below").add_scalar("tag", x.mean(), 3),
    "step": lambda writer, x: setattr(writer, "step", 3),
    "flush": lambda writer, x: writer.flush(),
    "file_writer": lambda writer, x: writer.file_writer.flush(),
    "span": _spanned,
    "step_span": lambda writer, x: writer.step_span(3).__enter__().__exit__(None, None, None),
}


def compiled(writer, call, backend, **options):
    """Return a compiled module that calls ``call`` in the middle of its forward pass."""

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = torch.nn.Linear(4, 4)

        def forward(self, x):
            x = self.linear(x)
            call(writer, x)
            return x.relu()

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    return torch.compile(Model(), backend=backend, **options)


@pytest.mark.parametrize(
    ("name", "backend"),
    [*((name, "eager") for name in CALLS), ("add_scalar", "aot_eager"), ("log", "aot_eager")],
)
def test_compiled_code_may_log_and_our_code_is_never_traced(tmp_path, name, backend):
    with Writer(tmp_path) as writer:
        model = compiled(writer, CALLS[name], backend)
        for _ in range(3):
            model(torch.randn(5, 4)).sum().backward()
        assert writer.flush()
        assert writer.stats().errors == 0
        stats = writer.stats()
    reasons = list(torch._dynamo.utils.counters["graph_break"])
    assert reasons
    assert all(REASON in reason or "context manager" in reason for reason in reasons), reasons
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] <= 3
    logged = stats.rows_written + stats.values_written
    if name.startswith("add") or name in ("log", "child"):
        assert logged == 3 * (2 if name in ("log", "add_scalars") else 1)


def test_what_is_logged_in_compiled_code_is_right(tmp_path, read_scalars):
    expected = []
    with Writer(tmp_path) as writer:
        steps = iter(range(9))

        def call(writer, x):
            writer.add_scalar("tag", x.mean(), next(steps))
            expected.append(x.mean().item())

        model = compiled(writer, call, "eager")
        for _ in range(5):
            model(torch.randn(5, 4))
    points = read_scalars(tmp_path)[""]["tag"]
    assert points == [(i, pytest.approx(one, rel=1e-6)) for i, one in enumerate(expected)]


def test_a_full_graph_cannot_log_and_dynamo_says_what_to_do(tmp_path):
    with Writer(tmp_path) as writer:
        model = compiled(writer, CALLS["add_scalar"], "eager", fullgraph=True)
        with pytest.raises(torch._dynamo.exc.Unsupported) as caught:
            model(torch.randn(5, 4))
    assert "return the values from the compiled function" in str(caught.value)


FIRST = {
    "the writer": "writer = Writer(folder)\nimport torch",
    "a row": "writer = Writer(folder)\nwriter.add_scalar('row', 1.0, 0)\nimport torch",
    "torch": "import torch\nwriter = Writer(folder)",
    "Dynamo": "import torch._dynamo\nfrom sm_tblog import Writer\nwriter = Writer(folder)",
}


@pytest.mark.parametrize("first", FIRST.values(), ids=FIRST)
def test_the_order_of_imports_does_not_matter(tmp_path, first):
    source = f"""
folder = {str(tmp_path)!r}
{"" if "Dynamo" in first else "from sm_tblog import Writer"}
{first}

@torch.compile(backend="eager")
def step(x):
    x = x * 2
    writer.add_scalar("tag", x.mean(), 3)
    writer.add_histogram("histogram", x, 3)
    return x + 1

for _ in range(3):
    step(torch.ones(3))
writer.close()
from torch._dynamo.utils import counters
print(*counters["graph_break"], sep="\\n")
"""
    run = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", source],
        capture_output=True,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    assert run.stdout.count("Explanation:") == run.stdout.count(REASON) == 2, run.stdout
    assert read_all(tmp_path)["."].scalars["tag"].value.tolist() == [2.0] * 3


def test_waiting_for_dynamo_finds_no_module_and_survives_other_releases_of_it(monkeypatch):
    finders = [one for one in sys.meta_path if isinstance(one, _compilation._Finder)]
    assert len(finders) == 1
    assert finders[0].find_spec("anything") is None
    for module in (None, object()):
        monkeypatch.setitem(sys.modules, "torch._C._dynamo.eval_frame", module)
        assert finders[0].find_spec("torch._dynamo") is None


def test_functions_of_other_libraries_are_left_alone():
    class Own(Writer):
        def own(self):
            pass

    assert not hasattr(Own.own, "_torchdynamo_disable")
    assert Own.add_scalar._torchdynamo_disable
    assert not hasattr(contextlib.contextmanager, "_torchdynamo_disable")

"""``writer.watch`` with PyTorch models: what is logged, when, and that training is unaffected."""

from __future__ import annotations

import copy
import io
import pickle

import numpy as np
import pytest
from watching import net, observed, sgd, update

from sm_tblog import InvalidTypeError, InvalidValueError, Writer
from sm_tblog.watch import collector

torch = pytest.importorskip("torch")
nn = torch.nn


@pytest.fixture(params=["travels", "looked at there"])
def way(request, monkeypatch):
    if request.param != "travels":
        monkeypatch.setattr(collector, "MAX_WHOLE_BYTES", 0)


@pytest.mark.usefixtures("way")
def test_what_is_logged_is_what_plain_pytorch_says(watched):
    model = net()
    expected = {}

    def train(writer, watch):
        optimizer = sgd(model)
        x = torch.randn(40, 6)
        before = {name: p.detach().clone() for name, p in model.named_parameters()}
        hidden = model[0](x)
        outputs = {"0": hidden, "1": hidden.relu(), "2": model(x)}
        update(model, optimizer, x)
        for name, p in model.named_parameters():
            expected[f"gradients/{name}/norm"] = p.grad.norm()
            expected[f"gradients/{name}/abs_mean"] = p.grad.abs().mean()
            expected[f"gradients/{name}/zeros"] = (p.grad == 0).float().mean()
            expected[f"parameters/{name}/norm"] = before[name].norm()
            expected[f"updates/{name}/ratio"] = (p - before[name]).norm() / before[name].norm()
        for name, output in outputs.items():
            expected[f"activations/{name}/mean"] = output.mean()
            expected[f"activations/{name}/std"] = output.std(correction=0)
            expected[f"activations/{name}/zeros"] = (output == 0).float().mean()
        active = (outputs["1"] > 0).float().mean(0)
        expected["activations/1/inactive"] = (active < 0.01).float().mean()
        norms = [p.grad.norm() for p in model.parameters()]
        expected["gradients/all/norm"] = torch.stack(norms).norm()
        norms = [one.norm() for one in before.values()]
        expected["parameters/all/norm"] = torch.stack(norms).norm()

    tags = watched(train, model)
    expected["updates/all/ratio"] = tags["updates/all/ratio"][0][1]
    assert tags.keys() == expected.keys()
    for tag, value in expected.items():
        number = value.item() if isinstance(value, torch.Tensor) else value
        assert tags[tag] == [(0, pytest.approx(number, rel=1e-5, abs=1e-7))], tag


def test_nothing_is_computed_between_the_steps_that_are_logged(watched):
    model = net()
    operations = {}

    def train(writer, watch):
        optimizer = sgd(model)
        for step in range(7):
            with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as run:
                update(model, optimizer)
            operations[step] = sum(e.name.startswith("aten::") for e in run.events())
            assert observed(model) == (3 if step in {2, 5} else 0), "before a step that is logged"

    tags = watched(train, model, every=3, histograms=0)
    assert operations[1] == operations[2] == operations[4]
    assert operations[3] > operations[1]
    assert [step for step, _ in tags["gradients/0.weight/norm"]] == [0, 3, 6]
    assert [step for step, _ in tags["activations/0/mean"]] == [0, 3, 6]


def test_histograms_come_at_every_so_many_steps(tmp_path, read_events, event_files):
    model = net()
    with Writer(tmp_path) as writer:
        writer.watch(model, every=2, histograms=2, rules=None)
        optimizer = sgd(model)
        for _ in range(9):
            update(model, optimizer)
        gradient = model[0].weight.grad
    [path] = event_files(tmp_path)
    found = {}
    for event in read_events(path):
        for value in event.summary.value:
            if value.HasField("histo"):
                found.setdefault(value.tag, []).append((event.step, value.histo))
    assert found.keys() == {
        *(
            f"{kind}/{n}"
            for kind in ("gradients", "parameters")
            for n, _ in model.named_parameters()
        ),
        *(f"activations/{i}" for i in range(3)),
    }
    assert [step for step, _ in found["gradients/0.weight"]] == [0, 4, 8]
    histogram = found["gradients/0.weight"][-1][1]
    assert histogram.num == 48
    assert histogram.max == pytest.approx(gradient.max().item())


def test_the_step_is_the_optimizers_the_writers_or_the_users(tmp_path, read_scalars):
    for name, options in {
        "own": {},
        "writer": {},
        "user": {"step": lambda: torch.tensor(7)},
    }.items():
        model = net()
        optimizer = sgd(model)
        with Writer(tmp_path / name) as writer:
            writer.watch(model, every=2, rules=None, **options)
            for step in range(100, 104):
                if name == "writer":
                    writer.step = step
                update(model, optimizer)
        expected = {"own": [0, 2], "writer": [100, 102], "user": [7, 7]}[name]
        points = read_scalars(tmp_path / name)[""]["gradients/all/norm"]
        assert [step for step, _ in points] == expected


def test_what_is_watched_can_be_chosen(watched):
    model = net()
    tags = watched(
        lambda writer, watch: update(model, sgd(model)),
        model,
        log=("gradients", "activations"),
        include=r"^[02]",
        exclude="bias",
        statistics=("min", "inactive"),
    )
    names = {"gradients/0.weight/min", "gradients/2.weight/min", "gradients/all/norm"}
    assert tags.keys() == names | {"activations/0/min", "activations/2/min"}


def test_rules_look_at_what_is_not_logged(tmp_path, read_scalars):
    model = net()
    with Writer(tmp_path) as writer:
        writer.watch(model, "parameters", every=1)
        update(model, sgd(model))
    tags = read_scalars(tmp_path)[""]
    assert "rules/DeadRelu" in tags
    assert {tag.split("/")[0] for tag in tags} == {"parameters", "rules"}


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"model": {}}, InvalidTypeError, "watch_tree"),
        ({"log": ("weights",)}, InvalidValueError, "gradients, parameters"),
        ({"log": 3}, InvalidTypeError, "sequence"),
        ({"every": 0}, InvalidValueError, "every must be a number of at least 1"),
        ({"include": "("}, InvalidValueError, "include"),
        ({"exclude": 3}, InvalidTypeError, "exclude"),
        ({"step": 3}, InvalidTypeError, "function"),
        ({"statistics": "median"}, InvalidValueError, "abs_mean"),
        ({"rules": "shout"}, InvalidValueError, "'stop'"),
        ({"rules": [3]}, InvalidTypeError, "sm_tblog.rules"),
        ({"histograms": -1}, InvalidValueError, "histograms"),
    ],
)
def test_a_bad_call_says_what_is_wrong(tmp_path, arguments, error, words):
    with Writer(tmp_path) as writer, pytest.raises(error, match=words):
        writer.watch(**{"model": net(), **arguments})


# How models are trained.


def test_accumulated_gradients_are_looked_at_once_and_the_first_pass_of_them(watched):
    model = net()
    inputs = [torch.randn(40, 6) for _ in range(3)]

    def train(writer, watch):
        optimizer = sgd(model)
        for x in inputs:
            model(x).square().mean().backward()
        train.norm = model[0].weight.grad.norm().item()
        train.mean = model[0](inputs[0]).mean().item()
        optimizer.step()

    tags = watched(train, model)
    assert tags["gradients/0.weight/norm"] == [(0, pytest.approx(train.norm))]
    assert tags["activations/0/mean"] == [(0, pytest.approx(train.mean, abs=1e-6))]


def test_passes_that_do_not_train_are_not_looked_at(watched):
    model = net()

    def train(writer, watch):
        with torch.no_grad():
            model(torch.full((40, 6), 1e3))
        with torch.inference_mode():
            model(torch.full((40, 6), 1e3))
        model.eval()
        model(torch.full((40, 6), 1e3))
        model.train()
        x = update(model, sgd(model, 0.0))
        train.mean = model[0](x).mean().item()

    tags = watched(train, model)
    assert tags["activations/0/mean"] == [(0, pytest.approx(train.mean, abs=1e-6))]


def test_a_layer_that_is_called_several_times_counts_as_one(watched):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell = nn.Linear(4, 4)

        def forward(self, x):
            self.outputs = [self.cell(x), self.cell(self.cell(x) * 3)]
            return self.outputs[1]

    model = Twice()

    def train(writer, watch):
        optimizer = sgd(model)
        model(torch.randn(40, 4)).sum().backward()
        optimizer.step()

    tags = watched(train, model, statistics=("norm", "mean"))
    assert len(tags["activations/cell/mean"]) == 1


def test_shared_and_frozen_parameters(watched):
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 6))
    model[2].weight = model[0].weight
    model[1].requires_grad_(requires_grad=False)
    tags = watched(lambda writer, watch: update(model, sgd(model)), model)
    assert {tag.split("/")[1] for tag in tags if tag.startswith("gradients")} == {
        *("0.weight", "0.bias", "2.bias", "all")
    }


def test_what_is_unfrozen_added_or_moved_later_is_watched_from_then_on(watched):
    model = net()
    model[0].requires_grad_(requires_grad=False)

    def train(writer, watch):
        optimizer = sgd(model)
        update(model, optimizer)
        model[0].requires_grad_()
        update(model, optimizer)
        model.double()
        model.append(nn.Linear(2, 2).double())
        optimizer = sgd(model)
        update(model, optimizer, torch.randn(40, 6).double())

    tags = watched(train, model, step=iter(range(9)).__next__)
    steps = {tag: [step for step, _ in points] for tag, points in tags.items()}
    assert steps["gradients/0.weight/norm"] == [1, 2]
    assert steps["gradients/2.weight/norm"] == [0, 1, 2]
    assert steps["gradients/3.weight/norm"] == [2]


def test_two_optimizers_count_for_themselves(watched):
    model = nn.ModuleDict({"generator": net(), "critic": net()})

    def train(writer, watch):
        optimizers = [sgd(part) for part in model.values()]
        for _ in range(4):
            for part, optimizer in zip(model.values(), optimizers, strict=True):
                update(part, optimizer)

    tags = watched(train, model, every=2)
    for name in ("generator", "critic"):
        points = tags[f"gradients/{name}.0.weight/norm"]
        assert [step for step, _ in points] == [0, 2]


def test_an_optimizer_of_another_model_does_not_count(watched):
    model, other = net(), net()

    def train(writer, watch):
        update(other, sgd(other))

    assert watched(train, model) == {}


def test_a_closure_makes_the_gradients_that_are_looked_at(watched):
    model = net()

    def train(writer, watch):
        optimizer = torch.optim.LBFGS(model.parameters(), max_iter=1)
        x = torch.randn(40, 6)

        def closure():
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            train.norm = model[0].weight.grad.norm().item()
            return loss

        optimizer.step(closure)

    tags = watched(train, model)
    assert tags["gradients/0.weight/norm"] == [(0, pytest.approx(train.norm))]
    assert tags["activations/0/mean"]


def test_updates_without_an_optimizer_are_told_by_one_call(watched):
    model = net()
    ratios = []

    def train(writer, watch):
        for _ in range(3):
            model(torch.randn(40, 6)).square().mean().backward()
            with torch.no_grad():
                for p in model.parameters():
                    before = p.norm().item()
                    p.sub_(0.1 * p.grad)
                    ratios.append(0.1 * p.grad.norm().item() / before)
            watch.step()
            model.zero_grad()

    tags = watched(train, model)
    assert [step for step, _ in tags["gradients/0.weight/norm"]] == [0, 1, 2]
    expected = [(i, pytest.approx(ratios[4 * i], rel=1e-4)) for i in (1, 2)]
    assert tags["updates/0.weight/ratio"] == expected


def test_it_is_said_if_no_optimizer_is_ever_seen(watched, monkeypatch, caplog):
    from sm_tblog.watch import activations

    monkeypatch.setattr(activations, "MAX_IDLE_PASSES", 5)
    model = net()

    def train(writer, watch):
        for _ in range(9):
            model(torch.randn(40, 6)).square().mean().backward()

    assert watched(train, model) == {}
    [record] = [record for record in caplog.records if record.name == "sm_tblog"]
    assert "call step()" in record.getMessage()


@pytest.mark.parametrize("reentrant", [True, False])
def test_what_checkpointing_computes_again_is_seen_once(watched, reentrant):
    from torch.utils.checkpoint import checkpoint

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.block = nn.Linear(6, 6), nn.Linear(6, 6)

        def forward(self, x):
            return checkpoint(self.block, self.first(x), use_reentrant=reentrant).sum()

    model = Net()

    def train(writer, watch):
        x = torch.randn(40, 6)
        first, block = model.first, model.block
        hidden = nn.functional.linear(x, first.weight, first.bias)
        train.mean = nn.functional.linear(hidden, block.weight, block.bias).mean().item()
        optimizer = sgd(model)
        model(x).backward()
        optimizer.step()

    tags = watched(train, model)
    assert tags["activations/block/mean"] == [(0, pytest.approx(train.mean, abs=1e-6))]


def test_a_gradient_scaler_of_the_host(watched):
    model = net()

    def train(writer, watch):
        for fused in (False, True):
            optimizer = torch.optim.Adam(model.parameters(), 0.0, fused=fused)
            scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
            x = torch.ones(40, 6)
            loss = model(x).square().mean()
            train.norm = torch.autograd.grad(loss, model[0].weight)[0].norm().item()
            optimizer.zero_grad()
            scaler.scale(model(x).square().mean()).backward()
            scaler.step(optimizer)
            scaler.update()

    tags = watched(train, model, histograms=0)
    expected = pytest.approx(train.norm, rel=1e-4)
    assert [norm for _, norm in tags["gradients/0.weight/norm"]] == [expected, expected]


@pytest.mark.filterwarnings("ignore")
def test_compiled_models_are_watched_but_for_their_outputs(watched):
    from torch._dynamo.utils import counters

    model = net()
    compiled = torch.compile(model, backend="eager")
    torch._dynamo.reset()
    counters.clear()

    def train(writer, watch):
        optimizer = sgd(model)
        for _ in range(4):
            update(compiled, optimizer)

    tags = watched(train, model, every=2)
    assert counters["stats"]["unique_graphs"] == 1, "compiled once"
    assert not counters["graph_break"]
    assert [step for step, _ in tags["gradients/0.weight/norm"]] == [0, 2]
    assert not [tag for tag in tags if tag.startswith("activations")]


@pytest.mark.filterwarnings("ignore")
def test_names_are_those_of_the_model_however_it_is_run(watched):
    model = net()
    wrapped = nn.DataParallel(torch.compile(model, backend="eager"))
    tags = watched(lambda writer, watch: update(model, sgd(model)), wrapped)
    assert "gradients/0.weight/norm" in tags


def test_copies_of_a_model_can_be_made_at_any_time(watched, tmp_path):
    model = net()

    def train(writer, watch):
        assert observed(model)
        copies = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        file = io.BytesIO()
        torch.save(model, file)
        assert b"sm_tblog" not in file.getvalue()
        file.seek(0)
        copies.append(torch.load(file, weights_only=False))
        for one in copies:
            assert not observed(one)
            update(one, sgd(one))
        assert model.state_dict().keys() == copies[0].state_dict().keys()

    assert watched(train, model) == {}


@pytest.mark.filterwarnings("ignore")
def test_a_model_can_be_traced_while_it_is_watched(watched):
    model = net()

    def train(writer, watch):
        traced = torch.jit.trace(model, torch.ones(1, 6))
        assert traced(torch.ones(2, 6)).shape == (2, 2)
        torch.export.export(model, (torch.ones(1, 6),))

    assert watched(train, model) == {}


@pytest.mark.parametrize("output", ["tuple", "dict", "nothing"])
def test_layers_put_out_anything(watched, output):
    class Odd(nn.Module):
        def forward(self, x):
            return {"tuple": (x * 2, [x]), "dict": {"a": x * 2}, "nothing": None}[output]

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.odd = nn.Linear(6, 2), Odd()

        def forward(self, x):
            x = self.linear(x)
            self.odd(x)
            return x

    model = Net()
    tags = watched(lambda writer, watch: update(model, sgd(model)), model)
    assert ("activations/odd/mean" in tags) == (output != "nothing")


def test_an_output_that_is_changed_in_place_was_looked_at_before(watched):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(inplace=True), nn.Linear(8, 2))

    def train(writer, watch):
        x = update(model, sgd(model, 0.0))
        train.least = model[0](x).min().item()

    tags = watched(train, model, statistics=("min",))
    assert train.least < 0
    assert tags["activations/0/min"] == [(0, pytest.approx(train.least))]
    assert tags["activations/1/min"] == [(0, 0.0)]


@pytest.mark.filterwarnings("ignore")
def test_sparse_gradients_of_an_embedding(watched):
    model = nn.Embedding(100, 4, sparse=True)

    def train(writer, watch):
        optimizer = torch.optim.SparseAdam(model.parameters())
        model(torch.tensor([1, 2, 2])).sum().backward()
        optimizer.step()

    tags = watched(train, model)
    assert tags["gradients/weight/zeros"] == [(0, pytest.approx(0.98))]
    assert tags["gradients/weight/norm"] == [(0, pytest.approx(np.sqrt(4 + 4 * 4)))]

"""Each rule fires on a run built to have its fault, and no rule fires on a healthy run."""

from __future__ import annotations

import logging
import pickle
from dataclasses import dataclass

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util.tensor_util import make_ndarray
from watching import CLASSES, INPUTS, blobs, mlp, sgd, train

from sm_tblog import InvalidTypeError, InvalidValueError, RuleViolationError, Writer, rules

torch = pytest.importorskip("torch")
nn = torch.nn

# Healthy runs.


class Words(nn.Module):
    """A model with an embedding in which hardly any row gets a gradient."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Embedding(50_000, 4)
        self.layers = mlp()

    def forward(self, x):
        row = self.rows(torch.zeros(len(x), dtype=torch.long))
        return self.layers(x) + row


HEALTHY = {
    "relu": (mlp, lambda m: torch.optim.Adam(m.parameters(), 1e-3)),
    "deep relu": (lambda: mlp(depth=6), lambda m: torch.optim.Adam(m.parameters(), 1e-3)),
    "tanh": (lambda: mlp(nn.Tanh), sgd),
    "gelu": (lambda: mlp(nn.GELU, 4), lambda m: torch.optim.AdamW(m.parameters(), 1e-3)),
    "sigmoid": (lambda: mlp(nn.Sigmoid, 1), lambda m: torch.optim.Adam(m.parameters(), 1e-2)),
    "normalized": (
        lambda: nn.Sequential(
            nn.Linear(INPUTS, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.2), nn.Linear(32, 4)
        ),
        lambda m: sgd(m, 0.1, momentum=0.9),
    ),
    "last layer zero": (
        lambda: nn.Sequential(mlp(), _zero(nn.Linear(CLASSES, CLASSES))),
        lambda m: torch.optim.Adam(m.parameters(), 1e-3),
    ),
    "embedding": (
        Words,
        lambda m: torch.optim.Adam(m.parameters(), 1e-3),
    ),
    "bias before a normalization": (
        lambda: nn.Sequential(
            nn.Unflatten(1, (1, INPUTS)),
            *(nn.Conv1d(1, 8, 3), nn.BatchNorm1d(8), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)),
        ),
        sgd,
    ),
}


def _zero(layer):
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_training_is_left_in_peace(tmp_path, name, caplog, read_scalars):
    make, optimizer_of = HEALTHY[name]
    torch.manual_seed(0)
    model = make()
    assert train(tmp_path, model, optimizer_of(model), 100, every=5) == {}
    assert not caplog.records
    tags = read_scalars(tmp_path)[""]
    fired = {tag: points for tag, points in tags.items() if tag.startswith("rules/")}
    assert len(fired) >= 7
    for tag, points in fired.items():
        assert all(count == 0 for _, count in points), tag
    last = tags["loss/train"][-1][1]
    assert last < 0.3, "it is healthy"


# Runs that are built to have a fault.


def test_vanishing_gradient_in_a_sigmoid_network_that_is_too_deep(tmp_path):
    model = mlp(nn.Sigmoid, depth=14)
    alerts = train(tmp_path, model, sgd(model), every=5)
    alert = alerts["VanishingGradient"]
    assert alert.findings[0].where == "0.weight"
    assert alert.findings[0].value < alert.findings[0].threshold == 1e-7
    assert {"20.weight", "28.weight"} & {found.where for found in alert.findings} == set()
    assert alert.step == 10, "the third of the steps that are logged"


class Recurrent(nn.Module):
    def __init__(self, scale):
        super().__init__()
        self.input, self.output = nn.Linear(INPUTS, 32), nn.Linear(32, CLASSES)
        self.hidden = nn.Linear(32, 32, bias=False)
        nn.init.orthogonal_(self.hidden.weight)
        with torch.no_grad():
            self.hidden.weight.mul_(scale)

    def forward(self, x):
        state = self.input(x)
        for _ in range(20):
            state = self.hidden(state)
        return self.output(state)


def test_exploding_gradient_in_a_recurrent_network(tmp_path):
    torch.manual_seed(0)
    model = Recurrent(2.0)
    alerts = train(tmp_path, model, sgd(model, 1e-12), 3)
    [found] = [f for f in alerts["ExplodingGradient"].findings if f.where == "hidden.weight"]
    assert found.value > 1e4
    torch.manual_seed(0)
    model = Recurrent(1.0)
    assert "ExplodingGradient" not in train(tmp_path / "2", model, sgd(model, 1e-4), 3)


def test_exploding_gradient_by_what_it_was(tmp_path):
    model = mlp()
    losses = iter([1.0] * 8 + [3e3] + [1.0] * 3)

    def loss_of(output, y):
        return nn.functional.cross_entropy(output, y) * next(losses)

    alerts = train(tmp_path, model, sgd(model, 1e-4), 12, loss_of=loss_of)
    assert alerts.keys() == {"ExplodingGradient"}
    assert alerts["ExplodingGradient"].step == 8


def test_exploding_tensor_and_its_source_at_a_learning_rate_that_is_too_high(tmp_path):
    model = mlp()
    alerts = train(tmp_path, model, sgd(model, 1e12), 10)
    assert {"ExplodingTensor", "NaNSource"} <= alerts.keys()
    assert len(alerts["ExplodingTensor"].findings) > 3
    assert len(alerts["NaNSource"].findings) == 1


class Broken(nn.Module):
    """A model that divides by zero in the middle, at one step."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return x / 0 if self.calls == 5 else x * 1


def test_the_source_of_nan_is_the_layer_in_which_it_begins(tmp_path):
    model = nn.Sequential(nn.Linear(INPUTS, 8), nn.ReLU(), Broken(), nn.Linear(8, CLASSES))
    alerts = train(tmp_path, model, sgd(model), 8)
    [found] = alerts["NaNSource"].findings
    assert (found.where, found.kind) == ("2", "activations")
    assert alerts["NaNSource"].step == 4
    others = {found.where for found in alerts["ExplodingTensor"].findings}
    assert {"0", "1"}.isdisjoint(others)


def test_the_source_of_nan_is_the_loss_if_outputs_are_finite(tmp_path):
    model = mlp()

    def loss_of(output, y):
        return (output - output.detach()).square().sum().sqrt()  # its gradient at 0 is NaN

    alerts = train(tmp_path, model, sgd(model), 1, loss_of=loss_of)
    [found] = alerts["NaNSource"].findings
    assert (found.where, found.kind) == ("6.bias", "gradients")


def test_update_ratio_too_large_and_too_small(tmp_path):
    model = mlp()
    alerts = train(tmp_path / "large", model, sgd(model, 1.0, weight_decay=12.0), 3)
    assert alerts["WeightUpdateRatio"].findings[0].value > 10
    model = mlp()
    alerts = train(tmp_path / "small", model, sgd(model, 1e-9), 5)
    assert all(found.value < 1e-8 for found in alerts["WeightUpdateRatio"].findings)
    assert len(alerts["WeightUpdateRatio"].findings) == 4


def test_all_zero_where_a_layer_begins_with_zeros_and_nothing_passes(tmp_path):
    model = mlp()
    for index in (2, 4):
        _zero(model[index])
    alerts = train(tmp_path, model, sgd(model))
    places = {(found.kind, found.where) for found in alerts["AllZero"].findings}
    assert ("parameters", "2.weight") in places
    assert ("gradients", "0.weight") in places
    assert ("activations", "3") in places
    assert ("parameters", "0.weight") not in places


def test_unchanged_tensor_where_a_layer_is_not_in_the_optimizers_hands(tmp_path):
    model = mlp()
    groups = [{"params": model[0].parameters(), "lr": 0.0}, {"params": model[2:].parameters()}]
    alerts = train(tmp_path, model, torch.optim.SGD(groups, 0.05))
    assert [found.where for found in alerts["UnchangedTensor"].findings] == ["0.weight"]
    assert alerts["UnchangedTensor"].step == 2


def test_dead_relu(tmp_path):
    model = mlp()
    nn.init.constant_(model[2].bias, -20.0)
    alerts = train(tmp_path, model, sgd(model), 5)
    assert [found.where for found in alerts["DeadRelu"].findings] == ["3"]
    assert alerts["DeadRelu"].findings[0].value == 1


def test_dead_relu_of_channels(tmp_path):
    model = nn.Sequential(
        nn.Unflatten(1, (1, INPUTS)), nn.Conv1d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)
    )
    with torch.no_grad():
        model[1].bias[:5] = -100.0
    alerts = train(tmp_path, model, sgd(model, 1e-3), 5)
    assert alerts["DeadRelu"].findings[0].value == 5 / 8


@pytest.mark.parametrize("activation", [nn.Tanh, nn.Sigmoid])
def test_saturated_activation_where_inputs_are_not_normalized(tmp_path, activation):
    model = mlp(activation)
    alerts = train(tmp_path, model, sgd(model), 5, scale=1e5)
    assert alerts["SaturatedActivation"].findings[0].where == "1"


def test_poor_initialization(tmp_path):
    chosen = [rules.PoorWeightInitialization()]
    model = mlp(nn.Tanh, depth=5)
    for layer in model[::2]:
        nn.init.normal_(layer.weight, std=0.01)
    alerts = train(tmp_path / "poor", model, sgd(model, 0.01), 20, rules=chosen)
    assert alerts.keys() == {"PoorWeightInitialization"}
    model = mlp(nn.Tanh, depth=5)
    for layer in model[::2]:
        nn.init.xavier_normal_(layer.weight)
    assert train(tmp_path / "good", model, sgd(model, 0.01), 20, rules=chosen) == {}


# What happens when a rule fires.


@pytest.fixture
def texts():
    """``texts(logdir)``: the texts that TensorBoard shows, by tag."""

    def read(logdir):
        run = EventAccumulator(str(logdir)).Reload()
        return {
            tag: [
                (event.step, make_ndarray(event.tensor_proto).item().decode())
                for event in run.Tensors(tag)
            ]
            for tag in run.Tags()["tensors"]
            if run.SummaryMetadata(tag).plugin_data.plugin_name == "text"
        }

    return read


def dead():
    model = mlp()
    nn.init.constant_(model[2].bias, -20.0)
    return model


def test_an_alert_is_a_text_a_curve_and_one_warning(tmp_path, texts, caplog, read_scalars):
    model = dead()
    train(tmp_path, model, sgd(model), 6, rules=[rules.DeadRelu()])
    [(step, text)] = texts(tmp_path)["alerts/DeadRelu"]
    assert step == 2
    for words in ("**DeadRelu** at step 2", "`3`", "| 1 | 0.5 |", "Lower the learning rate"):
        assert words in text
    points = read_scalars(tmp_path)[""]["rules/DeadRelu"]
    assert points == [(0, 0), (1, 0), *((step, 1) for step in range(2, 6))]
    [record] = [record for record in caplog.records if record.name == "sm_tblog"]
    assert record.levelno == logging.WARNING
    assert "DeadRelu at step 2: 3:" in record.getMessage()


def test_a_rule_that_only_counts(tmp_path, texts, caplog, read_scalars):
    model = dead()
    assert train(tmp_path, model, sgd(model), 6, rules="scalar") == {}
    assert texts(tmp_path) == {}
    assert not caplog.records
    assert read_scalars(tmp_path)[""]["rules/DeadRelu"][-1] == (5, 1.0)


def test_a_function_is_called_and_may_fail(tmp_path, caplog):
    alerts = []

    def act(alert):
        alerts.append(alert)
        raise KeyError("mine")

    model = dead()
    train(tmp_path, model, sgd(model), 6, rules=[rules.DeadRelu(action=act)])
    assert [alert.rule for alert in alerts] == ["DeadRelu"]
    assert "the action of the rule DeadRelu failed" in caplog.text


def test_stop_is_raised_before_the_next_update(tmp_path):
    model = dead()
    optimizer = sgd(model)
    x, y = blobs(64)
    with Writer(tmp_path) as writer:
        writer.watch(model, every=1, rules=[rules.DeadRelu(action="stop")])
        for _ in range(3):
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
        writer.flush()
        before = [p.clone() for p in model.parameters()]
        with pytest.raises(RuleViolationError, match=r"DeadRelu at step 2.*Lower the") as caught:
            optimizer.step()
        assert all(map(torch.equal, before, model.parameters()))
        assert caught.value.alert.findings[0].where == "3"
        assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args
        optimizer.step()


def test_patience_counts_faults_in_a_row_at_a_place(tmp_path):
    @dataclass(kw_only=True)
    class Large(rules.LayerRule):
        kinds = ("parameters",)
        patience: int = 1

        def check(self, observation):
            for tensor in observation.of("parameters"):
                if tensor.statistics.max > 1:
                    yield rules.Finding(tensor.name, tensor.statistics.max, 1, "max", tensor.kind)

    steps = [{"a": 2, "b": 0}, {"a": 0, "b": 2}, {"a": 2}, {"b": 2}, {"a": 2}, {"a": 2}, {"a": 0}]
    steps += [{"a": 2}, {"a": 2}]
    with Writer(tmp_path) as writer:
        for step, values in enumerate(steps):
            layers = [(name, torch.full((2,), value), None, None) for name, value in values.items()]
            watch = writer.watch_layers(layers, step, rules=[Large()])
        writer.flush()
        fired = [(alert.step, alert.findings[0].where) for alert in watch.alerts]
    assert fired == [(3, "b"), (4, "a"), (8, "a")]


def test_a_rule_that_fails_is_said_once_and_the_others_go_on(tmp_path, caplog, read_scalars):
    class Fails(rules.LayerRule):
        kinds = ("gradients",)

        def check(self, observation):
            raise KeyError("mine")

    model = mlp()
    train(tmp_path, model, sgd(model), 3, rules=[Fails(), rules.VanishingGradient()])
    assert caplog.text.count("the rule Fails failed") == 1
    assert len(read_scalars(tmp_path)[""]["rules/VanishingGradient"]) == 3


def test_a_rule_may_be_for_some_layers_and_have_a_name(tmp_path):
    model = dead()
    chosen = [
        rules.DeadRelu(include="^1$", name="first"),
        rules.DeadRelu(include="^3$", name="second"),
    ]
    assert train(tmp_path, model, sgd(model), 4, rules=chosen).keys() == {"second"}


def test_rules_are_not_shared_between_watches(tmp_path):
    rule = rules.ExplodingGradient()
    model = mlp()
    train(tmp_path, model, sgd(model), 3, rules=[rule])
    assert rule._norms == {}


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda: rules.DeadRelu(action="shout"), InvalidValueError, "'stop'"),
        (lambda: rules.DeadRelu(patience="3"), InvalidTypeError, "patience must be a number"),
        (lambda: rules.DeadRelu(include="("), InvalidValueError, "regular expression"),
        (lambda: rules.LossNotDecreasing(steps=0), InvalidValueError, "steps"),
        (lambda: rules.StalledTraining(seconds=0), InvalidValueError, "seconds"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(make, error, words):
    with pytest.raises(error, match=words):
        make()


def test_rules_go_where_they_belong(tmp_path):
    with Writer(tmp_path) as writer:
        with pytest.raises(InvalidValueError, match=r"DeadRelu.*to watch"):
            writer.watch_rules([rules.DeadRelu()])
        with pytest.raises(InvalidValueError, match="two rules are called 'Overfit'"):
            writer.watch_rules([rules.Overfit(), rules.Overfit(ratio=0.2)])
        with pytest.raises(InvalidTypeError, match="sequence of rules"):
            writer.watch_rules(3)


def test_every_rule_is_public_documented_and_can_be_copied():
    every = [getattr(rules, name) for name in rules.__all__ if name not in _HELPERS]
    assert len(every) == 14
    for kind in every:
        assert kind.__doc__
        assert len(kind.advice) > 40
        assert pickle.loads(pickle.dumps(kind(patience=7))).patience == 7


_HELPERS = {"Alert", "Finding", "LayerRule", "LossRule", "Rule", "layer_rules", "loss_rules"}

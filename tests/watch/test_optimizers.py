"""What a step is: optimizers that are nested, wrapped, several, or stop with an exception."""

from __future__ import annotations

import math

import pytest
from watching import net, sgd, update

from sm_tblog import Writer

torch = pytest.importorskip("torch")
nn = torch.nn
optim = torch.optim


def steps_of(tags, tag):
    return [step for step, _ in tags[tag]]


def gan():
    return nn.ModuleDict({"critic": net(), "generator": net()})


def assert_complete(tags, model, steps):
    """Every step has one value of each parameter, and the whole model's is made of all of them."""
    names = [name for name, _ in model.named_parameters()]
    for kind, statistic in (("gradients", "norm"), ("parameters", "norm"), ("updates", "ratio")):
        for name in (*names, "all"):
            assert steps_of(tags, f"{kind}/{name}/{statistic}") == steps, (kind, name)
    for i, (_, norm) in enumerate(tags["gradients/all/norm"]):
        parts = [tags[f"gradients/{name}/norm"][i][1] for name in names]
        assert norm == pytest.approx(math.hypot(*parts), rel=1e-5)
    for tag, points in tags.items():
        if tag.startswith(("rules/", "activations/")):
            assert [step for step, _ in points] == steps, tag


class Subclass(optim.SGD):
    def step(self, closure=None):
        return super().step(closure)


class Deeper(Subclass):
    def step(self, closure=None):
        return super().step(closure)


class Clipping(optim.SGD):
    def step(self, closure=None):
        nn.utils.clip_grad_norm_(self.param_groups[0]["params"], 1e-3)
        return super().step(closure)


class Partitioned(optim.Optimizer):
    """Like ``ZeroRedundancyOptimizer``: its inner optimizer has some of the parameters."""

    def __init__(self, parameters):
        super().__init__(parameters, {"lr": 0.1})
        parameters = self.param_groups[0]["params"]
        self.inner, self.others = optim.SGD(parameters[:2], 0.1), parameters[2:]

    def step(self, closure=None):
        self.inner.step()
        with torch.no_grad():
            for parameter in self.others:
                parameter.sub_(0.1 * parameter.grad)


class Multiple(optim.Optimizer):
    """A wrapper of several optimizers, which have all the parameters."""

    def __init__(self, parameters):
        parameters = list(parameters)
        self.inner = [optim.SGD(parameters[:2], 0.1), optim.Adam(parameters[2:])]
        super().__init__(parameters, {})

    def step(self, closure=None):
        for each in self.inner:
            each.step()


class Unrelated(Multiple):
    """The same, with no parameters of its own, as other libraries write it."""

    def __init__(self, parameters):
        super().__init__(parameters)
        self.param_groups = [{"params": []}]


class Plain:
    """A wrapper that is no optimizer."""

    def __init__(self, parameters):
        self.inner = optim.SGD(parameters, 0.1)

    def zero_grad(self):
        self.inner.zero_grad()

    def step(self):
        self.inner.step()


@pytest.mark.parametrize(
    "kind", [optim.SGD, Subclass, Deeper, Partitioned, Multiple, Unrelated, Plain]
)
@pytest.mark.parametrize("every", [1, 2])
def test_a_step_is_one_step_however_optimizers_are_nested(watched, kind, every):
    model = net()
    norms = []

    def train(writer, watch):
        optimizer = kind(model.parameters())
        for _ in range(5):
            update(model, optimizer)
            norms.append(math.hypot(*(p.grad.norm().item() for p in model.parameters())))

    tags = watched(train, model, every=every, rules="scalar")
    assert_complete(tags, model, list(range(0, 5, every)))
    assert [norm for _, norm in tags["gradients/all/norm"]] == pytest.approx(
        norms[::every], rel=1e-5
    )


def test_gradients_that_a_subclass_clips_are_recorded_as_they_are_used(watched):
    model = net()
    tags = watched(lambda writer, watch: update(model, Clipping(model.parameters())), model)
    assert tags["gradients/all/norm"] == [(0, pytest.approx(1e-3, rel=1e-2))]


def test_a_closure_within_a_wrapper(watched):
    class SharpnessAware(optim.Optimizer):
        def __init__(self, parameters):
            super().__init__(parameters, {})
            self.base = optim.SGD(self.param_groups, 0.1)

        def step(self, closure=None):
            loss = closure()
            self.base.step()
            return loss

    model = net()
    x = torch.randn(40, 6)

    def train(writer, watch):
        optimizer = SharpnessAware(model.parameters())

        def closure():
            optimizer.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            optimizer.step(closure)
        train.norm = math.hypot(*(p.grad.norm().item() for p in model.parameters()))

    tags = watched(train, model)
    assert_complete(tags, model, [0, 1, 2])
    assert tags["gradients/all/norm"][-1] == (2, pytest.approx(train.norm, rel=1e-5))


# Several optimizers.


def alternate(model, critic_steps=1, iterations=4):
    optimizers = {name: sgd(part) for name, part in model.items()}
    x = torch.randn(40, 6)
    for _ in range(iterations):
        for _ in range(critic_steps):
            update(model["critic"], optimizers["critic"], x)
        update(model["generator"], optimizers["generator"], x)


@pytest.mark.parametrize(
    ("critic_steps", "every", "steps"),
    [(1, 1, [0, 1, 2, 3]), (1, 2, [0, 2]), (3, 1, [0, 3, 6, 9]), (3, 4, [0, 4, 8])],
)
def test_adversarial_training_gives_complete_points(watched, critic_steps, every, steps):
    model = gan()
    tags = watched(
        lambda writer, watch: alternate(model, critic_steps), model, every=every, rules="scalar"
    )
    assert_complete(tags, model, steps)


def test_one_optimizer_for_each_kind_of_parameter(watched):
    model = net()

    def train(writer, watch):
        matrices = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim < 2]
        optimizers = [optim.SGD(matrices, 0.1), optim.AdamW(others)]
        for _ in range(4):
            model.zero_grad()
            model(torch.randn(40, 6)).square().mean().backward()
            for each in optimizers:
                each.step()

    assert_complete(watched(train, model, rules="scalar"), model, [0, 1, 2, 3])


def test_optimizers_that_step_during_the_backward_pass(watched):
    model = net()

    def train(writer, watch):
        optimizers = {p: optim.SGD([p], 0.1) for p in model.parameters()}
        for parameter in optimizers:
            parameter.register_post_accumulate_grad_hook(lambda p: optimizers[p].step())
        for _ in range(3):
            model.zero_grad()
            model(torch.randn(40, 6)).square().mean().backward()

    assert_complete(watched(train, model, rules="scalar"), model, [0, 1, 2])


def test_a_closure_beside_another_optimizer(watched):
    model = gan()

    def train(writer, watch):
        critic = optim.LBFGS(model["critic"].parameters(), max_iter=2)
        generator = sgd(model["generator"])
        x = torch.randn(40, 6)

        def closure():
            critic.zero_grad()
            loss = model["critic"](x).square().mean()
            loss.backward()
            return loss

        for _ in range(3):
            critic.step(closure)
            update(model["generator"], generator, x)

    assert_complete(watched(train, model), model, [0, 1, 2])


def test_an_optimizer_of_some_of_the_parameters_waits_for_nobody(watched):
    model = gan()

    def train(writer, watch):
        optimizer = sgd(model["critic"])
        for _ in range(3):
            update(model["critic"], optimizer)
            assert writer.flush()
            train.rows = writer.stats().rows_written

    tags = watched(train, model)
    assert steps_of(tags, "gradients/all/norm") == [0, 1, 2]
    assert sum(len(points) for points in tags.values()) == train.rows


def test_an_optimizer_that_stops_is_waited_for_a_while_only(watched):
    model = gan()

    def train(writer, watch):
        optimizers = [sgd(part) for part in model.values()]
        for step in range(30):
            for part, optimizer in zip(model.values(), optimizers, strict=True):
                if part is model["critic"] or step < 3:
                    update(part, optimizer)

    tags = watched(train, model)
    steps = [0, 1, 2, 3, *range(13, 30)]
    assert steps_of(tags, "gradients/critic.0.weight/norm") == steps
    assert steps_of(tags, "gradients/all/norm") == steps
    assert steps_of(tags, "gradients/generator.0.weight/norm") == [0, 1, 2]


def test_an_optimizer_that_steps_seldom_has_its_own_points_and_no_total(watched):
    model = gan()

    def train(writer, watch):
        critic, generator = (sgd(part) for part in model.values())
        for step in range(60):
            update(model["critic"], critic)
            if step % 20 == 19:
                update(model["generator"], generator)

    tags = watched(train, model)
    assert steps_of(tags, "gradients/generator.0.weight/norm") == [19, 39, 59]
    totals = dict(tags["gradients/all/norm"])
    parts = {name: dict(points) for name, points in tags.items() if name.startswith("gradients/")}
    for step, total in totals.items():
        norms = [
            parts[f"gradients/{name}/norm"].get(step, 0.0)
            for name, _ in model.named_parameters()
            if name.startswith("critic")
        ]
        assert total == pytest.approx(math.hypot(*norms), rel=1e-5)


def test_an_optimizer_that_replaces_another_continues_the_count(watched):
    model = net()

    def train(writer, watch):
        kept = []
        for _ in range(3):
            kept.append(sgd(model))
            for _ in range(4):
                update(model, kept[-1])

    assert_complete(watched(train, model, every=2), model, [0, 2, 4, 6, 8, 10])


def test_a_step_that_a_scaler_skips_is_left_out_for_its_optimizer_alone(watched):
    model = gan()

    def train(writer, watch):
        optimizers = [optim.Adam(part.parameters(), fused=True) for part in model.values()]
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for part in model.values():
            scaler.scale(part(torch.randn(40, 6)).square().mean()).backward()
        model["critic"][0].weight.grad.fill_(math.inf)
        for each in optimizers:
            scaler.step(each)
        scaler.update()

    tags = watched(train, model)
    names = {tag.split("/")[1].split(".")[0] for tag in tags if tag.startswith("gradients")}
    assert names == {"generator", "all"}
    assert "parameters/critic.0.weight/norm" in tags


def test_what_waits_for_an_optimizer_is_logged_at_the_end(tmp_path, read_scalars):
    model = gan()
    optimizers = [sgd(part) for part in model.values()]
    writer = Writer(tmp_path)
    writer.watch(model, every=1, rules=None)
    update(model["critic"], optimizers[0])
    assert writer.flush()
    assert read_scalars(tmp_path) == {}
    assert writer.close()
    assert steps_of(read_scalars(tmp_path)[""], "gradients/all/norm") == [0]


@pytest.mark.parametrize("kind", [optim.SGD, Subclass, Multiple])
def test_a_step_that_fails_does_not_end_the_watch(watched, kind, monkeypatch):
    model = net()

    def train(writer, watch):
        optimizer = kind(model.parameters())
        inner = getattr(optimizer, "inner", [optimizer])[-1]
        update(model, optimizer)
        with monkeypatch.context() as patch:
            patch.setattr(type(inner), "_init_group", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                update(model, optimizer)
        for _ in range(2):
            update(model, optimizer)

    tags = watched(train, model)
    assert len(tags["gradients/all/norm"]) == 3
    assert len(tags["updates/all/ratio"]) == 3


def test_outputs_of_every_layer_come_from_its_first_pass_in_the_log_step(watched):
    model = gan()
    x = torch.randn(40, 6)

    def train(writer, watch):
        critic, generator = (sgd(part, 0.0) for part in model.values())
        for _ in range(2):
            with torch.no_grad():
                model["generator"](x * 1000)
            update(model["critic"], critic, x)
            update(model["generator"], generator, x)
        train.means = {f"{name}.0": part[0](x).mean().item() for name, part in model.items()}

    tags = watched(train, model)
    for name, mean in train.means.items():
        expected = [(step, pytest.approx(mean, abs=1e-6)) for step in (0, 1)]
        assert tags[f"activations/{name}/mean"] == expected

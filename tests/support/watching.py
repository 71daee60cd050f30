"""Small models and training loops for tests that watch a model."""

from __future__ import annotations

import itertools

import pytest

from sm_tblog import Writer

torch = pytest.importorskip("torch")
nn = torch.nn

CLASSES, INPUTS = 4, 20


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2))


def update(model, optimizer, x=None, backward=True):
    """Run one training step; return the inputs."""
    x = torch.randn(40, 6) if x is None else x
    optimizer.zero_grad()
    loss = model(x).square().mean()
    if backward:
        loss.backward()
    optimizer.step()
    return x


def observed(model):
    """Return the number of layers whose outputs are recorded."""
    return sum("_compiled_call_impl" in vars(module) for module in model.modules())


def sgd(model, rate=0.1, **options):
    return torch.optim.SGD(model.parameters(), rate, **options)


def blobs(count=256):
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(count) % CLASSES
    centres = 2 * torch.randn(CLASSES, INPUTS, generator=generator)
    return centres[y] + torch.randn(count, INPUTS, generator=generator), y


def mlp(activation=nn.ReLU, depth=3, width=64):
    torch.manual_seed(0)
    sizes = [INPUTS, *[width] * depth]
    layers = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers, nn.Linear(width, CLASSES))


def train(logdir, model, optimizer, steps=30, *, scale=1.0, loss_of=None, **options):
    """Train a classifier with a watch; return the first alert of each rule, by rule."""
    x, y = blobs()
    loss_of = loss_of or nn.functional.cross_entropy
    generator = torch.Generator().manual_seed(0)
    with Writer(logdir) as writer:
        watch = writer.watch(model, **{"every": 1, "histograms": 0, **options})
        for step in range(steps):
            chosen = torch.randint(0, len(x), (64,), generator=generator)
            optimizer.zero_grad()
            loss = loss_of(model(x[chosen] * scale), y[chosen])
            loss.backward()
            optimizer.step()
            writer.add_scalar("loss/train", loss.item(), step)
        assert writer.flush()
        assert writer.stats().errors == 0
        alerts = watch.alerts
    return {alert.rule: alert for alert in reversed(alerts)}

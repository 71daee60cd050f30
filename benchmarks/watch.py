"""``writer.watch`` compared with the approach that Weights & Biases documents for its ``watch``.

According to its documentation, that approach uses a hook for each gradient, and one after the
forward pass for the parameters. Each hook copies the tensor to the host and counts a histogram of
64 bins there, while training waits. This benchmark implements that description. It does not time
any writing for it, so its figures are below what its users see.
"""

from __future__ import annotations

from functools import partial
from time import process_time, thread_time
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks._measure import Target, figure, interleave
from benchmarks._writers import OURS, open_writer, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._measure import Figure

__all__ = ["watch_cost"]

HOOKS = "hooks on the host"
_TARGET = Target(2, at_least=True)
_SHARE_TARGET = Target(3, at_least=False)
_EVERY = 100
"""The default value of ``every``."""


class _Cost(NamedTuple):
    """The cost of a step, in milliseconds.

    Attributes:
        caller: processor time of the training thread.
        all: processor time of all threads, until the writer is done with the step.
    """

    caller: float
    all: float


def watch_cost(width: int = 320, depth: int = 10, rounds: int = 15, steps: int = 3) -> list[Figure]:
    """Return the extra cost of a logged step, compared with a step that is not logged.

    Both approaches log histograms of every gradient and parameter at each of ``steps`` steps. The
    last figure measures the defaults: statistics of gradients, parameters, updates and outputs, and
    the rules, at one step in a hundred.
    """
    import torch

    torch.set_num_threads(1)
    contestants: dict[str, Callable[[], _Cost]] = {
        "silent": partial(_cost, width, depth, steps, lambda _writer, _model: None),
        OURS: partial(_cost, width, depth, steps, _watch_alike),
        HOOKS: partial(_cost, width, depth, steps, _hook),
        "defaults": partial(_cost, width, depth, steps, _watch_by_default),
    }
    samples: dict[str, list[_Cost]] = interleave(contestants, rounds + 1)  # type: ignore[arg-type, assignment]
    silent, ours, theirs, defaults = (found[1:] for found in samples.values())
    size = depth * (width * width + width)
    what = f"watch, {size:,} parameters in {2 * depth} tensors, histograms, per logged step"
    figures = []
    for name, of in (("caller's time", 0), ("all processor time", 1)):
        own, other = _more(ours, silent, of), _more(theirs, silent, of)
        ratios = [theirs_ / max(own_, 1e-3) for theirs_, own_ in zip(other, own, strict=True)]
        made = {OURS: own, HOOKS: other}
        target = None if of else _TARGET
        figures.append(figure(f"{what}, {name}", made, "ms", ratios, "x", target))
    step, more = [one.caller for one in silent], _more(defaults, silent, 0)
    shares = [added / whole / _EVERY * 100 for added, whole in zip(more, step, strict=True)]
    name = f"watch with defaults, {size:,} parameters, one step in {_EVERY}: loop slower by"
    made = {"step": step, "more": more}
    return [*figures, figure(name, made, "ms", shares, "%", _SHARE_TARGET)]


def _more(watched: list[_Cost], silent: list[_Cost], of: int) -> list[float]:
    """Return the increase of one of the costs, round by round."""
    return [float(one[of] - other[of]) for one, other in zip(watched, silent, strict=True)]


def _cost(
    width: int, depth: int, steps: int, watch: Callable[[Any, Any], Callable[[], None] | None]
) -> _Cost:
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = [part for _ in range(depth) for part in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*layers)
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    x = torch.randn(64, width)
    with temporary_folder() as folder:
        writer = open_writer(OURS, folder)
        end = watch(writer, model)
        caller = 0.0
        begun = process_time()
        for _ in range(steps):
            before = thread_time()
            optimizer.zero_grad()
            model(x).square().mean().backward()
            optimizer.step()
            caller += thread_time() - before
            writer.flush()
        writer.close()
        if end is not None:
            end()
        used = process_time() - begun
    return _Cost(caller / steps * 1e3, used / steps * 1e3)


def _watch_alike(writer: Any, model: Any) -> None:
    writer.watch(
        model, ("gradients", "parameters"), every=1, histograms=1, statistics=("norm",), rules=None
    )


def _watch_by_default(writer: Any, model: Any) -> None:
    writer.watch(model, every=1, histograms=10 * _EVERY, rules="scalar")


def _hook(_writer: Any, model: Any) -> Callable[[], None]:
    """Install hooks as described in the module docstring."""
    import torch

    found: dict[str, Any] = {}

    def count(name: str, tensor: Any) -> None:
        flat = tensor.detach().cpu().reshape(-1)
        least, most = flat.min().item(), flat.max().item()
        counts = torch.histc(flat, 64, least, most)
        edges = torch.linspace(least, most, 65)
        found[name] = counts.tolist(), edges.tolist()

    def parameters(module: Any, _inputs: Any, _output: Any) -> None:
        for name, parameter in module.named_parameters():
            count(f"parameters/{name}", parameter)

    hooks = [model.register_forward_hook(parameters)]
    for name, parameter in model.named_parameters():
        hooks.append(parameter.register_hook(partial(_count_gradient, count, f"gradients/{name}")))

    def end() -> None:
        for hook in hooks:
            hook.remove()
        expected = 2 * len(list(model.parameters()))
        if len(found) != expected:
            message = f"{len(found)} tensors were counted instead of {expected}"
            raise ValueError(message)

    return end


def _count_gradient(count: Callable[[str, Any], None], name: str, gradient: Any) -> None:
    count(name, gradient)

"""How much slower a PyTorch training loop is when it logs 20 scalars per step."""

from __future__ import annotations

import itertools
from statistics import median
from time import perf_counter, process_time, thread_time
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from benchmarks._measure import Target, figure
from benchmarks._writers import OURS, PEERS, check_records, open_writer, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks._measure import Figure

    Step: TypeAlias = Callable[[], float]
    Log: TypeAlias = Callable[[dict[str, float], int], object]

__all__ = ["training_overhead", "training_step"]

_TARGET = Target(0.5, at_least=False)
_STEP_SECONDS = 0.007
"""Target duration of a step, set through the batch size."""

_METRICS = (
    *("loss", "accuracy", "top5_accuracy", "perplexity", "learning_rate", "gradient_norm"),
    *("weight_norm", "samples_per_second", "step_time", "memory"),
)
_TAGS = tuple(f"{phase}/{metric}" for phase in ("train", "validation") for metric in _METRICS)


class _Block(NamedTuple):
    """A block of steps.

    Attributes:
        step: seconds per step, including logging.
        caller: seconds per step that the caller spent in the writer.
        others: seconds of processor time per step in all threads except the calling one.
    """

    step: float
    caller: float
    others: float


class _Pair(NamedTuple):
    """Two neighbouring blocks."""

    silent: _Block
    logged: _Block


def training_overhead(
    rounds: int = 40, pairs: int = 3, block_seconds: float = 1.05
) -> list[Figure]:
    """Return by how many percent logging slows down a loop of 5 to 10 ms per step.

    The loop trains a small convolutional network on one thread, like the Python side of a loop on
    an accelerator, and converts its loss to a ``float`` at every step. Blocks of steps with and
    without logging alternate, and each is compared with its neighbour. A block is long enough for
    two ticks of our worker thread, which come twice a second. Each round has ``pairs`` pairs of
    blocks for our writer and one pair for each other writer.

    The second figure of a writer is less noisy: the caller's time in the writer plus the processor
    time of all other threads. This is the cost of logging when no core is free.
    """
    step = training_step()
    numbers = itertools.count()
    compared: dict[str, list[_Pair]] = {name: [] for name in (OURS, *PEERS)}
    logged = dict.fromkeys(compared, 0)
    with temporary_folder() as folder:
        writers = {name: open_writer(name, f"{folder}/{name}") for name in compared}

        def with_(name: str) -> _Block:
            block, steps = _run_block(step, _logger(name, writers[name]), numbers, block_seconds)
            writers[name].flush()
            logged[name] += steps * len(_TAGS)
            return block

        def without() -> _Block:
            return _run_block(step, lambda _values, _number: None, numbers, block_seconds)[0]

        for turn in range(rounds):
            for name in [OURS] * pairs + list(PEERS):
                if turn % 2:
                    pair = _Pair(silent=without(), logged=with_(name))
                else:
                    pair = _Pair(logged=with_(name), silent=without())
                compared[name].append(pair)
        for name, writer in writers.items():
            writer.close()
            check_records(f"{folder}/{name}", logged[name])
    return [made for name, found in compared.items() for made in _figures(name, found)]


def _figures(name: str, pairs: list[_Pair]) -> list[Figure]:
    what = f"training loop, {len(_TAGS)} scalars per step, {name}"
    target = _TARGET if name == OURS else None
    slower = figure(
        f"{what}: slower by",
        {
            "without": [pair.silent.step * 1e3 for pair in pairs],
            "with": [pair.logged.step * 1e3 for pair in pairs],
        },
        "ms per step",
        [(pair.logged.step / pair.silent.step - 1) * 100 for pair in pairs],
        "%",
        target,
    )
    idle = median(pair.silent.others for pair in pairs)
    used = figure(
        f"{what}: caller's time plus processor time of all other threads",
        {
            "caller": [pair.logged.caller * 1e6 for pair in pairs],
            "others": [(pair.logged.others - idle) * 1e6 for pair in pairs],
        },
        "µs per step",
        [
            (pair.logged.caller + pair.logged.others - idle) / pair.silent.step * 100
            for pair in pairs
        ],
        "%",
        target,
    )
    return [slower, used]


def _logger(name: str, writer: Any) -> Log:
    if name == OURS:
        log: Log = writer.log
        return log

    def log_each(values: dict[str, float], number: int) -> None:
        for tag, value in values.items():
            writer.add_scalar(tag, value, number)

    return log_each


def _run_block(
    step: Step, log: Log, numbers: itertools.count[int], seconds: float
) -> tuple[_Block, int]:
    """Train for this many seconds; return the block and its number of steps."""
    steps = 0
    caller = 0.0
    others = process_time() - thread_time()
    begun = now = perf_counter()
    while now < begun + seconds:
        loss = step()
        values = {tag: loss * i for i, tag in enumerate(_TAGS)}
        number = next(numbers)
        before = perf_counter()
        log(values, number)
        now = perf_counter()
        caller += now - before
        steps += 1
    others = process_time() - thread_time() - others
    return _Block((now - begun) / steps, caller / steps, others / steps), steps


def training_step(seconds: float = _STEP_SECONDS) -> Step:
    """Return a training step that takes about this many seconds and returns its loss."""
    import torch
    from torch import nn

    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    loss_of = nn.CrossEntropyLoss()

    def step_with(batch: int) -> Step:
        images = torch.randn(batch, 3, 32, 32)
        labels = torch.randint(0, 10, (batch,))

        def step() -> float:
            optimizer.zero_grad()
            loss = loss_of(model(images), labels)
            loss.backward()
            optimizer.step()
            return float(loss.item())

        return step

    batch = 1
    while True:
        step = step_with(batch)
        fastest = min(_seconds(step) for _ in range(12))  # noise only makes a step longer
        if fastest >= seconds * 0.9 or batch >= 256:
            return step
        batch = max(batch + 1, min(2 * batch, int(batch * seconds / fastest)))


def _seconds(step: Step) -> float:
    begun = perf_counter()
    step()
    return perf_counter() - begun

"""Reading scalars back, beside the other readers, and the memory that it takes.

``python -m benchmarks.reading FOLDER`` is the process whose memory is measured.
"""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from benchmarks._event_files import WRITERS, Shape, write_images, write_shape
from benchmarks._measure import Target, figure, interleave
from benchmarks._readers import (
    ACCUMULATOR,
    OURS,
    RUST_SERVER,
    TBPARSE,
    available_readers,
)
from benchmarks._writers import temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from benchmarks._measure import Figure

__all__ = ["image_memory", "reading_memory", "reading_scalability", "reading_time"]

SHAPES = {
    "A": Shape(1, 7, 30_000),
    "B": Shape(4, 10, 10_000),
    "C": Shape(10, 50, 2_000),
    "D": Shape(1, 20_000, 10),
    "E": Shape(200, 5, 100, files=5),
}
"""Users' logs on a smaller scale. A: one long run; B: a sweep; C: many runs with many tags; D: one
run with many tags; E: thousands of small files."""

_SLOW = (TBPARSE, ACCUMULATOR)
_SLOW_POINTS = 20_000
"""The time per scalar of the slow readers does not depend on the number, so they read fewer."""

_TIME_TARGET = Target(0.35, at_least=False)
_TBPARSE_TARGET = Target(60, at_least=True)
_SERVER_TARGET = Target(1, at_least=True)
_LINEAR_TARGET = Target(1.1, at_least=False)
_MEMORY_TARGET = Target(3, at_least=False)
_IMAGES_TARGET = Target(64, at_least=False)

_ROOT = Path(__file__).parent.parent


def reading_time(
    shapes: Mapping[str, Shape] = SHAPES, rounds: int = 5, slow_points: int = _SLOW_POINTS
) -> list[Figure]:
    """Return the time per scalar, for each shape, writer and reader."""
    figures = []
    for name, shape in shapes.items():
        for writer in WRITERS:
            with temporary_folder() as folder:
                samples = _samples(Path(folder), writer, shape, rounds, slow_points)
            figures += _figures(f"read {name} ({shape}) of {writer}", name, writer, samples)
    return figures


def _samples(
    folder: Path, writer: str, shape: Shape, rounds: int, slow_points: int
) -> dict[str, list[float]]:
    """Return microseconds per scalar, by reader and round."""
    small = _smaller(shape, slow_points)
    write_shape(folder / "full" / "runs", writer, shape)
    write_shape(folder / "small" / "runs", writer, small)
    contestants: dict[str, Callable[[], float]] = {}
    for name, read in available_readers().items():
        size, part = ("small", small) if name in _SLOW else ("full", shape)
        contestants[name] = partial(_per_scalar, read, folder / size / "runs", part)
        contestants[name]()  # warm up
    return interleave(contestants, rounds)


def _per_scalar(read: Callable[[Path, Shape], float], folder: Path, shape: Shape) -> float:
    return read(folder, shape) / shape.points * 1e6


def _smaller(shape: Shape, points: int) -> Shape:
    """Return a part of a shape: fewer runs, and if there is one, fewer steps."""
    runs = min(max(points // (shape.tags * shape.steps), 1), shape.runs)
    steps = min(max(points // (shape.tags * runs), 1), shape.steps)
    return shape._replace(runs=runs, steps=max(steps, shape.files))


def _figures(
    title: str, shape: str, writer: str, samples: Mapping[str, Sequence[float]]
) -> list[Figure]:
    ours = samples[OURS]
    is_claimed = shape in "ABC" and writer in WRITERS[:2]
    figures = [figure(title, samples, "µs", ours, "µs", _TIME_TARGET if is_claimed else None)]
    targets = {
        TBPARSE: _TBPARSE_TARGET if is_claimed else None,
        RUST_SERVER: _SERVER_TARGET if shape in "ABC" else None,
    }
    for other, target in targets.items():
        if other in samples:
            ratios = [theirs / own for theirs, own in zip(samples[other], ours, strict=True)]
            figures.append(figure(f"{title}, {other}'s time in ours", {}, "", ratios, "x", target))
    return figures


def reading_scalability(tags: int = 20_000, steps: int = 20, rounds: int = 7) -> list[Figure]:
    """Return the time per scalar with many tags, in that with half as many."""
    read = available_readers()[OURS]
    with temporary_folder() as folder:
        contestants = {}
        for count in (tags // 2, tags):
            shape = Shape(1, count, steps)
            runs = Path(folder, str(count), "runs")
            write_shape(runs, OURS, shape)
            contestants[f"{count:,} tags"] = partial(_per_scalar, read, runs, shape)
        for measure in contestants.values():
            measure()
        samples = interleave(contestants, rounds)
    half, full = samples.values()
    ratios = [more / less for less, more in zip(half, full, strict=True)]
    return [figure("read D, twice as many tags", samples, "µs", ratios, "x", _LINEAR_TARGET)]


def reading_memory(shapes: Mapping[str, Shape] | None = None, rounds: int = 3) -> list[Figure]:
    """Return the peak of memory while a run is read, in sizes of the columns returned."""
    figures = []
    for name, shape in (shapes or {"A": Shape(1, 7, 150_000), "D": Shape(1, 20_000, 100)}).items():
        with temporary_folder() as folder:
            write_shape(Path(folder, "runs"), OURS, shape)
            columns = shape.points * 24 / 1e6
            peaks = [_peak(Path(folder, "runs", "run_0"))["peak"] for _ in range(rounds)]
        samples = {"columns": [columns], "peak": peaks}
        ratios = [peak / columns for peak in peaks]
        title = f"read {name} ({shape}), peak of memory"
        figures.append(figure(title, samples, "MB", ratios, "columns", _MEMORY_TARGET))
    return figures


def image_memory(megabytes: int = 300, rounds: int = 3, image_size: int = 500_000) -> list[Figure]:
    """Return the peak of memory while the scalars of a run are read that is nearly all images."""
    with temporary_folder() as folder:
        run = Path(folder, "run")
        points = write_images(run, megabytes * 1_000_000, image_size)
        found = [_peak(run) for _ in range(rounds)]
    if any(one["points"] != points for one in found):
        message = f"{found[0]['points']} scalars were read instead of {points}"
        raise ValueError(message)
    peaks = [one["peak"] for one in found]
    rate = megabytes / 1e3 / median(one["seconds"] for one in found)
    title = f"read F ({megabytes:,} MB of images), peak of memory"
    note = f"F: {rate:.2g} GB/s"
    return [figure(title, {OURS: peaks}, "MB", peaks, "MB", _IMAGES_TARGET, note)]


def _peak(run: Path) -> dict[str, float]:
    """Read a run in another process; return its growth in MB, the seconds and the points."""
    command = [sys.executable, "-m", "benchmarks.reading", str(run)]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, check=True, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _measure(run: str) -> dict[str, float]:
    """Read a run; the memory of the library itself and its tables is not counted."""
    from time import perf_counter

    import sm_tblog

    with temporary_folder() as folder:
        write_shape(Path(folder, "runs"), OURS, Shape(1, 1, 100))
        sm_tblog.read(Path(folder, "runs", "run_0"))
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # reset the peak
    before = _status("VmRSS")
    begun = perf_counter()
    points = sum(len(curve.value) for curve in sm_tblog.read(run).scalars.values())
    seconds = perf_counter() - begun
    return {"peak": _status("VmHWM") - before, "seconds": seconds, "points": points}


def _status(name: str) -> float:
    """Return a quantity of this process in MB, as counted by Linux."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith(name))


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1])))

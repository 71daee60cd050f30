"""The benchmarks by name, with smaller sizes for a quick run and for the tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks._event_files import Shape
from benchmarks.adapters import adapter_time
from benchmarks.embeddings import embedding_time
from benchmarks.figures import figure_time
from benchmarks.histograms import histogram_time
from benchmarks.kineto import trace_handler, trace_import
from benchmarks.media import image_cost, video_cost
from benchmarks.memory import memory_growth
from benchmarks.object_store import object_store_cost
from benchmarks.profile import session_overhead, span_time
from benchmarks.reading import image_memory, reading_memory, reading_scalability, reading_time
from benchmarks.scalars import caller_time, processor_time, sustained_rate
from benchmarks.startup import import_time
from benchmarks.system import system_cost
from benchmarks.training import training_overhead
from benchmarks.watch import watch_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks._measure import Figure

__all__ = ["BENCHMARKS", "Benchmark"]


class Benchmark(NamedTuple):
    """A benchmark and its sizes.

    Attributes:
        run: returns the figures; its defaults are the full sizes, on which to base claims.
        quick: arguments for a quick run.
        tiny: arguments for a run that only shows that it works.
    """

    run: Callable[..., list[Figure]]
    quick: Mapping[str, Any]
    tiny: Mapping[str, Any]


BENCHMARKS = {
    "caller": Benchmark(
        caller_time,
        {"bursts": 11, "calls": 2_000, "tight_rounds": 3, "tight_calls": 100_000},
        {"bursts": 1, "calls": 100, "tight_rounds": 1, "tight_calls": 100},
    ),
    "processor": Benchmark(
        processor_time,
        {"rounds": 3, "calls": 20_000, "bursts": 5},
        {"rounds": 1, "calls": 100, "bursts": 2, "burst_calls": 50},
    ),
    "rate": Benchmark(
        sustained_rate,
        {"rounds": 3, "calls": 1_000_000, "peer_calls": 5_000},
        {"rounds": 1, "calls": 1_000, "peer_calls": 100},
    ),
    "histogram": Benchmark(
        histogram_time,
        {"caller_rounds": 11, "rounds": 3, "calls": 2},
        {"size": 1_000, "caller_rounds": 1, "rounds": 1, "calls": 1},
    ),
    "image": Benchmark(image_cost, {"rounds": 5}, {"sizes": (8,), "rounds": 1, "calls": 1}),
    "video": Benchmark(
        video_cost, {"rounds": 2}, {"frames": 2, "size": 8, "rounds": 1, "calls": 1}
    ),
    "figure": Benchmark(figure_time, {"rounds": 5}, {"rounds": 1, "calls": 1}),
    "embedding": Benchmark(
        embedding_time,
        {"rounds": 2, "calls": 1},
        {"points": 100, "dimensions": 3, "rounds": 1, "calls": 1},
    ),
    "adapters": Benchmark(adapter_time, {"rounds": 5, "steps": 300}, {"rounds": 1, "steps": 5}),
    "span": Benchmark(span_time, {"rounds": 9}, {"rounds": 1, "calls": 100}),
    "session": Benchmark(
        session_overhead, {"rounds": 6}, {"rounds": 1, "steps": 3, "seconds": 0.05}
    ),
    "handler": Benchmark(trace_handler, {"rounds": 5}, {"rounds": 1, "operators": 100}),
    "conversion": Benchmark(trace_import, {"rounds": 3}, {"rounds": 1, "operators": 100}),
    "import": Benchmark(import_time, {"rounds": 5}, {"rounds": 1}),
    "memory": Benchmark(memory_growth, {"rows": 2_000_000}, {"warm_up": 1_000, "rows": 1_000}),
    "read": Benchmark(
        reading_time,
        {"rounds": 3},
        {"shapes": {"A": Shape(1, 2, 20), "E": Shape(2, 2, 10, 2)}, "rounds": 1, "slow_points": 40},
    ),
    "read-tags": Benchmark(
        reading_scalability, {"rounds": 5}, {"tags": 20, "steps": 3, "rounds": 1}
    ),
    "read-memory": Benchmark(
        reading_memory, {"rounds": 1}, {"shapes": {"A": Shape(1, 2, 20)}, "rounds": 1}
    ),
    "read-images": Benchmark(
        image_memory, {"rounds": 1}, {"megabytes": 1, "rounds": 1, "image_size": 1_000}
    ),
    "s3": Benchmark(
        object_store_cost,
        {"caller_rounds": 31, "calls": 5_000},
        {"flushes": 3, "rows": 10, "caller_rounds": 1, "calls": 10},
    ),
    "system": Benchmark(system_cost, {"rounds": 7}, {"rounds": 1, "samples": 1}),
    "training": Benchmark(
        training_overhead, {"rounds": 8}, {"rounds": 1, "pairs": 1, "block_seconds": 0.05}
    ),
    "watch": Benchmark(
        watch_cost, {"rounds": 5}, {"width": 8, "depth": 2, "rounds": 1, "steps": 1}
    ),
}

"""The cost of system metrics: the processor time of a sample, as a share of a core."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from benchmarks._measure import Target, figure
from benchmarks._writers import OURS, open_writer, temporary_folder
from sm_tblog.system.metrics import DEFAULT_INTERVAL, SystemMetrics

if TYPE_CHECKING:
    from benchmarks._measure import Figure

__all__ = ["system_cost"]

_TARGET = Target(0.1, at_least=False)


def system_cost(rounds: int = 25, samples: int = 40) -> list[Figure]:
    """Return the share of a core that samples use at the default interval.

    This counts the processor time of all threads, until the bytes are in the file.
    """
    costs = []
    with temporary_folder() as folder:
        writer = open_writer(OURS, folder)
        metrics = SystemMetrics(writer)
        metrics.sample()
        writer.flush()
        for _ in range(rounds):
            begun = time.process_time()
            for _ in range(samples):
                metrics.sample()
            writer.flush()
            costs.append((time.process_time() - begun) / samples)
        writer.close()
    return [
        figure(
            f"a sample of system metrics every {DEFAULT_INTERVAL:.0f} s",
            {OURS: [cost * 1e3 for cost in costs]},
            "ms",
            [100 * cost / DEFAULT_INTERVAL for cost in costs],
            "% of a core",
            _TARGET,
        )
    ]

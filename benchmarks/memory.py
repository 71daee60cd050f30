"""Memory growth over a long run.

``python -m benchmarks.memory FOLDER WARM_UP ROWS`` is the measured process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._measure import Target, figure
from benchmarks._writers import OURS, TAGS, check_records, open_writer, temporary_folder

if TYPE_CHECKING:
    from benchmarks._measure import Figure

__all__ = ["memory_growth"]

_TARGET = Target(20, at_least=False)
_ROOT = Path(__file__).parent.parent
_PIECES = 100
"""The rows are logged in this many pieces, and memory is measured after each."""


def memory_growth(warm_up: int = 1_000_000, rows: int = 10_000_000) -> list[Figure]:
    """Return how much the resident memory of a process grows while it logs ``rows`` scalars.

    The loop is tight, so the buffer is always as full as the writer's ``max_bytes`` allows. The
    peak is compared with the peak during the warm-up. The memory after everything is stored is
    compared with the memory after the warm-up.
    """
    with temporary_folder() as folder:
        arguments = (folder, str(warm_up), str(rows))
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.memory", *arguments],
            cwd=_ROOT,
            capture_output=True,
            check=True,
            text=True,
        )
        check_records(folder, warm_up + rows)
    found = json.loads(done.stdout)
    what = f"growth of resident memory over {rows:,} scalars"
    return [
        figure(
            f"{what}, {name}",
            samples,
            "MB",
            [samples["after"][0] - samples["before"][0]],
            "MB",
            _TARGET,
        )
        for name, samples in (
            ("peak", {"before": [found["highest before"]], "after": [found["highest"]]}),
            ("all stored", {"before": [found["stored before"]], "after": [found["stored"]]}),
        )
    ]


def _measure(folder: str, warm_up: int, rows: int) -> dict[str, float]:
    """Log the rows and return the memory in megabytes."""
    writer = open_writer(OURS, folder)
    found = {"highest before": _highest(writer, warm_up)}
    writer.flush()
    found["stored before"] = _resident()
    found["highest"] = _highest(writer, rows)
    writer.flush()
    found["stored"] = _resident()
    writer.close()
    return found


def _highest(writer: Any, rows: int) -> float:
    """Log ``rows`` rows and return the peak memory."""
    highest = 0.0
    for _ in range(_PIECES):
        for step in range(rows // _PIECES):
            writer.add_scalar(TAGS[step % len(TAGS)], step * 0.1, step)
        highest = max(highest, _resident())
    return highest


def _resident() -> float:
    """Return this process's resident memory in MB, as counted by Linux."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))

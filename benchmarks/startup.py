"""``import sm_tblog`` compared with ``import numpy``, each in a fresh interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING

from benchmarks._measure import Target, figure, interleave
from benchmarks._writers import OURS, temporary_folder

if TYPE_CHECKING:
    from benchmarks._measure import Figure

__all__ = ["import_time"]

_TARGET = Target(1.3, at_least=False)
_MODULES = (OURS, "numpy", "torch.utils.tensorboard", "tensorboardX")
_TIMED = """
from time import perf_counter
begun = perf_counter()
import {module}
print(perf_counter() - begun)
"""
_LISTED = """
import sys
import {module}
print(*sys.modules)
"""


def import_time(rounds: int = 15) -> list[Figure]:
    """Return the time of ``import sm_tblog``, in imports of numpy.

    The modules are compiled beforehand. The interpreter's own startup is not counted.
    """
    with temporary_folder() as compiled:
        contestants = {name: partial(_milliseconds, name, compiled) for name in _MODULES}
        interleave(contestants, 1)  # compiles
        samples = interleave(contestants, rounds)
        loaded = {name: _loaded(name, compiled) for name in (OURS, "numpy")}
    ratios = [own / one for own, one in zip(samples[OURS], samples["numpy"], strict=True)]
    extra = {name.partition(".")[0] for name in loaded[OURS] - loaded["numpy"]} - {OURS}
    standard = sorted(extra & sys.stdlib_module_names)
    packages = sorted(extra - sys.stdlib_module_names)
    note = (
        f"in addition to the modules that numpy loads, import {OURS} loads from other packages: "
        f"{', '.join(packages) or 'nothing'}; from the standard library: {', '.join(standard)}"
    )
    name = "import sm_tblog, in imports of numpy"
    return [figure(name, samples, "ms", ratios, "x", _TARGET, note)]


def _milliseconds(module: str, compiled: str) -> float:
    return float(_run(_TIMED.format(module=module), compiled)) * 1e3


def _loaded(module: str, compiled: str) -> set[str]:
    return set(_run(_LISTED.format(module=module), compiled).split())


def _run(code: str, compiled: str) -> str:
    environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout

"""Fixtures for system metrics: a clock, a writer, and fake GPUs."""

import sys
import time
import types
from pathlib import Path

import fake_nvml
import pytest

from sm_tblog import Writer
from sm_tblog.system import gpu as gpus
from sm_tblog.system import metrics, rates

RANKS = ("LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "SLURM_LOCALID")


@pytest.fixture
def without_gpus_and_ranks(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    monkeypatch.setattr(gpus, "DRIVER", Path("/nowhere"))
    for name in (*RANKS, "PMI_LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def clock(monkeypatch):
    """``clock(seconds)`` advances the time, for rates and for steps."""
    now = [1000.0]
    monkeypatch.setattr(
        metrics, "time", types.SimpleNamespace(**{**vars(time), "monotonic": lambda: now[0]})
    )
    monkeypatch.setattr(rates, "time", types.SimpleNamespace(monotonic=lambda: now[0]))

    def let_pass(seconds):
        now[0] += seconds

    return let_pass


@pytest.fixture
def writer(tmp_path):
    with Writer(tmp_path / "run") as writer:
        yield writer


@pytest.fixture
def nvml(without_gpus_and_ranks, monkeypatch):
    """A fake ``pynvml`` with two GPUs."""
    module = fake_nvml.FakeNVML()
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(gpus, "DRIVER", Path("/"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return module

"""The examples run, each as a user would run it, and log what they say they do."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


@pytest.fixture
def run_example(tmp_path):
    """``run_example(name, *args, needs=[…])``: run an example in an empty folder; its output."""

    def run(name, *args, needs=(), **environment):
        for package in ("sklearn", *needs):
            if importlib.util.find_spec(package) is None:
                pytest.skip(f"the example needs {package}")
        path = os.pathsep.join(filter(None, sys.path))
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, args)],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": path, **environment},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def accuracy_in(output):
    return float(re.search(r"accuracy ([\d.]+)", output)[1])


@pytest.mark.parametrize("backend", ["torch", "jax", "tensorflow"])
def test_keras(backend, run_example, read_scalars, tmp_path):
    needs = ("keras", backend, "matplotlib")
    output = run_example("keras_digits.py", "--epochs", 2, needs=needs, KERAS_BACKEND=backend)
    assert accuracy_in(output) > 0.8
    runs = read_scalars(tmp_path / "runs/keras")
    assert len(runs["train"]["batch_loss"]) == 86
    assert len(runs["validation"]["epoch_accuracy"]) == 2


def test_lightning(run_example, read_scalars, tmp_path):
    output = run_example("lightning_digits.py", "--epochs", 2, needs=("lightning",))
    assert accuracy_in(output) > 0.7
    run = read_scalars(tmp_path / "runs/digits/version_0")[""]
    assert len(run["train/loss"]) == 86
    assert len(run["best/val/accuracy"]) == 2


SLOW = [pytest.mark.slow]

CURVES = [
    ("xgboost_breast_cancer.py", ["xgboost", "matplotlib"], "xgboost/eta-0.1", "logloss/test"),
    ("lightgbm_breast_cancer.py", ["lightgbm", "matplotlib"], "lightgbm/leaves-7", "auc/test"),
    ("catboost_breast_cancer.py", ["catboost", "matplotlib"], "catboost/test", "AUC"),
    (
        "transformers_tiny_model.py",
        ["torch", "transformers", "accelerate"],
        "transformers",
        "train/loss",
    ),
    ("accelerate_digits.py", ["torch", "accelerate", "PIL"], "accelerate", "loss"),
    ("clu_digits.py", ["jax", "PIL"], "clu", "loss"),
    ("sklearn_search.py", [], "sklearn/best", "MLPClassifier/loss_curve"),
    ("logging_records.py", [], "logging", "loss"),
    ("tensorboardx_on_a_store.py", ["tensorboardX"], "tensorboardx", "loss"),
    ("ignite_digits.py", ["torch", "ignite"], "ignite", "training/loss"),
    ("fastai_numbers.py", ["torch", "fastai"], "fastai", "train_loss"),
    pytest.param("ray_tune.py", ["ray"], "ray", "ray/tune/loss", marks=SLOW),
]
"""By example: what it needs, and a curve that it logs, in a run below ``runs``."""


@pytest.mark.parametrize(("name", "needs", "run", "tag"), CURVES)
def test_frameworks(name, needs, run, tag, run_example, read_scalars, tmp_path):
    run_example(name, needs=needs, OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    runs = read_scalars(tmp_path / "runs")
    curves = [tags[tag] for found, tags in runs.items() if found.startswith(run) and tag in tags]
    assert curves
    assert len(curves[0]) >= 10


def test_every_example_is_run_above():
    source = Path(__file__).read_text(encoding="utf-8")
    for path in EXAMPLES.glob("*.py"):
        assert f'"{path.name}"' in source

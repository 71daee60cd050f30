"""Loss rules, on curves of real training runs and on synthetic ones."""

from __future__ import annotations

import gc
import math
import threading

import numpy as np
import pytest
from watching import blobs, mlp, sgd, train

from sm_tblog import InvalidValueError, RuleViolationError, Writer, rules
from sm_tblog._types import Series
from sm_tblog.rules.engine import StallTimer
from sm_tblog.rules.losses import is_loss, without_split
from sm_tblog.sinks.base import Batch

torch = pytest.importorskip("torch")
nn = torch.nn


def log_losses(logdir, curves, chosen):
    """Log curves, ``{tag: values}``, and return the alerts by rule."""
    with Writer(logdir) as writer:
        watch = writer.watch_rules(chosen)
        for step in range(max(map(len, curves.values()))):
            for tag, values in curves.items():
                if step < len(values):
                    writer.add_scalar(tag, values[step], step)
        assert writer.flush()
        assert writer.stats().errors == 0
        return {alert.rule: alert for alert in reversed(watch.alerts)}


def losses_of(model, optimizer, epochs, count=256, labels=None):
    """Train on part of the data; return the training and validation loss after each epoch."""
    x, y = blobs(2048)
    y = y if labels is None else labels(y)
    found = {"loss/train": [], "loss/validation": []}
    for _ in range(epochs):
        for start in range(0, count, 64):
            part = slice(start, min(start + 64, count))
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x[part]), y[part]).backward()
            optimizer.step()
        with torch.no_grad():
            for tag, part in (("train", slice(count)), ("validation", slice(1024, 2048))):
                loss = nn.functional.cross_entropy(model(x[part]), y[part]).item()
                found[f"loss/{tag}"].append(loss)
    return found


def random_labels(y):
    generator = torch.Generator().manual_seed(0)
    return y[torch.randperm(len(y), generator=generator)]


def test_losses_of_a_healthy_training_are_left_in_peace(tmp_path, read_scalars):
    model = mlp()
    curves = losses_of(model, sgd(model, 0.003), 25, count=1024)
    assert curves["loss/train"][-1] < curves["loss/train"][0] / 2
    assert log_losses(tmp_path, curves, "warn") == {}
    tags = read_scalars(tmp_path)[""]
    for rule in ("LossNotDecreasing", "Overfit", "Overtraining"):
        assert {count for _, count in tags[f"rules/{rule}"]} == {0}


def test_loss_not_decreasing_at_a_learning_rate_of_nothing_and_of_too_much(tmp_path):
    model = mlp()
    curves = losses_of(model, sgd(model, 0.0), 20)
    alert = log_losses(tmp_path / "0", curves, "warn")["LossNotDecreasing"]
    assert (alert.step, alert.findings[0].where) == (19, "loss/train")
    model = mlp()
    curves = losses_of(model, sgd(model, 0.01), 10)
    curves["loss/train"] += [10 * loss for loss in curves["loss/train"]]
    alert = log_losses(tmp_path / "1", curves, "warn")["LossNotDecreasing"]
    assert alert.findings[0].value > 0.05


def test_loss_that_is_nan_is_not_decreasing(tmp_path):
    alerts = log_losses(tmp_path, {"loss": [1.0] * 10 + [math.nan] * 10}, "warn")
    assert alerts.keys() == {"LossNotDecreasing"}


def test_overfit_where_labels_are_random_and_few(tmp_path):
    model = mlp()
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    curves = losses_of(model, optimizer, 15, count=128, labels=random_labels)
    alert = log_losses(tmp_path, curves, [rules.Overfit()])["Overfit"]
    assert alert.findings[0].where == "loss/validation"
    assert alert.findings[0].value > 0.1


def test_overtraining_where_nothing_is_left_to_learn(tmp_path):
    model = mlp()
    curves = losses_of(model, torch.optim.Adam(model.parameters(), 1e-2), 30)
    alert = log_losses(tmp_path, curves, [rules.Overtraining()])["Overtraining"]
    assert alert.step >= 10


def test_a_rule_of_losses_can_be_given_to_watch(tmp_path):
    model = mlp()
    chosen = [rules.LossNotDecreasing(), rules.VanishingGradient()]
    alerts = train(tmp_path, model, sgd(model, 0.0), 40, rules=chosen)
    assert alerts.keys() == {"LossNotDecreasing"}


def test_losses_are_found_by_their_names():
    assert is_loss("train/loss", validation=False)
    assert is_loss("Loss", validation=False)
    assert is_loss("validation/epoch_loss", validation=True)
    assert is_loss("val_loss", validation=True)
    assert not is_loss("evaluate_loss", validation=True)
    assert not is_loss("accuracy", validation=False)
    pairs = [("train/loss", "val/loss"), ("loss", "val_loss"), ("train_loss", "valid_loss")]
    pairs += [("loss/train", "loss/validation"), ("train/epoch_loss", "validation/epoch_loss")]
    for training, validation in pairs:
        assert without_split(training) == without_split(validation)
    assert without_split("train/loss_box") != without_split("val/loss_class")


def test_tags_can_be_said(tmp_path):
    curves = {"a": [1.0] * 3, "b": [2.0] * 3, "loss": [1.0] * 3, "val_loss": [9.0] * 3}
    alerts = log_losses(tmp_path, curves, [rules.Overfit(training="a", validation="b")])
    assert alerts["Overfit"].findings[0].where == "b"
    with pytest.raises(InvalidValueError, match="training and validation"):
        rules.Overfit(training="a")


def test_curves_of_runs_below_are_judged_too(tmp_path):
    with Writer(tmp_path) as writer:
        watch = writer.watch_rules([rules.Overfit()])
        for step in range(3):
            writer.add_scalars("loss", {"train": 1.0, "val": 2.0}, step)
        writer.flush()
        assert [alert.rule for alert in watch.alerts] == ["Overfit"]


def test_stalled_training(tmp_path, read_scalars):
    fired = threading.Event()
    with Writer(tmp_path) as writer:
        alerts = []
        rule = rules.StalledTraining(
            seconds=0.2, action=lambda alert: (alerts.append(alert), fired.set())
        )
        writer.watch_rules([rule])
        writer.add_scalar("loss", 1.0, 7)
        writer.flush()
        assert fired.wait(30)
        threads = [t.name for t in threading.enumerate()]
        assert "sm_tblog stall" in threads
    [alert] = alerts
    assert (alert.rule, alert.step) == ("StalledTraining", 7)
    assert read_scalars(tmp_path)[""]["rules/StalledTraining"] == [(7, 1.0)]
    for thread in threading.enumerate():
        if thread.name == "sm_tblog stall":
            thread.join(30)
            assert not thread.is_alive()


def test_a_writer_that_is_forgotten_leaves_no_thread_behind(tmp_path):
    writer = Writer(tmp_path)
    writer.watch_rules([rules.StalledTraining()])
    writer.add_scalar("loss", 1.0, 7)
    writer.flush()
    [thread] = [thread for thread in threading.enumerate() if thread.name == "sm_tblog stall"]
    del writer
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_a_training_that_goes_on_has_not_stalled():
    stalled = []
    timer = StallTimer(1e6, stalled.append)

    def batch(tag, step):
        return Batch([Series(tag)], np.zeros(1, np.intp), np.array([step]), np.ones(1), np.ones(1))

    timer(batch("loss", 1))
    last_step_at = timer._last_step_at
    timer(batch("system/cpu", 2))
    assert timer._last_step_at == last_step_at
    timer(batch("loss", 2))
    assert timer._last_step_at > last_step_at
    timer.stop()
    timer._thread.join(30)
    assert not timer._thread.is_alive()
    assert stalled == []


def test_stop_of_a_loss_is_raised_by_check(tmp_path):
    with Writer(tmp_path) as writer:
        watch = writer.watch_rules("stop")
        watch.check()
        for step in range(20):
            writer.add_scalar("loss", 1.0, step)
        writer.flush()
        with pytest.raises(RuleViolationError, match="LossNotDecreasing"):
            watch.check()
        watch.check()

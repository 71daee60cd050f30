"""How a watch of a PyTorch model starts and ends, and that its faults do not affect training."""

from __future__ import annotations

import gc
import pickle
import weakref

import numpy as np
import pytest
from watching import net, observed, sgd, update

from sm_tblog import Writer
from sm_tblog._types import Scalar
from sm_tblog.watch import collector

torch = pytest.importorskip("torch")
nn = torch.nn


def hooks_of_optimizers():
    from torch.optim import optimizer

    return [
        hook
        for hooks in (optimizer._global_optimizer_pre_hooks, optimizer._global_optimizer_post_hooks)
        for hook in hooks.values()
    ]


def test_a_watch_ends_without_a_trace(tmp_path, event_files):
    before = hooks_of_optimizers()
    writer = Writer(tmp_path)
    model = net()
    for end in (
        lambda watch: watch.remove(),
        lambda watch: watch.__exit__(None, None, None),
        lambda watch: writer.close(),
        lambda watch: writer.watch(model).remove(),
    ):
        watch = writer.watch(model)
        assert hooks_of_optimizers() != before
        assert observed(model)
        end(watch)
        assert hooks_of_optimizers() == before
        assert not observed(model)
        watch.remove()
        watch.step()
    update(model, sgd(model))
    assert writer.close()
    assert event_files(tmp_path) == []


def test_a_watch_keeps_neither_the_model_nor_the_writer(tmp_path):
    before = hooks_of_optimizers()
    model, writer = net(), Writer(tmp_path)
    watch = writer.watch(model)
    references = weakref.ref(model), weakref.ref(writer)
    del writer
    gc.collect()
    assert references[1]() is None
    update(model, sgd(model))
    del model
    gc.collect()
    assert references[0]() is None
    assert hooks_of_optimizers() == before
    assert watch.alerts == []


def test_a_disabled_writer_and_other_ranks_watch_nothing(tmp_path, monkeypatch, event_files):
    before = hooks_of_optimizers()
    model = net()
    with Writer(tmp_path, enabled=False) as writer:
        watch = writer.watch(model)
        watch.step()
        writer.watch_tree("net", dict(model.named_parameters()))
        writer.watch_rules()
    monkeypatch.setenv("RANK", "1")
    writer = Writer(tmp_path)
    assert writer.watch(model).alerts == []
    assert hooks_of_optimizers() == before
    with writer.watch(model, rank_zero_only=False):
        assert hooks_of_optimizers() != before
    assert event_files(tmp_path) == []


def test_a_fault_of_the_watch_does_not_reach_the_training(watched, monkeypatch, caplog):
    model = net()

    def fails(*args):
        raise RuntimeError("out of memory")

    steps = iter([None, 4])

    def step_of():
        return next(steps) or fails()

    def train(writer, watch):
        from sm_tblog.watch import torch_record

        with monkeypatch.context() as patch:
            patch.setattr(collector.StatisticsCollector, "collect", fails)
            for _ in range(3):
                update(model, optimizer)
        with monkeypatch.context() as patch:
            patch.setattr(torch_record, "evenly", fails)
            update(model, optimizer)
        update(model, optimizer)
        update(model, optimizer)

    optimizer = sgd(model)
    tags = watched(train, model, step=step_of)
    assert [step for step, _ in tags["gradients/0.weight/norm"]] == [4]
    said = [record for record in caplog.records if record.name == "sm_tblog"]
    assert len(said) == 2, "one for the outputs of layers, one for the step"
    assert all("could not record" in record.getMessage() for record in said)


def test_training_is_the_same_with_and_without(watched):
    results = []
    for is_watched in (False, True):
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        torch.manual_seed(1)
        for p in model.parameters():
            nn.init.normal_(p)
        optimizer = torch.optim.Adam(model.parameters(), 0.1)

        def train(*_, model=model, optimizer=optimizer):
            for _ in range(5):
                update(model, optimizer)

        if is_watched:
            watched(train, model, histograms=1)
        else:
            train()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(*results)


def test_a_pickled_writer_watches_nothing(tmp_path):
    model = net()
    with Writer(tmp_path) as writer:
        writer.watch(model)
        copied = pickle.loads(pickle.dumps(writer))
        assert copied._watch_state is None
        copied.close()
        assert hooks_of_optimizers()


def test_tags_are_cleaned_where_that_is_wanted(tmp_path, read_scalars):
    with Writer(tmp_path, clean_tags=True) as writer:
        writer.watch_layers([("a layer: 1", np.ones((2, 2)), None, None)], 0, rules=None)
    tags = read_scalars(tmp_path)[""]
    assert "parameters/a_layer__1/norm" in tags


def test_what_is_found_is_a_row_like_those_that_are_logged(tmp_path):
    """Matches every series, for every sink and processor and in any run."""
    found = []

    def sink(batch):
        found.extend(batch.rows())

    def build(tag):
        return [Scalar("a b", 1.0), Scalar(tag, 2.0)]

    with Writer(tmp_path, sinks=[sink], clean_tags=True) as writer:
        writer.add_scalar("first", 0.0, 6)
        writer._put("tag", build, (), 7, 8.0)
        writer._put("tag", build, (), 9, 8.0, run="below")
        assert writer.flush()
        assert writer.stats().rows_written == 5
    assert [(s.run, s.tag, step, value) for s, step, _, value in found] == [
        ("", "first", 6, 0),
        *[("", "a_b", 7, 1), ("", "tag", 7, 2)],
        *[("below", "a_b", 9, 1), ("below", "tag", 9, 2)],
    ]
    assert {time for _, step, time, _ in found if step > 6} == {8}

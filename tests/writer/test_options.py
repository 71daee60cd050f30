"""Settings that change tags, steps and times, and how the worker thread applies them."""

import threading

import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, SinkError, SummaryWriter, Writer
from sm_tblog.pipeline import barriers, buffer
from sm_tblog.pipeline.batching import Item
from sm_tblog.sinks.base import Event, File


def scalars_and_times(read_events, event_files, logdir):
    return [
        (value.tag, event.step, event.wall_time)
        for path in event_files(logdir)
        for event in read_events(path)
        for value in event.summary.value
    ]


# use_metadata


def test_calls_in_a_block_take_its_step_and_time(tmp_path, read_events, event_files):
    with Writer(tmp_path) as writer:
        writer.step = 3
        with writer.use_metadata(global_step=10, walltime=123.5) as same:
            assert same is writer
            writer.add_scalar("fast", 1.0, 11)
            writer.add_scalar("slow", 1.0)
            writer.log({"log": 1.0}, 12)
            writer.add_text("text", "x")
            writer.add_scalar("own", 1.0, 13, 99.0)
        assert writer.step == 3
        writer.add_scalar("after", 1.0)
    found = {t: (s, w) for t, s, w in scalars_and_times(read_events, event_files, tmp_path)}
    assert found.pop("after")[0] == 3
    assert found == {
        "fast": (11, 123.5),
        "slow": (10, 123.5),
        "log": (12, 123.5),
        "text": (10, 123.5),
        "own": (13, 99.0),
    }


def test_a_block_that_raises_gives_step_and_time_back(tmp_path, read_events, event_files):
    with Writer(tmp_path) as writer:
        with pytest.raises(RuntimeError), writer.use_metadata(global_step=10, walltime=1.0):
            raise RuntimeError
        writer.add_scalar("after", 1.0)
    ((_, step, wall_time),) = scalars_and_times(read_events, event_files, tmp_path)
    assert step == 0
    assert wall_time > 1e9


@pytest.mark.parametrize("wrong", [{"global_step": "x"}, {"walltime": "x"}])
def test_a_block_with_a_wrong_step_or_time_is_refused(tmp_path, wrong):
    writer = Writer(tmp_path)
    with pytest.raises(InvalidTypeError), writer.use_metadata(**wrong):
        pytest.fail("the block is not entered")
    assert writer.step == 0


# clean_tags


def test_tags_are_cleaned_as_tensorboardx_does(tmp_path, read_scalars, read_events, event_files):
    _clean_tag = pytest.importorskip("tensorboardX.summary")._clean_tag

    tags = ["/a b/c(d)", "loss (train)", "plain/tag-1.x_y", "ünïcode", "//x"]
    with Writer(tmp_path, clean_tags=True) as writer:
        for step, tag in enumerate(tags):
            writer.add_scalar(tag, 1.0, step)
            writer.add_text("text/" + tag, "x", step)
    expected = [_clean_tag(tag) for tag in tags]
    assert list(read_scalars(tmp_path)[""]) == expected
    texts = [t for t, _, _ in scalars_and_times(read_events, event_files, tmp_path)][len(tags) :]
    assert texts == [_clean_tag("text/" + tag) for tag in tags]


def test_tags_that_become_one_are_one_curve(tmp_path, read_scalars):
    with Writer(tmp_path, clean_tags=True) as writer:
        for step in range(4):
            writer.add_scalar("a b" if step % 2 else "a_b", float(step), step)
    assert read_scalars(tmp_path)[""] == {"a_b": [(i, float(i)) for i in range(4)]}


# resume


@pytest.mark.parametrize("how", [{"resume": 5}, {"purge_step": 5}, {"resume": 5, "purge_step": 5}])
def test_a_step_to_resume_from_supersedes_every_tag_and_run(tmp_path, read_scalars, how):
    for first, options in ((0, {}), (5, how)):
        with Writer(tmp_path, **options) as writer:
            assert writer.purge_step == options.get("resume", options.get("purge_step"))
            for step in range(first, 8):
                writer.add_scalar("a", float(step + first), step)
                writer.add_scalars("b", {"x": float(step + first)}, step)
    expected = [(i, float(i)) for i in range(5)] + [(i, float(i + 5)) for i in range(5, 8)]
    assert read_scalars(tmp_path) == {"": {"a": expected}, "b_x": {"b": expected}}


def test_appending_supersedes_nothing(tmp_path, read_scalars):
    for value in (1.0, 2.0):
        with SummaryWriter(tmp_path, resume="append") as writer:
            writer.add_scalar("a", value, 0)
    assert read_scalars(tmp_path)[""]["a"] == [(0, 1.0), (0, 2.0)]


@pytest.mark.parametrize("wrong", ["from the start", None, {"purge_step": 4, "resume": 5}])
def test_a_wrong_way_to_resume_is_refused(tmp_path, wrong):
    options = wrong if isinstance(wrong, dict) else {"resume": wrong}
    with pytest.raises((InvalidTypeError, InvalidValueError), match="resume"):
        Writer(tmp_path, **options)


# Items on the worker thread


def test_a_builder_may_return_messages_values_events_and_files_at_once(tmp_path, read_events):
    from sm_tblog.format import schema

    def build(tag, number):
        mark = schema.Event(wall_time=1.0, step=2)
        mark.log_message.message = "hello"
        message = schema.Value(tag=tag, simple_value=number)
        return [message, Event("", mark.SerializeToString()), File("", "side/file", b"bytes")]

    with Writer(tmp_path, on_error="raise") as writer:
        writer._put("mixed", build, (0.5,), 7, 9.0)
    (path,) = tmp_path.glob("*tfevents*")
    _, summary, message = read_events(path)
    assert (summary.step, summary.wall_time) == (7, 9.0)
    assert (summary.summary.value[0].tag, summary.summary.value[0].simple_value) == ("mixed", 0.5)
    assert message.log_message.message == "hello"
    assert (tmp_path / "side/file").read_bytes() == b"bytes"
    assert writer.stats().values_written == 3


def test_items_are_built_a_few_megabytes_at_a_time_and_counted_until_then(tmp_path, monkeypatch):
    monkeypatch.setattr(buffer, "MAX_BATCH_BYTES", 1000)
    batches = []
    seen = []

    def sink(batch):
        batches.append(len(batch.values))
        seen.append(writer._pipeline._item_bytes)

    def build(tag):
        from sm_tblog.format import schema

        return schema.Value(tag=tag, simple_value=1.0)

    writer = Writer(tmp_path, sinks=[sink])
    items = [Item("", "t", i, 1.0, 400, build, ()) for i in range(5)]
    items.insert(2, Item("", "t", 9, 1.0, 5000, build, ()))
    with writer._pipeline._condition:  # the worker takes them up together
        for item in items:
            writer._pipeline.put(item)
    writer.close()
    assert batches == [2, 1, 2, 1]
    assert seen == [6200, 1200, 400, 0]


def test_a_barrier_waits_longer_for_a_value_being_built(tmp_path, monkeypatch, read_events):
    monkeypatch.setattr(barriers, "BARRIER_TIMEOUT", 0.05)
    released, building = threading.Event(), threading.Event()

    def build(tag):
        from sm_tblog.format import schema

        building.set()
        assert released.wait(10)
        return schema.Value(tag=tag, simple_value=1.0)

    writer = Writer(tmp_path)
    writer._put("slow", build, (), 0, None)
    stored = []
    barrier = threading.Thread(target=lambda: stored.append(writer.flush()))
    barrier.start()
    assert building.wait(10)
    barrier.join(0.3)  # six times the patience with a store
    assert barrier.is_alive()
    released.set()
    barrier.join(10)
    assert stored == [True]
    writer.close()


def test_a_processor_sees_and_changes_every_batch(tmp_path, read_scalars):
    def double(batch):
        return batch._replace(scalars=batch.scalars * 2)

    with Writer(tmp_path) as writer:
        writer._pipeline.processors.append(double)
        writer.add_scalar("a", 1.5, 0)
    assert read_scalars(tmp_path)[""]["a"] == [(0, 3.0)]


def test_a_processor_that_fails_costs_no_rows_and_is_said_once(tmp_path, read_scalars, caplog):
    def fail(batch):
        raise ValueError("a bug")

    writer = Writer(tmp_path, on_error="raise")
    writer._pipeline.processors.append(fail)
    for step in range(3):
        writer.add_scalar("a", 1.0, step)
    with pytest.raises(SinkError, match="a bug"):
        writer.close()
    assert [step for step, _ in read_scalars(tmp_path)[""]["a"]] == [0, 1, 2]
    assert sum("a bug" in record.message for record in caplog.records) == 1
    assert writer.stats().rows_dropped == 0


# One tag, one kind


@pytest.mark.parametrize("first", ["scalar", "text", "histogram"])
def test_what_comes_second_under_a_tag_gets_one_of_its_own(tmp_path, first, caplog):
    from tensorboard.backend.event_processing.plugin_event_multiplexer import EventMultiplexer

    adds = {
        "scalar": lambda: writer.add_scalar("lr", 0.5, 1),
        "text": lambda: writer.add_text("lr", "rising", 1),
        "histogram": lambda: writer.add_histogram("lr", [1.0, 2.0], 1),
    }
    with Writer(tmp_path, on_error="raise") as writer:
        adds.pop(first)()
        writer.flush()
        for add in adds.values():
            for _ in range(2):
                add()
    kinds = {"scalar": "scalars", "text": "text", "histogram": "histograms"}
    expected = {"lr": kinds.pop(first), **{f"lr/{kind}": kind for kind in kinds.values()}}
    multiplexer = EventMultiplexer().AddRunsFromDirectory(str(tmp_path)).Reload()
    found = {}
    for plugin in ("scalars", "text", "histograms"):
        for tag in multiplexer.PluginRunToTagToContent(plugin).get(".", {}):
            found[tag] = plugin
    assert found == expected
    said = [record.message for record in caplog.records]
    assert len(said) == 2
    assert all("'lr' holds" in message for message in said)


def test_a_tag_may_hold_different_kinds_in_different_runs(tmp_path, read_scalars, caplog):
    with Writer(tmp_path) as writer:
        writer.add_text("a", "x")
        writer.add_scalars("a", {"x": 1.0}, 0)
    assert read_scalars(tmp_path)["a_x"] == {"a": [(0, 1.0)]}
    assert not caplog.records


def test_a_file_writer_takes_the_step_and_time_of_the_block(tmp_path, read_events, event_files):
    from tensorboard.compat.proto.summary_pb2 import Summary

    summary = Summary(value=[Summary.Value(tag="a", simple_value=0.5)])
    with Writer(tmp_path) as writer, writer.use_metadata(global_step=4, walltime=9.0):
        ((folder, file_writer),) = writer.all_writers.items()
        assert folder == str(tmp_path)
        file_writer.add_summary(summary)
        file_writer.add_summary(summary, 5, 10.0)
    found = scalars_and_times(read_events, event_files, tmp_path)
    assert found == [("a", 4, 9.0), ("a", 5, 10.0)]

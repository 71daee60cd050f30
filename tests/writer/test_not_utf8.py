"""Texts that UTF-8 cannot encode are treated alike by every call: a lone surrogate becomes "?"."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from sm_tblog import InvalidValueError, Writer
from sm_tblog.readers import read_all

SCRIPT = """
import json, os, sys
import numpy as np
import torch
from sm_tblog import Writer
from sm_tblog.format import schema

bad = os.fsdecode(b"caf\\xe9")
faults = []
with Writer(sys.argv[1], on_error=faults.append, filename_suffix=bad) as w:
    pixels = np.zeros((3, 8, 8), np.uint8)
    rows = np.eye(3)
    table = {bad: [bad, "a"], "number": [1, 2]}
    w.add_scalar(f"scalar {bad}", 1.0, 0)
    w.add_scalar(f"styled {bad}", 1.0, 0, None, True, False, bad, bad)
    w.log({f"log {bad}": {bad: 1.0}}, 0)
    w.add_scalars(bad, {bad: 1.0}, 0)
    w.add_scalars(f"chart {bad}", {bad: 1.0}, 0, layout=True)
    w.child(f"child {bad}").add_scalar(bad, 1.0, 0)
    w.add_histogram(f"histogram {bad}", [1.0, 2.0], 0)
    w.add_histogram_raw(f"raw {bad}", 0.0, 1.0, 1, 1.0, 1.0, [1.0], [1.0], 0)
    w.add_image(f"image {bad}", pixels, 0)
    w.add_images(f"images {bad}", pixels[None], 0, grid=False)
    w.add_image_with_boxes(f"boxes {bad}", pixels, [[0, 0, 4, 4]], 0, labels=[bad])
    w.add_video(f"video {bad}", pixels[None, None], 0)
    w.add_audio(f"audio {bad}", np.zeros(100), 0)
    w.add_text(f"text {bad}", bad, 0)
    w.add_text(f"texts {bad}", [bad, [bad]], 0)
    w.add_table(f"table {bad}", table, 0)
    w.add_mesh(f"mesh {bad}", np.zeros((1, 3, 3)), config_dict={bad: bad})
    w.add_pr_curve(f"pr {bad}", [0, 1], [0.0, 1.0], 0)
    w.add_pr_curve_raw(f"raw pr {bad}", *([[1.0, 2.0]] * 6), 0)
    w.add_confusion_matrix_raw(f"confusion {bad}", rows, 0, class_names=[bad] * 3, title=bad)
    w.add_tensor(f"tensor {bad}", np.array([bad]), 0)
    w.add_tensor(f"plugin {bad}", rows, 0, plugin=bad)
    w.add_embedding(rows, [bad] * 3, tag=f"embedding {bad}")
    w.add_embedding(rows, [[bad, bad]] * 3, tag="header", metadata_header=[bad, "b"])
    w.add_graph(torch.nn.Linear(2, 2), torch.zeros(1, 2), tag=f"graph {bad}")
    w.add_custom_scalars({bad: {bad: ["Multiline", [bad]], "m": ["Margin", [bad] * 3]}})
    w.add_file(f"file {bad}", bad)
    w.hparams({bad: bad, "path": {bad: 1}}, {f"scalar {bad}": "min"})
    w.add_hparams({bad: bad}, {f"metric {bad}": 1.0}, {bad: [bad, "b"]}, run_name=f"run {bad}")
    layer = torch.nn.Linear(2, 1)
    model = torch.nn.ModuleDict({bad: layer})
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    w.watch(model, every=1, histograms=1)
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    with w.use_metadata(global_step=1):
        w.add_scalar(f"scalar {bad}", 0.5)
    assert w.flush()
    stats = w.stats()
assert type(schema.Value.DESCRIPTOR).__module__.startswith(sys.argv[2]), schema.Value.DESCRIPTOR
print(json.dumps({"faults": [*map(str, faults)], "dropped": stats.rows_dropped}))
"""

EXPECTED = {
    "scalar caf?": "scalars",
    "styled caf?": "scalars",
    "log caf?/caf?": "scalars",
    "chart caf?/caf?": "scalars",
    "best/scalar caf?": "scalars",
    "histogram caf?": "histograms",
    "raw caf?": "histograms",
    "image caf?": "images",
    "images caf?": "images",
    "boxes caf?": "images",
    "video caf?": "images",
    "audio caf?": "audio",
    "text caf?": "text",
    "texts caf?": "text",
    "table caf?": "text",
    "mesh caf?_VERTEX": "mesh",
    "pr caf?": "pr_curves",
    "raw pr caf?": "pr_curves",
    "confusion caf?": "images",
    "tensor caf?": "tensor",
    "plugin caf?": "caf?",
    "graph caf?": "graph_run_metadata_graph",
    "gradients/caf?.weight": "histograms",
    "gradients/caf?.weight/norm": "scalars",
}


@pytest.mark.parametrize(
    ("protobuf", "module"), [("upb", "google"), ("python", "google.protobuf.descriptor")]
)
def test_no_call_loses_a_value(tmp_path, script, protobuf, module, read_scalars):
    pytest.importorskip("torch")
    environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": protobuf}
    result = subprocess.run(
        script(SCRIPT, tmp_path, module),
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout) == {"faults": [], "dropped": 0}

    runs = read_all(tmp_path)
    assert set(runs) == {".", "caf?_caf?", "child caf?", "run caf?"}
    tags = runs["."].tags
    assert {tag: tags.get(tag) for tag in EXPECTED} == EXPECTED
    assert runs["."].scalars["best/scalar caf?"].value.tolist() == [1.0, 0.5]
    assert "caf?" in runs["caf?_caf?"].scalars
    assert "metric caf?" in runs["run caf?"].scalars
    assert (tmp_path / "file caf?").read_text() == "caf?"
    assert not [path for path in tmp_path.rglob("*") if "\udce9" in str(path)]
    labels = sorted(path.read_text() for path in tmp_path.rglob("metadata.tsv"))
    assert labels == ["caf?\tb\n" + "caf?\tcaf?\n" * 3, "caf?\n" * 3]
    assert set(read_scalars(tmp_path)["run caf?"]) == {"metric caf?"}


def test_texts_are_stored_with_question_marks(tmp_path, read_hparams):
    bad = os.fsdecode(b"caf\xe9")
    with Writer(tmp_path) as writer:
        writer.hparams({bad: bad, "class": "\ud800"})
    assert read_hparams(tmp_path) == ({"caf?": "caf?", "class": "?"}, "success")


def test_names_that_become_equal_are_refused(tmp_path):
    with Writer(tmp_path) as writer, pytest.raises(InvalidValueError, match="two values are named"):
        writer.hparams({"caf\udce9": 1, "caf?": 2})


def test_a_log_directory_may_have_any_name(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
    with Writer(folder, on_error="raise") as writer:
        writer.add_scalar("loss", 1.0, 0)
        writer.child("run").add_scalar("loss", 2.0, 0)
        writer.add_embedding([[1.0, 2.0, 3.0]] * 2)
        writer.add_hparams({"a": 1}, {"loss": 1.0}, run_name=folder / "caf\udce9")
    assert set(read_all(folder)) == {".", "run", "caf?"}


@pytest.mark.parametrize("sink", ["jsonl", "console"])
def test_other_sinks_take_every_tag(tmp_path, sink, capsys):
    with Writer(tmp_path, sinks=[sink], on_error="raise") as writer:
        writer.add_scalar("caf\udce9", 1.0, 0)
        writer.add_text("caf\udce9", "\ud800", 0)
        assert writer.flush()
    [text] = [path.read_text() for path in tmp_path.glob("*.jsonl")] or [capsys.readouterr()]
    assert "caf?" in str(text)


def test_an_event_with_a_tag_that_is_not_utf8_is_damage(tmp_path, script):
    source = """
import sys, warnings
warnings.simplefilter("ignore")
from sm_tblog.format.records import frame
from sm_tblog.readers import read_all
good = b"\\x09" + bytes(8) + b"\\x2a\\x08\\x0a\\x06\\x0a\\x01t\\x15" + bytes(2)
bad = b"\\x09" + bytes(8) + b"\\x2a\\x0a\\x0a\\x08\\x0a\\x01\\xe9\\x15" + bytes(4)
ok = bad.replace(b"\\xe9", b"t")
with open(sys.argv[1] + "/events.out.tfevents.1", "wb") as file:
    file.write(frame(ok) + frame(bad) + frame(ok))
run = read_all(sys.argv[1])["."]
print([*run.scalars], len(run.scalars["t"].value), [one.reason for one in run.damages])
"""
    for protobuf in ("upb", "python"):
        environment = {**os.environ, "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": protobuf}
        command = script(source, tmp_path)
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert result.stdout == "['t'] 2 [\"the record's data are not an event\"]\n"

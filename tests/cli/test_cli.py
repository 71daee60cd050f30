"""The command line, and the demo, whose logs TensorBoard's own code reads."""

import io
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import wave
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import (
    DEFAULT_SIZE_GUIDANCE,
    EventAccumulator,
)
from tensorboard.plugins.custom_scalar import layout_pb2
from tensorboard.plugins.hparams import metadata as hparams_metadata
from tensorboard.util.tensor_util import make_ndarray

import sm_tblog
from sm_tblog import cli
from sm_tblog.cli import _demo_recipes, _demo_training, _demo_views, demo

EPOCHS = 5
RUNS = ("healthy", "too-slow", "overfit")
DIGITS = range(10)
STEPS_AN_EPOCH = 1347 // 64

WITHOUT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {packages!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from sm_tblog.cli import main
main()
"""


def sm_tblog_command(*args, cwd, without=()):
    """Run the command line in a process of its own, as if some packages were not installed."""
    program = ["-c", WITHOUT.format(packages=without)] if without else ["-m", "sm_tblog"]
    plain = {"COLUMNS": "200", "TERM": "dumb", "_TYPER_FORCE_DISABLE_TERMINAL": "1"}
    return subprocess.run(
        [sys.executable, *program, *map(str, args)],
        cwd=cwd,
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )


class Demo(NamedTuple):
    framework: str
    folder: Path
    logdir: str
    out: str
    runs: dict


@pytest.fixture(scope="module", params=["torch", "sklearn"])
def demo_run(request, tmp_path_factory):
    """Return one finished demo of each backend, and what TensorBoard reads of its runs."""
    folder = tmp_path_factory.mktemp(request.param)
    options = ["--epochs", EPOCHS, "--backend", request.param]
    if request.param == "torch":
        pytest.importorskip("torch")
        options += ["--logdir", "my logs/"]
    done = sm_tblog_command("demo", *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (logdir,) = re.search(
        r"^  (my logs|runs/demo-\d{8}-\d{6})$", done.stdout, re.MULTILINE
    ).groups()
    runs = {}
    for path in sorted((folder / logdir).iterdir()):
        runs[path.name] = EventAccumulator(
            str(path), size_guidance=dict.fromkeys(DEFAULT_SIZE_GUIDANCE, 0)
        )
        runs[path.name].Reload()
    framework = {"torch": "PyTorch", "sklearn": "scikit-learn"}[request.param]
    return Demo(framework, folder, logdir, done.stdout, runs)


def values(run, tag):
    return [event.value for event in run.Scalars(tag)]


def tensors(run, tag):
    return [make_ndarray(event.tensor_proto) for event in run.Tensors(tag)]


def text(run, tag):
    (array,) = tensors(run, tag)
    return array.item().decode()


def pictures(run, tag):
    return [Image.open(io.BytesIO(event.encoded_image_string)) for event in run.Images(tag)]


def plugin(run, tag):
    return run.SummaryMetadata(tag).plugin_data.plugin_name


def test_the_demo_has_a_run_for_every_recipe(demo_run):
    assert set(demo_run.runs) == set(RUNS)


def test_every_curve_is_complete_and_finite(demo_run):
    steps = list(range(1, EPOCHS * STEPS_AN_EPOCH + 1))
    ends = steps[STEPS_AN_EPOCH - 1 :: STEPS_AN_EPOCH]
    expected = {
        "loss/batch": steps,
        "optimizer/learning rate": steps,
        "optimizer/gradient norm": steps,
        "loss/train": ends,
        "loss/validation": ends,
        "accuracy/train": ends,
        "accuracy/validation": ends,
        **{f"loss of an image/{name}": ends for name in ("lower quartile", "median")},
        "loss of an image/upper quartile": ends,
    }
    times = ("step_time_ms", "input_ms", "compute_ms", "logging_ms", "examples_per_s")
    expected |= {f"profile/{name}": steps for name in times}
    best = {"best/loss/validation", "best/accuracy/validation"}
    for run in demo_run.runs.values():
        assert set(run.Tags()["scalars"]) == set(expected) | best
        for tag, at in expected.items():
            assert [event.step for event in run.Scalars(tag)] == at
            assert all(map(math.isfinite, values(run, tag)))


def test_the_healthy_run_learns(demo_run):
    run = demo_run.runs["healthy"]
    for tag in ("loss/train", "loss/validation"):
        assert values(run, tag)[-1] < values(run, tag)[0] / 2
    assert values(run, "loss/batch")[0] == pytest.approx(math.log(10), abs=0.5)
    assert values(run, "accuracy/validation")[-1] > 0.8


def test_the_other_runs_show_what_their_names_say(demo_run):
    last = {
        name: {tag: values(run, tag)[-1] for tag in ("loss/train", "loss/validation")}
        for name, run in demo_run.runs.items()
    }
    assert last["too-slow"]["loss/validation"] > 2 * last["healthy"]["loss/validation"]
    assert last["overfit"]["loss/train"] < last["healthy"]["loss/train"]
    assert last["overfit"]["loss/validation"] > 3 * last["overfit"]["loss/train"]


def test_the_learning_rate_rises_then_falls_to_zero(demo_run):
    for recipe in _demo_recipes.RECIPES:
        rates = values(demo_run.runs[recipe.name], "optimizer/learning rate")
        top = int(np.argmax(rates))
        assert rates[top] == pytest.approx(recipe.learning_rate, rel=0.01)
        assert 0 < top < len(rates) / 10
        assert rates[: top + 1] == sorted(rates[: top + 1])
        assert rates[top:] == sorted(rates[top:], reverse=True)
        assert rates[-1] == pytest.approx(0, abs=1e-9)


def test_histograms_hold_every_weight_and_gradient_of_every_epoch(demo_run):
    sizes = {"layer1": 64 * 64, "layer2": 64 * 32, "output": 32 * 10}
    for run in demo_run.runs.values():
        expected = {f"{kind}/{name}" for kind in ("weights", "weight gradients") for name in sizes}
        assert set(run.Tags()["histograms"]) == expected | {"predictions/confidence"}
        for tag in expected:
            histograms = [event.histogram_value for event in run.Histograms(tag)]
            assert len(histograms) == EPOCHS
            for histogram in histograms:
                assert histogram.num == sum(histogram.bucket) == sizes[tag.partition("/")[2]]
                assert histogram.min < 0 < histogram.max


def test_gradient_histograms_agree_with_the_gradient_norm(demo_run):
    for run in demo_run.runs.values():
        norms = {event.step: event.value for event in run.Scalars("optimizer/gradient norm")}
        layers = [
            run.Histograms(f"weight gradients/{name}") for name in ("layer1", "layer2", "output")
        ]
        for events in zip(*layers, strict=True):
            squares = sum(event.histogram_value.sum_squares for event in events)
            assert math.sqrt(squares) == pytest.approx(norms[events[0].step], rel=1e-4)


def test_the_confidence_is_a_distribution_of_probabilities(demo_run):
    for run in demo_run.runs.values():
        for event in run.Histograms("predictions/confidence"):
            histogram = event.histogram_value
            assert histogram.num == sum(histogram.bucket) == 450
            assert 0.1 <= histogram.min < histogram.max <= 1
            assert histogram.bucket_limit[-1] == 1


def test_texts_say_what_each_run_is(demo_run):
    for recipe in _demo_recipes.RECIPES:
        about = text(demo_run.runs[recipe.name], "about")
        assert about.startswith(f"### {recipe.name}\n")
        assert demo_run.framework in about
        assert recipe.lesson in about


def test_every_tag_that_a_text_names_exists(demo_run):
    for run in demo_run.runs.values():
        tags = {tag for kind in run.Tags().values() if isinstance(kind, list) for tag in kind}
        groups = {tag.partition("/")[0] for tag in tags}
        named = set(re.findall(r"`([^`]+)`", text(run, "about"))) - {"sm-tblog demo"}
        assert named
        assert named <= tags | groups


def test_hyperparameters_are_those_of_the_recipe(demo_run):
    for recipe in _demo_recipes.RECIPES:
        run = demo_run.runs[recipe.name]
        data = run.SummaryMetadata(hparams_metadata.SESSION_START_INFO_TAG).plugin_data.content
        values = hparams_metadata.parse_session_start_info_plugin_data(data).hparams
        assert {name: value.number_value for name, value in values.items()} == {
            "learning rate": recipe.learning_rate,
            "images": recipe.images or 1347,
            "epochs": EPOCHS,
        }


def test_best_values_are_the_best(demo_run):
    for run in demo_run.runs.values():
        for tag, best in (("loss/validation", min), ("accuracy/validation", max)):
            assert values(run, f"best/{tag}")[-1] == best(values(run, tag))


def test_images_are_logged_after_every_epoch(demo_run):
    sizes = {"layer1/learnt": (288, 288), "predictions/hardest digits": (348, 232)}
    for run in demo_run.runs.values():
        for tag in (*sizes, "predictions/confusion"):
            logged = pictures(run, tag)
            assert len(logged) == EPOCHS
            assert {image.size for image in logged} == {sizes.get(tag, logged[0].size)}


def test_a_video_begins_with_nothing_learnt_and_has_a_frame_for_every_epoch(demo_run):
    for run in demo_run.runs.values():
        (video,) = pictures(run, "layer1/learning")
        assert (video.size, video.n_frames) == ((288, 288), 1 + EPOCHS)
        assert np.asarray(video.convert("L")).min() == 255


def test_the_table_and_the_tensor_tell_the_same_accuracy_as_the_curve(demo_run):
    for run in demo_run.runs.values():
        accuracy = values(run, "accuracy/validation")[-1]
        (probabilities,) = tensors(run, "predictions/probabilities")
        assert probabilities.shape == (450, 10)
        labels = _demo_training.load_data().validation_labels
        assert (probabilities.argmax(axis=1) == labels).mean() == pytest.approx(accuracy)
        row = re.compile(r"^\| *(\d) *\| *(\d+) *\| *([\d.]+)", re.MULTILINE)
        rows = row.findall(text(run, "predictions/by digit"))
        digits, images, recall = (np.array(column, float) for column in zip(*rows, strict=True))
        assert digits.tolist() == list(DIGITS)
        assert images @ recall / 450 == pytest.approx(accuracy, abs=1e-3)


def test_precision_and_recall_are_logged_for_every_digit(demo_run):
    names = ("all digits", *(f"digit {digit}" for digit in DIGITS))
    for run in demo_run.runs.values():
        curves = {tag for tag in run.Tags()["tensors"] if plugin(run, tag) == "pr_curves"}
        assert curves == {f"precision and recall/{name}" for name in names}
        positives = {name: tensors(run, f"precision and recall/{name}")[-1][0, 0] for name in names}
        assert positives.pop("all digits") == sum(positives.values()) == 450


def test_the_graph_leads_from_the_image_through_every_layer(demo_run):
    for run in demo_run.runs.values():
        nodes = {node.name: node for node in run.Graph().node}
        assert all(
            name.partition(":")[0] in nodes for node in nodes.values() for name in node.input
        )
        assert sum(re.search("weights?$", name) is not None for name in nodes) == 3
        assert sum("tanh" in node.op.lower() for node in nodes.values()) == 2
        (last,) = nodes.keys() - {name for node in nodes.values() for name in node.input}
        reached = {last}
        while more := {name for one in reached for name in nodes[one].input} - reached:
            reached |= more
        assert reached == nodes.keys()


def test_a_sound_lasts_a_hundredth_of_a_second_a_batch(demo_run):
    for run in demo_run.runs.values():
        (sounds,) = tensors(run, "loss/as a tone")
        with wave.open(io.BytesIO(sounds.ravel()[0])) as sound:
            seconds = sound.getnframes() / sound.getframerate()
        assert seconds == pytest.approx(EPOCHS * STEPS_AN_EPOCH / 100)


def test_the_embedding_has_every_point_its_labels_and_its_picture(demo_run):
    picture = _demo_views.sprites(_demo_training.load_data().validation_images)[0]
    for name, run in demo_run.runs.items():
        folder = demo_run.folder / demo_run.logdir / name
        config = (folder / "projector_config.pbtxt").read_text(encoding="utf-8")
        paths = dict(re.findall(r'(tensor_path|metadata_path|image_path): "(.*)"', config))
        points = np.fromfile(folder / paths["tensor_path"], np.float32).reshape(450, 32)
        assert abs(points).max() <= 1  # of tanh
        header, *rows = (folder / paths["metadata_path"]).read_text(encoding="utf-8").splitlines()
        assert header.split("\t") == ["digit", "predicted", "verdict", "confidence"]
        right = [row.split("\t")[2] for row in rows].count("right")
        assert right / 450 == pytest.approx(values(run, "accuracy/validation")[-1])
        with Image.open(folder / paths["image_path"]) as sheet:
            np.testing.assert_array_equal(sheet.convert("L").crop((0, 0, 32, 32)), picture)


def test_the_landscape_is_logged_before_and_after(demo_run):
    for run in demo_run.runs.values():
        for part, shape in (("VERTEX", (1, 441, 3)), ("COLOR", (1, 441, 3)), ("FACE", (1, 800, 3))):
            events = run.Tensors(f"loss/landscape_{part}")
            assert [event.step for event in events] == [0, EPOCHS * STEPS_AN_EPOCH]
            assert {make_ndarray(event.tensor_proto).shape for event in events} == {shape}


def test_custom_scalars_draw_both_sets_in_one_chart(demo_run):
    for run in demo_run.runs.values():
        data = run.Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
        layout = layout_pb2.Layout.FromString(data)
        charts = {chart.title: chart for category in layout.category for chart in category.chart}
        assert set(charts) == {"loss", "accuracy", "loss of an image"}
        for title in ("loss", "accuracy"):
            drawn = {
                tag
                for tag in run.Tags()["scalars"]
                if any(re.match(pattern, tag) for pattern in charts[title].multiline.tag)
            }
            assert drawn == {f"{title}/train", f"{title}/validation"}
        (band,) = charts["loss of an image"].margin.series
        low, middle, high = (values(run, tag) for tag in (band.lower, band.value, band.upper))
        assert all(a < b < c for a, b, c in zip(low, middle, high, strict=True))


def test_the_demo_says_how_much_it_logged(demo_run):
    total, megabytes = re.search(r"Logged ([\d,]+) values, ([\d.]+) MB", demo_run.out).groups()
    said = {
        tab: int(count.replace(",", ""))
        for count, tab in re.findall(r"^ +([\d,]+)  ([\w ]+)", demo_run.out, re.MULTILINE)
    }
    assert int(total.replace(",", "")) == sum(said.values())
    read = Counter()
    for run in demo_run.runs.values():
        read["Scalars"] += sum(len(run.Scalars(tag)) for tag in run.Tags()["scalars"])
        read["Histograms"] += sum(len(run.Histograms(tag)) for tag in run.Tags()["histograms"])
        read["Images"] += sum(len(run.Images(tag)) for tag in run.Tags()["images"])
        read["Projector"] += 1
        read["Graphs"] += run.Tags()["graph"]
        for tag in run.Tags()["tensors"]:
            read[demo.TABS[plugin(run, tag)].partition(":")[0]] += len(run.Tensors(tag))
    read["Profile"] = len(list((demo_run.folder / demo_run.logdir).rglob("*.xplane.pb")))
    read["HParams"] //= 2  # those are in a file that is read first, too
    assert said == read
    files = [path for path in (demo_run.folder / demo_run.logdir).rglob("*") if path.is_file()]
    assert float(megabytes) == pytest.approx(sum(f.stat().st_size for f in files) / 1e6, abs=0.06)


def test_the_command_that_the_demo_prints_can_be_pasted(demo_run):
    (line,) = (line for line in demo_run.out.splitlines() if "--logdir" in line)
    program, *rest = shlex.split(line)
    assert shutil.which(demo_run.folder / program if os.sep in program else program)
    assert rest == ["--logdir", demo_run.logdir]


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Return an environment's folder of programs, TensorBoard among them, that is not on PATH."""
    scripts = tmp_path / ".venv" / "bin"
    scripts.mkdir(parents=True)
    program = scripts / ("tensorboard.exe" if os.name == "nt" else "tensorboard")
    program.touch(mode=0o755)
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(scripts))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return scripts


def test_tensorboard_is_found_in_the_environment_below(environment, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Path(demo._find_tensorboard()) == (environment / "tensorboard").relative_to(tmp_path)


def test_tensorboard_is_found_in_the_environment_elsewhere(environment, tmp_path, monkeypatch):
    (tmp_path / "project").mkdir()
    for folder in (tmp_path / "project", environment):
        monkeypatch.chdir(folder)
        assert Path(demo._find_tensorboard()) == environment / "tensorboard"


def test_tensorboard_on_the_path_is_called_by_its_name(environment, monkeypatch):
    monkeypatch.setenv("PATH", str(environment))
    assert demo._find_tensorboard() == "tensorboard"


def test_the_environments_tensorboard_goes_before_another_on_the_path(environment, tmp_path):
    other = tmp_path / "bin"
    other.mkdir()
    shutil.copy2(environment / "tensorboard", other)
    assert Path(demo._find_tensorboard()) == environment / "tensorboard"


def test_a_missing_tensorboard_is_said_with_what_to_install(environment, capsys):
    (environment / "tensorboard").unlink()
    demo._report(demo.Console(), "runs/x", [], Counter())
    out = capsys.readouterr().out
    assert "pip install tensorboard" in out
    assert "tensorboard --logdir runs/x" in out


@pytest.fixture(params=["TorchModel", "SklearnModel"])
def model(request):
    if request.param == "TorchModel":
        pytest.importorskip("torch")
    return getattr(_demo_training, request.param)()


@pytest.fixture(scope="module")
def batch():
    data = _demo_training.load_data()
    return data.images[:50], data.labels[:50]


def shared(array):
    """Return a NumPy array that shares its memory."""
    return array.detach().numpy() if hasattr(array, "detach") else array


def test_a_models_gradient_is_the_slope_of_its_loss(model, batch):
    loss = float(model.train_batch(*batch, 0.0))
    assert loss == pytest.approx(_demo_training.score(model, *batch).loss, rel=1e-5)
    for layer in model.layers().values():
        weights, gradient = shared(layer.weights), shared(layer.gradients)
        length = float(np.linalg.norm(gradient))
        step = 0.01 * gradient / length
        weights += step
        above = _demo_training.score(model, *batch).loss
        weights -= 2 * step
        below = _demo_training.score(model, *batch).loss
        weights += step
        assert (above - below) / 0.02 == pytest.approx(length, rel=0.01)


def test_a_models_step_is_its_gradient_times_the_learning_rate(model, batch):
    model.train_batch(*batch, 0.0)
    before = {name: shared(layer.weights).copy() for name, layer in model.layers().items()}
    model.train_batch(*batch, 0.3)
    for name, layer in model.layers().items():
        expected = before[name] - 0.3 * shared(layer.gradients)
        np.testing.assert_allclose(shared(layer.weights), expected, atol=1e-6)


def test_a_models_parameters_make_its_probabilities(model, batch):
    images, labels = batch
    model.train_batch(images, labels, 0.1)
    weights, biases = model.parameters()[-1]
    scores = _demo_views.hidden(model.parameters(), images) @ weights + biases
    likely = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(likely, model.probabilities(images), atol=1e-5)


def finished(recipe, model):
    training = _demo_training.Training(recipe, model, _demo_training.load_data(), epochs=2)
    for _ in range(2):
        batches = list(training.batches())
        assert len(batches) == STEPS_AN_EPOCH
        for images, labels in batches:
            training.train_batch(images, labels)
        training.measure()
    return training


def test_boxes_are_round_what_is_misread_and_say_as_what(model):
    training = finished(_demo_recipes.RECIPES[2], model)
    image, boxes, labels = _demo_views.hardest(training)
    losses, guesses = training.validation.losses, training.validation.probabilities.argmax(axis=1)
    worst = np.argsort(-losses)[:24]
    wrong = guesses[worst] != training.data.validation_labels[worst]
    assert image.shape == (4 * 58, 6 * 58, 1)
    assert labels == [str(guess) for guess in guesses[worst][wrong]]
    middles = (boxes[:, :2] + boxes[:, 2:]) // 2 // 58
    assert (middles @ [1, 6]).tolist() == np.flatnonzero(wrong).tolist()


def test_the_middle_of_the_landscape_is_the_models_loss(model):
    training = finished(_demo_recipes.RECIPES[0], model)
    before = [array.copy() for layer in model.parameters() for array in layer]
    vertices, colours, faces = _demo_views.landscape(training, size=5)
    assert (vertices.shape, colours.shape, faces.shape) == ((25, 3), (25, 3), (32, 3))
    height = (vertices @ np.linalg.inv(_demo_views._rotation(30, 40)))[:, 1] * _demo_views.PEAK_LOSS
    assert height[12] == pytest.approx(training.validation.loss, rel=1e-3)
    assert height.min() < height.max()
    after = [array for layer in model.parameters() for array in layer]
    assert all(map(np.array_equal, before, after))


def test_the_tone_is_an_octave_above_220_hertz_at_a_loss_of_one():
    class Steady:
        losses = (1.0,) * 100

    tone = _demo_views.sound(Steady)
    assert len(tone) == _demo_views.SAMPLE_RATE
    assert np.abs(np.fft.rfft(tone)).argmax() == pytest.approx(440, abs=1)


def test_validation_images_are_not_trained_on():
    data = _demo_training.load_data()
    assert (len(data.images), len(data.validation_images)) == (1347, 450)
    trained = {image.tobytes() for image in data.images}
    assert not any(image.tobytes() in trained for image in data.validation_images)


def test_without_pytorch_scikit_learn_trains(tmp_path):
    done = sm_tblog_command("demo", "--epochs", 1, cwd=tmp_path, without=["torch"])
    assert done.returncode == 0, done.stderr
    assert "with scikit-learn on 1,347 images" in done.stdout
    assert list(tmp_path.glob("runs/demo-*/healthy/*tfevents*"))


@pytest.mark.parametrize(
    ("package", "options", "install"),
    [
        ("typer", ["demo"], "pip install 'sm-tblog[cli]'"),
        ("rich", ["--version"], "pip install 'sm-tblog[cli]'"),
        ("sklearn", ["demo"], "sklearn: pip install 'sm-tblog[demo]'"),
        ("matplotlib", ["demo"], "matplotlib: pip install 'sm-tblog[demo]'"),
        ("torch", ["demo", "--backend", "torch"], "pip install torch"),
    ],
)
def test_a_missing_package_is_said_in_one_line(package, options, install, tmp_path):
    done = sm_tblog_command(*options, cwd=tmp_path, without=[package])
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(rf"sm-tblog: .*{re.escape(install)}.*\n", done.stderr)
    assert not any(tmp_path.iterdir())


def test_a_log_folder_that_cannot_be_written_is_said_without_a_traceback(tmp_path):
    (tmp_path / "file").touch()
    done = sm_tblog_command(
        "demo", "--epochs", 1, "--backend", "sklearn", "--logdir", "file/x", cwd=tmp_path
    )
    assert done.returncode == 1
    assert re.search(r"^sm-tblog: .*file/x/healthy", done.stderr, re.MULTILINE)
    assert "Traceback" not in done.stderr


def test_the_version_is_the_librarys(tmp_path):
    done = sm_tblog_command("--version", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, f"{sm_tblog.__version__}\n")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["demo", "--epochs", "0"], "--epochs"),
        (["demo", "--backend", "jax"], "--backend"),
        (["demo", "--epoch", "3"], "--epoch"),
        (["train"], "train"),
    ],
)
def test_a_bad_option_is_named(options, named, tmp_path):
    done = sm_tblog_command(*options, cwd=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert not any(tmp_path.iterdir())


def test_help_names_every_command_and_option(tmp_path):
    out = sm_tblog_command("--help", cwd=tmp_path).stdout
    assert "--version" in out
    for command in cli.COMMANDS:
        assert command in out
    out = sm_tblog_command("demo", "--help", cwd=tmp_path).stdout
    assert all(option in out for option in ("--logdir", "--epochs", "--backend", "runs/demo-"))


@pytest.mark.parametrize("command", [[], *([name] for name in cli.COMMANDS)])
def test_h_is_short_for_help_and_flags_have_no_type(command, tmp_path):
    done = sm_tblog_command(*command, "-h", cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout == sm_tblog_command(*command, "--help", cwd=tmp_path).stdout
    assert "<bool>" not in done.stdout

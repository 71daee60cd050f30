"""How well-known projects use a ``SummaryWriter``: the same calls, with this library's writer.

Each function calls a writer as one project does, and runs with torch's writer and with ours; then
the scalars and files are compared.
"""

import contextlib
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from sm_tblog import SummaryWriter

torch = pytest.importorskip("torch")
pytest.importorskip("torch.utils.tensorboard")
plt = pytest.importorskip("matplotlib.pyplot")

THEIRS = torch.utils.tensorboard.SummaryWriter

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")

PICTURE = np.zeros((8, 6, 3), np.uint8)


def composer(kind, folder):
    """Metrics that are no numbers are skipped; the event file is uploaded after each flush."""
    writer = kind(log_dir=folder)
    uploaded = {}
    for step in range(3):
        metrics = {"loss": torch.tensor(1.0 / (step + 1)), "names": ["a", "b"], "state": None}
        for tag, data in metrics.items():
            with contextlib.suppress(NotImplementedError):
                writer.add_scalar(tag, data, global_step=step)
        writer.flush()
        path = writer.file_writer.event_writer._file_name
        uploaded[Path(path).stem] = Path(path).read_bytes()
    assert len(uploaded) == 1
    assert all(len(data) > 100 for data in uploaded.values())
    writer.close()


def fairseq(kind, folder):
    """A writer for each part of the log, made when it is first used."""
    writers = {}

    def writer_of(key):
        if key not in writers:
            writers[key] = kind(str(Path(folder, key)))
            writers[key].add_text("sys.argv", " ".join(sys.argv))
        return writers[key]

    for key in ("train", "valid"):
        writer = writer_of(key)
        for step in range(2):
            for name, value in {"loss": 0.5, "ppl": np.float32(2.0), "wps": 100}.items():
                writer.add_scalar(name, value, step)
        writer.flush()
    for writer in writers.values():
        writer.close()


def detectron2(kind, folder):
    """Histograms counted elsewhere, passed by keyword; pictures are CHW."""
    writer = kind(folder)
    counts, edges = np.histogram(np.arange(10.0), bins=4)
    writer.add_histogram_raw(
        tag="scores", min=0.0, max=9.0, num=10, sum=45.0, sum_squares=285.0,
        bucket_limits=edges[1:].tolist(), bucket_counts=counts.tolist(), global_step=5,
    )  # fmt: skip
    writer.add_image("visual", PICTURE.transpose(2, 0, 1), 5)
    for name, (value, step) in {"total_loss": (0.5, 5), "lr": (1e-3, 5)}.items():
        writer.add_scalar(name, value, step)
    writer.close()


def lightning(kind, folder):
    """Hyperparameters by way of the file writer, whose log directory is a path."""
    from torch.utils.tensorboard.summary import hparams

    experiment = kind(log_dir=folder)
    writer = experiment._get_file_writer()
    for summary in hparams({"lr": 0.1}, {"hp_metric": -1}):
        writer.add_summary(summary)
    experiment.add_scalars("losses", {"train": 0.5}, 1)
    experiment.add_scalar("hp_metric", -1, 0)
    experiment.flush()
    assert Path(experiment.log_dir, "hparams.yaml").parent.is_dir()
    experiment.close()


def stable_baselines(kind, folder):
    """Values are told apart by type."""
    writer = kind(log_dir=folder)
    figure = plt.figure(figsize=(1, 1))
    for key, value in {"reward": np.float64(1.5), "steps": 10, "weights": torch.ones(3)}.items():
        if isinstance(value, np.ScalarType) and not isinstance(value, str):
            writer.add_scalar(key, value, 3)
        elif isinstance(value, torch.Tensor):
            writer.add_histogram(key, value, 3)
    writer.add_figure("figure", figure, 3, close=True)
    writer.add_image("image", PICTURE, 3, dataformats="HWC")
    writer.flush()
    writer.close()


def template(kind, folder):
    """A wrapper that looks methods up by name and passes its own step."""

    class Wrapper:
        def __init__(self):
            self.writer = kind(folder)
            self.step, self.mode = 0, "train"

        def __getattr__(self, name):
            add = getattr(self.writer, name)

            def wrapped(tag, data, *args, **options):
                add(f"{tag}/{self.mode}", data, self.step, *args, **options)

            return wrapped

    wrapper = Wrapper()
    for wrapper.step in range(2):
        wrapper.add_scalar("loss", 0.5)
        wrapper.add_histogram("weights", torch.ones(3), bins="auto")
        wrapper.add_text("note", "text")
    wrapper.writer.close()


def tacotron(kind, folder):
    """A subclass with a method that logs everything, and attributes of its own."""

    class Logger(kind):
        def __init__(self, logdir):
            self.step = None
            super().__init__(logdir)
            self.log_dir = Path(logdir)
            self.hparams = {"lr": 0.1}
            self.enabled = True

        def log_training(self, loss, iteration):
            self.step = iteration
            self.add_scalar("training.loss", loss, iteration)
            self.add_histogram("weights", np.ones(3), iteration)
            self.add_image("picture", PICTURE, iteration, dataformats="HWC")

    logger = Logger(folder)
    for iteration in range(2):
        logger.log_training(0.5, iteration)
    assert (logger.log_dir / "x").parent == Path(folder)
    logger.close()


def yolo(kind, folder):
    """The graph of a traced model, with an empty list for the input."""
    writer = kind(str(folder))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
        traced = torch.jit.trace(model.eval(), torch.zeros(1, 2), strict=False)
    if kind is SummaryWriter:  # torch's own traces it again, and cannot without an input
        writer.add_graph(traced, [])
    for tag, value in zip(("train/box", "train/obj"), [torch.tensor(0.1), 0.2], strict=True):
        writer.add_scalar(tag, value, 1)
    writer.close()


USES = [
    composer, fairseq, detectron2, lightning, stable_baselines, template, tacotron, yolo,
]  # fmt: skip


@pytest.mark.parametrize("use", USES, ids=lambda use: use.__name__)
def test_a_project_gets_the_same(tmp_path, read_scalars, use, caplog):
    found = {}
    for kind in (THEIRS, SummaryWriter):
        folder = tmp_path / kind.__module__
        use(kind, str(folder))
        found[kind] = read_scalars(folder)
    assert found[SummaryWriter] == found[THEIRS]
    assert [one for one in caplog.records if one.levelname == "ERROR"] == []


def test_a_file_that_is_removed_at_the_end(tmp_path):
    """Some delete the event file of a run that failed, by the path of tensorboardX's writer."""
    writer = SummaryWriter(str(tmp_path))
    path = Path(writer.file_writer.event_writer._ev_writer._file_name)
    writer.add_scalar("loss", 1.0, 0)
    writer.close()
    path.unlink()
    assert list(tmp_path.iterdir()) == []

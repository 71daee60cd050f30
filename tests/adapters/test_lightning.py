"""The loggers for Lightning and Fabric, compared with the frameworks' own."""

import copy
import pickle
from argparse import Namespace
from pathlib import Path

import pytest
import s3_servers

from sm_tblog import InvalidValueError, MissingDependencyError, Writer

torch = pytest.importorskip("torch")
pl = pytest.importorskip("lightning.pytorch")
pytest.importorskip("tensorboard")

import lightning.fabric as lightning_fabric  # noqa: E402 - below what skips
import yaml  # noqa: E402 - of Lightning
from lightning.fabric.utilities.rank_zero import rank_zero_only  # noqa: E402
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint  # noqa: E402
from lightning.pytorch.demos.boring_classes import BoringModel  # noqa: E402
from lightning.pytorch.loggers import TensorBoardLogger as LightningsOwn  # noqa: E402

from sm_tblog.adapters import fabric  # noqa: E402
from sm_tblog.adapters.lightning import TensorBoardLogger  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning",  # Lightning's advice: more workers, a larger dataset, a GPU
    "ignore::DeprecationWarning",  # of PyTorch, which Lightning calls in older ways
    "ignore::FutureWarning",
)


RUN = "lightning_logs/version_0"


class Model(BoringModel):
    """Trains on the same random numbers in every run, and logs in all ways Lightning offers."""

    def __init__(self, width=32, more=None):
        super().__init__()
        self.save_hyperparameters()
        self.example_input_array = torch.zeros(2, width)

    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("loss", loss, on_step=True, on_epoch=True)
        self.log_dict({"index": float(batch_idx), "bool": torch.tensor(True)})
        return loss

    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.step(batch))
        self.log("constant", 1.0)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", self.step(batch))


def make_trainer(tmp_path, logger, **changes):
    settings = {
        "max_epochs": 3,
        "limit_train_batches": 4,
        "limit_val_batches": 2,
        "limit_test_batches": 2,
        "log_every_n_steps": 1,
        "accelerator": "cpu",
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": tmp_path,
        **changes,
    }
    return pl.Trainer(logger=logger, **settings)


def train(tmp_path, logger, model=None, **changes):
    pl.seed_everything(0, verbose=False)
    trainer = make_trainer(tmp_path, logger, **changes)
    model = model or Model(more={"depth": 2, "name": "boring"})
    trainer.fit(model)
    trainer.test(model, verbose=False)
    return trainer


@pytest.fixture(scope="module")
def own_and_ours(tmp_path_factory):
    """The log directories of the same training with Lightning's own logger and with ours."""
    folders = []
    for kind in (LightningsOwn, TensorBoardLogger):
        folder = tmp_path_factory.mktemp(kind.__module__)
        logger = kind(folder, default_hp_metric=True, prefix="p", log_graph=True)
        train(folder, logger)
        logger.log_metrics({"several": {"a": 1.0, "b": torch.tensor(2)}, "one": 3}, step=9)
        logger.finalize("success")
        folders.append(folder)
    return folders


def test_tags_steps_values_and_runs_are_lightnings(own_and_ours, read_scalars):
    own, ours = map(read_scalars, own_and_ours)
    assert len(own) == 3
    steps = {tag: [step for step, _ in points] for tag, points in own[RUN].items()}
    assert steps["p-loss_step"] == list(range(12))
    assert steps["p-loss_epoch"] == steps["p-val_loss"] == [3, 7, 11]
    assert {"p-hp_metric", "p-epoch", "p-index", "p-bool", "p-test_loss", "p-one"} <= set(steps)
    assert ours == own


def test_files_and_folders_are_lightnings(own_and_ours):
    own, ours = (
        {
            path.relative_to(folder).as_posix(): path.suffix == ".yaml" and path.read_text()
            for path in folder.rglob("*")
            if "tfevents" not in path.name
        }
        for folder in own_and_ours
    )
    assert "lightning_logs/version_0/checkpoints/epoch=2-step=12.ckpt" in own
    assert "width: 32" in own["lightning_logs/version_0/hparams.yaml"]
    assert ours == own


def read_run(folder):
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator

    return EventAccumulator(str(folder)).Reload()


def test_hyperparameters_are_those_of_lightning(own_and_ours):
    from tensorboard.plugins.hparams import plugin_data_pb2

    own, ours = (
        plugin_data_pb2.HParamsPluginData.FromString(
            read_run(folder / RUN)
            .SummaryMetadata("_hparams_/session_start_info")
            .plugin_data.content
        ).session_start_info.hparams
        for folder in own_and_ours
    )
    assert dict(own) == dict(ours)
    assert {"width", "more/depth", "more/name"} <= set(own)


def test_the_graph_is_logged(own_and_ours):
    for folder in own_and_ours:
        graph = read_run(folder / RUN).Graph()
        assert any("layer" in node.name for node in graph.node)


def test_without_being_asked_there_is_no_hp_metric_and_hyperparameters_need_none(
    tmp_path, read_scalars
):
    train(tmp_path, TensorBoardLogger(tmp_path))
    run = tmp_path / RUN
    assert "hp_metric" not in read_scalars(run)[""]
    assert read_run(run).SummaryMetadata("_hparams_/session_start_info")


def test_the_trainer_takes_it_for_its_own(tmp_path):
    logger = TensorBoardLogger(tmp_path, name="exp", version="v", sub_dir="tb")
    trainer = train(tmp_path, logger, max_epochs=1)
    assert isinstance(logger, LightningsOwn)
    assert trainer.log_dir == str(tmp_path / "exp" / "v" / "tb")
    assert (tmp_path / "exp" / "v" / "checkpoints").is_dir()
    assert (tmp_path / "exp" / "v" / "tb" / "hparams.yaml").is_file()


def test_the_shortest_call_logs_below_the_working_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = train(tmp_path, TensorBoardLogger(), max_epochs=1)
    assert Path(trainer.log_dir).resolve() == tmp_path / RUN


def test_versions_count_up(tmp_path):
    for expected in range(2):
        logger = TensorBoardLogger(tmp_path)
        assert logger.version == expected
        logger.experiment.add_scalar("a", 1.0)
        logger.finalize("success")


def test_best_values_fill_themselves_and_hyperparameters_grow(tmp_path, read_scalars):
    logger = TensorBoardLogger(tmp_path, best={"loss": "min"})
    for step, loss in enumerate([3.0, 1.0, 2.0]):
        logger.log_metrics({"loss": loss}, step)
        logger.log_hyperparams({f"found/{step}": step})
        logger.save()
    logger.finalize("success")
    run = tmp_path / RUN
    assert read_scalars(run)[""]["best/loss"] == [(0, 3.0), (1, 1.0)]
    found = yaml.safe_load((run / "hparams.yaml").read_text())
    assert found == {"found/0": 0, "found/1": 1, "found/2": 2}


@pytest.mark.parametrize(
    "params",
    [
        Namespace(lr=0.1, layers=[1, 2]),
        {"lr": 0.1, "layers": [1, 2]},
        None,
        {"tensor": torch.ones(3), "one": torch.tensor(2.0), "function": torch.relu, "none": None},
    ],
)
def test_whatever_lightning_takes_as_hyperparameters_is_taken(params, tmp_path, read_scalars):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams(params, metrics=0.5, step=3)
    logger.save()
    logger.finalize("success")
    run = tmp_path / RUN
    assert (run / "hparams.yaml").is_file()
    (point,) = (
        read_run(run).Tensors("hp_metric")
        if "hp_metric" in read_run(run).Tags()["tensors"]
        else read_run(run).Scalars("hp_metric")
    )
    assert point.step == 3


def test_a_resumed_version_keeps_its_yaml_and_adds_files(tmp_path, event_files):
    for lr in (0.1, 0.2):
        logger = TensorBoardLogger(tmp_path, version=0)
        logger.log_hyperparams({"lr": lr})
        logger.log_metrics({"loss": lr})
        logger.save()
        logger.finalize("success")
    run = tmp_path / RUN
    assert yaml.safe_load((run / "hparams.yaml").read_text()) == {"lr": 0.1}
    assert sum("0000000000" not in path.name for path in event_files(run)) == 2


def test_logging_goes_on_after_finalize(tmp_path, read_scalars):
    logger = TensorBoardLogger(tmp_path)
    for step in range(3):
        logger.log_metrics({"a": 1.0}, step)
        logger.finalize("success")
    points = read_scalars(tmp_path)[RUN]["a"]
    assert [step for step, _ in points] == [0, 1, 2]


def status_of(run):
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    end = read_run(run).SummaryMetadata("_hparams_/session_end_info").plugin_data.content
    status = plugin_data_pb2.HParamsPluginData.FromString(end).session_end_info.status
    return api_pb2.Status.Name(status)


def test_a_run_that_fails_is_marked_and_keeps_what_was_logged(tmp_path, read_scalars):
    class Failing(Model):
        def training_step(self, batch, batch_idx):
            if batch_idx == 2:
                raise ZeroDivisionError
            return super().training_step(batch, batch_idx)

    with pytest.raises(ZeroDivisionError):
        train(tmp_path, TensorBoardLogger(tmp_path), Failing())
    run = tmp_path / RUN
    assert status_of(run) == "STATUS_FAILURE"
    assert [step for step, _ in read_scalars(run)[""]["loss_step"]] == [0, 1]


def test_a_run_that_is_reported_as_failed_is_marked(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    logger.log_hyperparams({"a": 1})
    logger.finalize("failed")
    assert status_of(tmp_path / RUN) == "STATUS_FAILURE"


def test_early_stopping_keeps_all_until_then(tmp_path, read_scalars):
    logger = TensorBoardLogger(tmp_path)
    stop = EarlyStopping("constant", patience=2)
    train(tmp_path, logger, max_epochs=20, callbacks=[stop])
    points = read_scalars(tmp_path)[RUN]["constant"]
    assert [step for step, _ in points] == [3, 7, 11]
    assert status_of(tmp_path / RUN) == "STATUS_SUCCESS"


def test_training_goes_on_from_a_checkpoint_in_the_same_version(tmp_path, read_scalars):
    keep = ModelCheckpoint(tmp_path / "kept", save_last=True)
    train(tmp_path, TensorBoardLogger(tmp_path, version=0), max_epochs=1, callbacks=[keep])
    trainer = make_trainer(tmp_path, TensorBoardLogger(tmp_path, version=0), max_epochs=2)
    trainer.fit(Model(), ckpt_path=str(tmp_path / "kept" / "last.ckpt"), weights_only=False)
    points = read_scalars(tmp_path)[RUN]["loss_step"]
    assert [step for step, _ in points] == list(range(8))


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("used", [False, True])
def test_copies_log_to_the_same_version(again, used, tmp_path, read_scalars):
    logger = TensorBoardLogger(tmp_path, version="v")
    if used:
        logger.log_metrics({"a": 1.0}, 0)
    other = again(logger)
    other.log_metrics({"b": 2.0}, 1)
    for one in (other, logger):
        one.finalize("success")
    assert read_scalars(tmp_path)["lightning_logs/v"]["b"] == [(1, 2.0)]


def test_ranks_but_the_first_log_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    logger = TensorBoardLogger(tmp_path)
    logger.log_metrics({"a": 1.0})
    logger.log_hyperparams({"a": 1})
    logger.log_graph(Model())
    logger.save()
    logger.finalize("success")
    logger.experiment.add_histogram("h", [1, 2])
    assert not isinstance(logger.experiment, Writer)
    assert list(tmp_path.iterdir()) == []


def test_what_cannot_be_logged_is_a_value_error_as_in_lightning(tmp_path):
    logger = TensorBoardLogger(tmp_path)
    for value in ("text", torch.ones(2), object(), 10**400):
        with pytest.raises(ValueError, match="'a'") as raised:
            logger.log_metrics({"a": value})
        assert isinstance(raised.value, InvalidValueError)
    logger.finalize("success")


def test_a_bucket_is_a_place_to_save_to(moto_server, monkeypatch, read_scalars, tmp_path):
    pytest.importorskip("s3fs")
    client = moto_server.make_bucket("lightning")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto_server.url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_servers.KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_servers.SECRET)
    monkeypatch.setenv("SM_TBLOG_SPOOL", str(tmp_path / "spool"))
    for expected in range(2):
        logger = TensorBoardLogger("s3://lightning/runs")
        trainer = train(tmp_path, logger, max_epochs=1)
        assert trainer.log_dir == f"s3://lightning/runs/lightning_logs/version_{expected}"
    names = [one["Key"] for one in client.list_objects_v2(Bucket="lightning")["Contents"]]
    for name in names:
        path = tmp_path / "copy" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(client.get_object(Bucket="lightning", Key=name)["Body"].read())
    runs = read_scalars(tmp_path / "copy")
    assert set(runs) == {f"runs/lightning_logs/version_{i}" for i in range(2)}
    for run, tags in runs.items():
        assert [step for step, _ in tags["loss_step"]] == [0, 1, 2, 3]
        assert "width: 32" in (tmp_path / "copy" / run / "hparams.yaml").read_text()
        assert f"{run}/checkpoints/epoch=0-step=4.ckpt" in names


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_number_on_a_device_is_not_waited_for(tmp_path, read_scalars):
    logger = TensorBoardLogger(tmp_path)
    values = torch.arange(3.0, device="cuda")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(3):
            logger.log_metrics({"a": values[step]}, step)
            logger.save()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    logger.finalize("success")
    points = read_scalars(tmp_path)[RUN]["a"]
    assert points == [(0, 0.0), (1, 1.0), (2, 2.0)]


def test_save_at_every_step_neither_waits_nor_writes(tmp_path, monkeypatch):
    logger = TensorBoardLogger(tmp_path)
    logger.save()
    calls = []
    for name in ("flush", "add_file", "close"):
        monkeypatch.setattr(Writer, name, lambda *_, name=name: calls.append(name))
    for step in range(10):
        logger.log_metrics({"a": 1.0}, step)
        logger.save()
    assert calls == []


def test_values_that_yaml_cannot_hold_do_not_stop_training(tmp_path, caplog):
    class Odd:
        def __reduce__(self):
            raise OSError("no")

    logger = TensorBoardLogger(tmp_path)
    logger.hparams = {"odd": Odd()}
    logger.save()
    logger.finalize("success")
    assert "hparams.yaml cannot be written" in caplog.text


def test_a_logger_without_tensorboard_says_what_to_install(tmp_path, monkeypatch):
    module = fabric._Logger.__init__.__globals__
    monkeypatch.setitem(module, "_TENSORBOARD_AVAILABLE", False)
    monkeypatch.setitem(module, "_TENSORBOARDX_AVAILABLE", False)
    with pytest.raises(MissingDependencyError, match="pip install tensorboard"):
        TensorBoardLogger(tmp_path)


def test_fabric_logs_as_with_its_own(tmp_path, read_scalars):
    from lightning.fabric.loggers import TensorBoardLogger as FabricsOwn

    found = []
    for kind in (FabricsOwn, fabric.TensorBoardLogger):
        folder = tmp_path / kind.__module__
        logger = kind(folder, name="exp", prefix="p")
        fabrics = lightning_fabric.Fabric(accelerator="cpu", devices=1, loggers=logger)
        for step in range(3):
            fabrics.log("loss", torch.tensor(1.0 / (step + 1)), step)
            fabrics.log_dict({"a": step, "several": {"b": 1, "c": 2}}, step)
        logger.finalize("success")
        found.append(read_scalars(folder))
        assert isinstance(logger, FabricsOwn)
        assert logger.log_dir == str(folder / "exp" / "version_0")
    assert found[0] == found[1]
    assert found[0]["exp/version_0"]["p-loss"][0] == (0, 1.0)


ORDERS = """
import sys, warnings
warnings.simplefilter("ignore")
folder, *modules = sys.argv[1:]
for module in modules:
    __import__(module)
from sm_tblog.adapters.lightning import TensorBoardLogger
from sm_tblog.adapters.fabric import TensorBoardLogger as FabricLogger
import importlib
name = sys.argv[-1] if modules[-1] != "sm_tblog" else "pytorch_lightning"
package = importlib.import_module(name)
logger = TensorBoardLogger(folder)
assert isinstance(logger, package.loggers.TensorBoardLogger)
trainer = package.Trainer(logger=logger, max_epochs=1, limit_train_batches=2, limit_val_batches=1,
    log_every_n_steps=1, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
demos = importlib.import_module(name + ".demos.boring_classes")
trainer.fit(demos.BoringModel())
logger.log_metrics({"a": 1}, 1)
logger.finalize("success")
print(trainer.log_dir, *sorted({m.partition(".")[0] for m in sys.modules} &
    {"lightning", "pytorch_lightning", "tensorflow"}))
"""


@pytest.mark.parametrize(
    ("order", "loaded"),
    [
        (["pytorch_lightning"], "pytorch_lightning"),
        (["lightning.pytorch"], "lightning"),
        (["lightning.pytorch", "pytorch_lightning"], "lightning pytorch_lightning"),
        (["sm_tblog.adapters.lightning", "sm_tblog"], "lightning pytorch_lightning"),
    ],
)
def test_one_class_serves_both_packages_in_whatever_order_they_come(
    order, loaded, tmp_path, run_script, read_scalars
):
    pytest.importorskip("pytorch_lightning")
    done = run_script(ORDERS, tmp_path, *order, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{tmp_path}/lightning_logs/version_0 {loaded}"
    assert read_scalars(tmp_path)[RUN]["a"] == [(1, 1.0)]


DDP = """
import sys, warnings
warnings.simplefilter("ignore")
import lightning.pytorch as pl
from lightning.pytorch.demos.boring_classes import BoringModel
from sm_tblog.adapters.lightning import TensorBoardLogger

class Model(BoringModel):
    def training_step(self, batch, batch_idx):
        loss = self.step(batch)
        self.log("loss", loss)
        return loss

if __name__ == "__main__":
    trainer = pl.Trainer(logger=TensorBoardLogger(sys.argv[1]), strategy=sys.argv[2], devices=2,
        accelerator="cpu", max_epochs=1, limit_train_batches=3, limit_val_batches=1,
        log_every_n_steps=1, enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(Model())
"""


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "ddp_spawn"])
def test_of_several_processes_the_first_logs(strategy, tmp_path, run_script, read_scalars):
    done = run_script(DDP, tmp_path, strategy, timeout=200)
    assert done.returncode == 0, done.stderr
    runs = read_scalars(tmp_path)
    assert set(runs) == {"lightning_logs/version_0"}
    assert [step for step, _ in runs[RUN]["loss"]] == [0, 1, 2]

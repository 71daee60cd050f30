"""The Transformers adapter, compared with Transformers' own callback."""

import copy
import json
import pickle

import pytest

from sm_tblog import Writer

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate", reason="Trainer needs accelerate")
integrations = pytest.importorskip("transformers.integrations")

from sm_tblog.adapters.transformers import (  # noqa: E402 - it needs Transformers
    TensorBoardCallback,
    register,
)

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


class Words(torch.utils.data.Dataset):
    def __len__(self):
        return 12

    def __getitem__(self, i):
        words = torch.arange(6) + i % 3
        return {"input_ids": words, "labels": words}


@pytest.fixture
def trainer(tmp_path):
    """``trainer(*callbacks, **arguments)`` trains a tiny model from random weights."""

    def make(*callbacks, model_init=None, **arguments):
        settings = {
            "output_dir": str(tmp_path / "out"),
            "max_steps": 6,
            "logging_steps": 2,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_strategy": "no",
            "per_device_train_batch_size": 2,
            "report_to": "none",
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 1,
        }
        return transformers.Trainer(
            model=None if model_init else tiny(),
            model_init=model_init,
            args=transformers.TrainingArguments(**{**settings, **arguments}),
            train_dataset=Words(),
            eval_dataset=Words(),
            callbacks=[*callbacks],
        )

    return make


def tiny():
    transformers.set_seed(0)
    config = transformers.GPT2Config(
        vocab_size=16, n_positions=8, n_embd=8, n_layer=1, n_head=2, bos_token_id=0, eos_token_id=0
    )
    return transformers.GPT2LMHeadModel(config)


def peer(folder):
    """Transformers' own callback, with PyTorch's writer."""
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    return integrations.TensorBoardCallback(tensorboard.SummaryWriter(str(folder)))


def texts(run):
    return {
        tag.removesuffix("/text_summary"): [
            (event.step, event.tensor_proto.string_val[0].decode()) for event in run.Tensors(tag)
        ]
        for tag in run.Tags()["tensors"]
        if run.SummaryMetadata(tag).plugin_data.plugin_name == "text"
    }


def test_it_logs_what_the_librarys_own_callback_logs(tmp_path, trainer, read_scalars, load_run):
    callbacks = TensorBoardCallback(tmp_path / "ours"), peer(tmp_path / "theirs")
    trainer(*callbacks).train()
    ours, theirs = read_scalars(tmp_path / "ours")[""], read_scalars(tmp_path / "theirs")[""]
    assert ours == theirs
    assert [step for step, _ in ours["train/loss"]] == [2, 4, 6]
    assert [step for step, _ in ours["eval/loss"]] == [3, 6]
    assert texts(load_run(tmp_path / "ours")) == texts(load_run(tmp_path / "theirs"))
    assert set(texts(load_run(tmp_path / "ours"))) == {"args", "model_config"}


def test_evaluating_and_testing_after_training_log_too(tmp_path, trainer, read_scalars):
    made = trainer(TensorBoardCallback(tmp_path / "ours"), peer(tmp_path / "theirs"))
    made.train()
    before = len(read_scalars(tmp_path / "ours")[""]["eval/loss"])
    made.evaluate()
    made.callback_handler.on_log(made.args, made.state, made.control, {"test_loss": 3.0})
    made.callback_handler.on_train_end(made.args, made.state, made.control)
    run = read_scalars(tmp_path / "ours")[""]
    assert len(run["eval/loss"]) == before + 1
    assert run["test/loss"] == [(6, 3.0)]


def test_the_arguments_are_hyperparameters(tmp_path, trainer, read_hparams, load_run):
    trainer(TensorBoardCallback(tmp_path), learning_rate=3e-4).train()
    values, status = read_hparams(tmp_path)
    assert values["learning_rate"] == 3e-4
    assert values["max_steps"] == 6
    assert status == "success"
    trainer(TensorBoardCallback(tmp_path / "without", hparams=False), max_steps=1).train()
    assert set(load_run(tmp_path / "without").Tags()["tensors"]) == {"args", "model_config"}


def test_texts_tensors_and_what_cannot_be_logged(tmp_path, trainer, read_scalars, load_run, caplog):
    made = trainer(TensorBoardCallback(tmp_path), max_steps=1)
    made.log({"note": "fine", "norm": torch.tensor(2.0), "odd": [1, 2], "pair": object()})
    made.callback_handler.on_train_end(made.args, made.state, made.control)
    run = read_scalars(tmp_path)[""]
    assert run["train/norm"] == [(0, 2.0)]
    assert texts(load_run(tmp_path)) == {"train/note": [(0, "fine")]}
    assert "train/odd" in caplog.text
    assert "train/pair" in caplog.text


def test_by_default_the_folder_is_the_librarys_own(tmp_path, trainer, read_scalars, monkeypatch):
    monkeypatch.delenv("TENSORBOARD_LOGGING_DIR", raising=False)
    trainer(TensorBoardCallback(), max_steps=2).train()
    runs = read_scalars(tmp_path / "out" / "runs")
    assert len(runs) == 1
    assert all("train/loss" in run for run in runs.values())
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "named"))
    trainer(TensorBoardCallback(), max_steps=2).train()
    assert "train/loss" in read_scalars(tmp_path / "named")[""]


def test_report_to_finds_it_once_it_is_registered(tmp_path, trainer, monkeypatch, read_scalars):
    table = integrations.integration_utils.INTEGRATION_TO_CALLBACK
    monkeypatch.setattr(integrations.integration_utils, "INTEGRATION_TO_CALLBACK", dict(table))
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "run"))
    register("sm_tblog")
    trainer(report_to=["sm_tblog"], max_steps=2).train()
    assert "train/loss" in read_scalars(tmp_path / "run")[""]


def test_training_that_resumes_supersedes_what_is_done_again(tmp_path, trainer, read_scalars):
    saving = {"save_strategy": "steps", "save_steps": 3, "logging_steps": 1}

    class Crash(transformers.TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 5:
                raise RuntimeError("no more memory")

    lost = TensorBoardCallback(tmp_path / "run")
    with pytest.raises(RuntimeError, match="no more memory"):
        trainer(lost, Crash(), **saving).train()
    lost.on_train_end(None, None, None)
    assert [step for step, _ in read_scalars(tmp_path / "run")[""]["train/loss"]] == [1, 2, 3, 4]
    again = trainer(TensorBoardCallback(tmp_path / "run"), **saving)
    again.train(resume_from_checkpoint=True)
    points = read_scalars(tmp_path / "run")[""]["train/loss"]
    assert [step for step, _ in points] == [1, 2, 3, 4, 5, 6]


def test_training_that_is_stopped_early_is_closed(tmp_path, trainer, read_scalars, read_hparams):
    stop = transformers.EarlyStoppingCallback(early_stopping_patience=1, early_stopping_threshold=9)
    trainer(
        TensorBoardCallback(tmp_path),
        stop,
        max_steps=60,
        load_best_model_at_end=True,
        save_strategy="steps",
        save_steps=3,
        metric_for_best_model="loss",
    ).train()
    assert [step for step, _ in read_scalars(tmp_path)[""]["eval/loss"]] == [3, 6]
    assert read_hparams(tmp_path)[1] == "success"


def test_each_trial_of_a_search_has_a_folder(tmp_path, trainer, read_scalars, read_hparams):
    made = trainer(TensorBoardCallback(tmp_path / "runs"), model_init=tiny)
    # As in a search, but without the package that runs searches.
    for number in range(2):
        made.state.trial_name = f"trial-{number}"
        made.state.is_hyper_param_search = True
        made.state.trial_params = {"learning_rate": 0.1 * (number + 1)}
        for event in (made.callback_handler.on_train_begin,):
            event(made.args, made.state, made.control)
        made.log({"loss": float(number)})
        made.callback_handler.on_train_end(made.args, made.state, made.control)
    runs = read_scalars(tmp_path / "runs")
    assert {name: run["train/loss"] for name, run in runs.items()} == {
        "trial-0": [(0, 0.0)],
        "trial-1": [(0, 1.0)],
    }
    assert read_hparams(tmp_path / "runs" / "trial-1")[0]["learning_rate"] == 0.2


def test_other_processes_log_nothing(tmp_path, trainer):
    made = trainer(TensorBoardCallback(tmp_path / "run"))
    made.state.is_world_process_zero = False
    made.callback_handler.on_train_begin(made.args, made.state, made.control)
    made.log({"loss": 1.0})
    made.callback_handler.on_train_end(made.args, made.state, made.control)
    assert not (tmp_path / "run").exists()


def test_a_writer_that_is_given_stays_open(tmp_path, trainer, read_scalars):
    with Writer(tmp_path) as writer:
        trainer(TensorBoardCallback(writer), max_steps=2).train()
        assert read_scalars(tmp_path)[""]["train/loss"]
        writer.add_scalar("mine", 1.0, 0)
    assert read_scalars(tmp_path)[""]["mine"] == [(0, 1.0)]


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_log(again, tmp_path, trainer, read_scalars):
    trainer(again(TensorBoardCallback(tmp_path)), max_steps=2).train()
    assert read_scalars(tmp_path)[""]["train/loss"]


def test_the_texts_are_json(tmp_path, trainer, load_run):
    trainer(TensorBoardCallback(tmp_path), max_steps=1).train()
    logged = texts(load_run(tmp_path))
    assert json.loads(logged["args"][0][1])["max_steps"] == 1
    assert json.loads(logged["model_config"][0][1])["n_embd"] == 8

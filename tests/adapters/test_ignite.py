"""The Ignite adapter, compared with Ignite's own logger."""

import copy

import pytest

from sm_tblog import Writer

torch = pytest.importorskip("torch")
pytest.importorskip("ignite", reason="pytorch-ignite is not installed")
engine = pytest.importorskip("ignite.engine")
handlers = pytest.importorskip("ignite.handlers.tensorboard_logger")

from sm_tblog.adapters.ignite import TensorboardLogger  # noqa: E402 - it needs Ignite


def train(*loggers):
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(engine, batch):
        optimizer.zero_grad()
        loss = model(batch).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    trainer = engine.Engine(step)
    events = engine.Events
    for logger in loggers:
        logger.attach_output_handler(
            trainer,
            events.ITERATION_COMPLETED(every=2),
            tag="training",
            output_transform=lambda loss: {"loss": loss},
        )
        logger.attach_opt_params_handler(trainer, events.ITERATION_STARTED, optimizer=optimizer)
        for handler in (
            handlers.WeightsScalarHandler,
            handlers.WeightsHistHandler,
            handlers.GradsScalarHandler,
            handlers.GradsHistHandler,
        ):
            logger.attach(trainer, handler(model), events.EPOCH_COMPLETED)
    trainer.run([torch.ones(4, 2)] * 3, max_epochs=2)


def test_it_logs_what_ignites_own_logger_logs(tmp_path, read_scalars, load_run):
    own = handlers.TensorboardLogger(str(tmp_path / "theirs"))
    with TensorboardLogger(tmp_path / "ours") as ours, own as theirs:
        train(ours, theirs)
    run = read_scalars(tmp_path / "ours")[""]
    assert run == read_scalars(tmp_path / "theirs")[""]
    assert [step for step, _ in run["training/loss"]] == [2, 4, 6]
    assert len(run) >= 4
    histograms = load_run(tmp_path / "ours").Tags()["histograms"]
    assert histograms == load_run(tmp_path / "theirs").Tags()["histograms"]
    assert len(histograms) == 4


def test_a_writer_that_is_given_stays_open(tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        with TensorboardLogger(writer) as logger:
            logger.add_scalar("ours", 1.0, 0)  # the writer's methods are the logger's
        writer.add_scalar("mine", 1.0, 0)
    assert set(read_scalars(tmp_path)[""]) == {"ours", "mine"}


def test_the_folder_has_the_name_that_ignite_gives_it(tmp_path, read_scalars):
    with TensorboardLogger(log_dir=str(tmp_path)) as logger:
        logger.writer.add_scalar("a", 1.0, 0)
    assert read_scalars(tmp_path)[""] == {"a": [(0, 1.0)]}


def test_other_processes_log_nothing_and_copies_log(tmp_path, monkeypatch, read_scalars):
    with copy.deepcopy(TensorboardLogger(tmp_path / "copy")) as logger:
        logger.writer.add_scalar("a", 1.0, 0)
    assert read_scalars(tmp_path / "copy")[""] == {"a": [(0, 1.0)]}
    monkeypatch.setenv("RANK", "1")
    with TensorboardLogger(tmp_path / "run") as logger:
        logger.writer.add_scalar("a", 1.0, 0)
    assert not (tmp_path / "run").exists()

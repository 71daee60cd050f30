"""The fastai adapter, compared with fastai's own callback."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("fastai", reason="fastai is not installed")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")


@pytest.fixture
def learner():
    basics = pytest.importorskip("fastai.basics")
    torch.manual_seed(0)
    x = torch.rand(32, 2)
    data = torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True))
    loaders = basics.DataLoaders(
        *(basics.DataLoader(data, batch_size=8, num_workers=0) for _ in range(2))
    )
    model = torch.nn.Sequential(torch.nn.Linear(2, 1))
    learner = basics.Learner(loaders, model, loss_func=torch.nn.MSELoss(), metrics=basics.mae)
    with learner.no_logging():
        yield learner


def test_it_logs_what_fastais_own_callback_logs(learner, tmp_path, read_scalars):
    tensorboard = pytest.importorskip("fastai.callback.tensorboard")
    from sm_tblog.adapters.fastai import TensorBoardCallback

    class Theirs(tensorboard.TensorBoardCallback):
        pass  # under a name of its own beside the other

    options = {"trace_model": False, "log_preds": False}
    ours = TensorBoardCallback(str(tmp_path / "ours"), **options)
    learner.fit(2, cbs=[ours, Theirs(str(tmp_path / "theirs"), **options)])
    run = read_scalars(tmp_path / "ours")[""]
    assert run == read_scalars(tmp_path / "theirs")[""]
    assert len(run["train_loss"]) >= 8
    assert {"lr_0", "valid_loss", "mae"} <= set(run)


def test_the_model_is_traced(learner, tmp_path, load_run):
    from sm_tblog.adapters.fastai import TensorBoardCallback

    learner.fit(1, cbs=TensorBoardCallback(str(tmp_path), log_preds=False))
    assert len(load_run(tmp_path).Graph().node) >= 3

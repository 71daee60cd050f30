"""The XGBoost adapter, compared with the values that XGBoost itself reports."""

import copy
import json
import pickle
import re
import sys

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, InvalidValueError, Writer

xgboost = pytest.importorskip("xgboost")
datasets = pytest.importorskip("sklearn.datasets")

from sm_tblog.adapters.xgboost import TensorBoardCallback  # noqa: E402 - it needs XGBoost

PARAMS = {"objective": "binary:logistic", "max_depth": 3, "eval_metric": ["logloss", "auc"]}


@pytest.fixture(scope="module")
def arrays():
    return datasets.load_breast_cancer(return_X_y=True)


@pytest.fixture
def data(arrays):
    x, y = arrays
    return xgboost.DMatrix(x[:400], y[:400]), xgboost.DMatrix(x[400:], y[400:])


def train(data, callback, rounds=5, params=PARAMS, **kwargs):
    log = {}
    evals = [(data[0], "train"), (data[1], "eval")]
    model = xgboost.train(
        params,
        data[0],
        rounds,
        evals=evals,
        evals_result=log,
        verbose_eval=False,
        callbacks=callback if isinstance(callback, list) else [callback],
        **kwargs,
    )
    return model, log


def as_curves(log):
    """The values from ``evals_result``, as they should be logged."""
    return {
        f"{metric}/{name}": [(i, pytest.approx(score, rel=1e-6)) for i, score in enumerate(scores)]
        for name, metrics in log.items()
        for metric, scores in metrics.items()
    }


def curves(run):
    return {tag: points for tag, points in run.items() if not tag.startswith(("best", "importan"))}


def test_train_logs_what_evals_result_has(data, tmp_path, read_scalars):
    _, log = train(data, TensorBoardCallback(tmp_path))
    run = read_scalars(tmp_path)[""]
    assert curves(run) == as_curves(log)
    assert len(run["auc/eval"]) == 5


def test_the_best_value_of_each_metric_is_logged(data, tmp_path, read_scalars):
    _, log = train(data, TensorBoardCallback(tmp_path), 30)
    run = read_scalars(tmp_path)[""]
    for tag, best in (("logloss", min), ("auc", max)):
        scores = log["eval"][tag]
        at = scores.index(best(scores))
        assert run[f"best/{tag}/eval"][-1] == (at, pytest.approx(scores[at], rel=1e-6))


def test_importances_are_the_models(data, tmp_path, read_scalars, load_run):
    model, _ = train(data, TensorBoardCallback(tmp_path))
    run = read_scalars(tmp_path)[""]
    for kind in ("gain", "weight", "cover"):
        scores = model.get_score(importance_type=kind)
        assert len(scores) > 3
        for feature, score in scores.items():
            assert run[f"importance/{kind}/{feature}"] == [(4, pytest.approx(score, rel=1e-6))]
    loaded = load_run(tmp_path)
    assert sorted(loaded.Tags()["images"]) == [
        f"importance/{k}" for k in ("cover", "gain", "weight")
    ]
    assert loaded.Images("importance/gain")[0].width > 300


def test_the_highest_importances_are_shown_and_in_between_when_asked_for(
    data, tmp_path, read_scalars, load_run
):
    callback = TensorBoardCallback(tmp_path, importance=["gain"], importance_every=2, top=2)
    model, _ = train(data, callback)
    run = read_scalars(tmp_path)[""]
    gains = sorted(model.get_score(importance_type="gain").items(), key=lambda item: -item[1])
    for feature, score in gains[:2]:
        points = run[f"importance/gain/{feature}"]
        assert points[-1] == (4, pytest.approx(score, rel=1e-6))
    steps = {step for tag, points in run.items() if "gain" in tag for step, _ in points}
    assert steps == {1, 3, 4}
    assert f"importance/gain/{gains[2][0]}" not in run or gains[2][1] < gains[1][1]
    assert [image.step for image in load_run(tmp_path).Images("importance/gain")] == [4]


def test_the_parameters_are_hyperparameters_those_left_out_too(data, tmp_path, read_hparams):
    train(data, TensorBoardCallback(tmp_path), params={**PARAMS, "eta": 0.1, "seed": 7})
    values, status = read_hparams(tmp_path)
    assert values["learning_rate"] == 0.1
    assert values["max_depth"] == 3
    assert values["seed"] == 7
    assert values["objective"] == "binary:logistic"
    assert values["subsample"] == 1
    assert not {"eta", "name", "num_trees"} & set(values)
    assert status == "success"


def test_other_hyperparameters_can_be_given_or_none(
    data, tmp_path, read_scalars, load_run, read_hparams
):
    train(data, TensorBoardCallback(tmp_path / "own", hparams={"depth": 3, "where": {"a": "b"}}))
    assert read_hparams(tmp_path / "own")[0] == {"depth": 3, "where/a": "b"}
    train(data, TensorBoardCallback(tmp_path / "none", hparams=False))
    assert load_run(tmp_path / "none").Tags()["tensors"] == ["custom_scalars__config__"]
    assert "best/auc/eval" not in read_scalars(tmp_path)["none"]


def test_metrics_of_several_data_sets_are_one_chart(data, tmp_path, load_run):
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout

    train(data, TensorBoardCallback(tmp_path))
    layout = Layout.FromString(
        load_run(tmp_path).Tensors("custom_scalars__config__")[-1].tensor_proto.string_val[0]
    )
    charts = {chart.title: chart for category in layout.category for chart in category.chart}
    assert set(charts) == {"auc", "logloss"}
    assert len(charts["auc"].multiline.tag) == 2


def test_trees_are_texts_on_request(data, tmp_path, load_run):
    model, _ = train(data, TensorBoardCallback(tmp_path, trees="text"), 12)
    loaded = load_run(tmp_path)
    texts = [tag for tag in loaded.Tags()["tensors"] if tag.startswith("trees/")]
    assert len(texts) == 10
    text = loaded.Tensors("trees/3/text_summary" if "trees/3/text_summary" in texts else "trees/3")
    shown = text[0].tensor_proto.string_val[0].decode().split()
    assert shown == model.get_dump(with_stats=True)[3].split()


def test_trees_are_a_graph_on_request(data, tmp_path, load_run):
    train(data, TensorBoardCallback(tmp_path, trees="graph"))
    graph = load_run(tmp_path).Graph()
    assert sum("leaf" in node.op for node in graph.node) > 5


def test_trees_of_other_forms_and_unknown_importances_are_refused(tmp_path):
    with pytest.raises(InvalidValueError, match="trees must be 'text', 'graph' or None, got 'png'"):
        TensorBoardCallback(tmp_path, trees="png")
    with pytest.raises(InvalidValueError, match="total_cover; got"):
        TensorBoardCallback(tmp_path, importance="gain")
    with pytest.raises(InvalidValueError, match="'shap'"):
        TensorBoardCallback(tmp_path, importance=["shap"])
    with pytest.raises(InvalidTypeError, match="expected a log directory or a Writer, got 3"):
        TensorBoardCallback(3)


def test_cv_logs_means_and_deviations(arrays, tmp_path, read_scalars, load_run, read_hparams):
    table = xgboost.cv(
        PARAMS, xgboost.DMatrix(*arrays), 4, nfold=3, callbacks=[TensorBoardCallback(tmp_path)]
    )
    run = read_scalars(tmp_path)[""]
    assert len(curves(run)) == 8
    for name in ("train", "test"):
        for metric in ("logloss", "auc"):
            for tag, column in ((f"{metric}/{name}", "mean"), (f"{metric}/{name}-std", "std")):
                expected = list(enumerate(table[f"{name}-{metric}-{column}"]))
                assert run[tag] == [(i, pytest.approx(value, rel=1e-5)) for i, value in expected]
    assert load_run(tmp_path).Tags()["images"]
    assert read_hparams(tmp_path)[0]["max_depth"] == 3


def test_estimators_log_under_the_names_that_they_give(arrays, tmp_path, read_scalars):
    x, y = arrays
    callback = TensorBoardCallback(tmp_path)
    model = xgboost.XGBClassifier(n_estimators=4, eval_metric="logloss", callbacks=[callback])
    model.fit(x[:400], y[:400], eval_set=[(x[400:], y[400:])], verbose=False)
    assert curves(read_scalars(tmp_path)[""]) == as_curves(model.evals_result())


def test_a_cloned_estimator_logs_too(arrays, tmp_path, read_scalars):
    base = pytest.importorskip("sklearn.base")
    x, y = arrays
    model = xgboost.XGBClassifier(n_estimators=2, callbacks=[TensorBoardCallback(tmp_path)])
    base.clone(model).fit(x, y, eval_set=[(x, y)], verbose=False)
    assert len(read_scalars(tmp_path)[""]["logloss/validation_0"]) == 2


def test_continued_training_continues_the_steps(data, tmp_path, read_scalars):
    callback = TensorBoardCallback(tmp_path)
    model, first = train(data, callback, 3)
    _, second = train(data, callback, 2, xgb_model=model)
    run = curves(read_scalars(tmp_path)[""])
    assert [step for step, _ in run["logloss/eval"]] == [0, 1, 2, 3, 4]
    expected = first["eval"]["logloss"] + second["eval"]["logloss"]
    assert run["logloss/eval"] == [
        (i, pytest.approx(score, rel=1e-6)) for i, score in enumerate(expected)
    ]


def test_training_from_a_checkpoint_supersedes_what_was_lost(data, tmp_path, read_scalars):
    model, first = train(data, TensorBoardCallback(tmp_path), 3)
    train(data, TensorBoardCallback(tmp_path), 2, {**PARAMS, "eta": 0.9}, xgb_model=model)
    _, second = train(data, TensorBoardCallback(tmp_path), 4, xgb_model=model)
    expected = enumerate(first["eval"]["auc"] + second["eval"]["auc"])
    assert read_scalars(tmp_path)[""]["auc/eval"] == [
        (i, pytest.approx(score, rel=1e-6)) for i, score in expected
    ]


@pytest.mark.parametrize("ours_first", [True, False])
def test_the_round_that_stops_training_early_is_logged(ours_first, data, tmp_path, read_scalars):
    stop = xgboost.callback.EarlyStopping(
        rounds=2, metric_name="auc", data_name="eval", maximize=True
    )
    ours = TensorBoardCallback(tmp_path)
    model, log = train(data, [ours, stop] if ours_first else [stop, ours], 200)
    run = read_scalars(tmp_path)[""]
    assert model.num_boosted_rounds() < 200
    assert curves(run) == as_curves(log)
    gains = [points for tag, points in run.items() if tag.startswith("importance/gain/")]
    assert {points[0][0] for points in gains} == {model.num_boosted_rounds() - 1}


def test_a_training_that_an_earlier_callback_stops_at_once_is_logged(data, tmp_path, read_scalars):
    class Stop(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            return True

    _, log = train(data, [Stop(), TensorBoardCallback(tmp_path)])
    assert curves(read_scalars(tmp_path)[""]) == as_curves(log)
    assert len(log["eval"]["auc"]) == 1


def test_a_training_that_fails_keeps_its_rounds(data, tmp_path, read_scalars):
    class Fail(xgboost.callback.TrainingCallback):
        def after_iteration(self, model, epoch, evals_log):
            if epoch == 2:
                raise RuntimeError("no more memory")

    with Writer(tmp_path) as writer, pytest.raises(RuntimeError, match="no more memory"):
        train(data, [TensorBoardCallback(writer), Fail()])
    assert [step for step, _ in read_scalars(tmp_path)[""]["auc/eval"]] == [0, 1, 2]


def test_without_data_to_evaluate_parameters_and_importances_are_logged(
    data, tmp_path, load_run, read_hparams
):
    xgboost.train(PARAMS, data[0], 2, callbacks=[TensorBoardCallback(tmp_path)])
    loaded = load_run(tmp_path)
    assert "importance/gain" in loaded.Tags()["images"]
    assert read_hparams(tmp_path)[0]["max_depth"] == 3


@pytest.mark.filterwarnings("ignore:.*gblinear. is deprecated:UserWarning")
def test_linear_models_have_their_coefficients(data, tmp_path, read_scalars, caplog):
    params = {**PARAMS, "booster": "gblinear"}
    params.pop("max_depth")
    model, _ = train(data, TensorBoardCallback(tmp_path), 3, params)
    run = read_scalars(tmp_path)[""]
    weights = model.get_score(importance_type="weight")
    feature = max(weights, key=lambda name: abs(weights[name]))
    assert run[f"importance/weight/{feature}"] == [(2, pytest.approx(weights[feature], rel=1e-6))]
    assert not [tag for tag in run if "gain" in tag or "cover" in tag]
    assert not caplog.records


def test_a_writer_that_is_given_stays_open_and_its_users(data, tmp_path, read_scalars, event_files):
    with Writer(tmp_path) as writer:
        train(data, TensorBoardCallback(writer), 2)
        assert len(read_scalars(tmp_path)[""]["auc/eval"]) == 2  # stored when training ends
        writer.add_scalar("mine", 1.0, 0)
    assert read_scalars(tmp_path)[""]["mine"] == [(0, 1.0)]
    assert len([path for path in event_files(tmp_path) if "hparams" not in path.name]) == 1


@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
@pytest.mark.parametrize("used", [False, True])
def test_copies_log(again, used, data, tmp_path, read_scalars):
    callback = TensorBoardCallback(tmp_path)
    if used:
        train(data, callback, 1)
    _, log = train(data, again(callback), 3)
    run = curves(read_scalars(tmp_path)[""])
    assert {tag: points[-3:] for tag, points in run.items()} == as_curves(log)


def test_a_package_that_is_missing_costs_the_bars_alone(
    data, tmp_path, read_scalars, monkeypatch, caplog
):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    train(data, TensorBoardCallback(tmp_path, importance=["gain"]), 2)
    assert any(tag.startswith("importance/gain/") for tag in read_scalars(tmp_path)[""])
    assert "bar chart of importance/gain not logged" in caplog.text


def test_features_names_are_tags(arrays, tmp_path, read_scalars):
    pandas = pytest.importorskip("pandas")
    x, y = arrays
    names = [f"size of {i}" for i in range(x.shape[1])]
    data = xgboost.DMatrix(pandas.DataFrame(x, columns=names), y)
    xgboost.train(PARAMS, data, 1, callbacks=[TensorBoardCallback(tmp_path)])
    tags = [tag for tag in read_scalars(tmp_path)[""] if tag.startswith("importance/gain/")]
    assert tags
    assert all(tag.removeprefix("importance/gain/") in names for tag in tags)


@pytest.mark.filterwarnings("ignore:.*gblinear. is deprecated:UserWarning")
def test_classes_and_lists_of_coefficients(tmp_path, read_scalars):
    x, y = datasets.load_iris(return_X_y=True)
    data = xgboost.DMatrix(x, y)
    params = {"objective": "multi:softprob", "num_class": 3, "booster": "gblinear"}
    model = xgboost.train(params, data, 3, callbacks=[TensorBoardCallback(tmp_path)])
    scores = model.get_score(importance_type="weight")
    run = read_scalars(tmp_path)[""]
    assert len(scores["f0"]) == 3
    for feature, several in scores.items():
        mean = np.abs(several).mean()
        assert run[f"importance/weight/{feature}"] == [(2, pytest.approx(mean, rel=1e-6))]


DISTRIBUTED = """
import json, multiprocessing, sys
import numpy as np, xgboost
from xgboost.tracker import RabitTracker
from sm_tblog.adapters.xgboost import TensorBoardCallback

def work(rank, arguments, folder):
    with xgboost.collective.CommunicatorContext(**arguments, dmlc_task_id=str(rank)):
        me = xgboost.collective.get_rank()
        rng = np.random.default_rng(me)
        x = rng.normal(size=(200, 5))
        data = xgboost.DMatrix(x, x[:, 0] > 0)
        log = {}
        xgboost.train(
            {"objective": "binary:logistic", "nthread": 1}, data, 4, evals=[(data, "train")],
            evals_result=log, verbose_eval=False,
            callbacks=[TensorBoardCallback(folder, importance_every=2, trees="text")],
        )
        if me == 0:
            print("scores", json.dumps(log["train"]["logloss"]))

if __name__ == "__main__":
    tracker = RabitTracker(host_ip="127.0.0.1", n_workers=2)
    tracker.start()
    workers = [
        multiprocessing.get_context("spawn").Process(
            target=work, args=(rank, tracker.worker_args(), sys.argv[1]))
        for rank in range(2)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0]
    tracker.wait_for()
"""


def test_of_several_workers_the_first_logs(run_script, tmp_path, read_scalars, event_files):
    done = run_script(DISTRIBUTED, tmp_path)
    assert done.returncode == 0, done.stderr
    scores = json.loads(re.search("^scores (.*)", done.stdout, re.MULTILINE)[1])
    points = read_scalars(tmp_path)[""]["logloss/train"]
    assert points == [(i, pytest.approx(score, rel=1e-6)) for i, score in enumerate(scores)]
    assert len([path for path in event_files(tmp_path) if "hparams" not in path.name]) == 1

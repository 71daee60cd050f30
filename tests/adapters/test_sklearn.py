"""The scikit-learn adapter: iterations, curves, searches."""

import copy
import importlib.util
import pickle

import numpy as np
import pytest

from sm_tblog import InvalidTypeError, Writer

datasets = pytest.importorskip("sklearn.datasets")
ensemble = pytest.importorskip("sklearn.ensemble")
linear_model = pytest.importorskip("sklearn.linear_model")
model_selection = pytest.importorskip("sklearn.model_selection")
neural_network = pytest.importorskip("sklearn.neural_network")
pipeline = pytest.importorskip("sklearn.pipeline")
preprocessing = pytest.importorskip("sklearn.preprocessing")

from sm_tblog.adapters.sklearn import (  # noqa: E402 - it needs scikit-learn
    TensorBoardCallback,
    log_curves,
    log_search,
)

needs_callbacks = pytest.mark.skipif(
    importlib.util.find_spec("sklearn.callback") is None,
    reason="scikit-learn has callbacks since 1.9",
)
pytestmark = pytest.mark.filterwarnings("ignore:lbfgs failed to converge", "ignore:Stochastic Opt")


@pytest.fixture(scope="module")
def data():
    x, y = datasets.load_iris(return_X_y=True)
    return preprocessing.scale(x), y


def regression(callback, **kwargs):
    return linear_model.LogisticRegression(**{"max_iter": 4, **kwargs}).set_callbacks(callback)


def scores_by_iteration(data, iterations):
    """Return the score of a model fitted for exactly this many iterations."""
    return [
        linear_model.LogisticRegression(max_iter=1 + i).fit(*data).score(*data)
        for i in range(iterations)
    ]


@needs_callbacks
def test_each_iteration_is_scored(data, tmp_path, read_scalars):
    regression(TensorBoardCallback(tmp_path)).fit(*data)
    expected = [(i, pytest.approx(s)) for i, s in enumerate(scores_by_iteration(data, 4))]
    assert read_scalars(tmp_path)[""] == {"LogisticRegression/score": expected}
    assert len(set(scores_by_iteration(data, 4))) > 1


@needs_callbacks
def test_scores_have_the_names_that_are_asked_for(data, tmp_path, read_scalars):
    scoring = ["accuracy", "neg_log_loss"]
    held_out = tuple(part[::3] for part in data)
    callback = TensorBoardCallback(tmp_path, scoring=scoring, validation=held_out)
    model = regression(callback).fit(*data)
    run = read_scalars(tmp_path)[""]
    names = {*scoring, *(f"validation_{name}" for name in scoring)}
    assert set(run) == {f"LogisticRegression/{name}" for name in names}
    last = run["LogisticRegression/validation_accuracy"][-1]
    assert last == (3, pytest.approx(model.score(*held_out)))
    one = TensorBoardCallback(tmp_path / "one", scoring="accuracy")
    regression(one).fit(*data)
    assert set(read_scalars(tmp_path / "one")[""]) == {"LogisticRegression/accuracy"}


@needs_callbacks
def test_an_estimator_in_a_pipeline_is_logged_as_by_itself(data, tmp_path, read_scalars):
    steps = preprocessing.StandardScaler(), regression(TensorBoardCallback(tmp_path))
    pipeline.make_pipeline(*steps).fit(*data)
    run = read_scalars(tmp_path)[""]
    assert [step for step, _ in run["LogisticRegression/score"]] == [0, 1, 2, 3]


@needs_callbacks
@pytest.mark.parametrize("n_jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_each_fit_of_a_search_is_a_run(n_jobs, data, tmp_path, read_scalars):
    search = model_selection.GridSearchCV(
        regression(TensorBoardCallback(tmp_path)), {"C": [0.1, 1.0]}, cv=2, n_jobs=n_jobs
    )
    search.fit(*data)
    runs = read_scalars(tmp_path)
    fits = {f"candidate-split-evaluation-{i}" for i in range(4)}
    assert set(runs) == {"", *fits}  # the model that is fitted anew, and those before it
    assert {len(run["LogisticRegression/score"]) for run in runs.values()} == {4}
    tag = "LogisticRegression/score"
    assert runs["candidate-split-evaluation-0"][tag] != runs["candidate-split-evaluation-3"][tag]


@needs_callbacks
def test_set_on_a_search_it_logs_the_results(data, tmp_path, read_scalars, read_hparams):
    model = linear_model.LogisticRegression(max_iter=50)
    search = model_selection.GridSearchCV(model, {"C": [0.01, 1.0]}, cv=2)
    search.set_callbacks(TensorBoardCallback(tmp_path)).fit(*data)
    runs = read_scalars(tmp_path)
    assert set(runs) - {""} == {"candidate-0", "candidate-1"}
    scores = search.cv_results_["mean_test_score"]
    for i in range(2):
        assert runs[f"candidate-{i}"]["mean_test_score"] == [(0, pytest.approx(scores[i]))]
    assert read_hparams(tmp_path / "candidate-1")[0] == {"C": 1.0}


@needs_callbacks
def test_a_fit_that_fails_keeps_its_iterations(data, tmp_path, read_scalars):
    class Fail(TensorBoardCallback):
        def on_fit_task_end(self, estimator, context):
            if context.task_id == 2:
                raise RuntimeError("no more memory")

    model = linear_model.LogisticRegression(max_iter=9)
    model.set_callbacks(TensorBoardCallback(tmp_path), Fail())
    with pytest.raises(RuntimeError, match="no more memory"):
        model.fit(*data)
    points = read_scalars(tmp_path)[""]["LogisticRegression/score"]
    assert [step for step, _ in points] == [0, 1, 2]


@needs_callbacks
def test_a_score_that_cannot_be_computed_is_said(data, tmp_path, caplog):
    def score(estimator, x, y):
        raise ValueError("no such score")

    regression(TensorBoardCallback(tmp_path, scoring=score)).fit(*data)
    assert "scores not logged: no such score" in caplog.text


@needs_callbacks
@pytest.mark.parametrize("again", [copy.deepcopy, lambda it: pickle.loads(pickle.dumps(it))])
def test_copies_log(again, data, tmp_path, read_scalars):
    regression(again(TensorBoardCallback(tmp_path))).fit(*data)
    assert len(read_scalars(tmp_path)[""]["LogisticRegression/score"]) == 4


@needs_callbacks
def test_a_writer_that_is_given_stays_open(data, tmp_path, read_scalars):
    with Writer(tmp_path) as writer:
        regression(TensorBoardCallback(writer)).fit(*data)
        writer.add_scalar("mine", 1.0, 0)
    assert set(read_scalars(tmp_path)[""]) == {"mine", "LogisticRegression/score"}


@pytest.mark.parametrize("subsample", [1.0, 0.5])
def test_gradient_boosting_is_monitored(subsample, data, tmp_path, read_scalars):
    model = ensemble.GradientBoostingClassifier(n_estimators=5, subsample=subsample)
    model.fit(*data, monitor=TensorBoardCallback(tmp_path))
    run = read_scalars(tmp_path)[""]
    expected = {"GradientBoostingClassifier/train_score": model.train_score_}
    if subsample < 1:
        expected["GradientBoostingClassifier/oob_improvement"] = model.oob_improvement_
    if subsample < 1 and hasattr(model, "oob_scores_"):  # new in 1.3
        expected["GradientBoostingClassifier/oob_scores"] = model.oob_scores_
    assert run == {
        tag: [(i, pytest.approx(value, rel=1e-6)) for i, value in enumerate(curve)]
        for tag, curve in expected.items()
    }


def test_curves_that_an_estimator_has_kept(data, tmp_path, read_scalars):
    model = neural_network.MLPClassifier((4,), max_iter=6, early_stopping=True, random_state=0)
    log_curves(model.fit(*data), tmp_path)
    run = read_scalars(tmp_path)[""]
    for tag, curve in (
        ("loss_curve", model.loss_curve_),
        ("validation_scores", model.validation_scores_),
    ):
        expected = [(i, pytest.approx(value, rel=1e-6)) for i, value in enumerate(curve)]
        assert run[f"MLPClassifier/{tag}"] == expected


def test_curves_of_partial_fit(data, tmp_path, read_scalars):
    model = neural_network.MLPClassifier((4,), random_state=0)
    for _ in range(3):
        model.partial_fit(*data, classes=[0, 1, 2])
    log_curves(model, tmp_path)
    assert len(read_scalars(tmp_path)[""]["MLPClassifier/loss_curve"]) == 3


def test_histogram_boosting_keeps_scores_of_both_sets(data, tmp_path, read_scalars):
    model = ensemble.HistGradientBoostingClassifier(
        max_iter=3, early_stopping=True, scoring="loss", n_iter_no_change=9
    )
    log_curves(model.fit(*data), tmp_path)
    run = read_scalars(tmp_path)[""]
    assert {tag.partition("/")[2] for tag in run} == {"train_score", "validation_score"}


def test_what_keeps_nothing_has_no_curves(data, tmp_path):
    with pytest.raises(InvalidTypeError, match="LogisticRegression stores no training curves"):
        log_curves(linear_model.LogisticRegression().fit(*data), tmp_path)


@pytest.mark.parametrize("scoring", [None, ["accuracy", "f1_macro"]])
def test_the_candidates_of_a_search_are_runs(
    scoring, data, tmp_path, read_scalars, read_hparams, load_run
):
    grid = [
        {"kernel": ["rbf"], "gamma": [0.1, np.float64(0.2)]},
        {"kernel": ["linear"], "class_weight": [None, "balanced"]},
    ]
    svm = pytest.importorskip("sklearn.svm")
    refit = "accuracy" if scoring else True
    search = model_selection.GridSearchCV(svm.SVC(), grid, cv=2, scoring=scoring, refit=refit)
    log_search(search.fit(*data), tmp_path)
    runs = read_scalars(tmp_path)
    names = [f"candidate-{i}" for i in range(4)]
    assert [name for name in runs if name] == names
    for i, name in enumerate(names):
        expected = {
            key: [(0, pytest.approx(values[i], rel=1e-6))]
            for key, values in search.cv_results_.items()
            if key.startswith(("mean_", "std_"))
        }
        assert runs[name] == expected
    expected = {"kernel": "rbf", "gamma": 0.2}, "success"
    assert read_hparams(tmp_path / "candidate-1") == expected
    assert read_hparams(tmp_path / "candidate-3")[0] == {
        "kernel": "linear",
        "class_weight": "balanced",
    }
    table = load_run(tmp_path).Tensors("cv_results")[0].tensor_proto.string_val[0].decode()
    assert r"param\_kernel" in table
    assert table.count("\n") >= 5


def test_a_random_search_has_numbers_of_numpy(data, tmp_path, read_hparams):
    stats = pytest.importorskip("scipy.stats")
    search = model_selection.RandomizedSearchCV(
        linear_model.LogisticRegression(),
        {"C": stats.loguniform(0.1, 1.0), "max_iter": stats.randint(5, 9)},
        n_iter=2,
        cv=2,
        random_state=0,
    )
    log_search(search.fit(*data), tmp_path)
    values, _ = read_hparams(tmp_path / "candidate-0")
    assert values == pytest.approx(search.cv_results_["params"][0])


def test_a_search_that_is_not_fitted_is_refused(tmp_path):
    search = model_selection.GridSearchCV(linear_model.LogisticRegression(), {"C": [1]})
    with pytest.raises(InvalidTypeError, match="expected a fitted search"):
        log_search(search, tmp_path)
    with pytest.raises(InvalidTypeError, match="validation must be a pair of X and y"):
        TensorBoardCallback(tmp_path, validation=np.zeros(3))

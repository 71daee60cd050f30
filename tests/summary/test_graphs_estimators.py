"""Graphs of estimators: scikit-learn's pipelines, XGBoost's trees."""

import json

import numpy as np
import pytest

from sm_tblog.summary.graph.reading import read_graph


def nodes_of(model):
    return {node.name: node for node in read_graph(model, None).nodes}


def inputs_of(nodes, name):
    names = list(nodes)
    return [names[ref.node] for ref in nodes[name].inputs]


@pytest.fixture
def pipeline():
    pytest.importorskip("sklearn")
    from sklearn.compose import ColumnTransformer
    from sklearn.ensemble import StackingClassifier
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import Pipeline, make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler
    from sklearn.svm import SVC

    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    columns = [("num", numbers, ["age"]), ("cat", OneHotEncoder(), [2]), ("id", "passthrough", [0])]
    stack = StackingClassifier([("svc", SVC(C=3))], final_estimator=LogisticRegression())
    return Pipeline([("columns", ColumnTransformer(columns)), ("skip", None), ("stack", stack)])


def test_steps_follow_each_other_and_transformers_stand_side_by_side(pipeline):
    nodes = nodes_of(pipeline)
    above = "Pipeline/columns"
    assert {name: inputs_of(nodes, name) for name in nodes} == {
        "X": [],
        f"{above}/num/columns": ["X"],
        f"{above}/num/simpleimputer": [f"{above}/num/columns"],
        f"{above}/num/standardscaler": [f"{above}/num/simpleimputer"],
        f"{above}/cat/columns": ["X"],
        f"{above}/cat/OneHotEncoder": [f"{above}/cat/columns"],
        f"{above}/id/columns": ["X"],
        f"{above}/id/passthrough": [f"{above}/id/columns"],
        f"{above}/ColumnTransformer": [
            *(f"{above}/num/standardscaler", f"{above}/cat/OneHotEncoder"),
            f"{above}/id/passthrough",
        ],
        "Pipeline/stack/svc": [f"{above}/ColumnTransformer"],
        "Pipeline/stack/final_estimator": ["Pipeline/stack/svc"],
        "Pipeline/stack/StackingClassifier": ["Pipeline/stack/final_estimator"],
        "output": ["Pipeline/stack/StackingClassifier"],
    }
    assert nodes[f"{above}/num/columns"].attributes == {"columns": "[age]"}


def test_parameters_that_were_set_are_attributes(pipeline):
    nodes = nodes_of(pipeline)
    assert nodes["Pipeline/stack/svc"].attributes == {"C": "3"}
    assert nodes["Pipeline/columns/num/simpleimputer"].attributes == {"strategy": "median"}
    assert nodes["Pipeline/stack/final_estimator"].attributes == {}


def test_an_estimator_in_an_estimator_is_inside_it_and_knows_its_features():
    pytest.importorskip("sklearn")
    from sklearn.linear_model import Ridge
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(Ridge(), {"alpha": [0.1, 1]}, cv=2)
    search.fit(np.arange(12.0).reshape(6, 2), np.arange(6))
    nodes = nodes_of(search)
    assert nodes["X"].outputs == (((-1, 2), ""),)
    assert inputs_of(nodes, "GridSearchCV/GridSearchCV") == ["GridSearchCV/estimator"]
    assert nodes["GridSearchCV/estimator"].op == "Ridge"


@pytest.fixture(scope="module")
def booster():
    xgboost = pytest.importorskip("xgboost")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 3))
    data = xgboost.DMatrix(x, label=x[:, 0] * x[:, 1], feature_names=["age", "fare", "sex"])
    return xgboost.train({"max_depth": 3, "nthread": 1}, data, 12)


def count(node):
    """Return how many splits and leaves a tree has, by the booster's own dump."""
    inner = [count(child) for child in node.get("children", ())]
    leaves, splits = "leaf" in node, "split" in node
    return splits + sum(s for s, _ in inner), leaves + sum(n for _, n in inner)


def test_the_first_trees_of_a_booster_are_whole(booster):
    graph = read_graph(booster, None)
    nodes = {node.name: node for node in graph.nodes}
    for i, dump in enumerate(booster.get_dump(dump_format="json")[:10]):
        of_tree = [node for name, node in nodes.items() if name.startswith(f"Booster/tree {i}/")]
        kinds = [node.op for node in of_tree]
        assert (kinds.count("split"), kinds.count("leaf")) == count(json.loads(dump))
    assert not any("tree 10" in name for name in nodes)
    assert graph.warning == "the graph shows the first 10 of 12 trees"
    assert nodes["features"].outputs == (((-1, 3), ""),)


def test_splits_are_named_by_their_condition_and_leaves_by_their_value(booster):
    nodes = nodes_of(booster)
    root = json.loads(booster.get_dump(dump_format="json")[0])
    name = f"Booster/tree 0/{root['split']} < {root['split_condition']:.4g}"
    assert inputs_of(nodes, name) == ["features"]
    below = [n for n in nodes.values() if n.inputs and list(nodes)[n.inputs[0].node] == name]
    assert sorted(node.attributes["branch"].split(" ")[0] for node in below) == ["no", "yes"]
    leaves = [
        node
        for name, node in nodes.items()
        if name.startswith("Booster/tree 0/") and node.op == "leaf"
    ]
    assert all(
        node.name.startswith(f"Booster/tree 0/{float(node.attributes['value']):.4g}")
        for node in leaves
    )
    assert len(inputs_of(nodes, "Booster/sum")) == sum(n.op == "leaf" for n in nodes.values())


class Dump:
    """A booster that splits by categories and by indicators."""

    def num_features(self):
        return 2

    def get_dump(self, **_):
        leaf = {"nodeid": 2, "leaf": 0.5}
        inner = {
            "nodeid": 1,
            "split": "is_new",
            "yes": 2,
            "no": 3,
            "children": [leaf, {**leaf, "nodeid": 3}],
        }
        tree = {
            "split": "color",
            "split_condition": [0, 2],
            "yes": 2,
            "no": 1,
            "children": [inner, leaf],
        }
        return [json.dumps(tree)]


def test_splits_by_categories_and_by_indicators_are_named():
    assert [name for name, node in nodes_of(Dump()).items() if node.op == "split"] == [
        *("Dump/tree 0/color is 0 or 2", "Dump/tree 0/is_new")
    ]


def test_an_estimator_that_has_not_been_fitted_is_one_node():
    xgboost = pytest.importorskip("xgboost")
    graph = read_graph(xgboost.XGBRegressor(), None)
    assert [node.op for node in graph.nodes] == ["XGBRegressor"]
    assert "reading the model failed" in graph.warning

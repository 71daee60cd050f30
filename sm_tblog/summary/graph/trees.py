"""XGBoost: the first trees of a booster, each in its own scope.

A split is named by its condition and is an input of its children; a leaf is named by its value.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sm_tblog.summary.graph.base import Graph, GraphBuilder, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sm_tblog.summary.graph.base import Ref

__all__ = ["accepts", "read"]

MAX_TREES = 10
"""Maximum number of trees shown: a booster has hundreds, and few users need more."""


def accepts(model: Any, inputs: Any = None) -> bool:
    """Return whether this is an XGBoost booster, or an estimator that has one."""
    del inputs
    return hasattr(model, "get_dump") or hasattr(model, "get_booster")


def read(model: Any, **_: Any) -> Graph:
    """Return the graph of the first trees.

    Args:
        model: a ``Booster``, or a fitted estimator.
    """
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    name = type(model).__name__
    trees = booster.get_dump(dump_format="json", with_stats=True)
    graph = GraphBuilder()
    features = TensorSpec((-1, booster.num_features()), "")
    before = graph.add("Input", "features", (), [features])
    scope = graph.scope(name)
    leaves: list[Ref] = []
    for i, tree in enumerate(trees[:MAX_TREES]):
        _add_split(graph, json.loads(tree), f"{scope}/tree {i}", before, leaves)
    total = graph.add("sum", f"{scope}/sum", leaves)
    graph.add("Output", "output", [total])
    warning = (
        f"the graph shows the first {MAX_TREES} of {len(trees)} trees"
        if len(trees) > MAX_TREES
        else ""
    )
    return Graph(name, graph.nodes(), warning)


def _add_split(
    graph: GraphBuilder, node: Mapping[str, Any], scope: str, before: Ref, leaves: list[Ref]
) -> None:
    shown = {key: node[key] for key in ("branch", "gain", "cover") if key in node}
    if "leaf" in node:
        name = f"{scope}/{node['leaf']:.4g}"
        leaves.append(graph.add("leaf", name, [before], (), {"value": node["leaf"], **shown}))
        return
    split = graph.add("split", f"{scope}/{_condition(node)}", [before], (), shown)
    for child in node["children"]:
        ways = [way for way in ("yes", "no", "missing") if node.get(way) == child["nodeid"]]
        _add_split(graph, {**child, "branch": " or ".join(ways)}, scope, split, leaves)


def _condition(node: Mapping[str, Any]) -> str:
    """Return the condition of a split: on a number, categories or an indicator."""
    feature, threshold = str(node["split"]), node.get("split_condition")
    if isinstance(threshold, (int, float)):
        return f"{feature} < {threshold:.4g}"
    if isinstance(threshold, list):
        return f"{feature} is {' or '.join(map(str, threshold))}"
    return feature

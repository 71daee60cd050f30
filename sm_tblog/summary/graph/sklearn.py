"""scikit-learn: pipelines and composite estimators, read from their parameters.

The estimators in a pipeline's ``steps`` form a chain. Estimators in other lists of named estimators
(``ColumnTransformer``, ``FeatureUnion``, ``VotingClassifier``), or in a parameter of their own
(``GridSearchCV``), are parallel, and the estimator that contains them follows them. A
``final_estimator`` gets their outputs.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from sm_tblog.summary.graph.base import Graph, GraphBuilder, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sm_tblog.summary.graph.base import Ref

__all__ = ["accepts", "read"]


def accepts(model: Any, inputs: Any = None) -> bool:
    """Return whether this has the methods of an estimator, from any library."""
    del inputs
    return (
        not isinstance(model, type)
        and callable(getattr(model, "get_params", None))
        and callable(getattr(model, "fit", None))
    )


def read(estimator: Any, **_: Any) -> Graph:
    """Return the graph of an estimator, fitted or not."""
    graph = GraphBuilder()
    name = type(estimator).__name__
    width = getattr(estimator, "n_features_in_", None)
    spec = TensorSpec.of(None if width is None else (-1, int(width)), "")
    data = graph.add("Input", "X", (), [spec])
    outputs = _add(graph, estimator, graph.scope(name), [data])
    graph.add("Output", "output", outputs)
    return Graph(name, graph.nodes())


def _add(graph: GraphBuilder, estimator: Any, scope: str, inputs: Sequence[Ref]) -> list[Ref]:
    """Add an estimator to its scope; return its outputs."""
    is_pipeline = hasattr(estimator, "steps")
    outputs: list[Ref] = []
    for name, part, columns in _parts(estimator):
        inside = graph.scope(f"{scope}/{name}")
        before = outputs if outputs and (is_pipeline or name == "final_estimator") else inputs
        if columns is not None:
            text = {"columns": columns}
            before = [graph.add("columns", f"{inside}/columns", before, (), text)]
        if isinstance(part, str):  # "passthrough" or "drop"
            after = [graph.add(part, f"{inside}/{part}", before)]
        else:
            after = _add(graph, part, inside, before)
        outputs = after if before is outputs or is_pipeline else [*outputs, *after]
    if is_pipeline:
        return outputs
    kind = type(estimator).__name__
    return [graph.add(kind, f"{scope}/{kind}", outputs or inputs, (), _changed(estimator))]


def _parts(estimator: Any) -> Iterator[tuple[str, Any, Any]]:
    """Yield the estimators in an estimator: name, estimator, and the columns that it gets."""
    for key, value in estimator.get_params(deep=False).items():
        if accepts(value):
            yield key, value, None
        elif isinstance(value, list):
            for item in value:
                is_named = isinstance(item, tuple) and len(item) in (2, 3)
                if is_named and (accepts(item[1]) or isinstance(item[1], str)):
                    yield str(item[0]), item[1], item[2] if len(item) == 3 else None


def _changed(estimator: Any) -> dict[str, Any]:
    """Return the parameters that differ from their defaults, except estimators."""
    defaults = inspect.signature(type(estimator).__init__).parameters
    own = {part[0] for part in _parts(estimator)}
    return {
        key: value
        for key, value in estimator.get_params(deep=False).items()
        if key not in own
        and not isinstance(value, list)
        and repr(value) != repr(getattr(defaults.get(key), "default", None))
    }

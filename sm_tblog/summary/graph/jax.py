"""JAX: read the jaxpr of a function, with nested jaxprs as scopes.

``jax.make_jaxpr`` traces without computing. Jitted functions, loop bodies and branches are jaxprs
inside a jaxpr and become scopes; so do ``jax.named_scope`` and, through it, Flax modules. If the
path of an argument's leaf ends like a scope, the leaf is a parameter of that scope.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from sm_tblog.summary.graph.base import Graph, GraphBuilder, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sm_tblog.summary.graph.base import Ref

__all__ = ["accepts", "read"]

_WITHOUT_SCOPE = {"closed_call", "core_call", "custom_jvp_call", "custom_vjp_call"}
"""Calls that add no scope, because the function that they call has a name."""


def accepts(model: Any, inputs: Any) -> bool:
    """Return whether this is a closed jaxpr, or a callable that JAX can trace with the input."""
    is_called = callable(model) or hasattr(model, "apply")
    return "jax" in sys.modules and (_is_jaxpr(model) or (is_called and inputs is not None))


def read(model: Any, inputs: Any, **_: Any) -> Graph:
    """Return the graph of a function or closed jaxpr.

    Args:
        model: any function that JAX can trace; or a Flax linen module, which is traced with
            variables from its ``init`` unless the first argument has variables; or a closed jaxpr.
        inputs: a tuple or list of arguments, or the only argument: arrays, containers of arrays, or
            ``jax.ShapeDtypeStruct``. Ignored for a jaxpr.
    """
    if _is_jaxpr(model):
        debug_info = getattr(model.jaxpr, "debug_info", None)
        name = str(getattr(debug_info, "func_name", None) or "jaxpr")
        names = [f"input/{i}" for i in range(len(model.jaxpr.invars))]
        return _graph(model, name, names, [f"output/{i}" for i in range(len(model.jaxpr.outvars))])
    import jax

    args = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    name = getattr(model, "__name__", None) or type(model).__name__
    function = model
    if hasattr(model, "init") and hasattr(model, "apply"):
        if not (isinstance(args[0], Mapping) and "params" in args[0]):
            args = jax.eval_shape(model.init, jax.random.key(0), *args), *args
        function = model.apply
    jaxpr, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
    arguments = _by_parameter(function, args).items()
    names = [path for name, arg in arguments for path, _ in _leaves(arg, name)]
    own = {id(leaf): path for path, leaf in _leaves(model, "")}
    return _graph(jaxpr, name, names, [path for path, _ in _leaves(shapes, "output")], own)


def _by_parameter(function: Any, args: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments by the names of the function's parameters."""
    try:
        return inspect.signature(function).bind(*args).arguments
    except (TypeError, ValueError):
        return {f"input/{i}": arg for i, arg in enumerate(args)}


def _leaves(tree: Any, above: str) -> list[tuple[str, Any]]:
    """Return the leaves of a tree, each with its path below ``above``."""
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [("/".join([above, *map(_key_text, path)]).strip("/"), leaf) for path, leaf in flat]


def _key_text(key: Any) -> str:
    """Return one key of the path to a leaf; each type of key uses a different attribute."""
    return next(
        (str(getattr(key, name)) for name in ("key", "idx", "name") if hasattr(key, name)), str(key)
    )


def _graph(
    closed: Any,
    name: str,
    inputs: Sequence[str],
    outputs: Sequence[str],
    own: Mapping[int, str] = MappingProxyType({}),
) -> Graph:
    """Return the graph of a closed jaxpr.

    Args:
        closed: the jaxpr.
        name: the name of the outermost scope.
        inputs: the names of the inputs.
        outputs: the names of the outputs.
        own: the paths of the arrays that belong to the model, by ``id``.
    """
    jaxpr = _unwrapped(closed.jaxpr)
    scopes = dict.fromkeys(_scopes(jaxpr))
    is_named = all(f"{scope}/".startswith(f"/{name}/") for scope in scopes)
    scope = "" if is_named else name  # Flax already names the outermost scope after the module
    reader = _Reader()
    reader.graph.scope(name)
    input_refs = []
    for path, variable in zip(inputs, jaxpr.invars, strict=True):
        *steps, leaf = path.split("/")
        suffixes = ("/" + "/".join(steps[i:]) for i in range(len(steps)))
        owner = next(
            (each for suffix in suffixes for each in scopes if each.endswith(suffix)), None
        )
        op, full = ("Input", path) if owner is None else ("Parameter", f"{scope}{owner}/{leaf}")
        input_refs.append(reader.graph.add(op, full, (), [_spec(variable)]))
    for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        if id(value) in own:
            full = f"{name}/{own[id(value)]}"
            reader.parameters[variable] = reader.graph.add("Parameter", full, (), [_spec(variable)])
    output_refs = reader.add_jaxpr(jaxpr, scope, input_refs)
    for path, origin, variable in zip(outputs, output_refs, jaxpr.outvars, strict=True):
        reader.graph.add("Output", path, [origin] if origin else [], [_spec(variable)])
    return Graph(name, reader.graph.nodes())


def _unwrapped(jaxpr: Any) -> Any:
    """Return the inner jaxpr of a jaxpr that only calls a jitted function."""
    while len(jaxpr.eqns) == 1:
        (equation,) = jaxpr.eqns
        inner = _inner(equation)
        passes_all = equation.invars == jaxpr.invars and equation.outvars == jaxpr.outvars
        if len(inner) != 1 or not passes_all or "name" not in equation.params:
            break
        jaxpr = inner[0].jaxpr
    return jaxpr


def _scopes(jaxpr: Any, above: str = "") -> Iterator[str]:
    """Yield the scopes in a jaxpr and in the jaxprs that it calls, each with a leading slash."""
    for equation in jaxpr.eqns:
        scope = f"{above}/{_stack(equation)}".rstrip("/")
        yield scope
        for inner in _inner(equation):
            yield from _scopes(getattr(inner, "jaxpr", inner), scope + _own_scope(equation))


def _own_scope(equation: Any) -> str:
    """Return the scope for the jaxprs that an equation calls, with a leading slash, or ""."""
    kind = equation.primitive.name
    return "" if kind in _WITHOUT_SCOPE else f"/{equation.params.get('name') or kind}"


def _stack(equation: Any) -> str:
    return str(getattr(equation.source_info, "name_stack", ""))


def _is_jaxpr(model: Any) -> bool:
    return hasattr(getattr(model, "jaxpr", None), "eqns")


def _inner(equation: Any) -> list[Any]:
    """Return the jaxprs that an equation calls."""
    parts = [
        part
        for value in equation.params.values()
        for part in (value if isinstance(value, (tuple, list)) else (value,))
    ]
    return [part for part in parts if _is_jaxpr(part) or hasattr(part, "eqns")]


def _spec(variable: Any) -> TensorSpec:
    aval = variable.aval
    return TensorSpec.of(getattr(aval, "shape", None), getattr(aval, "dtype", None))


class _Reader:
    """Adds jaxprs to a graph."""

    def __init__(self) -> None:
        self.graph = GraphBuilder()
        self.parameters: dict[Any, Ref] = {}

    def add_jaxpr(
        self, jaxpr: Any, scope: str, input_refs: Iterable[Ref | None]
    ) -> list[Ref | None]:
        """Add a jaxpr, closed or open, to a scope; return the origins of its outputs."""
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        origins: dict[Any, Ref | None] = dict(zip(jaxpr.invars, input_refs, strict=False))
        name = f"{scope}/constant"
        for variable in jaxpr.constvars:
            origins[variable] = self.parameters.get(variable) or self.graph.add(
                "Constant", name, (), [_spec(variable)]
            )
        for equation in jaxpr.eqns:
            inputs = [_origin(origins, variable) for variable in equation.invars]
            outputs = self._add_equation(equation, f"{scope}/{_stack(equation)}", inputs)
            origins.update(zip(equation.outvars, outputs, strict=True))
        return [_origin(origins, variable) for variable in jaxpr.outvars]

    def _add_equation(
        self, equation: Any, scope: str, inputs: Sequence[Ref | None]
    ) -> Sequence[Ref | None]:
        kind = equation.primitive.name
        inner = _inner(equation)
        specs = [_spec(variable) for variable in equation.outvars]
        if inner and (own := _own_scope(equation)):
            scope = self.graph.scope(scope + own)
        results = [
            self.add_jaxpr(jaxpr, f"{scope}/{name}" if name else scope, input_refs)
            for name, jaxpr, input_refs in _calls(equation, inner, inputs)
        ]
        if len(results) == 1 and kind != "scan":
            return results[0]
        node_inputs = [origin for result in results for origin in result]
        if kind == "cond":
            node_inputs.insert(0, inputs[0])
        literals = [str(v.val) for v in equation.invars if hasattr(v, "val")]
        plain = (bool, int, float, str, tuple)
        settings = {k: v for k, v in equation.params.items() if isinstance(v, plain)}
        node = self.graph.add(
            kind,
            f"{scope}/{kind}",
            [origin for origin in (node_inputs if results else inputs) if origin is not None],
            specs,
            {"literals": ", ".join(literals), **settings},
        )
        return [node._replace(output=i) for i in range(len(specs))]


def _origin(origins: Mapping[Any, Ref | None], variable: Any) -> Ref | None:
    """Return the origin of a variable; None for a literal."""
    return None if hasattr(variable, "val") else origins.get(variable)


def _calls(
    equation: Any, inner: Sequence[Any], inputs: Sequence[Ref | None]
) -> Iterator[tuple[str, Any, Sequence[Ref | None]]]:
    """Yield the jaxprs that an equation calls: a name, the jaxpr and its inputs.

    A jaxpr gets the last inputs of the equation: for ``cond``, the index of the branch precedes
    them; for ``while``, the inputs used only by the condition precede those of the body.
    """
    for i, jaxpr in enumerate(inner):
        count = len(getattr(jaxpr, "jaxpr", jaxpr).invars)
        input_refs = inputs[len(inputs) - count :]
        name = f"branch_{i}" if len(inner) > 1 else ""
        if equation.primitive.name == "while":
            of_condition = equation.params["cond_nconsts"]
            of_body = equation.params["body_nconsts"]
            is_condition = jaxpr is equation.params["cond_jaxpr"]
            name = "condition" if is_condition else "body"
            if is_condition:
                input_refs = [*inputs[:of_condition], *inputs[of_condition + of_body :]]
        if count <= len(inputs):
            yield name, jaxpr, input_refs

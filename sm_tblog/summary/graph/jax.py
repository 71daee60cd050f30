"""JAX: the jaxpr of a function, with what it calls as scopes.

``jax.make_jaxpr`` traces without computing. A jitted function, a loop's body and a branch are
jaxprs in a jaxpr, and become scopes; so do ``jax.named_scope`` and, through it, the modules of
Flax. A leaf of an argument whose path ends like a scope is that scope's parameter.
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
"""Calls that say nothing of themselves: what they call has a name."""


def accepts(model: Any, inputs: Any) -> bool:
    """Return whether this is a closed jaxpr, or what JAX could trace with the input."""
    is_called = callable(model) or hasattr(model, "apply")
    return "jax" in sys.modules and (_is_jaxpr(model) or (is_called and inputs is not None))


def read(model: Any, inputs: Any, **_: Any) -> Graph:
    """Return the graph of a function or closed jaxpr.

    Args:
        model: any function that JAX can trace; or a module of Flax's linen, which is traced with
            variables of its own unless the first argument has some; or a closed jaxpr.
        inputs: a tuple or list of arguments, or the only argument: arrays, containers of such, or
            ``jax.ShapeDtypeStruct``. Ignored for a jaxpr.
    """
    if _is_jaxpr(model):
        information = getattr(model.jaxpr, "debug_info", None)
        name = str(getattr(information, "func_name", None) or "jaxpr")
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
    given = _by_parameter(function, args).items()
    names = [path for name, arg in given for path, _ in _leaves(arg, name)]
    own = {id(leaf): path for path, leaf in _leaves(model, "")}
    return _graph(jaxpr, name, names, [path for path, _ in _leaves(shapes, "output")], own)


def _by_parameter(function: Any, args: Sequence[Any]) -> dict[str, Any]:
    """Return the arguments by the names that the function has for them."""
    try:
        return inspect.signature(function).bind(*args).arguments
    except (TypeError, ValueError):
        return {f"input/{i}": arg for i, arg in enumerate(args)}


def _leaves(tree: Any, above: str) -> list[tuple[str, Any]]:
    """Return the leaves of a tree, each with its path below ``above``."""
    import jax

    flat, _ = jax.tree_util.tree_flatten_with_path(tree)
    return [("/".join([above, *map(_step, path)]).strip("/"), leaf) for path, leaf in flat]


def _step(key: Any) -> str:
    """Return one step of a way to a leaf; each kind has it under an attribute of its own."""
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
        name: of the scope for all that is inside.
        inputs: the names of its inputs.
        outputs: the names of its outputs.
        own: paths of arrays that are the model's own, by their identities.
    """
    jaxpr = _unwrapped(closed.jaxpr)
    scopes = dict.fromkeys(_scopes(jaxpr))
    is_named = all(f"{scope}/".startswith(f"/{name}/") for scope in scopes)
    scope = "" if is_named else name  # Flax names the outermost scope like the module
    reader = _Reader()
    reader.graph.scope(name)
    given = []
    for path, variable in zip(inputs, jaxpr.invars, strict=True):
        *steps, leaf = path.split("/")
        ends = ("/" + "/".join(steps[i:]) for i in range(len(steps)))
        home = next((each for end in ends for each in scopes if each.endswith(end)), None)
        op, full = ("Input", path) if home is None else ("Parameter", f"{scope}{home}/{leaf}")
        given.append(reader.graph.add(op, full, (), [_spec(variable)]))
    for variable, value in zip(closed.jaxpr.constvars, closed.consts, strict=True):
        if id(value) in own:
            full = f"{name}/{own[id(value)]}"
            reader.known[variable] = reader.graph.add("Parameter", full, (), [_spec(variable)])
    made = reader.add_jaxpr(jaxpr, scope, given)
    for path, origin, variable in zip(outputs, made, jaxpr.outvars, strict=True):
        reader.graph.add("Output", path, [origin] if origin else [], [_spec(variable)])
    return Graph(name, reader.graph.nodes())


def _unwrapped(jaxpr: Any) -> Any:
    """Return the jaxpr of a jitted function instead of one that does nothing but call it."""
    while len(jaxpr.eqns) == 1:
        (equation,) = jaxpr.eqns
        inner = _inner(equation)
        ends = equation.invars == jaxpr.invars and equation.outvars == jaxpr.outvars
        if len(inner) != 1 or not ends or "name" not in equation.params:
            break
        jaxpr = inner[0].jaxpr
    return jaxpr


def _scopes(jaxpr: Any, above: str = "") -> Iterator[str]:
    """Iterate over the scopes in a jaxpr and in those that it calls, with a slash before each."""
    for equation in jaxpr.eqns:
        scope = f"{above}/{_stack(equation)}".rstrip("/")
        yield scope
        for inner in _inner(equation):
            yield from _scopes(getattr(inner, "jaxpr", inner), scope + _own_scope(equation))


def _own_scope(equation: Any) -> str:
    """Return the scope of what an equation calls, with a slash before it, or nothing."""
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
        self.known: dict[Any, Ref] = {}

    def add_jaxpr(self, jaxpr: Any, scope: str, given: Iterable[Ref | None]) -> list[Ref | None]:
        """Add a jaxpr, closed or open, to a scope, and return where its outputs come from."""
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        origins: dict[Any, Ref | None] = dict(zip(jaxpr.invars, given, strict=False))
        name = f"{scope}/constant"
        for variable in jaxpr.constvars:
            origins[variable] = self.known.get(variable) or self.graph.add(
                "Constant", name, (), [_spec(variable)]
            )
        for equation in jaxpr.eqns:
            inputs = [_origin(origins, variable) for variable in equation.invars]
            made = self._add_equation(equation, f"{scope}/{_stack(equation)}", inputs)
            origins.update(zip(equation.outvars, made, strict=True))
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
            self.add_jaxpr(jaxpr, f"{scope}/{name}" if name else scope, given)
            for name, jaxpr, given in _calls(equation, inner, inputs)
        ]
        if len(results) == 1 and kind != "scan":
            return results[0]
        ends = [origin for result in results for origin in result]
        if kind == "cond":
            ends.insert(0, inputs[0])
        literals = [str(v.val) for v in equation.invars if hasattr(v, "val")]
        plain = (bool, int, float, str, tuple)
        settings = {k: v for k, v in equation.params.items() if isinstance(v, plain)}
        node = self.graph.add(
            kind,
            f"{scope}/{kind}",
            [origin for origin in (ends if results else inputs) if origin is not None],
            specs,
            {"literals": ", ".join(literals), **settings},
        )
        return [node._replace(output=i) for i in range(len(specs))]


def _origin(origins: Mapping[Any, Ref | None], variable: Any) -> Ref | None:
    """Return where a variable comes from; a literal comes from nowhere."""
    return None if hasattr(variable, "val") else origins.get(variable)


def _calls(
    equation: Any, inner: Sequence[Any], inputs: Sequence[Ref | None]
) -> Iterator[tuple[str, Any, Sequence[Ref | None]]]:
    """Iterate over the jaxprs that an equation calls: a name, the jaxpr and its inputs.

    A jaxpr is given the last of the equation's inputs: ``cond`` has the branch's number before
    them, and ``while`` what the condition alone is given.
    """
    for i, jaxpr in enumerate(inner):
        count = len(getattr(jaxpr, "jaxpr", jaxpr).invars)
        given = inputs[len(inputs) - count :]
        name = f"branch_{i}" if len(inner) > 1 else ""
        if equation.primitive.name == "while":
            of_condition = equation.params["cond_nconsts"]
            of_body = equation.params["body_nconsts"]
            is_condition = jaxpr is equation.params["cond_jaxpr"]
            name = "condition" if is_condition else "body"
            if is_condition:
                given = [*inputs[:of_condition], *inputs[of_condition + of_body :]]
        if count <= len(inputs):
            yield name, jaxpr, given

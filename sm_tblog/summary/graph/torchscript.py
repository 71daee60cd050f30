"""TorchScript: read the graph that a scripted, traced or loaded model consists of.

Nothing is run. A copy of the graph is simplified by PyTorch's own passes: calls are inlined,
attributes become constants (``training`` is False), branches that they decide are removed, and the
shapes of the input are propagated as far as PyTorch knows how.

Operations on tensors are nodes, in the scope of the module that calls them. Lists, tuples and
numbers are not: their constants are shown as arguments, and tensors in them are connected directly.
What a branch or loop runs is in a scope below ``If`` or ``Loop``, and its results are the inputs of
a node of this name.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Any, NamedTuple

from sm_tblog.summary.graph.base import GraphBuilder, Ref, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from sm_tblog.summary.graph.base import Node

__all__ = ["is_torchscript", "read_script"]

_TRANSPARENT = {
    "aten::__getitem__",
    "prim::DictConstruct",
    "prim::NumToTensor",
    "prim::unchecked_cast",
    "prim::unchecked_unwrap_optional",
}
"""Operations that return a part of their input, or all of it as another type."""

_LIST_CHANGES = {"aten::_set_item", "aten::append", "aten::extend", "aten::insert"}
"""Operations that put tensors into a list or dictionary."""

_CALLERS = re.compile(r"(\w+)\(([^()]*)\)")
"""An instance and its class in ``features(Sequential).0(Block)``."""

_NO_INSTANCE = {"SELF", "TOP", "UNKNOWN_INSTANCE"}


def is_torchscript(model: Any) -> bool:
    """Return whether a model or function consists of TorchScript."""
    import torch

    return isinstance(model, (torch.jit.ScriptModule, torch.jit.ScriptFunction))


def read_script(
    model: Any, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> list[Node]:
    """Return the nodes of a TorchScript model or function.

    Args:
        model: the model or function.
        name: the name of the outermost scope.
        args: the positional arguments, for the shapes; may be empty.
        kwargs: the keyword arguments, for the shapes; may be empty.

    Raises:
        Exception: any exception of PyTorch's passes.
    """
    graph, traced = _simplified(model, args, kwargs)
    reader = _Reader(model, name, traced)
    reader.read(graph)
    return reader.graph.nodes()


class _Known(NamedTuple):
    """What is known about a value.

    Attributes:
        refs: the nodes that it comes from.
        text: a constant as text; "" for anything else.
        items: the elements of a list or tuple, if they are known.
        path: the path in the model of a module, or of the module that owns a parameter.
    """

    refs: tuple[Ref, ...] = ()
    text: str = ""
    items: tuple[_Known, ...] | None = None
    path: str | None = None


class _Reader:
    """Builds the graph.

    Args:
        model: the model or function.
        name: the name of the outermost scope.
        traced: the shapes and dtypes that tracing has seen, by the number of the value.
    """

    def __init__(self, model: Any, name: str, traced: Mapping[int, TensorSpec]) -> None:
        self.graph = GraphBuilder()
        self._top = self.graph.scope(name)
        self._values: dict[int, _Known] = {}
        self._owned: dict[str, Ref] = {}
        self._parameters: set[str] = set()
        self._traced = traced
        self._branches: list[tuple[list[str], str]] = []
        if hasattr(model, "named_parameters"):
            self._parameters = {path for path, _ in model.named_parameters()}

    def read(self, graph: Any) -> None:
        """Add all nodes of a graph."""
        for value in graph.inputs():
            if _is_module(value):
                self._set(value, _Known(path=""))
            elif _holds_tensors(value.type()):
                name = value.debugName().partition(".")[0]
                name = "input" if name.isdigit() else name
                self._set(value, _Known((self.graph.add("Input", name, (), self._specs([value])),)))
            else:
                self._set(value, _Known())
        self._block(graph)
        for name, known, value in self._results(list(graph.outputs())):
            self.graph.add(
                "Output", name, known.refs, [] if value is None else self._specs([value])
            )

    def _results(self, outputs: list[Any]) -> Iterable[tuple[str, _Known, Any]]:
        for number, value in enumerate(outputs):
            name = f"output/{number}" if len(outputs) > 1 else "output"
            known = self._values[value.unique()]
            if known.items is None:
                yield name, known, value
            for index, item in enumerate(known.items or ()):
                if item.refs:
                    yield f"{name}/{index}", item, None

    def _set(self, value: Any, known: _Known) -> None:
        self._values[value.unique()] = known

    def _block(self, block: Any) -> None:
        for node in block.nodes():
            kind = node.kind()
            given = [self._values.get(value.unique(), _Known()) for value in node.inputs()]
            outputs = list(node.outputs())
            if kind == "prim::If":
                self._if(node, given[0], outputs)
            elif kind == "prim::Loop":
                self._loop(node, given, outputs)
            elif (found := self._without_operation(node, given)) is not None:
                for value, known in zip(outputs, found, strict=True):
                    self._set(value, known)
            else:
                self._operation(node, given, outputs)

    def _without_operation(self, node: Any, given: list[_Known]) -> Sequence[_Known] | None:
        """Return what is known about each output of a node that is not an operation on tensors."""
        kind = node.kind()
        if kind == "prim::Constant":
            return [self._constant(node)]
        if kind == "prim::GetAttr":
            return [self._attribute(node, given[0].path)]
        if (found := self._in_container(node, given)) is not None:
            return found
        if kind in _TRANSPARENT or not any(
            _holds_tensors(value.type()) for value in node.outputs()
        ):
            return [_Known(_joined(given))] * node.outputsSize()
        return None

    def _in_container(self, node: Any, given: list[_Known]) -> Sequence[_Known] | None:
        """Return what is known about each output of a node that makes, reads or changes a list."""
        kind = node.kind()
        if kind in ("prim::ListConstruct", "prim::TupleConstruct"):
            texts = [one.text for one in given]
            text = f"[{', '.join(texts)}]" if all(texts) else ""
            return [_Known(_joined(given), text, tuple(given))]
        if kind in ("prim::TupleUnpack", "prim::ListUnpack"):
            return given[0].items or (given[0],) * node.outputsSize()
        if kind in ("prim::TupleIndex", "aten::__getitem__") and given[0].items is not None:
            return [_item(given)]
        if kind in _LIST_CHANGES:
            known = _Known(_joined(given))
            self._set(next(iter(node.inputs())), known)
            return [known] * node.outputsSize()
        return None

    def _constant(self, node: Any) -> _Known:
        try:
            value = node.output().toIValue()
        except RuntimeError:  # a function, for example
            return _Known()
        if not hasattr(value, "shape"):
            return _Known(text=str(value))
        if value.dim() == 0:
            return _Known(text=str(value.item()))
        spec = TensorSpec.of(value.shape, value.dtype)
        return _Known((self.graph.add("Constant", self._name(node, "constant"), (), [spec]),))

    def _attribute(self, node: Any, owner: str | None) -> _Known:
        path = f"{owner}.{node.s('name')}" if owner else node.s("name")
        value = node.output()
        if _is_module(value):
            return _Known(path=path)
        if not _holds_tensors(value.type()):
            return _Known()
        if path not in self._owned:
            is_list = value.type().kind() != "TensorType"  # as of the weights of an LSTM
            op = "Parameter" if is_list or path in self._parameters else "Buffer"
            name = f"{self._top}/{path.replace('.', '/')}"
            self._owned[path] = self.graph.add(op, name, (), self._specs([value]))
        return _Known((self._owned[path],), path=owner)

    def _operation(self, node: Any, given: list[_Known], outputs: list[Any]) -> None:
        op = node.kind().rpartition("::")[2]
        attributes = {"arguments": _arguments(node, given), "module": _callers(node)[1]}
        owner = next((known.path for known in given if known.path), "")
        name = self._name(node, op.strip("_"), owner)
        added = self.graph.add(op, name, _joined(given), self._specs(outputs), attributes)
        for i, value in enumerate(outputs):
            self._set(value, _Known((Ref(added.node, i),)))
        if op.endswith("_") and not op.startswith("__"):  # written in place
            self._set(next(iter(node.inputs())), _Known((added,)))

    def _if(self, node: Any, condition: _Known, outputs: list[Any]) -> None:
        scope = self._name(node, "If")
        results = []
        for name, block in zip(("then", "else"), node.blocks(), strict=True):
            results.append(self._inside(_callers(node)[0], scope, name, block))
        self._merge("If", scope, [condition, *(one for block in results for one in block)], outputs)

    def _loop(self, node: Any, given: list[_Known], outputs: list[Any]) -> None:
        count, _, *carried = given
        (block,) = node.blocks()
        for value, known in zip(list(block.inputs())[1:], carried, strict=True):
            self._set(value, known._replace(text="", items=None))
        scope = self._name(node, "Loop")
        results = self._inside(_callers(node)[0], scope, "body", block)
        self._merge("Loop", scope, [count, *results], outputs)

    def _inside(self, callers: list[str], scope: str, name: str, block: Any) -> list[_Known]:
        """Add the nodes of a block; return what is known about its results."""
        self._branches.append((callers, f"{scope.rpartition('/')[2]}/{name}"))
        self._block(block)
        self._branches.pop()
        return [self._values.get(value.unique(), _Known()) for value in block.outputs()]

    def _merge(self, op: str, scope: str, given: list[_Known], outputs: list[Any]) -> None:
        """Add the node that has the results of a branch or loop, if there are tensors in them."""
        refs = _joined(given)
        if any(_holds_tensors(value.type()) for value in outputs):
            added = self.graph.add(op, f"{scope}/{op}", refs, self._specs(outputs))
            for i, value in enumerate(outputs):
                self._set(value, _Known((Ref(added.node, i),)))
        else:
            for value in outputs:
                self._set(value, _Known(refs))

    def _name(self, node: Any, name: str, owner: str = "") -> str:
        """Return the name of a node or scope in the module that calls it.

        Args:
            node: the operation, branch or loop.
            name: the last part of the name.
            owner: the path of a module to use if the calling one is unknown.
        """
        callers = _callers(node)[0] or list(filter(None, owner.split(".")))
        parts, done = [self._top], 0
        for outside, branch in self._branches:
            if callers[: len(outside)] == outside:
                parts += callers[done : len(outside)]
                done = max(done, len(outside))
            parts.append(branch)
        name = "/".join([*parts, *callers[done:], name])
        return self.graph.scope(name) if node.kind() in ("prim::If", "prim::Loop") else name

    def _specs(self, values: Iterable[Any]) -> list[TensorSpec]:
        return [self._traced.get(value.unique(), _spec(value.type())) for value in values]


def _simplified(
    model: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[Any, dict[int, TensorSpec]]:
    """Return a copy of the model's graph with known shapes and without decided branches.

    The second value is the shapes and dtypes that tracing has seen, by the number of the value.
    """
    import torch

    graph = model.graph.copy()
    torch._C._jit_pass_inline(graph)  # noqa: SLF001 - as torch's own writer does
    inputs = [value for value in graph.inputs() if not _is_module(value)]
    names = {value.debugName().partition(".")[0]: value for value in inputs}
    for value, given in [
        *zip(inputs, args, strict=False),
        *((names[name], given) for name, given in kwargs.items() if name in names),
    ]:
        if isinstance(given, torch.Tensor) and value.type().kind() == "TensorType":
            value.inferTypeFrom(given.detach())
    traced: dict[int, TensorSpec] = {}
    _resolve_attributes(graph, graph, {}, model, traced)
    # The passes cannot fail a model that is valid; without their results the graph is complete too.
    for simplify in ("constant_propagation", "dce", "propagate_shapes_on_graph"):
        with contextlib.suppress(Exception):
            getattr(torch._C, f"_jit_pass_{simplify}")(graph)  # noqa: SLF001 - as above
    return graph, traced


def _resolve_attributes(
    graph: Any, block: Any, owners: dict[int, Any], model: Any, traced: dict[int, TensorSpec]
) -> None:
    """Give the parameters their shapes, and replace other attributes by constants."""
    import torch

    for node in list(block.nodes()):
        for inner in node.blocks():
            _resolve_attributes(graph, inner, owners, model, traced)
        if node.kind() != "prim::GetAttr":
            for value in node.outputs():
                if value.isCompleteTensor():
                    traced[value.unique()] = _spec(value.type())
            continue
        output = node.output()
        attribute = getattr(owners.get(node.input().unique(), model), node.s("name"), None)
        if node.s("name") == "training":
            attribute = False  # as in every graph
        if _is_module(output):
            owners[output.unique()] = attribute
        elif isinstance(attribute, torch.Tensor):
            output.inferTypeFrom(attribute.detach())
        elif isinstance(attribute, (bool, int, float, str)):
            graph.setInsertPoint(node)
            output.replaceAllUsesWith(graph.insertConstant(attribute))


def _is_module(value: Any) -> bool:
    return bool(value.type().kind() == "ClassType")


def _holds_tensors(kind: Any) -> bool:
    """Return whether values of a TorchScript type are or contain tensors."""
    name = kind.kind()
    if name == "TupleType":
        return any(map(_holds_tensors, kind.elements()))
    if name == "DictType":
        return _holds_tensors(kind.getValueType())
    if name in ("ListType", "OptionalType", "FutureType"):
        return _holds_tensors(kind.getElementType())
    return bool(name == "TensorType")


def _spec(kind: Any) -> TensorSpec:
    if kind.kind() != "TensorType":
        return TensorSpec(None, "")
    return TensorSpec.of(kind.varyingSizes(), kind.dtype())


def _joined(given: Iterable[_Known]) -> tuple[Ref, ...]:
    return tuple(dict.fromkeys(ref for known in given for ref in known.refs))


def _item(given: list[_Known]) -> _Known:
    """Return an element of a list or tuple by its index."""
    items = given[0].items or ()
    with contextlib.suppress(ValueError, IndexError):
        return items[int(given[1].text)]
    return _Known(_joined(given))


def _callers(node: Any) -> tuple[list[str], str]:
    """Return the path of the module that calls an operation, and its class."""
    found = _CALLERS.findall(node.getModuleHierarchy())
    modules = [(name, kind) for name, kind in found if name not in _NO_INSTANCE]
    return [name for name, _ in modules], modules[-1][1] if modules else ""


def _arguments(node: Any, given: list[_Known]) -> str:
    """Return the arguments that are constants, as in a call."""
    import torch

    names: list[str] = []
    with contextlib.suppress(Exception):  # an operator without a schema
        schema = torch._C.parse_schema(node.schema())  # noqa: SLF001 - there is no public API
        names = [f"{argument.name}=" for argument in schema.arguments]
    names += [""] * (len(given) - len(names))
    shown = zip(names, given, strict=False)
    return ", ".join(f"{n}{one.text}" for n, one in shown if one.text not in ("", "None"))

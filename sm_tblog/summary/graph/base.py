"""A graph as the Graphs tab draws it: nodes in nested scopes, connected by tensors.

The reader of each framework fills a ``GraphBuilder``; the worker thread encodes the result. The
format follows from how the tab displays a ``GraphDef``:

* Slashes in a name nest it: each scope is a box.
* An input is the name of a node, or ``name:1`` for its second output. The attribute
  ``_output_shapes`` labels the edges, and makes the edges of large tensors thick.
* Attributes are shown in protobuf's text format, with its escapes: quotes and non-ASCII letters
  would be unreadable.
* Five or more nodes in the same scope, with the same operation and names that end in consecutive
  numbers, are stacked into one: ``relu_1`` to ``relu_5`` would become one and tangle a network. A
  duplicate name is therefore numbered by the position of the node in its scope.
* A node whose operation contains ``Const`` is drawn small, beside the node that uses it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

__all__ = [
    "Graph",
    "GraphBuilder",
    "Node",
    "Ref",
    "TensorSpec",
    "describe",
    "first_line",
    "flattened",
]

_MAX_TEXT = 500
"""Maximum length of an attribute in characters; longer texts are truncated."""

_NAMED_BY_USERS = ("Buffer", "Input", "Output", "Parameter")
"""Operations of nodes that keep their own name instead of taking that of their scope."""


class TensorSpec(NamedTuple):
    """The shape and dtype of a tensor, as far as they are known.

    Attributes:
        shape: the shape, with -1 for unknown lengths; None if the rank is unknown.
        dtype: the name of the dtype, such as ``"float32"``; "" if unknown.
    """

    shape: tuple[int, ...] | None
    dtype: str

    @classmethod
    def of(cls, shape: Iterable[Any] | None, dtype: Any) -> TensorSpec:
        """Return the spec for a shape and a dtype of any library; lengths need not be integers."""
        lengths = None if shape is None else tuple(n if isinstance(n, int) else -1 for n in shape)
        return cls(lengths, "" if dtype is None else str(dtype).rpartition(".")[2])

    def __str__(self) -> str:
        """Return ``float32[2, 3]``."""
        lengths = ["..."] if self.shape is None else ["?" if n < 0 else str(n) for n in self.shape]
        return f"{self.dtype}[{', '.join(lengths)}]"


class Ref(NamedTuple):
    """One output of a node.

    Attributes:
        node: the index of the node in the builder.
        output: the index of the output.
    """

    node: int
    output: int = 0


class Node(NamedTuple):
    """A node.

    Attributes:
        name: the unique name, with slashes between scopes.
        op: the operation.
        inputs: the outputs of other nodes that are its inputs.
        outputs: the shapes and dtypes of its outputs.
        attributes: the texts shown when the node is selected.
        device: the framework's name of the device; the tab can color nodes by device.
    """

    name: str
    op: str
    inputs: tuple[Ref, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: Mapping[str, str]
    device: str


class Graph(NamedTuple):
    """The graph of a model, as returned by a reader.

    Attributes:
        name: the name of the model.
        nodes: the nodes, inputs first unless there are cycles; or a serialized ``GraphDef``.
        warning: a note for the user, such as that the graph is incomplete; "" for none.
    """

    name: str
    nodes: Sequence[Node] | bytes
    warning: str = ""

    @property
    def nbytes(self) -> int:
        """The approximate memory use in bytes."""
        return len(self.nodes) if isinstance(self.nodes, bytes) else 1000 * len(self.nodes)


class GraphBuilder:
    """Collects nodes, and gives each node a valid, unique and short name.

    A node that is alone in its scope gets the name of the scope: a box around a single node
    would need an extra click.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._scopes: dict[str, str] = {}

    def scope(self, name: str) -> str:
        """Return an unused name for a new scope: ``name``, or else ``name_1`` and so on.

        So each call of a module has its own scope.
        """
        wanted = name = _clean(name)
        count = 0
        while name in self._scopes:
            count += 1
            name = f"{wanted}_{count}"
        self._scopes[name] = wanted
        return name

    def add(
        self,
        op: str,
        name: str,
        inputs: Iterable[Ref] = (),
        outputs: Iterable[TensorSpec] = (),
        attributes: Mapping[str, Any] | None = None,
        device: str = "",
    ) -> Ref:
        """Add a node and return its first output.

        Args:
            op: the operation.
            name: the preferred name, including the scope.
            inputs: the outputs of other nodes that are its inputs.
            outputs: the shapes and dtypes of its outputs.
            attributes: values of any type, shown as their ``str``; None and "" are omitted.
            device: the device where it runs.
        """
        texts = {k: _text(v) for k, v in (attributes or {}).items() if v is not None and v != ""}
        node = Node(_clean(name), _text(op), tuple(inputs), tuple(outputs), texts, device)
        self._nodes.append(node)
        return Ref(len(self._nodes) - 1)

    def nodes(self) -> list[Node]:
        """Return the nodes with their final names."""
        node_counts = Counter(scope for node in self._nodes for scope in _scopes_of(node.name))
        names = [node.name for node in self._nodes]
        for i, node in enumerate(self._nodes):
            scope = node.name.rpartition("/")[0]
            if node_counts[scope] == 1 and node.op not in _NAMED_BY_USERS:
                names[i] = self._scopes.get(scope, scope)
        taken = {scope for name in names for scope in _scopes_of(name)}
        members: dict[str, set[Any]] = defaultdict(set)
        for i, name in enumerate(names):
            for scope in _scopes_of(name):
                members[scope.rpartition("/")[0]].add(scope)
            siblings = members[name.rpartition("/")[0]]
            siblings.add(i)
            number = len(siblings)
            while names[i] in taken:
                names[i] = f"{name}_{number}"
                number += 1
            taken.add(names[i])
        return [node._replace(name=name) for node, name in zip(self._nodes, names, strict=True)]


def describe(graph: Graph) -> str:
    """Return one line per node: ``Net/fc/linear = linear(x, Net/fc/weight) -> float32[2]``."""
    if isinstance(graph.nodes, bytes):
        return f"{graph.name}: a GraphDef of {len(graph.nodes):,} bytes"
    names = [node.name for node in graph.nodes]
    lines = [
        f"{node.name} = {node.op}({', '.join(names[ref.node] for ref in node.inputs)})"
        f"{' -> ' if node.outputs else ''}{', '.join(map(str, node.outputs))}"
        for node in graph.nodes
    ]
    return "\n".join(lines)


def flattened(value: Any, kind: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the instances of a type inside containers, each with its path below ``name``."""
    if isinstance(value, kind):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from flattened(item, kind, f"{name}/{key}")
    elif isinstance(value, (tuple, list)):
        keys = getattr(value, "_fields", range(len(value)))
        for key, item in zip(keys, value, strict=True):
            yield from flattened(item, kind, f"{name}/{key}")
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        for field in dataclasses.fields(value):
            yield from flattened(getattr(value, field.name), kind, f"{name}/{field.name}")


def first_line(error: BaseException) -> str:
    """Return the first line of an error message, at most 300 characters."""
    text = str(error).strip() or type(error).__name__
    return f"{text.splitlines()[0]:.300}"


def _scopes_of(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _clean(name: str) -> str:
    """Replace the characters that have a meaning in the tab; remove empty scopes."""
    parts = (re.sub(r"[^\w.\-<>=+*#@() ]", "_", part).strip() for part in name.split("/"))
    return "/".join(part for part in parts if part) or "_"


def _text(value: Any) -> str:
    """Return a value as text that protobuf's text format does not change."""
    text = re.sub(r"\s+", " ", re.sub(r"['\"\\]", "", str(value)))
    text = re.sub(r"[^ -~]", "?", text)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."

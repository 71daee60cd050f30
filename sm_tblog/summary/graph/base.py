"""A graph as the Graphs tab draws it: nodes in nested scopes, and tensors that go between them.

Readers of every framework fill a ``GraphBuilder``; the worker encodes what comes out. What the tab
does with a ``GraphDef`` decides the form:

* Slashes in a name nest it: a box for each scope.
* An input is a node's name, or ``name:1`` for its second output. The attribute ``_output_shapes``
  is what stands beside an edge, and makes edges of large tensors thick.
* Attributes are shown as they stand in the text format, with its escapes: quotes and letters
  beyond ASCII would be unreadable.
* Nodes of one scope and one operation whose names end in consecutive numbers, five or more, are
  stacked into one: ``relu_1`` to ``relu_5`` would tie a network into a knot. So a name that is
  taken gets the node's place in its scope as its number.
* A node of an operation whose name has ``Const`` in it is drawn small, beside what uses it.
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

_LONGEST = 500
"""Characters of an attribute that are kept."""

_NAMED_BY_USERS = ("Buffer", "Input", "Output", "Parameter")
"""Operations of nodes whose own names are worth more than those of their scopes."""


class TensorSpec(NamedTuple):
    """What is known of a tensor.

    Attributes:
        shape: -1 where a length is unknown; None if not even their number is known.
        dtype: its name, such as ``"float32"``; "" if unknown.
    """

    shape: tuple[int, ...] | None
    dtype: str

    @classmethod
    def of(cls, shape: Iterable[Any] | None, dtype: Any) -> TensorSpec:
        """Return the spec for lengths that are not all integers, and any library's dtype."""
        lengths = None if shape is None else tuple(n if isinstance(n, int) else -1 for n in shape)
        return cls(lengths, "" if dtype is None else str(dtype).rpartition(".")[2])

    def __str__(self) -> str:
        """Return ``float32[2, 3]``."""
        lengths = ["..."] if self.shape is None else ["?" if n < 0 else str(n) for n in self.shape]
        return f"{self.dtype}[{', '.join(lengths)}]"


class Ref(NamedTuple):
    """One output of a node.

    Attributes:
        node: its position among the builder's nodes.
        output: which of its outputs.
    """

    node: int
    output: int = 0


class Node(NamedTuple):
    """A node.

    Attributes:
        name: unique, with slashes between scopes.
        op: what it does.
        inputs: where its inputs come from.
        outputs: what it gives.
        attributes: shown when the node is selected.
        device: where it runs, by the framework's name for it; the tab can color by it.
    """

    name: str
    op: str
    inputs: tuple[Ref, ...]
    outputs: tuple[TensorSpec, ...]
    attributes: Mapping[str, str]
    device: str


class Graph(NamedTuple):
    """What a reader makes of a model.

    Attributes:
        name: the model's.
        nodes: in an order in which inputs come first, as far as there is one; or a serialized
            ``GraphDef``.
        remark: what the user should know about it, such as that it is less than it could be.
    """

    name: str
    nodes: Sequence[Node] | bytes
    remark: str = ""

    @property
    def nbytes(self) -> int:
        """About the memory that it takes."""
        return len(self.nodes) if isinstance(self.nodes, bytes) else 1000 * len(self.nodes)


class GraphBuilder:
    """Collects nodes; gives each a name that is valid, unique and short.

    A scope with one node alone gives its name to that node: a box around it is a click too many.
    """

    def __init__(self) -> None:
        self._nodes: list[Node] = []
        self._scopes: dict[str, str] = {}

    def scope(self, name: str) -> str:
        """Return the name for a scope that is entered anew, as ``name`` or ``name_1`` and so on.

        A second call of a module is in a scope of its own.
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
            op: what it does.
            name: the name that it should have, below its scope.
            inputs: where its inputs come from.
            outputs: what it gives.
            attributes: any values, shown by their ``str``; those that are None or "" are left out.
            device: where it runs.
        """
        texts = {k: _text(v) for k, v in (attributes or {}).items() if v is not None and v != ""}
        node = Node(_clean(name), _text(op), tuple(inputs), tuple(outputs), texts, device)
        self._nodes.append(node)
        return Ref(len(self._nodes) - 1)

    def nodes(self) -> list[Node]:
        """Return the nodes by their final names."""
        inhabitants = Counter(scope for node in self._nodes for scope in _scopes_of(node.name))
        names = [node.name for node in self._nodes]
        for i, node in enumerate(self._nodes):
            scope = node.name.rpartition("/")[0]
            if inhabitants[scope] == 1 and node.op not in _NAMED_BY_USERS:
                names[i] = self._scopes.get(scope, scope)
        taken = {scope for name in names for scope in _scopes_of(name)}
        members: dict[str, set[Any]] = defaultdict(set)
        for i, name in enumerate(names):
            for scope in _scopes_of(name):
                members[scope.rpartition("/")[0]].add(scope)
            around = members[name.rpartition("/")[0]]
            around.add(i)
            place = len(around)
            while names[i] in taken:
                names[i] = f"{name}_{place}"
                place += 1
            taken.add(names[i])
        return [node._replace(name=name) for node, name in zip(self._nodes, names, strict=True)]


def describe(graph: Graph) -> str:
    """Return a line for each node: ``Net/fc/linear = linear(x, Net/fc/weight) -> float32[2]``."""
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
    """Iterate over the instances of a kind inside containers, each with its path below ``name``."""
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
    """Return what an error says, on one line and not for long."""
    text = str(error).strip() or type(error).__name__
    return f"{text.splitlines()[0]:.300}"


def _scopes_of(name: str) -> list[str]:
    parts = name.split("/")
    return ["/".join(parts[:i]) for i in range(1, len(parts))]


def _clean(name: str) -> str:
    """Return a name without what the tab gives a meaning: quotes, colons, carets, empty scopes."""
    parts = (re.sub(r"[^\w.\-<>=+*#@() ]", "_", part).strip() for part in name.split("/"))
    return "/".join(part for part in parts if part) or "_"


def _text(value: Any) -> str:
    """Return a value as text that reads the same in protobuf's text format."""
    text = re.sub(r"\s+", " ", re.sub(r"['\"\\]", "", str(value)))
    text = re.sub(r"[^ -~]", "?", text)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."

"""Arrays of a tree by name: JAX pytrees, or nested dicts and sequences."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from sm_tblog._errors import InvalidTypeError, InvalidValueError
from sm_tblog.rules.observation import KINDS
from sm_tblog.watch.recorder import Layer

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["as_layers", "named_leaves"]


def as_layers(name: str, tree: Any, gradients: Any, updates: Any) -> list[Layer]:
    """Return the leaves of trees with the same structure.

    Args:
        name: one of ``KINDS``, for a tree of such arrays; or a prefix for the names of parameters,
            for a tree of parameters.
        tree: the tree; see ``name``.
        gradients: a tree of the gradients of the parameters.
        updates: a tree of the updates of the parameters.

    Raises:
        InvalidTypeError: the tree has no leaves, or it does not hold parameters and other trees are
            given.
        InvalidValueError: the leaves of the trees have different names.
    """
    leaves = dict(named_leaves(tree))
    if not leaves:
        message = f"watch_tree: {name!r} has no arrays, got {tree!r:.60}"
        raise InvalidTypeError(message)
    if name in KINDS and name != "parameters":
        if gradients is not None or updates is not None or name == "activations":
            message = (
                f"watch_tree({name!r}, …): a tree of {name} cannot be combined with other trees; "
                "pass the parameters as the tree, with gradients= and updates=; activations are "
                "supported only for PyTorch models"
            )
            raise InvalidTypeError(message)
        field = name.removesuffix("s")
        return [Layer(path)._replace(**{field: leaf}) for path, leaf in leaves.items()]
    others = {"gradients": gradients, "updates": updates}
    found = {what: dict(named_leaves(other)) for what, other in others.items()}
    for what, other in found.items():
        if other and other.keys() != leaves.keys():
            odd = min(other.keys() ^ leaves.keys())
            message = (
                f"watch_tree: {what} and parameters must have the same leaves; only one has {odd!r}"
            )
            raise InvalidValueError(message)
    prefix = "" if name == "parameters" else f"{name}/"
    return [
        Layer(prefix + path, leaf, found["gradients"].get(path), found["updates"].get(path))
        for path, leaf in leaves.items()
    ]


def named_leaves(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the path of each leaf, joined by slashes, and the leaf; None is not a leaf."""
    jax = sys.modules.get("jax")
    if jax is None:
        yield from _leaves(tree, ())
        return
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    for path, leaf in leaves:
        parts = [_part(key) for key in path]
        if len(parts) > 1 and parts[-1] == "value":  # a Flax variable
            parts.pop()
        yield "/".join(parts) or "array", leaf


def _part(key: Any) -> str:
    """Return a key of a JAX path as text."""
    for attribute in ("key", "idx", "name"):
        if hasattr(key, attribute):
            return str(getattr(key, attribute))
    return str(key)


def _leaves(tree: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    if tree is None:
        return
    if hasattr(tree, "items"):
        parts = [(str(key), value) for key, value in sorted(tree.items())]
    elif hasattr(tree, "_asdict"):
        parts = list(tree._asdict().items())
    elif isinstance(tree, (list, tuple)):
        parts = [(str(i), value) for i, value in enumerate(tree)]
    else:
        yield "/".join(path) or "array", tree
        return
    for key, value in parts:
        yield from _leaves(value, (*path, key))

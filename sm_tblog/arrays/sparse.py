"""What sparse and ragged arrays store, for those who need the numbers and not their places.

A histogram of a sparse array needs the elements that are stored and the number of zeros that are
not: to make the array dense would take the memory that it has been spared. Elements that stand at
the same place, as in the gradient of an embedding, are added up by the worker.
"""

from __future__ import annotations

import math
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sm_tblog._errors import TBLogError
from sm_tblog.arrays.convert import resolve, snapshot, unreadable, unwrapped
from sm_tblog.arrays.deferred import Deferred, protocol

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["Stored", "stored_elements"]


class Stored(NamedTuple):
    """The elements of an array that it stores.

    Attributes:
        elements: an array-like, of any library and shape.
        size: how many elements the array has, with the zeros that it does not store; None if it
            stores all.
    """

    elements: Any
    size: int | None = None


def stored_elements(values: Any, tag: str) -> Stored:
    """Return what an array of any library stores; of one that is dense, the array itself.

    Sparse are PyTorch's and SciPy's of every layout, and TensorFlow's ``SparseTensor`` and
    ``IndexedSlices``; ragged are PyTorch's nested tensors and TensorFlow's ``RaggedTensor``.

    Args:
        values: an array-like.
        tag: named in errors.

    Raises:
        InvalidTypeError: its elements cannot be read, or are not real numbers.
    """
    try:
        return _stored(unwrapped(values), tag)
    except TBLogError:
        raise
    except Exception as error:
        raise unreadable(values, tag, error) from error


def _stored(values: Any, tag: str) -> Stored:
    if protocol(values) == "torch":
        return _of_tensor(values, tag)
    if protocol(values) == "sparse":
        return _of_scipy(values)
    if hasattr(type(values), "flat_values"):  # TensorFlow's RaggedTensor
        return Stored(values.flat_values)
    if hasattr(type(values), "dense_shape"):  # TensorFlow's sparse ones
        size = None if values.dense_shape is None else math.prod(values.shape)
        return Stored(_summed(values.indices, values.values, tag), size)
    return Stored(values)


def _of_tensor(tensor: Any, tag: str) -> Stored:
    torch = sys.modules["torch"]
    if tensor.is_nested:
        return Stored(tensor.values())
    if tensor.layout is torch.sparse_coo:
        tensor = tensor.detach()
        if tensor.is_coalesced():
            return Stored(tensor.values(), tensor.numel())
        places, elements = tensor._indices(), tensor._values()  # noqa: SLF001 - the public ones add up first
        return Stored(_summed(places.T, elements, tag), tensor.numel())
    if tensor.layout in {torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc}:
        return Stored(tensor.detach().values(), tensor.numel())
    return Stored(tensor)


def _of_scipy(values: Any) -> Stored:
    size = math.prod(values.shape)
    if getattr(values, "has_canonical_format", False):
        return Stored(values.data, size)
    coo = values.tocoo(copy=True)

    def read() -> npt.NDArray[Any]:
        coo.sum_duplicates()
        data: npt.NDArray[Any] = coo.data
        return data

    nbytes = coo.nnz * (coo.dtype.itemsize + 8 * coo.ndim)
    return Stored(Deferred(read, coo.data.shape, coo.dtype, nbytes), size)


def _summed(places: Any, elements: Any, tag: str) -> Deferred:
    """Return elements that are added up where their places are equal, as a ``Deferred``.

    Its shape is that of the elements as they are given.

    Args:
        places: integers of shape (stored,) or (stored, dimensions).
        elements: shape (stored, …).
        tag: named in errors.
    """
    at, what = snapshot(places, tag), snapshot(elements, tag)
    return Deferred(partial(_sum, at, what, tag), what.shape, what.dtype, at.nbytes + what.nbytes)


def _sum(
    places: npt.NDArray[Any] | Deferred, elements: npt.NDArray[Any] | Deferred, tag: str
) -> npt.NDArray[Any]:
    at, what = resolve(places, tag), resolve(elements, tag)
    if not len(what):
        return what
    at = at.reshape(len(at), -1)
    order = np.lexsort(at.T)
    at = at[order]
    first = np.flatnonzero((at[1:] != at[:-1]).any(axis=1)) + 1
    sums: npt.NDArray[Any] = np.add.reduceat(what[order], [0, *first], axis=0)
    return sums

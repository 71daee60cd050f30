"""Read the stored elements of sparse and ragged arrays, without their indices.

A histogram of a sparse array needs only the stored elements and the number of zeros that are not
stored; a dense copy would need the memory that sparse storage saves. Elements with the same index,
as in the gradient of an embedding, are summed on the worker thread.
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
    """The stored elements of an array.

    Attributes:
        elements: an array-like of any library and shape.
        size: the number of elements of the array, including zeros that are not stored; None if all
            elements are stored.
    """

    elements: Any
    size: int | None = None


def stored_elements(values: Any, tag: str) -> Stored:
    """Return the stored elements of an array of any library; for a dense array, the array itself.

    Sparse arrays are those of PyTorch and SciPy in every layout, and TensorFlow's ``SparseTensor``
    and ``IndexedSlices``; ragged arrays are PyTorch's nested tensors and TensorFlow's
    ``RaggedTensor``.

    Args:
        values: an array-like.
        tag: the tag, for error messages.

    Raises:
        InvalidTypeError: the elements cannot be read, or are not real numbers.
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
    if hasattr(type(values), "dense_shape"):  # TensorFlow's SparseTensor and IndexedSlices
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
        indices, elements = tensor._indices(), tensor._values()  # noqa: SLF001 - public ones sum first
        return Stored(_summed(indices.T, elements, tag), tensor.numel())
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


def _summed(indices: Any, elements: Any, tag: str) -> Deferred:
    """Return the sums of elements with equal indices, as a ``Deferred``.

    Its shape is that of ``elements``, before summing.

    Args:
        indices: integers of shape (stored,) or (stored, dimensions).
        elements: shape (stored, …).
        tag: the tag, for error messages.
    """
    keys, terms = snapshot(indices, tag), snapshot(elements, tag)
    nbytes = keys.nbytes + terms.nbytes
    return Deferred(partial(_sum, keys, terms, tag), terms.shape, terms.dtype, nbytes)


def _sum(
    indices: npt.NDArray[Any] | Deferred, elements: npt.NDArray[Any] | Deferred, tag: str
) -> npt.NDArray[Any]:
    keys, terms = resolve(indices, tag), resolve(elements, tag)
    if not len(terms):
        return terms
    keys = keys.reshape(len(keys), -1)
    order = np.lexsort(keys.T)
    keys = keys[order]
    first = np.flatnonzero((keys[1:] != keys[:-1]).any(axis=1)) + 1
    sums: npt.NDArray[Any] = np.add.reduceat(terms[order], [0, *first], axis=0)
    return sums

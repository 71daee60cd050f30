"""Statistics of PyTorch tensors, computed on their devices and copied to the host in one transfer.

No operation waits for the device, because no shape or branch depends on a result. Everything that
the host needs at a log step is put into a ``TransferBuffer`` as bytes and copied at once.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sm_tblog.arrays.deferred import defer_tensor, usable
from sm_tblog.arrays.device_histogram import has_float64, pieces
from sm_tblog.watch.statistics import ABSOLUTE, RELATIVE

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from sm_tblog.arrays.deferred import Deferred

__all__ = ["TransferBuffer", "inactive_share", "readable", "tensor_change", "tensor_rows"]


class TransferBuffer:
    """Copies tensors to the host together, in one transfer per device.

    The transfer is queued on the current stream; reading the first tensor waits for it.
    """

    def __init__(self) -> None:
        self._unpacked: dict[Any, list[Any]] = {}
        self._packed: dict[Any, list[Any]] = {}
        self._sizes: dict[Any, int] = {}
        self._sent: dict[Any, Deferred] = {}
        self._received: dict[Any, npt.NDArray[Any]] = {}

    @property
    def nbytes(self) -> int:
        """The size of the transfers in bytes."""
        return sum(self._sizes.values())

    def put(self, tensor: Any) -> Callable[[], npt.NDArray[Any]]:
        """Add a tensor; return a function that returns it as a flat array after ``send``.

        NumPy must support its dtype. The tensor must not change before ``pack`` or ``send``.
        """
        torch = sys.modules["torch"]
        part = tensor.reshape(-1).contiguous().view(torch.uint8)
        offset = self._sizes.get(tensor.device, 0)
        self._unpacked.setdefault(tensor.device, []).append(part)
        self._sizes[tensor.device] = offset + len(part)
        dtype = np.dtype(str(tensor.dtype).rpartition(".")[2])
        return partial(self._read, tensor.device, offset, len(part), dtype)

    def pack(self) -> None:
        """Copy the tensors added since the last call on their devices; they may then change."""
        torch = sys.modules["torch"]
        for device, parts in self._unpacked.items():
            self._packed.setdefault(device, []).append(torch.cat(parts))
        self._unpacked.clear()

    def send(self) -> None:
        """Start one transfer per device; nothing can be added after that."""
        torch = sys.modules["torch"]
        self.pack()
        for device, tensors in self._packed.items():
            packed = tensors[0] if len(tensors) == 1 else torch.cat(tensors)
            if _is_host(device):
                self._received[device] = packed.numpy()
            else:
                self._sent[device] = defer_tensor(packed)
        self._packed.clear()

    def _read(
        self, device: Any, offset: int, nbytes: int, dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        if device not in self._received:
            self._received[device] = self._sent.pop(device).array()
        part = self._received[device][offset : offset + nbytes]
        # NumPy can read unaligned data, at the cost of a copy.
        return np.frombuffer(part, dtype)


def _is_host(device: Any) -> bool:
    return bool(device.type == "cpu")


def readable(tensor: Any) -> Any | None:
    """Return the values of a tensor as a dense real tensor; None if there are none.

    For a tensor that is distributed over processes, this is the local part; for a sparse tensor,
    the stored values.
    """
    torch = sys.modules["torch"]
    if hasattr(type(tensor), "to_local"):
        tensor = tensor.to_local()
    if tensor.is_sparse:  # coalescing would wait for a device
        tensor = tensor.coalesce().values() if tensor.is_cpu else tensor._values()  # noqa: SLF001 - values() needs a coalesced tensor
    if tensor.device.type == "meta" or tensor.is_quantized or tensor.layout is not torch.strided:
        return None
    tensor = usable(tensor)
    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _real_of(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.float64 if has_float64(tensor.device) else torch.float32


def tensor_rows(tensor: Any) -> Any:
    """Return the flat rows of a tensor that is not empty, on its device; see ``statistics``."""
    torch = sys.modules["torch"]
    real = _real_of(tensor)
    numbers = []
    for piece in pieces(tensor):
        x = piece.to(real)
        scale = torch.ones((), dtype=real, device=x.device)
        if real is torch.float32:  # so that no square overflows
            scale = x.nan_to_num(0.0, 0.0, 0.0).abs().amax().clamp_min(torch.finfo(real).tiny)
            x = x / scale
        count = torch.full((), len(x), dtype=real, device=x.device)
        mean, norm = x.mean(), torch.linalg.vector_norm(x)
        # Welford's algorithm, which x.std() uses, takes ten times as long on the host.
        std = torch.linalg.vector_norm(x - mean) / count.sqrt()
        low, high = torch.aminmax(x)
        zeros = count - x.count_nonzero()
        numbers += [count, mean * scale, std * scale, x.abs().mean() * scale, norm * scale]
        numbers += [low * scale, high * scale, zeros]
        if x.is_cpu and norm.isfinite():  # reading a value on the host does not wait
            numbers += [torch.zeros((), dtype=real, device=x.device)] * 2
        else:
            numbers += [x.isnan().count_nonzero().to(real), x.isinf().count_nonzero().to(real)]
    return torch.stack(numbers)


def tensor_change(before: Any, update: Any) -> Any:
    """Return the row of an update, on its device; see ``statistics.change_row``."""
    torch = sys.modules["torch"]
    real = _real_of(before)
    old, step = before.reshape(-1).to(real), update.reshape(-1).to(real)
    same = step.abs() <= ABSOLUTE + RELATIVE * old.abs()
    count = torch.full((), len(old), dtype=real, device=old.device)
    changed = count - same.count_nonzero()
    norms = [torch.linalg.vector_norm(step), torch.linalg.vector_norm(old)]
    return torch.stack([*norms, changed, count])


def inactive_share(active: Any, axis: int, threshold: float) -> Any:
    """Return the share of units that are hardly ever active, as a tensor with one float32.

    Args:
        active: whether each element is active, dtype bool.
        axis: the axis of the units.
        threshold: the share of active elements below which a unit is inactive, 0 to 1.
    """
    torch = sys.modules["torch"]
    others = [i for i in range(active.ndim) if i != axis % active.ndim]
    shares = active.float().mean(others) if others else active.float()
    return (shares < threshold).to(torch.float32).mean().reshape(1)

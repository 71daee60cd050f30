"""Statistics of PyTorch's tensors, made where they are, and one copy that takes them to the host.

None of the operations waits for the device: no result decides about a shape or a branch. Whatever
the host shall learn of a log step is put into a ``TransferBuffer``, as bytes, and travels at once.
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
    """Tensors that travel to the host together: one copy for each device that they are on.

    The copy is queued on the current stream, and waited for when the first tensor is taken out.
    """

    def __init__(self) -> None:
        self._loose: dict[Any, list[Any]] = {}
        self._boxes: dict[Any, list[Any]] = {}
        self._sizes: dict[Any, int] = {}
        self._sent: dict[Any, Deferred] = {}
        self._opened: dict[Any, npt.NDArray[Any]] = {}

    @property
    def nbytes(self) -> int:
        """The bytes that travel."""
        return sum(self._sizes.values())

    def put(self, tensor: Any) -> Callable[[], npt.NDArray[Any]]:
        """Add a tensor of a dtype that NumPy has; return what takes it out, flat, after ``send``.

        It must not change before it is packed.
        """
        torch = sys.modules["torch"]
        part = tensor.reshape(-1).contiguous().view(torch.uint8)
        offset = self._sizes.get(tensor.device, 0)
        self._loose.setdefault(tensor.device, []).append(part)
        self._sizes[tensor.device] = offset + len(part)
        dtype = np.dtype(str(tensor.dtype).rpartition(".")[2])
        return partial(self._take, tensor.device, offset, len(part), dtype)

    def pack(self) -> None:
        """Copy what was put since, on its device; it may change from now on."""
        torch = sys.modules["torch"]
        for device, parts in self._loose.items():
            self._boxes.setdefault(device, []).append(torch.cat(parts))
        self._loose.clear()

    def send(self) -> None:
        """Ask every device for its copy; nothing can be added any more."""
        torch = sys.modules["torch"]
        self.pack()
        for device, boxes in self._boxes.items():
            box = boxes[0] if len(boxes) == 1 else torch.cat(boxes)
            if _is_host(device):
                self._opened[device] = box.numpy()
            else:
                self._sent[device] = defer_tensor(box)
        self._boxes.clear()

    def _take(
        self, device: Any, offset: int, nbytes: int, dtype: np.dtype[Any]
    ) -> npt.NDArray[Any]:
        if device not in self._opened:
            self._opened[device] = self._sent.pop(device).array()
        part = self._opened[device][offset : offset + nbytes]
        # NumPy reads what is not aligned, at the price of a copy.
        return np.frombuffer(part, dtype)


def _is_host(device: Any) -> bool:
    return bool(device.type == "cpu")


def readable(tensor: Any) -> Any | None:
    """Return the numbers of a tensor as a dense real one; None where there are none.

    Of a tensor that is spread over processes it is this one's part, of a sparse one what is
    stored.
    """
    torch = sys.modules["torch"]
    if hasattr(type(tensor), "to_local"):
        tensor = tensor.to_local()
    if tensor.is_sparse:  # adding up what is stored twice would wait for a device
        tensor = tensor.coalesce().values() if tensor.is_cpu else tensor._values()  # noqa: SLF001 - the public name is of coalesced ones
    if tensor.device.type == "meta" or tensor.is_quantized or tensor.layout is not torch.strided:
        return None
    tensor = usable(tensor)
    tensor = tensor.resolve_conj().resolve_neg()
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def _real_of(tensor: Any) -> Any:
    torch = sys.modules["torch"]
    return torch.float64 if has_float64(tensor.device) else torch.float32


def tensor_rows(tensor: Any) -> Any:
    """Return the rows of a tensor that is not empty, on its device; flat, see ``statistics``."""
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
        # Welford's way, PyTorch's own, takes ten times as long on the host.
        std = torch.linalg.vector_norm(x - mean) / count.sqrt()
        least, most = torch.aminmax(x)
        zeros = count - x.count_nonzero()
        numbers += [count, mean * scale, std * scale, x.abs().mean() * scale, norm * scale]
        numbers += [least * scale, most * scale, zeros]
        if x.is_cpu and norm.isfinite():  # what is there may be asked
            numbers += [torch.zeros((), dtype=real)] * 2
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


def inactive_share(active: Any, axis: int, least: float) -> Any:
    """Return the share of a layer's units that are hardly ever active; one float32, on the device.

    Args:
        active: whether each element is; bool.
        axis: along which its units are.
        least: the share of a unit's elements that make it an active one.
    """
    torch = sys.modules["torch"]
    others = [i for i in range(active.ndim) if i != axis % active.ndim]
    shares = active.float().mean(others) if others else active.float()
    return (shares < least).to(torch.float32).mean().reshape(1)

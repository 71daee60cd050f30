"""``add_image`` and ``add_video``: caller's time, processor time and bytes on disk.

The picture has the spectrum of a photograph, with amplitudes that fall with frequency. The video is
a window that moves across such a picture. Noise would be harder to compress than what people log,
and a drawing would be easier.
"""

from __future__ import annotations

import importlib.util
import io
from functools import partial
from importlib import metadata
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchmarks._measure import Target, interleave, less_than_the_best
from benchmarks._writers import OURS, PEERS, check_records, open_writer, temporary_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy.typing as npt

    from benchmarks._measure import Figure

__all__ = ["image_cost", "video_cost"]

_QUANTITIES = (
    ("caller's time", "ms", Target(50, at_least=True)),
    ("all processor time", "ms", Target(2, at_least=True)),
    ("bytes on disk", "bytes", Target(0.9, at_least=True)),
)
_PILLOW = "Pillow"


class _Cost(NamedTuple):
    """The cost of a call: milliseconds of the call and of processor time, and bytes."""

    call: float
    processor: float
    bytes: float


def image_cost(
    sizes: Sequence[int] = (224, 512), rounds: int = 15, calls: int = 10
) -> list[Figure]:
    """Return the three costs for float32 images with three channels, for each writer.

    Every call is followed by a barrier, as if a loop logged an image now and then. Processor time
    covers all threads, from the first call to the closed file.
    """
    figures = []
    for size in sizes:
        picture = (_picture(size, size).transpose(2, 0, 1) / 255).astype(np.float32)
        log = partial(_log_image, picture)
        contestants = {name: partial(_cost, name, log, calls) for name in (OURS, *PEERS)}
        figures += _figures(f"add_image, 3x{size}x{size} float32", contestants, rounds)
    return figures


def _log_image(picture: npt.NDArray[np.float32], writer: Any, step: int) -> None:
    writer.add_image("image", picture, step)


def video_cost(frames: int = 64, size: int = 64, rounds: int = 5, calls: int = 3) -> list[Figure]:
    """Return the three costs for a video of uint8 values, as a GIF.

    torch's and tensorboardX's writers need moviepy, and torch's needs a release before 2.0. Only
    those that find a usable release are measured. Pillow alone is measured too, because moviepy
    uses it to encode a GIF.
    """
    wide = _picture(size, size + frames)
    video = np.stack([wide[:, i : i + size] for i in range(frames)]).transpose(0, 3, 1, 2)[None]

    def log(writer: Any, step: int) -> None:
        writer.add_video("video", video, step)

    names = (OURS, *_peers_with_video())
    contestants = {name: partial(_cost, name, log, calls) for name in names}
    contestants[_PILLOW] = partial(_cost_of_pillow, video[0].transpose(0, 2, 3, 1), calls)
    what = f"add_video, {frames} frames of 3x{size}x{size} bytes"
    figures = _figures(what, contestants, rounds)
    absent = [name for name in PEERS if name not in names]
    note = f"{what}: {' and '.join(absent)} found no usable moviepy" if absent else ""
    return [figures[0]._replace(note=note), *figures[1:]]


def _figures(
    what: str, contestants: Mapping[str, Callable[[], _Cost]], rounds: int
) -> list[Figure]:
    for measure in contestants.values():
        measure()  # imports
    costs: dict[str, list[_Cost]] = {name: [] for name in contestants}

    def run(name: str) -> float:
        costs[name].append(contestants[name]())
        return 0.0

    interleave({name: partial(run, name) for name in contestants}, rounds)
    return [
        less_than_the_best(
            f"{what}, {quantity}",
            {who: [cost[column] for cost in found] for who, found in costs.items()},
            unit,
            OURS,
            target,
        )
        for column, (quantity, unit, target) in enumerate(_QUANTITIES)
    ]


def _cost(name: str, log: Callable[[Any, int], None], calls: int) -> _Cost:
    with temporary_folder() as folder:
        writer = open_writer(name, folder)
        called = []
        processor = process_time()
        for step in range(calls):
            begun = perf_counter()
            log(writer, step)
            called.append(perf_counter() - begun)
            writer.flush()
        writer.close()
        used = process_time() - processor
        check_records(folder, calls)
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    return _Cost(median(called) * 1e3, used / calls * 1e3, size / calls)


def _cost_of_pillow(frames: npt.NDArray[np.uint8], calls: int) -> _Cost:
    from PIL import Image

    begun, processor = perf_counter(), process_time()
    for _ in range(calls):
        pictures = [Image.fromarray(frame) for frame in frames]
        file = io.BytesIO()
        pictures[0].save(file, "GIF", save_all=True, append_images=pictures[1:], duration=250)
    took, used = perf_counter() - begun, process_time() - processor
    return _Cost(took / calls * 1e3, used / calls * 1e3, len(file.getvalue()))


def _peers_with_video() -> list[str]:
    """Return the other writers that can encode a video in this environment."""
    if importlib.util.find_spec("moviepy") is None:
        return []
    old = int(metadata.version("moviepy").partition(".")[0]) < 2
    return [name for name in PEERS if old or name != "torch"]


def _picture(height: int, width: int) -> npt.NDArray[np.uint8]:
    """Return a picture that resembles a photograph; shape (height, width, 3)."""
    noise = np.random.default_rng(0).standard_normal((4, height, width))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = 1
    clouds = np.fft.irfft2(np.fft.rfft2(noise) / frequency**1.5, (height, width))
    channels = 0.8 * clouds[3] + 0.2 * clouds[:3]  # colors are mostly grey
    channels = (channels - channels.mean()) / channels.std()
    levels = (128 + 50 * channels).clip(0, 255)
    picture: npt.NDArray[np.uint8] = levels.transpose(1, 2, 0).astype(np.uint8)
    return picture

# noqa: INP001 - a script
"""Creates the documentation's screenshots of TensorBoard: ``make pictures``.

The browser tests open each tab, most of them with the demo's logs, wait until it shows the data,
and save a screenshot. This script crops the screenshots and stores them with 256 colours in
``assets/tabs``, each with a thumbnail of its most informative part. Screenshots of data that a page
of the documentation logs go to a folder of their own in ``assets``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from PIL import Image

ROOT = Path(__file__).parent.parent
ASSETS = ROOT / "docs" / "assets"
TABS = ASSETS / "tabs"
THUMBNAIL_SIZE = (320, 200)
"""Width and height of a thumbnail, in pixels."""


class Crop(NamedTuple):
    """The parts of a screenshot to keep, in pixels.

    Attributes:
        right: right edge of the picture, which starts at the left edge of the screenshot.
        bottom: bottom edge of the picture, which starts below the header.
        left: left edge of the thumbnail.
        top: top edge of the thumbnail.
        width: width of the thumbnail; its height has the proportion of ``THUMBNAIL_SIZE``.
    """

    right: int
    bottom: int
    left: int
    top: int
    width: int


HERO_WIDTH = 1030
"""Width of the picture of README and home page, the Time Series tab without its settings."""

HEADER_HEIGHT = 66
"""Height of the header, which is the same in all tabs, in pixels."""
CROPS = {
    "audio": Crop(1080, 470, 340, 180, 360),
    "custom_scalars": Crop(1080, 440, 700, 120, 350),
    "distributions": Crop(1080, 680, 340, 180, 340),
    "figures": Crop(1080, 660, 360, 300, 330),
    "graphs": Crop(1280, 800, 350, 160, 540),
    "histograms": Crop(1080, 680, 340, 430, 340),
    "hparams": Crop(1280, 420, 262, 66, 620),
    "images": Crop(1080, 650, 705, 270, 360),
    "mesh": Crop(1280, 800, 450, 270, 740),
    "pr_curves": Crop(1080, 660, 345, 190, 510),
    "projector": Crop(1280, 800, 320, 140, 660),
    "scalars": Crop(1080, 700, 690, 180, 350),
    "system": Crop(1080, 750, 345, 470, 340),
    "text": Crop(1280, 800, 345, 390, 520),
    "timeseries": Crop(1280, 700, 653, 270, 361),
    "video": Crop(1080, 640, 340, 180, 365),
}

PAGES = {
    "profile": {
        "overview": (520, 640),
        "scalars": (1280, 770),
        "trace": (1280, 420),
        "trace-cured": (1280, 420),
    },
    "watch": {"alerts": (1280, 590), "scalars": (1080, 755), "histograms": (1080, 450)},
}
"""Right and bottom edges of the pictures of each ``tests/browser/test_<page>.py``, in pixels."""


def main() -> None:
    """Create all pictures."""
    for page, pictures in PAGES.items():
        with tempfile.TemporaryDirectory() as artifacts:
            take_screenshots(f"tests/browser/test_{page}.py", artifacts)
            for name, (right, bottom) in pictures.items():
                with Image.open(Path(artifacts, f"{name}.png")) as picture:
                    cropped = picture.crop((0, HEADER_HEIGHT, right, bottom))
                    save(cropped, ASSETS / page / f"{name}.png")
    with tempfile.TemporaryDirectory() as artifacts:
        take_screenshots("tests/browser/test_tabs.py", artifacts)
        take_screenshots("tests/browser/test_system.py", artifacts)
        for name, crop in CROPS.items():
            with Image.open(Path(artifacts, f"{name}.png")) as picture:
                cropped = picture.crop((0, HEADER_HEIGHT, crop.right, crop.bottom))
                save(cropped, TABS / f"{name}.png")
                height = crop.width * THUMBNAIL_SIZE[1] // THUMBNAIL_SIZE[0]
                part = (crop.left, crop.top, crop.left + crop.width, crop.top + height)
                thumbnail = picture.crop(part).resize(THUMBNAIL_SIZE, Image.Resampling.LANCZOS)
                save(thumbnail, TABS / f"{name}-small.png")
                if name == "timeseries":
                    save(cropped.crop((0, 0, HERO_WIDTH, cropped.height)), ASSETS / "hero.png")


def take_screenshots(tests: str, artifacts: str) -> None:
    """Run browser tests, which save their screenshots in a folder."""
    subprocess.run(  # noqa: S603 - the tests are ours
        [sys.executable, "-m", "pytest", tests],
        cwd=ROOT,
        env={**os.environ, "SM_TBLOG_ARTIFACTS": artifacts},
        check=True,
    )


def save(picture: Image.Image, path: Path) -> None:
    """Save a picture with 256 colours, which take a third of the bytes of true colour."""
    path.parent.mkdir(parents=True, exist_ok=True)
    reduced = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    reduced.save(path, optimize=True)


if __name__ == "__main__":
    main()

# noqa: INP001 - a script
"""Takes the documentation's pictures of TensorBoard: ``make pictures``.

The browser's tests open each tab, most of them on what the demo logs, wait until it shows that, and
leave a picture. Here they are cut to what is of interest, and stored with few colours in
``assets/tabs``, each a second time as a small one of its most telling part. Those of what a page of
the documentation has logged are in a folder of ``assets`` of their own.
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
FOLDER = ASSETS / "tabs"
SMALL = (320, 200)
"""Width and height of a small picture."""


class Cut(NamedTuple):
    """What is kept of a picture.

    Attributes:
        right: how much of its width.
        bottom: how much of its height.
        left: where its most telling part begins.
        top: the same.
        width: of that part; its height is in the proportion of ``SMALL``.
    """

    right: int
    bottom: int
    left: int
    top: int
    width: int


HEADER = 66
"""The height of what is the same in all tabs."""
CUTS = {
    "audio": Cut(1080, 470, 340, 180, 360),
    "custom_scalars": Cut(1080, 440, 700, 120, 350),
    "distributions": Cut(1080, 680, 340, 180, 340),
    "figures": Cut(1080, 660, 360, 300, 330),
    "graphs": Cut(1280, 800, 350, 160, 540),
    "histograms": Cut(1080, 680, 340, 430, 340),
    "hparams": Cut(1280, 420, 262, 66, 620),
    "images": Cut(1080, 650, 705, 270, 360),
    "mesh": Cut(1280, 800, 450, 270, 740),
    "pr_curves": Cut(1080, 660, 345, 190, 510),
    "projector": Cut(1280, 800, 320, 140, 660),
    "scalars": Cut(1080, 700, 690, 180, 350),
    "system": Cut(1080, 750, 345, 470, 340),
    "text": Cut(1280, 800, 345, 390, 520),
    "timeseries": Cut(1280, 700, 653, 270, 361),
    "video": Cut(1080, 640, 340, 180, 365),
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
"""Right and bottom edges at which pictures of ``tests/browser/test_<folder>.py`` are cropped."""


def main() -> None:
    """Take all pictures."""
    for page, pictures in PAGES.items():
        with tempfile.TemporaryDirectory() as artifacts:
            take(f"tests/browser/test_{page}.py", artifacts)
            for name, (right, bottom) in pictures.items():
                with Image.open(Path(artifacts, f"{name}.png")) as picture:
                    kept = picture.crop((0, HEADER, right, bottom))
                    save(kept, ASSETS / page / f"{name}.png")
    with tempfile.TemporaryDirectory() as artifacts:
        take("tests/browser/test_tabs.py", artifacts)
        take("tests/browser/test_system.py", artifacts)
        for name, cut in CUTS.items():
            with Image.open(Path(artifacts, f"{name}.png")) as picture:
                save(picture.crop((0, HEADER, cut.right, cut.bottom)), FOLDER / f"{name}.png")
                height = cut.width * SMALL[1] // SMALL[0]
                part = (cut.left, cut.top, cut.left + cut.width, cut.top + height)
                small = picture.crop(part).resize(SMALL, Image.Resampling.LANCZOS)
                save(small, FOLDER / f"{name}-small.png")


def take(tests: str, artifacts: str) -> None:
    """Run tests of the browser, and leave their pictures in a folder."""
    subprocess.run(  # noqa: S603 - the tests are ours
        [sys.executable, "-m", "pytest", tests],
        cwd=ROOT,
        env={**os.environ, "SM_TBLOG_ARTIFACTS": artifacts},
        check=True,
    )


def save(picture: Image.Image, path: Path) -> None:
    """Store a picture with 256 colours, which take a third of the bytes of all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    few = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    few.save(path, optimize=True)


if __name__ == "__main__":
    main()

"""The Python code blocks of the documentation pages."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

FENCE = re.compile(
    r"(?P<mark><!-- not run: (?P<reason>.*?) -->\n+)?"
    r"^(?P<indent> *)```python(?: title=\"(?P<title>[\w.]+)\")?\n(?P<code>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    line: int
    code: str
    title: str | None
    reason: str | None


def blocks_of(page):
    text = page.read_text(encoding="utf-8")
    return [
        Block(text.count("\n", 0, found.start("code")), found["code"], found["title"], reason)
        for found in FENCE.finditer(text)
        for reason in [found["reason"]]
    ]

# noqa: INP001 - mkdocs loads it by its path
"""Hooks that MkDocs calls while it builds the site."""

from __future__ import annotations

__all__ = ["on_page_content"]


def on_page_content(html: str, **_context: object) -> str:
    """Remove the ``::`` before code in docstrings, which Markdown would show as text."""
    return html.replace("<p>::</p>\n", "")

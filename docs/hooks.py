# noqa: INP001 - mkdocs loads it by its path
"""What MkDocs calls while it builds the site."""

from __future__ import annotations

__all__ = ["on_page_content"]


def on_page_content(html: str, **_context: object) -> str:
    """Drop the ``::`` that stands before code in docstrings; in Markdown it would be shown."""
    return html.replace("<p>::</p>\n", "")

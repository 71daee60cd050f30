"""The documentation: its Python runs, its links lead somewhere, and the site builds.

A page's Python blocks run in order, in one namespace and an empty folder. What follows
``print(…)  # `` is what must be printed, and ``# prints: `` says so for a print elsewhere. A block
with a title is a file: the others may import it, and one named ``test_….py`` is run by pytest.
"""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest
from doc_blocks import DOCS, ROOT, blocks_of
from site_pages import Page

from sm_tblog import MissingDependencyError
from sm_tblog.storage import base as storage

PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]

EXPECTED = re.compile(r"(?:^ *print\(.*\)  # |^ *# prints: )(.*)$", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+://|#)([^)#\s]+)")
BENCHMARK = re.compile(r"<!-- benchmark:begin -->\n(.+)\n<!-- benchmark:end -->\n", re.DOTALL)


def name_of(page):
    return page.relative_to(ROOT).as_posix()


PAGES_WITH_PYTHON = [page for page in PAGES if blocks_of(page)]


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=name_of)
def test_python_blocks_run_and_print_what_they_say(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(storage, "_STORES", dict(storage._STORES))
    namespace = {"__name__": "__main__"}
    expected = []
    for block in blocks_of(page):
        if block.title is not None:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.reason is None:
            # Empty lines before the code give a traceback the page's own line numbers.
            code = compile("\n" * block.line + block.code, str(page), "exec")
            try:
                exec(code, namespace)
            except (ModuleNotFoundError, MissingDependencyError) as error:
                pytest.skip(f"the page needs more: {error}")
            expected += EXPECTED.findall(block.code)
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize("page", PAGES_WITH_PYTHON, ids=name_of)
def test_every_python_block_is_found(page):
    text = page.read_text(encoding="utf-8")
    assert len(blocks_of(page)) == text.count("```python")


def test_few_blocks_are_not_run_and_each_says_why():
    reasons = [block.reason for page in PAGES for block in blocks_of(page) if block.reason]
    assert len(reasons) <= 3
    assert all(len(reason) > 10 for reason in reasons)


PAGES_WITH_TESTS = [
    page
    for page in PAGES_WITH_PYTHON
    if any((block.title or "").startswith("test_") for block in blocks_of(page))
]


@pytest.mark.parametrize("page", PAGES_WITH_TESTS, ids=name_of)
def test_the_tests_that_a_page_shows_pass(page, tmp_path):
    for block in blocks_of(page):
        if block.title is not None:
            (tmp_path / block.title).write_text(block.code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files(page):
    targets = LINK.findall(page.read_text(encoding="utf-8"))
    missing = [target for target in targets if not (page.parent / target).exists()]
    assert missing == []


def test_every_decision_is_listed_and_in_the_navigation():
    decisions = {path.name for path in (DOCS / "adr").glob("0*.md")}
    numbers = sorted(int(name[:4]) for name in decisions)
    assert numbers == list(range(1, len(numbers) + 1))
    for text in (DOCS / "adr" / "index.md", ROOT / "mkdocs.yml"):
        named = re.findall(r"\b(0\d{3}-[\w-]+\.md)", text.read_text(encoding="utf-8"))
        assert set(named) == decisions


def test_the_readme_quotes_rows_of_the_benchmark_table():
    table = BENCHMARK.search((DOCS / "benchmarks.md").read_text(encoding="utf-8"))[1]
    section = (ROOT / "README.md").read_text(encoding="utf-8").partition("## Benchmark\n")[2]
    quoted = [row for row in section.partition("\n## ")[0].splitlines() if row.startswith("|")]
    assert len(quoted) >= 5
    assert set(quoted) <= set(table.splitlines())


NEEDED = ("mkdocs", "material", "mkdocstrings_handlers")


MARKS = re.compile(
    r"^\s*(?:={3}|!{3}|\?{3}|:{3}|`{3}|~{3}).*|-- ?8 ?<.*|\]\(.*|\{[:#].*|^#+ .*|fmt: o.*",
    re.MULTILINE,
)
"""Marks of Markdown and of its extensions, which a page must not show."""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The pages of the built site by path."""
    if not all(importlib.util.find_spec(package) for package in NEEDED):
        pytest.skip("building the site needs mkdocs, mkdocs-material and mkdocstrings[python]")
    folder = tmp_path_factory.mktemp("site").resolve()
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    pages = {path: Page(path) for path in folder.rglob("*.html") if path.name != "404.html"}
    assert len(pages) > 40
    return pages


def test_the_site_builds_without_a_warning_and_asks_no_other_server(site):
    loaded = re.compile(r"<(?:script|img|iframe)[^>]* src=\"?(\w+:|//)|<link[^>]*stylesheet[^>]*//")
    for page in site:
        assert not loaded.search(page.read_text(encoding="utf-8")), page


def test_no_page_shows_marks_of_its_source(site):
    shown = [(path.parent.name, mark) for path in site for mark in MARKS.findall(site[path].prose)]
    assert shown == []
    # Examples are included in code.
    for path, page in site.items():
        assert not re.search(r"-- ?8 ?<|fmt: o(?:n|ff) -->", page.text), path
    [ray] = (page for path, page in site.items() if path.parent.name == "others")
    for example in ("ray_tune", "fastai_numbers"):
        source = (ROOT / "examples" / f"{example}.py").read_text(encoding="utf-8")
        assert source.strip() in ray.text


def test_every_link_and_anchor_of_the_site_leads_somewhere(site):
    broken = []
    for path, page in site.items():
        for link in page.links:
            if re.match(r"\w+:|//", link):
                continue
            target, _, anchor = link.partition("#")
            found = (path.parent / target).resolve() if target else path
            found = found / "index.html" if found.is_dir() else found
            if not found.exists() or (
                anchor and found in site and anchor not in site[found].anchors
            ):
                broken.append((path.parent.name, link))
    assert broken == []

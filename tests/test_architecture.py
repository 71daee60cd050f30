"""The architecture: layers, import cycles, public names, and the cost of importing the package."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import sm_tblog

ROOT = Path(sm_tblog.__file__).parent

FLOORS = [
    {"_compilation", "_errors", "_types", "ranks"},
    {"format", "arrays"},
    {"summary", "storage"},
    {"sinks", "readers"},
    {"pipeline", "rules", "indexing"},
    {"watch", "profile", "system", "sagemaker"},
    {"writer"},
    {"__init__", "testing"},
    {"adapters", "cli"},
    {"__main__"},
]
"""From bottom to top. A module imports only from lower layers and from its own package."""

PUBLIC_AT_THE_ROOT = {"__init__", "__main__", "ranks"}

MODULES = {
    ".".join(("sm_tblog", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(
        ".__init__"
    ): path
    for path in sorted(ROOT.rglob("*.py"))
}


def package_of(module):
    """Return the part of the package that a module belongs to, as listed in FLOORS."""
    return (module.split(".")[1:] or ["__init__"])[0]


def floor(module):
    return next(i for i, names in enumerate(FLOORS) if package_of(module) in names)


def is_lazy_export(module, imported):
    """Return whether the root imports this module lazily, to export a public name of it."""
    return module == "sm_tblog" and package_of(imported) in {
        "indexing",
        "profile",
        "readers",
        "rules",
        "system",
    }


@cache
def imports_of(module):
    """Return the sm_tblog modules that a module imports, anywhere: also for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            source = node.module or ""
            assert node.level == 0, f"{module}: relative import of {source}"
            for alias in node.names:
                name = f"{source}.{alias.name}"
                found.add(name if name in MODULES else source)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return sorted(name for name in found if name in MODULES and name != module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_go_downwards_only(module):
    for imported in imports_of(module):
        if package_of(imported) != package_of(module):
            assert is_lazy_export(module, imported) or floor(imported) < floor(module), imported


def test_no_module_imports_itself_by_way_of_others():
    finished = set()

    def visit(module, path):
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in finished:
            for imported in imports_of(module):
                visit(imported, [*path, module])
            finished.add(module)

    for module in MODULES:
        visit(module, [])


def test_the_plan_is_what_the_folders_show():
    parts = {path.stem for path in ROOT.glob("*.py")}
    parts |= {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert parts == set().union(*FLOORS)
    assert len(FLOORS) <= 10
    assert {path.stem for path in ROOT.glob("*.py")} == {
        *PUBLIC_AT_THE_ROOT,
        *("_compilation", "_errors", "_types"),
    }


def test_the_tests_mirror_the_packages():
    tests = Path(__file__).parent
    mirrored = {path.parent.name for path in tests.glob("*/test_*.py")}
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert mirrored - packages == {"browser"}
    assert packages - mirrored == {"testing"}  # its suites run in the tests of sinks and stores


def test_the_paths_that_the_documentation_lists_go_downwards():
    page = (ROOT.parent / "docs" / "life-of-a-scalar.md").read_text(encoding="utf-8")
    _, _, paths = page.partition("## Four paths through the code")
    lists = re.findall(r"(?:^\d+\. .*\n)+", paths, re.MULTILINE)
    assert len(lists) == 9
    for steps in lists:
        files = re.findall(r"^\d+\. `(.+?)\.py`: ", steps, re.MULTILINE)
        assert len(files) == steps.count("\n")
        modules = ["sm_tblog." + name.replace("/", ".") for name in files]
        assert set(modules) <= set(MODULES)
        floors = [floor(module) for module in modules]
        assert floors == sorted(floors, reverse=True), files


@pytest.mark.parametrize("module", MODULES)
def test_modules_are_short_and_say_what_they_are(module):
    source = MODULES[module].read_text(encoding="utf-8")
    assert ast.get_docstring(ast.parse(source)), "a module must start with a docstring"
    assert source.count("\n") <= 400


def all_modules():
    for module in pkgutil.walk_packages([str(ROOT)], "sm_tblog."):
        if not module.name.endswith("__main__"):
            yield module.name


@pytest.mark.parametrize("name", ["sm_tblog", *all_modules()])
def test_every_public_name_exists(name):
    try:
        module = importlib.import_module(name)
    except sm_tblog.MissingDependencyError as error:
        pytest.skip(str(error))
    for public in getattr(module, "__all__", ()):
        assert getattr(module, public) is not None


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing"):
        sm_tblog.nothing  # noqa: B018


def run(source):
    return subprocess.run(
        [sys.executable, "-c", source], capture_output=True, text=True, check=True
    ).stdout


def test_importing_brings_numpy_and_nothing_heavier():
    heavy = ["google.protobuf", "crc32c", "fsspec", "torch", "tensorboard", "tensorboardX"]
    heavy += ["pandas", "rich", "typer", "asyncio", "importlib.metadata", "keras", "lightning"]
    out = run(f"import sys, sm_tblog; print([m for m in {heavy} if m in sys.modules])")
    assert out == "[]\n"


def test_the_version_is_the_distributions():
    metadata = importlib.import_module("importlib.metadata")
    assert sm_tblog.__version__ == metadata.version("sm-tblog")

"""The shape of the library: layers, public names, what importing it costs."""

import ast
import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import sm_tblog

ROOT = Path(sm_tblog.__file__).parent

LAYERS = [
    {"_errors", "_types", "ranks"},
    {"format", "arrays"},
    {"summary", "storage"},
    {"sinks", "readers"},
    {"pipeline", "rules"},
    {"watch", "profile", "system", "sagemaker"},
    {"writer"},
    {"__init__", "testing"},
    {"adapters", "cli"},
    {"__main__"},
]
"""From the ground up. A module imports from lower layers and from its own package only."""

MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))


def level(part):
    return next(i for i, layer in enumerate(LAYERS) if part in layer)


def imports(path):
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sm_tblog"):
            parts = node.module.split(".")
            yield from parts[1:2] or (
                a.name
                if (ROOT / f"{a.name}.py").exists() or (ROOT / a.name).is_dir()
                else "__init__"
                for a in node.names
            )
        elif isinstance(node, ast.Import):
            names = [a.name.split(".") for a in node.names]
            yield from (n[1] if n[1:] else "__init__" for n in names if n[0] == "sm_tblog")


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_import_downwards_only(path):
    own = path.parts[0] if len(path.parts) > 1 else path.stem
    for imported in imports(path):
        lazy = own == "__init__" and imported in {"profile", "readers"}
        assert imported == own or lazy or level(imported) < level(own), f"{path}: {imported}"


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_modules_are_short_and_say_what_they_are(path):
    source = (ROOT / path).read_text()
    assert ast.get_docstring(ast.parse(source)), "a module begins with its contract"
    assert source.count("\n") <= 430


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

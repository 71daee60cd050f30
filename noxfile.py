"""Checks that each run in a separate environment; ``nox -l`` lists them."""

from __future__ import annotations

import nox

nox.needs_version = ">=2024.4.15"
nox.options.default_venv_backend = "venv"
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = False

PYTHONS = ["3.10", "3.11", "3.12", "3.13"]
SAGEMAKER_TESTS = ("tests/sagemaker",)
PROJECT = nox.project.load_toml("pyproject.toml")


def group(name: str) -> list[str]:
    """Return the requirements of a dependency group."""
    return list(nox.project.dependency_groups(PROJECT, name))


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests with the newest dependencies."""
    session.install("--editable", ".", *group("test"), *group("s3"), *group("frameworks"))
    session.run("pytest", *session.posargs)


@nox.session(python="3.10")
def minimums(session: nox.Session) -> None:
    """Run the tests with the lowest supported dependencies, including numpy 1 and protobuf 3."""
    session.install(
        "--editable",
        ".",
        *group("test"),
        "numpy==1.23.5",
        "protobuf==3.20.3",
        "crc32c==2.3",
        "fsspec==2023.1.0",
        "pandas==1.5.3",
        "psutil==5.9.0",
        "pyparsing==3.0.9",  # newer ones cause warnings in early Matplotlib
        "rich==12.6.0",
        "scikit-learn==1.1.3",
        "scipy==1.8.1",
        "tensorboard==2.16.2",
        "typer==0.15.4",
    )
    session.run("pytest", *session.posargs)


@nox.session(python="3.12")
@nox.parametrize("protobuf", ["4.25", "5.29", "6.33"])
def protobufs(session: nox.Session, protobuf: str) -> None:
    """Run the tests with each protobuf release line between the lowest and the newest."""
    session.install(
        "--editable",
        ".",
        *group("test"),
        f"protobuf=={protobuf}.*",
        "setuptools<81",  # pkg_resources, which the TensorBoard that goes with protobuf 4 imports
    )
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def downstream(session: nox.Session) -> None:
    """Run the tests with torch and tensorboardX, whose files are read and messages accepted."""
    session.install(
        "--editable", ".", *group("test"), *group("s3"), *group("frameworks"), *group("comparison")
    )
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
@nox.parametrize("sdk", ["sagemaker==2.*", "sagemaker-train==1.*"], ids=["v2", "v3"])
def sagemaker(session: nox.Session, sdk: str) -> None:
    """Run the SageMaker tests with each of its SDKs, which cannot be installed together."""
    session.install("--editable", ".", *group("test"), *group("s3"), sdk)
    session.run("pytest", *(session.posargs or SAGEMAKER_TESTS))


@nox.session(python="3.11")
def heavy(session: nox.Session) -> None:
    """Run the tests of large frameworks, including TensorFlow with Keras' own callback."""
    names = ("test", "s3", "frameworks", "comparison", "heavy")
    session.install("--editable", ".", *(one for name in names for one in group(name)))
    files = [f"tests/adapters/test_{name}.py" for name in ("keras", "clu", "fastai", "ray")]
    files.append("tests/summary/test_graphs_keras.py")
    chosen = [*files, "tests/test_examples.py", "-k", "keras or clu or fastai or ray"]
    session.run("pytest", *(session.posargs or chosen))


@nox.session
def lint(session: nox.Session) -> None:
    """Check style and formatting."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python="3.11")
def typing(session: nox.Session) -> None:
    """Check the types."""
    session.install("--editable", ".", *group("test"), *group("lint"), *group("nox"))
    session.run("mypy")


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """Build the documentation; broken links are errors."""
    session.install("--editable", ".", *group("docs"))
    session.run("mkdocs", "build", "--strict")


@nox.session(python="3.11", default=False)
def bench(session: nox.Session) -> None:
    """Run the benchmarks against torch's and tensorboardX's writers."""
    session.install("--editable", ".[cli,system]", *group("comparison"))
    session.run("python", "-m", "benchmarks", *session.posargs)

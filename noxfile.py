"""Checks that need an environment of their own; ``nox -l`` lists them."""

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
    """Run the tests with the lowest supported dependencies, numpy 1 and protobuf 3 among them."""
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
        "pyparsing==3.0.9",  # which an early Matplotlib does not warn of
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
    """Run the tests with each protobuf between the lowest and the newest."""
    session.install("--editable", ".", *group("test"), f"protobuf=={protobuf}.*")
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
def downstream(session: nox.Session) -> None:
    """Run the tests beside the peers, whose files we read and whose messages we take."""
    session.install(
        "--editable", ".", *group("test"), *group("s3"), *group("frameworks"), *group("peers")
    )
    session.run("pytest", *session.posargs)


@nox.session(python="3.11")
@nox.parametrize("sdk", ["sagemaker==2.*", "sagemaker-train==1.*"], ids=["v2", "v3"])
def sagemaker(session: nox.Session, sdk: str) -> None:
    """Run what concerns SageMaker beside each of its SDKs, which exclude each other."""
    session.install("--editable", ".", *group("test"), *group("s3"), sdk)
    session.run("pytest", *(session.posargs or SAGEMAKER_TESTS))


@nox.session(python="3.11")
def heavy(session: nox.Session) -> None:
    """Run the tests of frameworks that are large, TensorFlow beside Keras' own callback too."""
    names = ("test", "s3", "frameworks", "peers", "heavy")
    session.install("--editable", ".", *(one for name in names for one in group(name)))
    files = [f"tests/adapters/test_{name}.py" for name in ("keras", "clu", "fastai", "ray")]
    files.append("tests/summary/test_graphs_keras.py")
    chosen = [*files, "tests/test_examples.py", "-k", "keras or clu or fastai or ray"]
    session.run("pytest", *(session.posargs or chosen))


@nox.session
def lint(session: nox.Session) -> None:
    """Check the style."""
    session.install(*group("lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session(python="3.11")
def typing(session: nox.Session) -> None:
    """Check the types."""
    session.install("--editable", ".", *group("lint"), *group("nox"))
    session.run("mypy")


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """Build the documentation; a broken link is an error."""
    session.install("--editable", ".", *group("docs"))
    session.run("mkdocs", "build", "--strict")


@nox.session(python="3.11", default=False)
def bench(session: nox.Session) -> None:
    """Measure, side by side with the peers."""
    session.install("--editable", ".[cli,system]", *group("peers"))
    session.run("python", "-m", "benchmarks", *session.posargs)

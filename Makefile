# Sets up everything on a machine that has Python and make; no other command is needed.
PYTHON ?= python3
BIN := .venv/bin
DEMO := .venv-demo/bin

.DEFAULT_GOAL := help
.PHONY: help setup browser ceph demo test test-all bench lint format docs pictures proto clean

help:  ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

demo: .venv-demo/complete  ## Train small networks, log every data type to ./runs, print how to view it
	@$(DEMO)/python -m sm_tblog demo

setup: .venv/complete  ## Install everything for development into .venv, with PyTorch and tensorboardX

test: setup browser ceph  ## Run all tests
	$(BIN)/python -m pytest

test-all: setup browser ceph  ## Run all nox sessions: every Python, lowest dependencies, all checks
	PYENV_VERSION=$$(pyenv versions --bare 2>/dev/null | paste -sd:) $(BIN)/nox

bench: setup  ## Run the benchmarks against torch's and tensorboardX's writers
	$(BIN)/python -m benchmarks

lint: setup  ## Check style and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: setup  ## Reformat the sources
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: setup  ## Build the documentation into ./site
	$(BIN)/mkdocs build --strict

pictures: setup browser  ## Recreate the documentation's screenshots of TensorBoard
	$(BIN)/python docs/pictures.py

proto: setup  ## Compile the protobuf schemas
	for name in tensorboard xspace; do $(BIN)/python -m grpc_tools.protoc -I sm_tblog/format \
	    --descriptor_set_out=sm_tblog/format/$$name.binpb $$name.proto || exit; done

clean:  ## Remove everything that the other targets created, except ./runs
	rm -rf .venv .venv-demo .nox site dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/complete: pyproject.toml
	$(call make_venv,.venv)
	$(BIN)/python -m pip install --quiet --group dev --editable .
	@touch $@

.venv-demo/complete: pyproject.toml
	$(call make_venv,.venv-demo)
	$(DEMO)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

# If Chromium cannot be installed, the tests that need it are skipped with a message.
browser:
	@{ command -v chromium && command -v chromedriver; } >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq chromium chromium-driver; } >/dev/null 2>&1 || true

# The same applies to Ceph's gateway, a real S3 server. Installing it starts nothing.
ceph:
	@command -v radosgw >/dev/null || \
	    { [ "$$(id -u)" = 0 ] && command -v apt-get && apt-get update -qq && \
	    DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends \
	    radosgw ceph-mon ceph-osd ceph-common; } >/dev/null 2>&1 || true

# Dependency groups require pip 25.1. Debian's Python lacks ensurepip, which venv needs.
define make_venv
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.10 or later is needed: make PYTHON=python3.x") if sys.version_info < (3, 10) else None'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq python3-venv; }
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
endef

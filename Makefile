# Every target sets itself up: the first one creates .venv and installs the project in it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast fuzz-anchors check format examples bench clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/ready: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' \
	  || { echo "error: Python 3.11 or 3.12 is needed. Next: make PYTHON=python3.11" >&2; exit 2; }
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@touch $@

demo: $(VENV)/ready  ## a real cluster on this machine: tasks run, checked, paid, anchored, receipts verified
	@$(BIN)/vcp-cluster demo

test: $(VENV)/ready  ## all tests
	$(BIN)/python -m pytest -q

test-fast: $(VENV)/ready  ## the tests that start no cluster
	$(BIN)/python -m pytest -q -m "not cluster"

seed ?= 1
n    ?= 100
fuzz-anchors: $(VENV)/ready  ## schedules of anchors on real Bitcoin consensus: seed=1 n=100
	$(BIN)/python -m tests.anchors.schedule $(seed) $(n)

check: $(VENV)/ready  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(VENV)/ready  ## rewrite the sources in the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

examples: $(VENV)/ready  ## rebuild examples/*.wasm from C
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[examples]'
	$(BIN)/python examples/build.py

bench: $(VENV)/ready  ## throughput and latency against etcd on this machine: two minutes
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[bench]'
	$(BIN)/python -m benchmarks --quick

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.PHONY: venv test lint format ci dist

PYTHON ?= python3
BIN = .venv/bin

venv: .venv/bin/moesim

.venv/bin/moesim:
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -e '.[test,dev]'

test: venv
	$(BIN)/python -m pytest

lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

ci:
	.ci/run

dist: venv
	$(BIN)/pip install build
	$(BIN)/python -m build

# Every target sets up what it needs: Python 3.11 or newer and pip are all that must be there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

EXECUTOR ?= sequential
Q        ?=
ALL      ?=

.PHONY: help test lint types run bench conformance clean
help:
	@echo "make run  [EXECUTOR=sequential|threaded|parallel|ray] [Q=\"parse a date\"] [ALL=1]"
	@echo "make test    everything that must pass: format, lint, types, imports, tests, doctests"
	@echo "make bench   the overheads, as ratios to hand-written code"

# `make run` needs the example's packages; `make test` and `make bench` need those of development, too.
$(BIN)/.run: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what the example needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[examples,progress]"
	@touch $@

$(BIN)/.dev: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what development needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[dev]"
	@touch $@ $(BIN)/.run

run: $(BIN)/.run
	@$(BIN)/python examples/semantic_search/main.py --executor $(EXECUTOR) $(if $(ALL),--all) $(if $(Q),--question "$(Q)")

lint: $(BIN)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(BIN)/.dev
	$(BIN)/mypy

test: lint types
	$(BIN)/python -m pytest

bench: $(BIN)/.dev
	$(BIN)/python benchmarks/overhead.py --peers
	$(BIN)/python benchmarks/cache.py --peers

clean:
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

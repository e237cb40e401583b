# Every target sets up what it needs: Python 3.11 or newer and pip are all that must be there.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin

EXECUTOR ?= sequential
Q        ?=
ALL      ?=

WORKERS  ?= 2
CPUS     ?= 1
TEST_WORKERS ?= 3
JOBS     := http://127.0.0.1:$(or $(RAY_DASHBOARD_PORT),8299)

# What `make fuzz` draws: the same examples for the same seed.
ifndef SEED
SEED := $(shell date +%s)
endif
N ?= 5000
# What `make mutants` changes: cache or execution.
PART ?= cache
MUTANTS ?= 40
SECONDS ?= 600

.PHONY: help mutants coverage test tests test-versions test-lowest wheel lint types fuzz chaos run docs docs-pictures bench bench-calls bench-observe bench-daft bench-ray bench-simulate cluster-up cluster-down submit clean
help:
	@echo "make run  [EXECUTOR=sequential|threaded|parallel|ray] [Q=\"parse a date\"] [ALL=1]"
	@echo "make cluster-up [WORKERS=2] [CPUS=1]   a Ray cluster on this machine: a head, and workers as raylets"
	@echo "make submit [Q=...] [ALL=1]            the example as a job of that cluster"
	@echo "make cluster-down                      its end"
	@echo "make test    [TEST_WORKERS=3]  everything that must pass: format, lint, types, imports, tests, doctests"
	@echo "make test-versions [VERSIONS=\"3.12 3.13\"]   the same on each Python that is here; then test-lowest"
	@echo "make test-lowest   the tests, with the lowest versions of the dependencies"
	@echo "make coverage  the tests; fails if they run too little of the package"
	@echo "make wheel   the distribution, installed in an empty environment and tried there"
	@echo "make fuzz [SEED=...] [N=5000]   random pipelines on every executor, beside the plain loop"
	@echo "make chaos [SEED=...] [SECONDS=600]   a map whose workers and driver are killed, stopped and ended"
	@echo "make mutants [PART=cache|execution] [MUTANTS=40] [SEED=...]   do the tests find small changes?"
	@echo "make docs    the documentation as a site, in site/"
	@echo "make docs-pictures  the pictures of docs/"
	@echo "make bench-ray   a map on Ray, beside Ray itself"
	@echo "make bench-simulate  maps on up to 10 000 simulated workers; redraws the plots of docs/scaling.md"
	@echo "make bench-daft  a map as a Daft query, beside the query written by hand"
	@echo "make bench-observe  what progress, logs, reports and traces cost"
	@echo "make bench-calls  how many functions the core calls, which no busy machine changes"
	@echo "make bench   all benchmarks: docs/performance.md, beside hand-written code and other libraries"

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

chaos: $(BIN)/.dev
	$(BIN)/python tests/chaos.py --seconds $(SECONDS) --seed $(SEED)

run: $(BIN)/.run
	@$(BIN)/python examples/semantic_search/main.py --executor $(EXECUTOR) $(if $(ALL),--all) $(if $(Q),--question "$(Q)")

cluster-up: $(BIN)/.run
	@BIN=$(BIN) WORKERS=$(WORKERS) CPUS=$(CPUS) cluster/local.sh up

cluster-down:
	@BIN=$(BIN) cluster/local.sh down

# A job runs in a copy of its working directory; its cache is outside, so that the next job finds it.
submit: $(BIN)/.run
	@RAY_AUTH_MODE=token $(BIN)/ray job submit --address $(JOBS) --working-dir examples/semantic_search -- \
		python main.py --executor ray --cache $(CURDIR)/.cache/semantic_search \
		$(if $(ALL),--all) $(if $(Q),--question "$(Q)")

lint: $(BIN)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(BIN)/.dev
	$(BIN)/python tests/public_types.py
	$(BIN)/mypy

# Types are checked beside the tests, whose processes often wait.
test: lint
	@$(MAKE) --no-print-directory --keep-going --jobs=2 types tests

tests: $(BIN)/.dev
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder --durations=10 $(PYTEST_ARGS)

# Python 3.12 and newer measure coverage with little loss of speed.
coverage: $(BIN)/.dev
	COVERAGE_CORE=sysmon $(MAKE) --no-print-directory tests PYTEST_ARGS="--cov --cov-report=term"

fuzz: $(BIN)/.dev
	@echo "to repeat: make fuzz SEED=$(SEED) N=$(N)"
	FUZZ_SEED=$(SEED) FUZZ_EXAMPLES=$(N) $(BIN)/python -m pytest tests/test_fuzz.py

bench: $(BIN)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	$(BIN)/python benchmarks/page.py --peers

mutants: $(BIN)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[mutants]"
	$(BIN)/python tests/mutants.py --part $(PART) --count $(MUTANTS) --seed $(SEED)

$(BIN)/.docs: pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing what the documentation needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	@touch $@

# MkDocs fails on every warning, such as a link that leads nowhere. The variable hides the notice of a later product.
docs: $(BIN)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

docs-pictures: $(BIN)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs-pictures]"
	$(BIN)/python docs/pictures/draw.py

bench-calls: $(BIN)/.dev
	$(BIN)/python benchmarks/calls.py

bench-observe: $(BIN)/.dev
	$(BIN)/python benchmarks/observe.py

bench-daft: $(BIN)/.dev
	$(BIN)/python benchmarks/daft_engine.py --peers

bench-ray: $(BIN)/.dev
	$(BIN)/python benchmarks/ray_map.py --peers

bench-simulate: $(BIN)/.dev
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[bench]"
	$(BIN)/python benchmarks/simulate.py --plot

clean:
	rm -rf $(VENV) site .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist

# The wheel is installed in an environment of its own, outside of the checkout, and used there.
wheel: $(BIN)/.dev
	rm -rf dist && $(BIN)/python -m pip install --quiet --disable-pip-version-check build
	$(BIN)/python -m build --outdir dist .
	$(BIN)/python tests/wheel.py dist

# Each Python that is here, also one of pyenv, runs the tests in an environment of its own, which gets the newest
# versions of the dependencies. The first of them runs the tests with the lowest versions, too.
VERSIONS ?= 3.11 3.12 3.13
test-versions:
	@for version in $(VERSIONS); do \
		python=$$(ls -d $${PYENV_ROOT:-$$HOME/.pyenv}/versions/$$version.*/bin/python 2>/dev/null | tail -n 1); \
		python=$${python:-$$(command -v python$$version)}; \
		if [ -z "$$python" ]; then echo "== Python $$version is not here"; continue; fi; \
		first=$${first:-$$python}; \
		echo "== Python $$version: $$python"; \
		rm -f .venv-$$version/bin/.dev; \
		PIP_UPGRADE=1 PIP_UPGRADE_STRATEGY=eager $(MAKE) test PYTHON=$$python VENV=.venv-$$version || exit 1; \
	done; \
	$(MAKE) test-lowest PYTHON=$${first:-$(PYTHON)}

# Format and types depend on the newest tools only.
test-lowest:
	@test -x .venv-lowest/bin/python || $(PYTHON) -m venv .venv-lowest
	@.venv-lowest/bin/python tests/lowest.py > .venv-lowest/constraints.txt
	PIP_CONSTRAINT=$(CURDIR)/.venv-lowest/constraints.txt $(MAKE) tests VENV=.venv-lowest

# The front door. `make` alone lists what there is. Needs Python >= 3.11 with venv, and a C compiler; everything else is
# installed into .venv.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
BUILD  ?= build
JOBS   ?= 4
FUZZ_S ?= 30
SOURCES := $(shell find workers native -type f -not -name '*.so' -not -name '*.pyc' 2>/dev/null) pyproject.toml

.DEFAULT_GOAL := help
.PHONY: help demo test test-native lint types sanitize fuzz bench bench-executor chaos chaos-short compose-test wheel check clean

help:  ## list the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Tidegate needs Python 3.11 or newer; say which: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --upgrade pip

$(VENV)/.installed: $(BIN)/python $(SOURCES)
	@echo "building and installing Tidegate into $(VENV) (a minute, the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check .
	@touch $@

$(VENV)/.installed-test: $(BIN)/python $(SOURCES)
	@echo "building and installing Tidegate and what its tests need into $(VENV) (a minute, the first time)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check '.[test,lint]'
	@touch $@ $(VENV)/.installed

demo: $(VENV)/.installed  ## run two real workloads on this machine and read the report
	@$(BIN)/tidegate demo

test: $(VENV)/.installed-test  ## install what tests need and run them (the storms: make chaos-short)
	@$(BIN)/python -P -m pytest -n $(JOBS) --dist worksteal -m "not chaos" $(ARGS)

test-native: $(VENV)/.installed-test  ## build the C core alone and run its tests
	@$(BIN)/python -m pip install -q --disable-pip-version-check cmake ninja
	@PATH="$(abspath $(BIN)):$$PATH" cmake -S native -B $(BUILD)/native -G Ninja -DCMAKE_BUILD_TYPE=RelWithDebInfo >/dev/null
	@PATH="$(abspath $(BIN)):$$PATH" cmake --build $(BUILD)/native
	@PATH="$(abspath $(BIN)):$$PATH" ctest --test-dir $(BUILD)/native --output-on-failure -j $(JOBS)

sanitize: $(VENV)/.installed-test  ## the C tests under address, undefined-behaviour and thread sanitizers; the binding under ASan
	@PATH="$(abspath $(BIN)):$$PATH" tests/native/sanitize.sh $(BUILD)

fuzz: $(VENV)/.installed-test  ## fuzz the readers of the crash journal and of histograms (FUZZ_S=30 seconds each)
	@PATH="$(abspath $(BIN)):$$PATH" FUZZ_S=$(FUZZ_S) tests/native/fuzz.sh $(BUILD)

lint: $(VENV)/.installed-test  ## ruff
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-test  ## mypy --strict
	@$(BIN)/mypy

bench: $(VENV)/.installed-test  ## Tidegate against Celery on one Valkey, end to end
	@$(BIN)/python bench/end_to_end.py $(ARGS)

bench-executor: $(VENV)/.installed-test  ## the executor alone against its rivals
	@$(BIN)/python bench/executor/run_all.py $(ARGS)

chaos-short: $(VENV)/.installed-test  ## the storms in their short form, and tests that kill servers: one at a time, they measure time
	@$(BIN)/python -P -m pytest -m chaos $(ARGS)

chaos: $(VENV)/.installed-test  ## kill real workers and servers under load, and count (45 minutes; ARGS="--only NAME" for one)
	@$(BIN)/python tests/chaos/run.py $(ARGS)
chaos: ARGS ?= --long --write docs/reliability.md

compose-test: $(VENV)/.installed  ## docker compose: up, scale to 4, kill one, read the report, down (skipped without an engine)
	@tests/compose/run.sh

wheel: $(BIN)/python  ## build the wheel into dist/
	@$(BIN)/python -m pip wheel -q --no-deps -w dist .

check: lint types test chaos-short test-native  ## what CI runs

clean:  ## remove what was built
	@rm -rf $(BUILD) dist $(VENV)

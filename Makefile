# `make demo` and `make test` each work as the first command on a fresh machine with Python >= 3.10.
# Every target makes what it needs of `.venv` by itself and renews it when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/demo
# rivals of the benchmarks; TensorFlow with TF1's graphs needs Python 3.9 to 3.11
PEERS := .cache/bench
TF1_PYTHON ?= $(PYTHON)
NATIVE_SOURCES := $(shell find native/include native/src native/CMakeLists.txt -name '*.h' -o -name '*.cc' -o -name '*.txt')
NATIVE_CODE := $(shell find native -name '*.h' -o -name '*.cc')
# pytest's worker processes; each computes with one thread
WORKERS ?= auto
# how long `make fuzz` searches
SECONDS ?= 600
# how many compositions `make fuzz-tf1` invents, and from which seed
CASES ?= 200
SEED ?= 1

# pytest, the demo and the benchmarks take the code of this checkout, whatever else is on the caller's path
unexport PYTHONPATH PYTHONHOME
# the tests start the package in hundreds of processes, each of which would compile all of it anew
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-native test-arm test-gpu fuzz fuzz-tf1 check docs bench bench-gpu bench-peers build clean
.SECONDARY:
.NOTPARALLEL:  # two installs into one .venv must not run at once

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready-dev $(VENV)/.ready-docs $(VENV)/.ready-native  ## Make .venv with everything a developer needs

demo: $(VENV)/.ready-train $(VENV)/.ready-native  ## Train a small language model on real text (about 3 minutes) and show what it learned
	$(BIN)/cellweave train --preset demo --out $(DEMO_OUT) --overwrite --compare

test: $(VENV)/.ready-dev $(VENV)/.ready-native  ## Run all tests (about 12 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

test-native:  ## Test the native core in C++, as released and under sanitizers (about 3 minutes on 2 cores)
	native/tests/run.sh .cache/native/tests .cache/native/editable

test-arm:  ## Test the native core for 64-bit ARM, cross-compiled and run by QEMU (about 5 minutes)
	native/tests/run.sh .cache/native/tests --arm

test-gpu: $(VENV)/.ready-dev  ## Test layers on a CUDA device; fails on a machine without one
	CELLWEAVE_TRITON_TESTS=device $(BIN)/python -m pytest -q -n $(WORKERS) --max-worker-restart=1000 tests/device

fuzz: $(VENV)/.ready-dev $(VENV)/.ready-fuzz  ## Search for damaged checkpoints that do harm (SECONDS=600; Python 3.11 or newer)
	$(BIN)/python tests/robustness/fuzz_checkpoints.py -max_total_time=$(SECONDS) -artifact_prefix=.cache/

check: $(VENV)/.ready-dev  ## Lint, format, types, layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/clang-format --dry-run --Werror $(NATIVE_CODE) && echo "clang-format: native/ is formatted"

fuzz-tf1: $(VENV)/.ready-dev $(VENV)/.ready-native $(PEERS)/tf1/.ready  ## Compare random compositions with TensorFlow (CASES=200, SEED=1)
	rm -rf .cache/random
	CUDA_VISIBLE_DEVICES= $(PEERS)/tf1/bin/python tests/golden/make_random.py .cache/random --cases $(CASES) --seed $(SEED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS) tests/golden/test_golden_cases.py --goldens .cache/random

docs: $(VENV)/.ready-docs  ## Build the documentation into site/; a warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs: site/index.html"

bench: $(VENV)/.ready-dev $(VENV)/.ready-native  ## Time cellweave beside its rivals, after green tests (all rivals: make bench ARGS="--peers all")
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-gpu: $(VENV)/.ready-dev  ## Time layers on a CUDA device within nine minutes, beside cuDNN; fails on a machine without one
	$(BIN)/python benchmarks/run_gpu.py $(ARGS)

bench-peers: $(PEERS)/peers/.ready $(PEERS)/tf1/.ready  ## Install the rivals of `make bench` in environments of their own

build: $(VENV)/.ready-dev  ## Make the wheel and the source distribution in dist/
	rm -rf dist
	$(BIN)/python -m build --quiet --outdir dist

clean:  ## Remove .venv, caches and built documentation (runs/ stays)
	rm -rf $(VENV) .cache site

# Build tools come from .venv, not from an environment of pip's own, so that a change compiles only what it touched. Byte code is
# made where a module is first imported: pip would take a minute for all of it, most of which nobody imports.
pip_install := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
# pip keeps the build's own words to itself, so say here what became of it; without the native core everything else works.
say_native := $(BIN)/python -c "from cellweave.ops.common import _library as native; \
  print('setup: native core:', native.missing_reason() or native.core().isa)"

# One stamp per set of dependencies, so that `make demo` does not wait for the documentation tools.
$(VENV)/.ready-%: $(VENV)/.ready-build
	@echo "setup: installing cellweave[$*] into $(VENV) (the first time takes a few minutes)"
	@$(pip_install) --no-build-isolation --editable ".[$*]"
	@$(say_native)
	@touch $@ $(VENV)/.ready-native

# The installs above build the native core too; this one follows changes of its sources.
$(VENV)/.ready-native: $(NATIVE_SOURCES) | $(VENV)/.ready-build
	@echo "setup: building the native core"
	@$(pip_install) --no-build-isolation --no-deps --editable .
	@$(say_native)
	@touch $@

$(VENV)/.ready-build: $(BIN)/python pyproject.toml constraints.txt
	@$(pip_install) scikit-build-core cmake
	@touch $@

$(PEERS)/peers/.ready: BENCH_PYTHON = $(PYTHON)
$(PEERS)/tf1/.ready: BENCH_PYTHON = $(TF1_PYTHON)
$(PEERS)/%/.ready: benchmarks/requirements/%.txt
	@echo "bench-peers: installing $< into $(@D)"
	@$(BENCH_PYTHON) -m venv $(@D) && $(@D)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $< && touch $@ || { \
	  rm -rf $(@D); echo "bench-peers: $< does not install with $$($(BENCH_PYTHON) --version 2>&1); the benchmarks go on without it."; }

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "setup: expected Python 3.10 or newer, got $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "setup: $(PYTHON) cannot make virtual environments. Install its venv package (Debian, Ubuntu: python3-venv)."; exit 1; }

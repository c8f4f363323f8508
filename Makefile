# `make demo` and `make test` each work as the first command on a fresh machine with Python >= 3.10.
# Every target makes what it needs of `.venv` by itself and renews it when pyproject.toml or constraints.txt change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO_OUT ?= runs/demo
# pytest's worker processes; each computes with one thread
WORKERS ?= auto

# pytest, the demo and the benchmarks take the code of this checkout, whatever else is on the caller's path
unexport PYTHONPATH PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help setup demo test check docs bench clean
.SECONDARY:
.NOTPARALLEL:  # two installs into one .venv must not run at once

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.ready-dev $(VENV)/.ready-docs  ## Make .venv with everything a developer needs

demo: $(VENV)/.ready-train  ## Train a small language model on real text (about 3 minutes) and show what it learned
	$(BIN)/cellweave train --preset demo --out $(DEMO_OUT) --overwrite

test: $(VENV)/.ready-dev  ## Run all tests (under 5 minutes on 2 cores)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(WORKERS)

check: $(VENV)/.ready-dev  ## Lint, format, types, layering
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache --no-logo

docs: $(VENV)/.ready-docs  ## Build the documentation into site/; a warning fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "docs: site/index.html"

bench: $(VENV)/.ready-dev  ## Time cellweave beside torch.nn, after the golden tests are green
	$(BIN)/python benchmarks/run.py

clean:  ## Remove .venv, caches and built documentation (runs/ stays)
	rm -rf $(VENV) .cache site

# One stamp per set of dependencies, so that `make demo` does not wait for the documentation tools.
$(VENV)/.ready-%: $(BIN)/python pyproject.toml constraints.txt
	@echo "setup: installing cellweave[$*] into $(VENV) (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable ".[$*]"
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null || { \
	  echo "setup: expected Python 3.10 or newer, got $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { \
	  rm -rf $(VENV); echo "setup: $(PYTHON) cannot make virtual environments. Install its venv package (Debian, Ubuntu: python3-venv)."; exit 1; }

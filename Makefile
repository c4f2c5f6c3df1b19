# `make` lists what there is. Everything lives in .venv; nothing else on the machine is touched.

PYTHON ?= python3
WORKERS ?= 2
PIP_ARGS ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

export HF_HUB_OFFLINE = 1

.DEFAULT_GOAL := help
.PHONY: help demo test check lint house bench bench-peers clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*  ## /  make \1|/p' $(MAKEFILE_LIST) | awk -F'|' '{ printf "%-19s %s\n", $$1, $$2 }'
	@echo "  variables: PYTHON=$(PYTHON) WORKERS=$(WORKERS) PIP_ARGS= PYTEST_ARGS= BENCH_ARGS="

demo: $(VENV)/.demo  ## explain a sentence, an image, a translation and a continuation, in the terminal and as an HTML report
	@$(BIN)/clearhead demo --out clearhead-demo.html

test: lint  ## every check and every test
	$(BIN)/python -m pytest -n $(WORKERS) $(PYTEST_ARGS)

check: lint house  ## style, types, imports, sizes: what needs no test run

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

house: $(VENV)/.dev
	$(BIN)/python -m pytest tests/test_house.py $(PYTEST_ARGS)

bench: $(VENV)/.demo  ## what presets cost against plain gradients, and other methods against a forward pass
	$(BIN)/python -m bench.cost $(BENCH_ARGS)
	$(BIN)/python -m bench.attention $(BENCH_ARGS)

bench-peers: $(VENV)/.demo  ## clearhead beside LXT, captum and zennit, each installed into .peers; goes on where it stopped
	$(BIN)/python -m bench.peers $(if $(PIP_ARGS),--pip-args='$(PIP_ARGS)') $(BENCH_ARGS)

clean:  ## remove the virtual environment and everything generated
	rm -rf $(VENV) .peers build dist .hypothesis .mypy_cache .ruff_cache .import_linter_cache clearhead-demo.html
	find src tests bench -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# ---- the virtual environment: each stamp stands for a finished installation -----------------------------------------

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "clearhead needs Python 3.10 or newer; '$(PYTHON)' is not. Run: make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "'$(PYTHON)' cannot make virtual environments. On Debian run: sudo apt install python3-venv"; exit 1; }
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.demo: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing clearhead with what the demo needs. The first time this downloads torch and takes some minutes."
	$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[demo]'
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/.made
	@echo "Installing clearhead with what the tests need. The first time this downloads torch and takes some minutes."
	$(PIP) install $(PIP_ARGS) --constraint constraints.txt --editable '.[dev]'
	@touch $(VENV)/.demo $@

# Needs python3 (3.11 or newer) on PATH and nothing else; every target sets up what it uses.

PYTHON ?= python3
VENV ?= .venv
BENCH_VENV ?= .venv-bench
DEMO_OUT ?= runs/demo
# Where torch comes from when not from PyPI, whose Linux build brings gigabytes of CUDA. For the CPU build:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
PYTEST_ARGS ?=
BENCH_ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK := 1
PINS := pyproject.toml constraints.txt

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint format bench kernels docs soak clean

# $(1): the virtual environment. One that works is kept; else a new one is made, or one sentence says why not.
define make_venv
@fail() { echo "spikedistill: $$1" >&2; exit 1; }; \
if ! $(1)/bin/python -m pip --version >/dev/null 2>&1; then \
	command -v $(PYTHON) >/dev/null 2>&1 \
		|| fail "no $(PYTHON) on PATH; install Python 3.11 or newer, or name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3"; \
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| fail "$(PYTHON) is $$($(PYTHON) --version 2>&1), but 3.11 or newer is needed; name one: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; \
	$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| fail "$(PYTHON) has no venv module; install it first (Debian and Ubuntu: apt-get install python3-venv)"; \
	echo "making $(1) with $$($(PYTHON) --version)"; \
	$(PYTHON) -m venv --clear $(1) || fail "$(PYTHON) could not make $(1)"; \
fi
endef

# $(1): the virtual environment. $(2): what to install. Torch from another index goes in first and alone, as that
# index does not hold the versions that constraints.txt names for the rest.
define pip_install
@echo "installing $(2) into $(1)"
@$(1)/bin/python -m pip install -qq -c constraints.txt -U pip
@$(if $(TORCH_INDEX),$(1)/bin/python -m pip install -qq -c constraints.txt --no-deps --index-url $(TORCH_INDEX) torch)
@$(1)/bin/python -m pip install -qq -c constraints.txt $(2)
endef

$(VENV)/.core: $(PINS)
	$(call make_venv,$(VENV))
	$(call pip_install,$(VENV),-e .)
	@touch $@

$(VENV)/.dev: $(PINS)
	$(call make_venv,$(VENV))
	$(call pip_install,$(VENV),-e '.[dev]')
	@touch $(VENV)/.core $@

$(VENV)/.docs: $(PINS)
	$(call make_venv,$(VENV))
	$(call pip_install,$(VENV),-e '.[docs]')
	@touch $(VENV)/.core $@

# The peers go in without what they ask for: torchvision and torchaudio come tied to one build of torch, while all must
# be measured on the same one. What their neurons do import is named here.
$(BENCH_VENV)/.peers: $(PINS)
	$(call make_venv,$(BENCH_VENV))
	$(call pip_install,$(BENCH_VENV),-e '.[chips]' loguru requests)
	@$(BENCH_VENV)/bin/python -m pip install -qq -c constraints.txt --no-deps spikingjelly snntorch norse
	@touch $@

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r name text; do \
		printf 'make %-8s %s\n' "$$name" "$$text"; done

setup: $(VENV)/.dev ## the development environment in .venv

demo: $(VENV)/.core ## train an ANN on handwritten digits, let it teach spiking networks, write a page
	@$(VENV)/bin/spikedistill demo --out $(DEMO_OUT)
	@test -f $(DEMO_OUT)/report.html || { echo "spikedistill: the demo left no $(DEMO_OUT)/report.html" >&2; exit 1; }
	@echo "The report: $(abspath $(DEMO_OUT))/report.html"

test: $(VENV)/.dev ## the tests; more options in PYTEST_ARGS
	@$(VENV)/bin/python -m pytest -q -n auto $(PYTEST_ARGS)

lint: $(VENV)/.dev ## ruff and pyright
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/ruff format --check .
	@$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

format: $(VENV)/.dev ## sort imports and format
	@$(VENV)/bin/ruff check -q --fix-only --select I .
	@$(VENV)/bin/ruff format .

bench: $(BENCH_VENV)/.peers ## speed and memory against SpikingJelly, snnTorch and Norse; more options in BENCH_ARGS
	@$(BENCH_VENV)/bin/spikedistill bench $(BENCH_ARGS)

kernels: $(VENV)/.dev ## times of the kernels alone, saved in .benchmarks and compared with the last ones
	@$(VENV)/bin/python -m pytest -q benchmarks --benchmark-autosave --benchmark-compare --benchmark-columns=median,iqr,rounds

docs: $(VENV)/.docs ## the documentation, into site/
	@NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

soak: $(VENV)/.dev ## the tests that take minutes to hours
	@$(VENV)/bin/python -m pytest -q -m slow --timeout=0 $(PYTEST_ARGS)

clean: ## the environments, caches and builds; runs/ stays
	rm -rf $(VENV) $(BENCH_VENV) build dist site .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

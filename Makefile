# make demo: the environment, then the main job.  make test: the environment, then lint, types and tests.
# make bench: the environment, then every benchmark, on what benchmarks/README.md says.  make bench-patches: that one.
# make gpu-bundle: the environment, then what a machine with a GPU and no package index needs for benchmarks/gpu.
# make chaos: the environment, then thirty blows to sweeps at random moments.
# make chaos KILLS=300 LOG=FILE: three hundred, each added to a file once it is checked; the same command goes on from there.
# make chaos STORE=s3: with the results on an S3 server, which is away at times, and with commands that sleep.
# make histories: the environment, then 10,000 random histories of a store.  make points: a table of all points at which
# a command that writes can be cut off, each of them tried.
# make rehearse: the environment, then all that can befall a Slurm job, on stand-ins of Slurm, and the containers of KubeRay
# and SkyPilot; root is needed.
# make audit: the environment, then known vulnerabilities of its packages, which needs the package index.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One environment can serve several checkouts in turn: the stamp carries the name of the one that it is installed for.
STAMP := $(VENV)/.installed-for-$(shell pwd | cksum | cut -d ' ' -f 1)

BENCHMARKS := $(patsubst benchmarks/%.py,bench-%,$(filter-out %/harness.py,$(wildcard benchmarks/*.py)))

KILLS ?= 30

export RAY_USAGE_STATS_ENABLED = 0

.PHONY: help demo test chaos histories points rehearse audit lint bench gpu-bundle $(BENCHMARKS) clean
.NOTPARALLEL: # one benchmark would slow another

help:
	@grep -E '^# make' Makefile

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	rm -f $(VENV)/.installed-for-*
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(STAMP)
	$(BIN)/sgbench sweep quick

histories: $(STAMP)
	SGBENCH_HISTORIES=10000 $(BIN)/python -m pytest tests/runs/test_histories.py

points: $(STAMP)
	$(BIN)/python tests/write_paths.py

rehearse: $(STAMP)
	SGBENCH_REHEARSE=1 $(BIN)/python -m pytest $(wildcard tests/clusters/test_*_rehearsal.py)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test: lint
	$(BIN)/python -m pytest -n 2 -m "not ray"
	$(BIN)/python -m pytest -n 2 --dist loadfile -m ray

bench: $(BENCHMARKS)

bench-patches bench-lanes: OPTIONS = $(IMAGES:%=--images %)
bench-evaluation: OPTIONS = $(SETS:%=--set %)
bench-scale: OPTIONS = $(STORE:%=--results %)

$(BENCHMARKS): bench-%: $(STAMP)
	$(BIN)/python benchmarks/$*.py $(OPTIONS)

gpu-bundle: $(STAMP)
	$(BIN)/python benchmarks/gpu/bundle.py $(OPTIONS)

chaos: $(STAMP)
	$(BIN)/python tests/cluster/chaos.py --kills $(KILLS) $(LOG:%=--log %) $(STORE:%=--store %)

audit: $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt pip_audit
	$(BIN)/python tests/audit.py

clean:
	rm -rf $(VENV) .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# make demo   installs what a run needs and adapts from generated `sim` to generated `camera` scenes: runs/demo/report.html
# make test   linters, types, import contracts and the fast tests;  make test-slow  the slow ones
# make docs   the site of docs/, with warnings as errors: docs/_build/html/index.html
# make faults the catalogue of docs/reliability.md, a line a number;  FAULTS=full make faults  with the long campaigns
#
# Tests run in one process a core, each with one thread: tiny networks gain nothing from more.
# PIP_ARGS goes to every pip call: name the index of a CPU or CUDA build of PyTorch there, e.g. PIP_ARGS="--index-url URL".
PIP_ARGS ?=
PYTHON ?= python3
# --no-compile: Python compiles what it imports, which is a small part of what is installed.
PIP = .venv/bin/python -m pip install --disable-pip-version-check --no-compile --quiet $(PIP_ARGS) -c constraints.txt

# Some images and machines set it; every process would then compile PyTorch's modules anew, which takes it longer than most tests.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-slow docs faults clean
.DELETE_ON_ERROR:

demo: .venv/.stamp-demo
	.venv/bin/iccld demo

test: .venv/.stamp-dev
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n auto --maxprocesses 8 --dist loadfile

test-slow: .venv/.stamp-dev .venv/.stamp-docs
	.venv/bin/python -m pytest -m "slow or gpu"

docs: .venv/.stamp-docs
	.venv/bin/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

faults: .venv/.stamp-dev
	.venv/bin/python tests/faults/runner.py

.venv: .venv/.stamp-dev

.venv/bin/python:
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "error: $(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }

# torch first, everything else after it, so that nothing replaces it. hatchling (with editables) builds the package here instead of in an
# environment of its own, which would take pip another four seconds.
.venv/.stamp-torch: constraints.txt | .venv/bin/python
	$(PIP) torch hatchling editables
	@touch $@

.venv/.stamp-demo: pyproject.toml constraints.txt .venv/.stamp-torch
	$(PIP) --no-build-isolation -e '.[report]'
	@touch $@

.venv/.stamp-dev: pyproject.toml constraints.txt .venv/.stamp-torch
	$(PIP) --no-build-isolation -e '.[dev]'
	@touch $@ .venv/.stamp-demo

.venv/.stamp-docs: pyproject.toml constraints.txt .venv/.stamp-torch
	$(PIP) --no-build-isolation -e '.[docs]'
	@touch $@

clean:
	rm -rf .venv docs/_build

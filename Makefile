# Everything works in a fresh clone with Python >= 3.11 and make: the targets make their environments themselves.
#   make demo      a toy run from photos to a checked zip, its score and its report (minutes on two cores)
#   make test      the tests, but for long ones and comparisons with other frameworks (9 minutes on two cores)
#   make test-all  all tests but the slow ones; comparisons run in an environment of their own, with torch
#   make slow      minutes-long checks on real data
#   make lint      format, lint and types, as in CI
#   make docs      the documentation site, in docs/_build/html; warnings are errors
#   make hooks     run the linters before every commit

PYTHON ?= python3
BIN := .venv/bin
ORACLES := .venv-oracles
DEMO := runs/toy
# A process that dies ends the tests: pytest-xdist 3.8 would wait forever for its replacement.
PARALLEL := -n auto --maxprocesses 8 --dist loadgroup --no-loadscope-reorder --max-worker-restart=0
PIP_INSTALL := -m pip install -q --disable-pip-version-check -c constraints.txt

.PHONY: demo test test-all slow lint docs hooks oracles clean

demo: .venv/dev.stamp
	$(BIN)/python -m jaxdog.main --config configs/toy.py --workdir $(DEMO)
	@echo
	@echo "images: $(DEMO)/images.zip"
	@echo "report: $(DEMO)/report.html (open it in a browser)"

test: .venv/dev.stamp
	$(BIN)/python -m pytest -m "not slow and not long and not oracle" $(PARALLEL) --durations=25

test-all: test $(ORACLES)/stamp
	$(ORACLES)/bin/python -m pytest -m "not slow and (long or oracle)" $(PARALLEL) --durations=25

slow: $(ORACLES)/stamp
	$(ORACLES)/bin/python -m pytest -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: .venv/docs.stamp
	$(BIN)/python -m sphinx -W --keep-going -q -j auto docs docs/_build/html
	@echo "site: docs/_build/html/index.html"

hooks: .venv/dev.stamp
	$(BIN)/pre-commit install

# Independent implementations that the tests marked `oracle` compare with.
oracles: $(ORACLES)/stamp

clean:
	rm -rf .venv $(ORACLES) .pytest_cache .ruff_cache build dist docs/_build docs/generated

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxdog needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(BIN)/python $(PIP_INSTALL) -e '.[dev]'
	@touch $@

.venv/docs.stamp: .venv/dev.stamp
	$(BIN)/python $(PIP_INSTALL) -e '.[docs]'
	@touch $@

$(ORACLES)/stamp: .venv/dev.stamp
	$(PYTHON) -m venv $(ORACLES)
	$(ORACLES)/bin/python $(PIP_INSTALL) -e '.[dev,tfds,oracle]'
	@touch $@

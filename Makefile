# Everything works in a fresh clone with Python >= 3.11 and make: the targets make .venv themselves.
#   make demo   a toy run from pictures to a checked zip, its score and its report (minutes on two cores)
#   make test   all tests but the slow ones
#   make lint   format, lint and types, as in CI
#   make hooks  run the linters before every commit

PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/toy
# A process that dies ends the tests: pytest-xdist 3.8 waits for ever for the one that replaces it.
SPREAD := -n auto --maxprocesses 8 --dist loadgroup --max-worker-restart=0

.PHONY: demo test slow lint hooks oracles clean

demo: .venv/dev.stamp
	$(BIN)/python -m jaxdog.main --config configs/toy.py --workdir $(DEMO)
	@echo
	@echo "pictures: $(DEMO)/images.zip"
	@echo "report:   $(DEMO)/report.html (open it in a browser)"

test: .venv/dev.stamp
	$(BIN)/python -m pytest -m "not slow" $(SPREAD) --durations=25

slow: .venv/dev.stamp
	$(BIN)/python -m pytest -m slow

lint: .venv/dev.stamp
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python

hooks: .venv/dev.stamp
	$(BIN)/pre-commit install

# Independent implementations that some tests compare with; without them those tests skip.
oracles: .venv/oracles.stamp

clean:
	rm -rf .venv .pytest_cache .ruff_cache build dist

.venv/python.stamp:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "jaxdog needs Python >= 3.11, $(PYTHON) is $$($(PYTHON) --version 2>&1); try make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

.venv/dev.stamp: .venv/python.stamp pyproject.toml constraints.txt
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

.venv/oracles.stamp: .venv/dev.stamp
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev,tfds,oracle]'
	@touch $@

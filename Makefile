# make demo   install, train on 102,428 outputs, evaluate, show     make test   install, run every fast test
# make site   the documentation, in build/site/index.html
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow site check clean
demo: $(READY)
	$(BIN)/widehead demo

# One thread a process: small tensors gain nothing from more, and processes that share cores wait for one another.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m slow

# A link that leads nowhere, a page left out, or a name that is not there is an error. The variable silences an advertisement.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: $(READY) site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'widehead needs Python 3.11 or newer. Found ' + sys.version.split()[0] + '; pass another with PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint constraints.txt --editable ".[demo,dev]"
	touch $(READY)

clean:
	rm -rf $(VENV) runs build .pytest_cache .mypy_cache .ruff_cache .hypothesis

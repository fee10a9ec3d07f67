# make demo   install, train on 102,428 outputs, evaluate, show     make test   install, run every fast test
# make site   the documentation, in build/site/index.html
# make test TESTS=tests/heads            some of the tests
# make test-long                         what takes longer: several processes, kills, random walks, more steps of fast tests
# make test-slow                         the long proofs
# make test-python PYTHON=python3.13     the fast tests by another interpreter, in an environment of its own
# make test-lowest                       the fast tests with the lowest versions of dependencies that are allowed
# make test-played                       tables and runs on a CUDA device that the CPU plays, TESTS= a part of them
# make test-gpu GPU_PYTHON=python3       on a CUDA device: what only a card can show; make bench-gpu: how fast it is
# make test-stacks                       the page "In your stack": Trainer, Lightning, accelerate, ONNX … are installed
# make test-sanitized                    the tests of the C code, built with gcc's sanitizers
PYTHON ?= python3
VENV ?= .venv
EXTRAS ?= demo,dev
CONSTRAINTS ?= constraints.txt
TESTS ?=
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# Tests start hundreds of processes, each of which would compile all modules anew where this is set.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long test-slow test-python test-lowest test-stacks test-sanitized test-played test-gpu bench-gpu site check clean
demo: $(READY)
	$(BIN)/widehead demo

# One thread a process: small tensors gain nothing from more, and processes that share cores wait for one another.
# The checks for a card are left to test-played and test-gpu.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --ignore tests/gpu $(TESTS)

test-long: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m "long and not slow" $(TESTS)

test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto -m slow $(TESTS)

test-python:
	$(MAKE) test VENV=.venv-$$($(PYTHON) -c "import sys; print('%d.%d' % sys.version_info[:2])")

# Without the tests of the documentation, whose tools have bounds of their own.
test-lowest: build/lowest.txt
	$(MAKE) test VENV=.venv-lowest EXTRAS=demo,test CONSTRAINTS=build/lowest.txt TESTS="--ignore=tests/docs $(TESTS)"

# STACKS=test,stacks leaves MLflow and wandb out.
STACKS ?= test,stacks,watching
test-stacks:
	$(MAKE) test VENV=.venv-stacks EXTRAS=$(STACKS) TESTS="tests/stacks tests/docs/test_doc_code.py -k stacks $(TESTS)"

build/lowest.txt: .ci/lowest.py pyproject.toml constraints.txt
	mkdir -p build
	$(PYTHON) .ci/lowest.py > $@

# Python and torch are not built with the sanitizers, so their libraries are loaded first (with libstdc++, whose
# exceptions they watch). Python keeps memory until it ends, so leaks are not looked for. An error ends the process;
# pytest leaves standard error alone, so that its report is seen. C is for float32 alone.
SANITIZERS := -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
PRELOADED = $(foreach name,asan ubsan stdc++,$(shell gcc -print-file-name=lib$(name).so))
SANITIZED := $(addprefix tests/,$(addprefix arithmetic/test_,compiled.py compiled_rules.py compiled_rows.py compiled_correct.py correct.py crowd.py sanitizers.py \
	target_plan.py) factored/test_state.py models/test_classifiers.py)
test-sanitized: $(READY)
	WIDEHEAD_KERNEL_FLAGS="$(SANITIZERS)" LD_PRELOAD="$(PRELOADED)" OMP_NUM_THREADS=1 \
	ASAN_OPTIONS=detect_leaks=0:abort_on_error=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	$(BIN)/python -m pytest --numprocesses auto --max-worker-restart 0 --capture=sys -k "not float64" $(SANITIZED) $(TESTS)

PLAYED := $(addprefix tests/,test_exact_table.py test_optimizer_table.py heads/test_head_table.py training jobs gpu)
test-played: $(READY)
	WIDEHEAD_TEST_DEVICE=cuda OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto $(or $(TESTS),$(PLAYED))

# Nothing is installed: an interpreter that has torch 2.11 and numpy will do. Results go to $$OUT if it is set.
GPU_PYTHON ?= python3
GPU_OUT = $(or $(OUT),build/gpu)
test-gpu:
	PYTHONPATH=src:tests $(GPU_PYTHON) -m gpu $(GPU_OUT)

bench-gpu:
	PYTHONPATH=src $(GPU_PYTHON) recipes/gpu.py $(GPU_OUT)

# A link that leads nowhere, a page left out, or a name that is not there is an error. The variable silences an advertisement.
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

check: $(READY) site
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=recipes $(BIN)/mypy --ignore-missing-imports --allow-untyped-calls recipes
	$(BIN)/mypy --config-file= --strict tests/typing/user_code.py
	$(BIN)/basedpyright
	$(BIN)/lint-imports

$(READY): pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11) and 'widehead needs Python 3.11 or newer. Found ' + sys.version.split()[0] + '; pass another with PYTHON=python3.12')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet --constraint $(CONSTRAINTS) --editable ".[$(EXTRAS)]"
	touch $(READY)

clean:
	rm -rf .venv .venv-* runs build .pytest_cache .mypy_cache .ruff_cache .hypothesis

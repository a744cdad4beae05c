# `make demo`, `make test` and `make benchmark` set up all they need, in any order, and install again only when the
# dependencies change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed
TABLES := runs/benchmarks

# Where this is set, each process would compile again what the installation did not: see below.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-newest benchmark clean

demo: $(INSTALLED)
	$(BIN)/python -m experiments.train --config=configs/synthetic.py --workdir=runs/demo

# All but the slow tests; .ci/run runs those as well.
test: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist=worksteal -m "not slow"

# The same tests, or some of them, with the newest JAX on the Python that NEWEST_PYTHON names; .ci/run calls it.
NEWEST_PYTHON ?= python3.13
NEWEST_TESTS ?= tests
test-newest:
	$(NEWEST_PYTHON) -m venv .venv-newest
	.venv-newest/bin/python -m pip install --quiet --editable '.[test,tensorboard]'
	OMP_NUM_THREADS=1 .venv-newest/bin/python -m pytest -n auto --dist=worksteal -m "not slow" $(NEWEST_TESTS)

# Short benchmarks: a table on the screen and a file in runs/benchmarks each. Compared with PyTorch if that is installed:
# `.venv/bin/python -m pip install torch --index-url https://download.pytorch.org/whl/cpu`.
benchmark: $(INSTALLED)
	mkdir -p $(TABLES)
	$(BIN)/python -m benchmarks.train_step --peer=unrolled --repetitions=3 --json=$(TABLES)/unrolled.json
	if $(BIN)/python -c 'import torch' 2> /dev/null; then \
	  $(BIN)/python -m benchmarks.train_step --peer=torch --repetitions=3 --json=$(TABLES)/train_step.json && \
	  $(BIN)/python -m benchmarks.train_step --peer=torch --what=localize --repetitions=3 \
	    --json=$(TABLES)/localize.json; \
	fi
	$(BIN)/python -m benchmarks.compile_time --json=$(TABLES)/compile_time.json
	$(BIN)/python -m benchmarks.memory --measured --side=128 --num_erasures=1,4 --json=$(TABLES)/memory.json
	$(BIN)/python -m benchmarks.input_pipeline --config=configs/synthetic.py --seconds=1 --epochs=2 \
	  --json=$(TABLES)/input_pipeline.json

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	# Python compiles a module when it is imported: half of the installation was to compile all of them.
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[test,tensorboard]'
	touch $@

clean:
	rm -rf $(VENV) .venv-newest runs build *.egg-info

# `make demo` and `make test` set up all they need, in any order, and install again only when the dependencies change.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed

.PHONY: demo test clean

demo: $(INSTALLED)
	$(BIN)/python -m experiments.train --config=configs/synthetic.py --workdir=runs/demo

test: $(INSTALLED)
	$(BIN)/python -m pytest

$(INSTALLED): setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,tensorboard]'
	touch $@

clean:
	rm -rf $(VENV) runs build *.egg-info

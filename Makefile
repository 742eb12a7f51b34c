# make demo   set up and run the whole chain on this machine's CPU
# make test   set up and run all tests (what CI runs)
# make core   only the light install: configs, data preparation, checks, reports

PYTHON ?= python3
VENV   ?= .venv
# Where pip would fetch torch's CUDA build: make TORCH_ARGS='--index-url https://download.pytorch.org/whl/cpu' demo
TORCH_ARGS ?=
ARGS   ?=

PIP   = $(VENV)/bin/python -m pip --disable-pip-version-check -q install
ALIGN = $(VENV)/bin/align
# The tests on Slurm wait more than they work: four at a time, each on a cluster of its own.
PYTEST = $(VENV)/bin/python -m pytest

.PHONY: demo test lint core engine clean

demo: engine
	$(ALIGN) run tiny $(ARGS)

test: engine $(VENV)/.test
	sh tests/install_chromium.sh
	sh tests/install_slurm.sh
	$(VENV)/bin/python -m ruff check .
	$(if $(ARGS),$(PYTEST) $(ARGS),$(PYTEST) --ignore tests/slurm)
	$(if $(ARGS),,$(PYTEST) tests/slurm -n 4 --dist worksteal)

lint: $(VENV)/.test
	$(VENV)/bin/python -m ruff check .

core: $(VENV)/.core
engine: $(VENV)/.engine

# Stamps: an install is repeated when its lock file changes.
$(VENV)/.core: requirements/core.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps -r requirements/core.lock
	$(PIP) --no-deps -e .
	touch $@

$(VENV)/.engine: requirements/engine.lock requirements/torch.lock $(VENV)/.core
	$(PIP) --no-deps -r requirements/engine.lock
	$(PIP) $(TORCH_ARGS) -r requirements/torch.lock
	touch $@

$(VENV)/.test: requirements/test.lock $(VENV)/.core
	$(PIP) --no-deps -r requirements/test.lock
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info

# Every target sets up .venv first: only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
UNMARKED := not slow and not faults and not multinode and not gpu
# One core per process unless a target says otherwise; no telemetry, no token files.
export RAY_USAGE_STATS_ENABLED := 0
export RAY_AUTH_MODE ?= disabled
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: install demo test test-all test-slow test-faults test-stores test-gpu check format bench \
  bench-merge bench-evaluate bench-trial bench-tune bench-train bench-search bench-racing bench-mergekit clean help

help:            ## list the targets
	@grep -E '^[a-z-]+: .*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: $(STAMP)  ## set up .venv with pinned versions

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 13); sys.exit(0 if ok else "ablate needs Python 3.11 to 3.13, got " + sys.version.split()[0] + "; run make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[jobs,dev]'
	touch $@

demo: $(STAMP)     ## the whole job on the embedded corpus, in minutes
	$(BIN)/ablate demo

test: $(STAMP)     ## the unmarked tests; those without Ray in two processes
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not ray and $(UNMARKED)'
	$(BIN)/python -m pytest -m 'ray and $(UNMARKED)'

test-all: $(STAMP) ## every test, the marked ones too
	$(BIN)/python -m pytest -m ''

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

test-faults: $(STAMP)
	$(BIN)/python -m pytest -m faults

test-stores: $(STAMP) $(VENV)/moto/bin/moto_server  ## workspaces on an S3 server on this machine
	$(BIN)/python -m pytest -m '' tests/stores

# moto needs other versions of packages than constraints.txt: it has an environment of its own.
$(VENV)/moto/bin/moto_server:
	$(PYTHON) -m venv $(VENV)/moto
	$(VENV)/moto/bin/python -m pip install --quiet 'moto[server]==5.2.5'

test-gpu: $(STAMP)
	$(BIN)/python -m pytest -m gpu

check: $(STAMP)    ## lint, format, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)   ## mend what ruff can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(STAMP)    ## every benchmark group; writes bench.json
	$(BIN)/python -m bench merge evaluate trial tune train search racing

bench-merge bench-evaluate bench-trial bench-tune bench-train bench-search bench-racing bench-mergekit: bench-%: $(STAMP)
	$(BIN)/python -m bench $*

clean:           ## remove what the targets made
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache

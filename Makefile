# make demo     the main job: erase a concept from a model that ships with the package, and report what is left
# make test     make check, then the default test suite, in WORKERS processes of one thread each
# make check    ruff, types, licences of the resolved set, import arrows, figures of the documents against results files
# make figures  rewrite the figures of README, docs and cards from benchmarks/*/results/latest.json
#
# Each target creates .venv on its first run and reuses it. Python 3.11 or later: make PYTHON=/path/to/python3 ...
# The CPU build of torch is enough for all of them. On Linux it is taken from pip's configured places if they have it,
# else from TORCH_INDEX; failing both, the default build is installed, which is larger and works as well.

PYTHON      ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3.13 || command -v python3)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
WORKERS     ?= 2
VENV        := .venv
BIN         := $(VENV)/bin
STAMP       := $(VENV)/.installed
PIP         := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
TORCH       := $(shell sed -n 's/^\(torch==[0-9.]*\).*/\1/p' constraints.txt)

.PHONY: demo test check figures clean

demo: $(STAMP)
	$(BIN)/scotoma demo

test: check
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/mypy
	$(BIN)/python scripts/check/licences.py
	$(BIN)/python scripts/check/arrows.py
	$(BIN)/python scripts/check/figures.py

figures: $(STAMP)
	$(BIN)/python scripts/check/figures.py --write

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no Python found: install Python 3.11 or give PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11: install 3.11 or give PYTHON=/path/to/python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@if [ "$$(uname -s)" = Linux ]; then \
	  $(PIP) --quiet "$(TORCH)+cpu" 2>/dev/null || \
	  $(PIP) --extra-index-url $(TORCH_INDEX) "$(TORCH)+cpu" || \
	  echo "no CPU build of $(TORCH) in reach; going on with the default build" >&2; \
	fi
	$(PIP) --editable '.[curate,dev,dialogue,guard,known,lora,nsfw,onnx,zoo]'
	@touch $@

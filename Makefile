# Everything runs inside .venv, installed from the locks. `make help` lists the targets.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder
ARGS ?=
# Else each of the many servers that the tests start would compile the sources anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help serve test test-all check bench page lock clean
help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

serve: .venv/.runtime ## run the server; flags in ARGS="--port 9000"
	$(BIN)/tus-server serve $(ARGS)

test: .venv/.dev ## the tests, with samples of the long ones; ARGS="-k name" goes to pytest
	$(PYTEST) -m "not full" $(ARGS)

test-all: .venv/.dev ## every test, the long ones in full
	TUS_TEST_FULL=1 $(PYTEST) $(ARGS)

check: .venv/.dev ## ruff, mypy --strict, the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: .venv/.dev ## speed and memory beside the peers that can be installed here
	$(BIN)/python -m bench $(ARGS)

page: ## build the upload page from page/ into tus_server/http/page; needs node and npm
	cd page && npm ci --no-audit --no-fund && npm run build

lock: .venv/.dev ## resolve pyproject.toml into locks/ again
	$(PIP) install uv
	for pair in "runtime:--group build" "dev:--group build --group dev"; do \
	$(BIN)/uv pip compile pyproject.toml $${pair#*:} --universal --python-version 3.11 --upgrade \
	  --generate-hashes --no-emit-index-url --no-emit-find-links --no-annotate --quiet \
	  --custom-compile-command "make lock" --output-file locks/$${pair%%:*}.txt || exit 1; done

clean: ## remove what the targets made (never tus-data)
	rm -rf page/node_modules .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis artifacts

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3"; exit 1; }
	$(PYTHON) -m venv .venv

# The build tools are in the locks too, so nothing unpinned is fetched (--no-build-isolation).
.venv/.runtime: locks/runtime.txt pyproject.toml | .venv/bin/python
	$(PIP) install --require-hashes -r locks/runtime.txt
	$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

.venv/.dev: locks/dev.txt .venv/.runtime
	$(PIP) install --require-hashes -r locks/dev.txt
	@touch $@

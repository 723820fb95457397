# Every target sets itself up: a fresh clone needs Python 3.11 to 3.13 and make, nothing else.
# Another interpreter: make test PYTHON=python3.13

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
E2E    := tests/e2e

# What is installed, as files that are newer than what they were made from. Tests need everything;
# the demo only what the proxy needs, so that it is ready in seconds.
PROXY  := $(VENV)/.installed-proxy
DEV    := $(VENV)/.installed-dev
NODE   := $(if $(wildcard $(E2E)/package.json),$(E2E)/node_modules/.installed)

SOURCES := proxy agent tunnel-cli controller tests bench docs
# Not the tests: many of them are about misspelt words.
TEXTS   := $(wildcard *.md) $(filter-out tests,$(SOURCES))

# Tests start our programs hundreds of times, and collecting takes a third of the time with compiled
# files: an environment that forbids them (containers like to) would cost a minute.
test e2e: export PYTHONDONTWRITEBYTECODE :=

.PHONY: help install demo check test e2e bench docs lock floors fmt clean
.DEFAULT_GOAL := help
# One after another: check and test would fight for the same caches, and two installs for .venv.
.NOTPARALLEL:

help:
	@echo "make install  the proxy in $(VENV); run it with $(BIN)/heim-proxy"
	@echo "make demo     a proxy with three people and an application, on this machine only"
	@echo "make check    format, lint, types, import contracts, spelling"
	@echo "make test     every test but the slow end-to-end ones (real programs when they are there)"
	@echo "make e2e      every end-to-end test, the slow ones too, and chance asked far more often"
	@echo "make bench    compare with nginx, haproxy and caddy"
	@echo "make docs     write the generated pages of docs/reference again"
	@echo "make lock     choose the versions in constraints.txt anew (needs uv)"
	@echo "make floors   the unit tests with the oldest versions that pyproject.toml allows (needs uv)"
	@echo "make fmt      format, and mend what the linter can"
	@echo "make clean    remove everything that make made"

install: $(PROXY)

demo: $(PROXY)
	$(BIN)/heim-proxy demo $(ARGS)

check: $(DEV)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell --skip '*/__pycache__' --ignore-words-list te,notin $(TEXTS)

test: $(DEV) $(NODE)
	$(BIN)/python -m pytest -n auto --dist loadfile

e2e: $(DEV) $(NODE)
	$(BIN)/python -m pytest -m "" $(E2E)
	$(BIN)/python -m pytest -m slow tests/integration
	HEIM_THOROUGH=1 $(BIN)/python -m pytest -n auto --dist loadfile tests/unit tests/hostile

bench: $(DEV)
	$(BIN)/python -m bench

docs: $(DEV)
	$(BIN)/python -m heim_config.reference docs/reference
	$(BIN)/python -m heim_controller.crds
	$(BIN)/python -m tests.docs.generated

# Versions only, for every Python we serve; what was published in the last week is left out ([tool.uv]).
lock:
	uv pip compile --quiet --universal --python-version 3.11 --all-extras --no-annotate --upgrade \
	    --custom-compile-command 'make lock' --output-file constraints.txt pyproject.toml

floors:
	uv venv --quiet --clear --python $(PYTHON) .venv-floors
	uv pip compile --quiet --resolution lowest-direct --extra all pyproject.toml -o .venv-floors/floors.txt
	uv pip install --quiet --python .venv-floors/bin/python -c .venv-floors/floors.txt -e '.[dev]'
	.venv-floors/bin/python -m pytest -n auto --dist loadfile tests/unit

fmt: $(DEV)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) .venv-floors $(E2E)/node_modules .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

# uv is faster where it is installed and can reach packages; pip is everywhere.
define install_into_venv
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Heim needs Python 3.11 or newer; say which: make PYTHON=python3.13" >&2; exit 1; }
	@if command -v uv >/dev/null 2>&1 \
	    && { test -x $(BIN)/python || uv venv --quiet --python $(PYTHON) $(VENV); } \
	    && uv pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[$(1)]'; then \
	    echo "installed heim[$(1)] into $(VENV) with uv"; \
	else \
	    echo "installing heim[$(1)] into $(VENV) (a minute the first time)"; \
	    $(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV); \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(1)]'; \
	fi
endef

$(PROXY): pyproject.toml constraints.txt
	$(call install_into_venv,proxy)
	@touch $@

$(DEV): pyproject.toml constraints.txt
	$(call install_into_venv,dev)
	@touch $@ $(PROXY)

# The identity provider that tests sign in at. Without npm its tests are skipped, or fail when
# CI=true; tests decide that, not make.
$(E2E)/node_modules/.installed: $(wildcard $(E2E)/package.json $(E2E)/package-lock.json)
	@if command -v npm >/dev/null 2>&1; then \
	    npm ci --prefix $(E2E) --ignore-scripts --no-audit --no-fund --silent && touch $@ \
	    || echo "npm could not install $(E2E)/package.json: tests that need it will say so" >&2; \
	else \
	    echo "npm is not installed: tests with a real identity provider will say so" >&2; \
	fi

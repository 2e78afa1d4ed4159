# Everything a developer or CI does. `make` alone tells what there is.

# The first of these that is new enough; `make PYTHON=/path/to/python3 ...` decides otherwise.
PYTHON ?= $(shell for python in python3.14 python3.13 python3.12 python3.11 python3; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
# What is in .venv names its folder: one that was moved or copied here, or whose setup was cut short, is made anew.
ifneq ($(shell cat $(VENV)/.installed 2>/dev/null),$(CURDIR))
ANEW := --clear
.PHONY: $(VENV)/.installed
endif
# It is in .venv that pip installs, and from there that Python takes packages, whatever else the environment says;
# pip does not get over warnings that are errors, and tests are none without their asserts.
unexport PIP_TARGET PIP_PREFIX PIP_ROOT PYTHONHOME PYTHONPATH PYTHONOPTIMIZE PYTHONWARNINGS
export PIP_USER := 0
# Whatever the locale, files are UTF-8; `run` alone is left the letters that its terminal has.
test verify generate bench bench-quick chaos soak containers: export PYTHONUTF8 := 1
PACKAGES := curation_cli curation_client curation_service enrichment_worker shared workflows
STUBS := curation/v1
LIFECYCLE := docs/reference/lifecycle.md
STATEMENTS := docs/reference/statements.md
# What `make breaking` compares the API with: any commit, branch or tag.
BASE ?= $(shell { git rev-parse --verify --quiet origin/main || git rev-parse --verify --quiet HEAD; } 2>/dev/null)
# Tests run in so many processes, each with a PostgreSQL of its own.
PROCESSES ?= 2
# How compose is called here, whichever engine it drives.
COMPOSE ?= $(shell for compose in "docker compose" docker-compose podman-compose; do \
	$$compose version >/dev/null 2>&1 && echo $$compose && break; done)
LOCK := $(BIN)/uv pip compile pyproject.toml --group build --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-annotate --quiet

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup run test lint format generate verify breaking bench bench-quick chaos soak containers lock clean

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## Install everything into .venv, from the lock

$(VENV)/.installed: requirements-dev.lock pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv: on Debian, apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(ANEW) $(VENV)
	@rm -f $@
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@pwd -P > $@

run: setup ## Start everything, with demo data, a PostgreSQL of its own and a stand-in for the external APIs
	$(BIN)/curation up --demo

test: lint ## Lint, then every test with branch coverage, then some again on the machine's own PostgreSQL
	rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n $(PROCESSES) tests
	$(BIN)/coverage combine --quiet
	$(BIN)/coverage report
	@if ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1; then \
		$(BIN)/pytest -n $(PROCESSES) -m postgres_versions --postgres=system tests/integration; fi

lint: setup verify breaking ## Style, types, import contracts, the API's lint, stubs up to date
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES) tests benchmarks
	$(BIN)/lint-imports
	$(BIN)/buf lint protos

format: setup ## Format the code, and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

define protoc
	$(BIN)/python -m grpc_tools.protoc --proto_path=protos --plugin=$(BIN)/protoc-gen-mypy_grpc --python_out=$(1) \
		--pyi_out=$(1) --grpc_python_out=$(1) --mypy_grpc_out=quiet:$(1) protos/$(STUBS)/*.proto
endef

generate: setup ## Make the stubs of the API and the pages that are generated anew
	$(call protoc,.)
	$(BIN)/python -m shared.diagram > $(LIFECYCLE)
	$(BIN)/python -m shared.db.shown > $(STATEMENTS)

verify: setup ## The stubs are what the API says, the generated pages what the machine and the writer say
	@fresh=$$(mktemp -d) && trap 'rm -rf "$$fresh"' EXIT && $(call protoc,"$$fresh") && \
		for stub in "$$fresh"/$(STUBS)/*; do diff -u "$(STUBS)/$${stub##*/}" "$$stub" || \
		{ echo "the stubs are out of date: make generate" >&2; exit 1; }; done
	@{ $(BIN)/python -m shared.diagram | diff -u $(LIFECYCLE) - && \
		$(BIN)/python -m shared.db.shown | diff -u $(STATEMENTS) -; } || \
		{ echo "a generated page is out of date: make generate" >&2; exit 1; }

breaking: setup ## The API breaks nobody who uses the one of BASE (default: origin/main, or the last commit)
	@if test -n "$(BASE)" && ! git rev-parse --verify --quiet "$(BASE)^{commit}" >/dev/null; then \
		echo "there is no $(BASE) to compare with" >&2; exit 1; \
	elif test -n "$(BASE)" && git cat-file -e "$(BASE):protos" 2>/dev/null; then \
		before=$$(mktemp -d) && trap 'rm -rf "$$before"' EXIT && \
		git archive "$(BASE)" protos | tar -x -C "$$before" && $(BIN)/buf breaking protos --against "$$before/protos"; \
	else echo "no earlier API to compare with"; fi

bench: setup ## Measure everything beside its raw floor and other queues, which it installs into .cache: three quarters of an hour
	$(BIN)/python -m benchmarks.all

bench-quick: setup ## The drain and a batch update beside their floors: a minute
	$(BIN)/python -m benchmarks.quick

chaos: SECONDS ?= 180
chaos: setup ## Kill, freeze and cut off everything, SECONDS for each test, and check that nothing is lost: minutes
	$(BIN)/pytest tests/chaos --chaos=$(SECONDS)

containers: setup ## Build the images, start docker-compose.yml, try it and take it down: needs Docker or Podman
	@test -n "$(COMPOSE)" || { echo "no compose here: install Docker or Podman, or name it: make containers COMPOSE=..." >&2; exit 1; }
	$(BIN)/pytest tests/containers --compose="$(COMPOSE)"

soak: SECONDS ?= 3600
soak: setup ## Steady traffic for SECONDS, an hour by default: memory stays flat, tables as large as their rows need
	$(BIN)/pytest tests/soak --soak=$(SECONDS)

lock: setup ## Resolve the dependencies anew: requirements.lock for images, requirements-dev.lock for everything
	$(LOCK) --upgrade --output-file requirements.lock
	$(LOCK) --upgrade --all-extras --constraint requirements.lock --output-file requirements-dev.lock

clean: ## Remove what was made, the data of `make run` included
	rm -rf $(VENV) .data .cache .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info build

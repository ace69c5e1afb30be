# Each target sets up what it needs in $(VENV) and says what it does. What is already there is not done again.
#
# Settings: PYTHON (interpreter of the environment), VENV, LOCK (which versions are installed: a file of constraints; empty:
# the newest), PORT (make serve), TESTS (make test: what to run), JOBS (make test: number of processes; more than CPUs, since
# tests wait too), PEER (make test: 0 leaves Mosec out, and skips the comparison with it, where it cannot be installed),
# COMPARE (make bench: options of benchmarks/compare.py), PACKAGE (make package: options of tools/package.py),
# FUZZ_SECONDS (make fuzz: of each target), FUZZ (options of tools/fuzz.py), SOAK (make soak: options of tests/soak).

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
TESTS ?= tests
JOBS ?= $(shell expr $$(nproc) \* 3 / 2)
PEER ?= 1
LOCK ?= requirements.lock
FUZZ_SECONDS ?= 60
# The first that runs of those for which the oldest dependencies have wheels.
FLOORS_PYTHON ?= $(shell for python in python3.10 ~/.pyenv/versions/3.10.*/bin/python3.10 python3.11; do \
	if "$$python" --version >/dev/null 2>&1; then echo "$$python"; break; fi; done)

BIN := $(VENV)/bin
# What the lock has hashes for is compared with them.
UV := $(BIN)/python -m uv pip install --quiet --python $(BIN)/python --no-build-isolation $(if $(LOCK),--constraint $(LOCK),--upgrade)
ENGINE := $(wildcard src_pyx/mosec_cy/_engine/*.pyx src_pyx/mosec_cy/_engine/*.pxd)
DRIVERS := $(wildcard tests/drivers/*.pyx)
# Build switches that are on are part of the name of the engine's stamp: switching rebuilds.
FLAVOUR := $(if $(filter-out 0,$(MOSEC_CY_DEBUG)),-debug)$(if $(filter-out 0,$(MOSEC_CY_SANITIZE)),-sanitize)
ENGINE_STAMP := $(VENV)/.engine$(FLAVOUR)
DRIVERS_STAMP := $(VENV)/.drivers$(FLAVOUR)

# A sanitized extension in an interpreter that is not needs the runtime loaded first; the interpreter's own leaks are no news.
SANITIZED := $(if $(filter-out 0,$(MOSEC_CY_SANITIZE)),LD_PRELOAD="$$(gcc -print-file-name=libasan.so)" ASAN_OPTIONS=detect_leaks=0:handle_segv=0:allocator_may_return_null=1)

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help serve test test-latest test-floors lock examples heavy-examples check fuzz model soak format bench docs develop package clean

define say
@printf '==> %s\n' "$(1)"
endef

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

serve: $(VENV)/.examples ## serve a real model (file types, by content) on PORT, in the foreground
	$(call say,file types on http://127.0.0.1:$(PORT)/inference; when it is ready try in another terminal:)
	@printf '\n    curl --data-binary @README.md http://127.0.0.1:%s/inference\n\n' "$(PORT)"
	@exec $(BIN)/python examples/filetype/server.py --port $(PORT)

test: $(VENV)/.group-test $(DRIVERS_STAMP) $(if $(filter-out 0,$(PEER)),$(VENV)/.group-peer) $(VENV)/.examples ## run all tests
	$(call say,pytest $(TESTS))
	@$(SANITIZED) $(BIN)/python -m pytest -p tests.progress -o console_output_style=classic -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations 15 $(TESTS)

test-latest: ## run all tests with the newest release of everything, whatever the lock says
	@rm -f .venv-latest/.base .venv-latest/.engine* .venv-latest/.drivers* .venv-latest/.group-* .venv-latest/.examples
	@$(MAKE) --no-print-directory test VENV=.venv-latest LOCK=

test-floors: ## run all tests with the oldest dependencies that are admitted (FLOORS_PYTHON, a CPython 3.10 or 3.11); Mosec admits none so old
	$(if $(FLOORS_PYTHON),,$(error found no CPython 3.10 or 3.11 for the oldest dependencies: name one, FLOORS_PYTHON=...))
	@$(MAKE) --no-print-directory test VENV=.venv-floors PYTHON=$(FLOORS_PYTHON) LOCK=tests/floors.txt PEER=0

# Of torch the version alone is fixed: each machine's build of it, for its GPU or none, is another file.
lock: $(VENV)/.base ## renew requirements.lock: for each Python, the newest of all that the targets here install, with hashes
	$(call say,uv pip compile)
	@$(BIN)/python -m uv pip compile --quiet --upgrade --universal --python-version 3.10 --generate-hashes --no-annotate \
		--all-extras $(patsubst %,--group %,dev docs package peer bench-mosec bench-litserve bench-fastapi) \
		--constraint tests/examples/heavy/constraints.txt --no-emit-package torch \
		--custom-compile-command 'make lock' --output-file requirements.lock pyproject.toml

examples: ## run the tests of the examples on real models and frameworks, in .venv-examples: large to install, minutes to run
	@$(MAKE) --no-print-directory heavy-examples VENV=.venv-examples

heavy-examples: $(VENV)/.group-test $(VENV)/.heavy-examples
	$(call say,pytest tests/examples/heavy)
	@$(BIN)/python -m pytest tests/examples/heavy

check: $(VENV)/.group-check $(ENGINE_STAMP) ## linters, types, Cython with warnings as errors, rules of the house
	$(call say,ruff check)
	@$(BIN)/ruff check .
	$(call say,ruff format --check)
	@$(BIN)/ruff format --check .
	$(call say,mypy)
	@$(BIN)/mypy
	$(call say,cython-lint)
	@PATH="$(abspath $(BIN)):$$PATH" cython-lint src_pyx tests/drivers
	$(call say,cython -Werror)
	@$(BIN)/python setup.py --quiet check_engine
	$(call say,rules of the house)
	@$(BIN)/python tools/lint_source.py
	@$(BIN)/python tools/layers.py

fuzz: $(VENV)/.group-test $(DRIVERS_STAMP) ## fuzz what reads hostile bytes, guided by coverage (needs clang): each target for FUZZ_SECONDS
	$(call say,random tests with other seeds and ten times the examples)
	@FUZZ_FACTOR=10 $(BIN)/python -m pytest --timeout 0 -p no:cacheprovider tests/fuzz
	$(call say,libFuzzer on each target for $(FUZZ_SECONDS) s)
	@$(BIN)/python -m tools.fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

model: $(VENV)/.group-test $(DRIVERS_STAMP) ## check the models of what processes do to each other in shared memory (needs spin, g++ and relacy)
	$(call say,spin; relacy)
	@MOSEC_CY_REQUIRE_TOOLS=1 $(BIN)/python -m pytest -v tests/unit/test_models.py tests/unit/test_weak_memory.py

format: $(VENV)/.group-check ## let ruff format and fix the Python sources
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

soak: $(VENV)/.group-test $(DRIVERS_STAMP) ## load a service of all kinds for 30 minutes while its processes are killed; nothing may be lost
	$(call say,python -m tests.soak $(SOAK))
	@$(SANITIZED) $(BIN)/python -m tests.soak $(SOAK)

bench: $(VENV)/.group-bench $(DRIVERS_STAMP) ## micro-benchmarks, then the comparison with other servers
	$(call say,micro-benchmarks)
	@$(BIN)/python -m pytest benchmarks --benchmark-only
	$(call say,comparison with other servers; each is installed in an environment of its own)
	@$(BIN)/python benchmarks/compare.py $(COMPARE)

docs: $(VENV)/.group-docs ## the documentation, in site/; warnings are errors, and nothing is fetched while it builds
	$(call say,sphinx)
	@$(BIN)/python -m sphinx --quiet --fail-on-warning --keep-going --builder html docs site
	$(call say,open site/index.html)

develop: $(VENV)/.group-dev $(DRIVERS_STAMP) $(VENV)/.examples ## everything for work on the project; MOSEC_CY_DEBUG=1, MOSEC_CY_SANITIZE=1 choose the build
	$(call say,ready: $(BIN)/python)

package: $(VENV)/.group-package ## sdist and wheels in dist/, for all Pythons whose headers are found; each that can run here is tried
	@$(BIN)/python -m tools.package $(PACKAGE)

clean: ## remove what was built; environments too
	rm -rf build dist site .venv .venv-latest .venv-floors .venv-examples .peer bench-results *.egg-info mosec_cy/_engine/*.so tests/drivers/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up, one stamp a step.

# pip of any age can install uv, which installs all else.
$(VENV)/.base: pyproject.toml requirements.lock
	$(call say,virtual environment $(VENV) with $(PYTHON))
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes \
		--requirement <(sed -n '/^uv==/,/[^\\]$$/p' requirements.lock)
	@$(UV) --group build
	@touch $@

$(ENGINE_STAMP): $(VENV)/.base setup.py $(ENGINE)
	$(call say,building the engine$(FLAVOUR) and installing mosec_cy into $(VENV) (editable))
	@$(UV) --editable .
	@rm -f $(VENV)/.engine* && touch $@

# What tests and benchmarks reach the engine's C functions through; no wheel has it.
$(DRIVERS_STAMP): $(ENGINE_STAMP) $(DRIVERS)
	$(call say,building the drivers of the engine's tests$(FLAVOUR))
	@$(BIN)/python setup.py --quiet build_drivers
	@rm -f $(VENV)/.drivers* && touch $@

# It builds from the source distribution and needs no engine here.
$(VENV)/.group-package: pyproject.toml requirements.lock | $(VENV)/.base
	$(call say,packages of the group 'package')
	@$(UV) --group package
	@touch $@

$(VENV)/.group-%: pyproject.toml requirements.lock | $(ENGINE_STAMP)
	$(call say,packages of the group '$*')
	@$(UV) --group $*
	@touch $@

$(VENV)/.examples: pyproject.toml requirements.lock | $(ENGINE_STAMP)
	$(call say,packages and models of the examples)
	@$(UV) --requirement pyproject.toml --extra examples
	@touch $@

# The recogniser's package asks for the OpenCV that needs a graphical system's libraries; the headless one is the same module.
$(VENV)/.heavy-examples: pyproject.toml requirements.lock | $(ENGINE_STAMP)
	$(call say,packages and models of all examples)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint tests/examples/heavy/constraints.txt torch
	@$(UV) --requirement pyproject.toml $(patsubst %,--extra %,examples examples-embedding examples-jax examples-ocr examples-torch)
	@$(BIN)/python -m uv pip uninstall --quiet --python $(BIN)/python opencv-python
	@$(UV) --reinstall-package opencv-python-headless opencv-python-headless
	@touch $@

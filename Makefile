# One environment for everything, in $(VENV): each target installs only what it is missing.
#
#   make demo                  run the demonstration; options after ARGS=
#   make test PYTHON=python3.12

PYTHON ?= python3
VENV ?= .venv
ARGS =
# Percent of lines and branches that the tests must reach.
COVERAGE = 95
# Processes that run tests; each uses one thread.
JOBS = 2

PIP = $(VENV)/bin/python -m pip
INSTALL = $(PIP) install --quiet --constraint constraints.txt
# The package is built with the pinned setuptools of the environment, not with the newest one.
# The warning left out is setuptools' general advice on editable installations.
INSTALL_PACKAGE = PYTHONWARNINGS='ignore:Editable installation' \
  $(INSTALL) --no-build-isolation --editable
PYTEST = $(VENV)/bin/python -m pytest

# What the caller has elsewhere must not stand in for a missing install step.
unexport PYTHONPATH
unexport PYTHONHOME
export PYTHONNOUSERSITE = 1

# $(call timed,NAME,COMMAND): run COMMAND, then print what it took.
define timed
	@echo "== $(1)"; start=$$(date +%s); { $(2); } || exit $$?; \
	echo "== $(1): $$(($$(date +%s) - start)) s"
endef

.PHONY: help
help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-20s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# --- environment ---------------------------------------------------------------------------

$(VENV)/.stamp-venv:
	@command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	  echo "Python 3.10 or newer is needed, and there is no \`$(PYTHON)\`." \
	       "Name one: make PYTHON=/path/to/python3." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	  echo "Python 3.10 or newer is needed, and \`$(PYTHON)\` is" \
	       "$$("$(PYTHON)" --version 2>&1). Name another: make PYTHON=python3.11." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "\`$(PYTHON)\` cannot make virtual environments. Install its venv module (on" \
	       "Debian and Ubuntu the package python3-venv), or name another Python:" \
	       "make PYTHON=python3.11." >&2; exit 1; }
	"$(PYTHON)" -m venv --clear "$(VENV)"
	@touch $@

$(VENV)/.stamp-base: $(VENV)/.stamp-venv setup.cfg pyproject.toml constraints.txt
	$(INSTALL) --upgrade pip setuptools
	$(INSTALL_PACKAGE) '.[examples]'
	@touch $@

$(VENV)/.stamp-dev: $(VENV)/.stamp-base
	$(INSTALL_PACKAGE) '.[dev]'
	@touch $@

# A browser for tests of the tab and the report; where it cannot be had, CI fails and others skip.
$(VENV)/.stamp-browser: $(VENV)/.stamp-dev
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || { \
	  [ -z "$$CI" ] || { apt-get update -qq && apt-get install -qq --yes chromium; }; }
	@touch $@

.PHONY: install
install: $(VENV)/.stamp-dev ## Set up the environment for development

# --- use -----------------------------------------------------------------------------------

.PHONY: demo
demo: $(VENV)/.stamp-base ## Run the demonstration (options: ARGS="--help")
	$(VENV)/bin/python -m examples.demo $(ARGS)

$(VENV)/.stamp-bench: $(VENV)/.stamp-base
	$(INSTALL_PACKAGE) '.[bench]'
	@touch $@

.PHONY: bench
bench: $(VENV)/.stamp-bench ## Measure the overhead beside others' (options: ARGS="--help")
	$(VENV)/bin/python -m benchmarks.overhead $(ARGS)

.PHONY: bench-detection
bench-detection: $(VENV)/.stamp-base ## Recall and false alarms (options: ARGS="--help")
	$(VENV)/bin/python -m benchmarks.detection $(ARGS)

.PHONY: bench-interventions
bench-interventions: $(VENV)/.stamp-base ## What acting is worth (options: ARGS="--help")
	$(VENV)/bin/python -m benchmarks.interventions $(ARGS)

.PHONY: bench-preflight
bench-preflight: $(VENV)/.stamp-base ## The initialisation check beside what became of trainings
	$(VENV)/bin/python -m benchmarks.preflight $(ARGS)

.PHONY: gpu
gpu: $(VENV)/.stamp-dev ## Tests and figures that need a CUDA device (options: ARGS="--help")
	$(PYTEST) tests/gpu tests/unit/test_kernel.py
	$(VENV)/bin/python -m benchmarks.gpu $(ARGS)

# --- checks --------------------------------------------------------------------------------

.PHONY: test
test: $(VENV)/.stamp-dev ## Run everything that must pass
	@$(MAKE) --no-print-directory check
	@$(MAKE) --no-print-directory unit
	@$(MAKE) --no-print-directory site
	@$(MAKE) --no-print-directory package

.PHONY: check
check: $(VENV)/.stamp-dev ## Format, lint, types, import direction
	$(call timed,ruff,$(VENV)/bin/ruff format --check . && $(VENV)/bin/ruff check .)
	$(call timed,mypy,$(VENV)/bin/mypy)
	$(call timed,imports,$(VENV)/bin/lint-imports)

.PHONY: unit
unit: $(VENV)/.stamp-browser ## Tests and docstring examples, with branch coverage
	$(call timed,tests,$(PYTEST) --numprocesses $(JOBS) --dist loadfile \
	  --ignore=tests/packaging --cov --cov-fail-under=$(COVERAGE))

$(VENV)/.stamp-models: $(VENV)/.stamp-dev
	$(INSTALL_PACKAGE) '.[models]'
	@touch $@

.PHONY: models
models: $(VENV)/.stamp-models ## Models of the transformers library, which must stay quiet
	$(call timed,models,$(PYTEST) tests/real_models)

$(VENV)/.stamp-docs: $(VENV)/.stamp-base
	$(INSTALL_PACKAGE) '.[docs]'
	@touch $@

.PHONY: site
site: $(VENV)/.stamp-docs ## The documentation as a site, in build/site
	$(call timed,site,$(VENV)/bin/sphinx-build --quiet --fail-on-warning --keep-going \
	  --conf-dir docs/site . build/site)

.PHONY: package
package: $(VENV)/.stamp-dev ## The built wheel, also with the oldest versions it accepts
	$(call timed,package,$(PYTEST) tests/packaging)

.PHONY: oldest
oldest: $(VENV)/.stamp-dev ## Only the run with the oldest accepted versions
	$(PYTEST) tests/packaging/test_lightning_range.py

.PHONY: format
format: $(VENV)/.stamp-dev ## Format the code and mend what ruff can mend
	$(VENV)/bin/ruff check --fix-only .
	$(VENV)/bin/ruff format .

# --- release -------------------------------------------------------------------------------

.PHONY: build
build: $(VENV)/.stamp-dev ## Build the source archive and the wheel into dist/
	$(VENV)/bin/python -m build --no-isolation --outdir dist .

.PHONY: clean
clean: ## Remove what the targets made, but for the environment
	rm -rf build dist htmlcov .coverage .coverage.* *.egg-info/SOURCES.txt
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find lightning_gradguard examples tests -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Remove the environment too
	rm -rf "$(VENV)" *.egg-info

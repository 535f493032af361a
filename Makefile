# `make` lists what there is. Each target makes the environment first if it is not there: nothing to activate.
PYTHON ?= python3
PY := .venv/bin/python
STAMP := .venv/.resalign-stamp

# Two processes of one thread each are faster than one of two threads, and sums come out in one order.
export OMP_NUM_THREADS ?= 1
export MKL_NUM_THREADS ?= 1
export PLOTLY_RENDERER := plotly_mimetype
export TQDM_DISABLE := 1

RESULTS := convolutional counterfactuals collapse theory small_and_unbalanced linearization linearization_layers bridge attention regularizers two_ages screening

.DEFAULT_GOAL := help
.PHONY: help book test check units html notebooks lint results bench pages shots pdf status mutants clean distclean FORCE

help: ## list the targets
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1\t\2/' | expand -t 20

book: $(STAMP) ## train, measure and draw everything on this machine (copies of all notebooks), build the book
	@$(PY) -m tools.build_book --execute

test: $(STAMP) ## pages, stored notebooks, unit tests, and every notebook run again and compared
	@tools/test.sh

check: lint ## lint, and the unit tests of what changed: for daily work
	@$(PY) -m tools.check

units: $(STAMP) ## all unit tests that need no built page
	@$(PY) -m pytest tests -n 2 --dist loadscope --ignore tests/book

html: $(STAMP) ## build the book from the stored outputs, in about a minute
	@$(PY) -m tools.build_book

notebooks: $(STAMP) ## run all notebooks in place and store their outputs (maintainers; needs Chromium)
	@$(PY) -m tools.run_notebooks

lint: $(STAMP) ## ruff, mypy, and the workflows against their schema
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml

results: $(STAMP) ## train and measure what the chapters take from results/ (hours; Fashion-MNIST in RESALIGN_DATA)
	@for program in $(RESULTS); do $(PY) -m experiments.$$program || exit 1; done

bench: $(STAMP) ## time the library against plain alternatives
	@$(PY) -m benchmarks

pages: $(STAMP) ## open every page that is built in a browser with no network
	@$(PY) -m pytest tests/book/test_pages.py tests/book/test_figures_on_pages.py -n 2 --dist load

shots: $(STAMP) ## pictures of all built pages (light, dark, a phone's) on one sheet, and what each page costs
	@$(PY) -m tools.shots

pdf: $(STAMP) ## the book that is built as one PDF, _build/inside-residual-networks.pdf (needs Chromium)
	@$(PY) -m tools.pdf

status: $(STAMP) ## record the run of the last `make test`, and write the tables of the page Status
	@$(PY) -m tools.status

mutants: $(STAMP) ## break the package in ten places, one at a time, and see that notebooks and tests notice
	@$(PY) -m tools.mutants && $(PY) -m tools.status --tables

clean: ## remove what was built and all caches of tools
	rm -rf _build .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name .venv -prune -o -name .tools -prune -o -name .git -prune -o \
		\( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf .venv .tools

# The second condition: an environment whose Python is gone (a system upgrade) is made again.
$(STAMP): pyproject.toml uv.lock tools/bootstrap.py $(shell test -x .venv/bin/python || echo FORCE)
	@$(PYTHON) tools/bootstrap.py

FORCE:

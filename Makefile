# make suite   set up, then the suites: nine axes on the Markov source, width and activated experts also on text
# make test    set up, then the tests of mue_check itself
# make docs    set up, then the site, into site/; a broken link is an error
# make mutate  set up, then break judge/ and records/ line by line to see whether their tests notice
PYTHON ?= python3
VENV ?= .venv
TIER ?= cpu
WORKERS ?= 2

BIN := $(VENV)/bin
READY := $(VENV)/.ready
TESTS_READY := $(VENV)/.tests_ready
# one thread per process: the workers are the parallelism
export OMP_NUM_THREADS := 1

.PHONY: suite test docs lint types audit-dependencies bench mutate clean

suite: $(READY)
	$(BIN)/pytest suites/ --tier $(TIER) -n $(WORKERS)

test: $(TESTS_READY)
	$(BIN)/pytest tests/ -n $(WORKERS) --dist worksteal

docs: $(TESTS_READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

lint: $(READY) audit-dependencies
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

# fails on a known vulnerability; says so and goes on if the database is not reachable
audit-dependencies: $(READY)
	$(BIN)/python .ci/audit_dependencies.py $(VENV)/audit

types: $(TESTS_READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps mup pyyaml
	$(BIN)/mue_check bench
	$(BIN)/python bench/expert_product.py

mutate: $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt mutmut
	$(BIN)/python -m tests.reliability.mutation

# install torch first, so that no other package pulls in another build of it
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "mue_check needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) -V 2>&1): try make PYTHON=python3.12"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,hf,images,cluster]'
	@$(BIN)/mue_check router builtin:sigmoid_norm --check weight-sum
	@echo "set up: $$($(BIN)/mue_check --version) in $(VENV). Next: $(BIN)/mue_check router docs/examples/my_router.py:Router"
	@touch $@

# what only tests and the site need. Without Chromium the tests of the report page are skipped; nobody waits long for it
$(TESTS_READY): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[browser,completion,docs,trackers]'
	-command -v chromium chromium-browser google-chrome || timeout 60 $(BIN)/playwright install chromium
	@touch $@

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache mutants site

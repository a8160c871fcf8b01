# Every target does its own set-up: a fresh machine needs Python 3.11, make and a package registry.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help demo test test-fast check format bench kafka parts clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regmesh needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,compression,postgresql]'
	touch $@

demo: $(INSTALLED) ## the main job, on parts of our own: a push in one region, pullable in another
	$(BIN)/regmesh demo

test: $(INSTALLED) ## all tests; those of real parts that are missing are skipped and named
	$(BIN)/pytest

test-fast: $(INSTALLED) ## the tests that need no real part
	$(BIN)/pytest -m 'not real'

check: $(INSTALLED) ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## mend what can be mended by itself
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(INSTALLED) ## the figures of docs/benchmarks.md, side by side in one run
	$(BIN)/python -m tests.bench

kafka: ## fetch a real Apache Kafka 4 and run it until interrupted, on PORT or a free one
	compose/kafka/kafka.sh run $(PORT)

parts: ## the real parts of the tests, on Debian and as root: docker-registry, distribution 3, skopeo, PostgreSQL, Java, Maven, Kafka
	.ci/install-parts

clean: ## everything that make made
	rm -rf .venv .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

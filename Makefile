# Every target does its own set-up: a fresh machine needs Python 3.11, make and a package registry.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: help demo test test-all test-fast check format settings bench soak simulate kafka parts clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regmesh needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,compression,postgresql]'
	touch $@

demo: $(INSTALLED) ## the main job, on parts of our own: a push in one region, pullable in another
	$(BIN)/regmesh demo

test: $(INSTALLED) ## all tests but those that test-all adds; those of real parts that are missing are skipped and named
	$(BIN)/pytest

test-all: $(INSTALLED) ## all tests, also each pair of real registries there is, and not only each in both roles
	$(BIN)/pytest --all

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

settings: $(INSTALLED) ## docs/settings.md from the settings groups in the code
	$(BIN)/python -m mesh.node.settings_reference > docs/settings.md

bench: $(INSTALLED) ## the figures of docs/benchmarks.md, side by side in one run
	$(BIN)/python -m tests.bench

soak: $(INSTALLED) ## minutes: a replica of 10,000 tags is filled through three kills, and compared
	$(BIN)/python -m tests.soak

simulate: $(INSTALLED) ## minutes: anything happens to a mesh, SEEDS times (100), and it ends equal
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100)

kafka: ## fetch a real Apache Kafka 4 and run it until interrupted, on PORT or a free one
	compose/kafka/kafka.sh run $(PORT)

parts: ## the real parts of the tests, on Debian and as root: registries, Kafka, skopeo, crane, containerd and what they need
	.ci/install-parts

clean: ## everything that make made
	rm -rf .venv .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

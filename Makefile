# Every target does its own set-up: a fresh machine needs Python 3.11, make and a package registry.
# WORKERS is the number of processes that run tests: `make test WORKERS=4`; 0 runs them in one, as pytest alone does.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
WORKERS ?= 2
BIN := .venv/bin
PYTEST = $(BIN)/pytest --numprocesses $(WORKERS) --dist loadgroup
INSTALLED := .venv/.installed

.PHONY: help demo test test-all test-fast check format settings bench soak simulate kafka parts clean
help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "regmesh needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev,compression,postgresql]'
	touch $@

demo: $(INSTALLED) ## replicate an image between regions on built-in parts, and report what happened
	$(BIN)/regmesh demo

test: $(INSTALLED) ## run the tests; those whose real parts are missing are skipped, and the parts named
	$(PYTEST)

test-all: $(INSTALLED) ## run the tests, and every pair of real registries as source and destination
	$(PYTEST) --all

test-fast: $(INSTALLED) ## run the unit and architecture tests that need no real part
	$(PYTEST) -m 'not real' tests/unit tests/architecture

check: $(INSTALLED) ## check format, lint, types and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(INSTALLED) ## format, and fix what the linter can fix
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

settings: $(INSTALLED) ## docs/settings.md from the settings groups in the code
	$(BIN)/python -m mesh.node.settings_reference > docs/settings.md

bench: $(INSTALLED) ## measure the figures of docs/benchmarks.md, side by side in one run
	$(BIN)/python -m tests.bench

soak: $(INSTALLED) ## run through hundreds of faults and check from outside (hours); ONLY="up hang" SEED=1 COUNT=10
	$(BIN)/python -m tests.soak $(addprefix --only ,$(ONLY)) $(addprefix --seed ,$(SEED)) $(addprefix --count ,$(COUNT))

simulate: $(INSTALLED) ## run a mesh through random faults, SEEDS times (100), and compare (minutes)
	$(BIN)/python -m tests.simulation --seeds $(or $(SEEDS),100)

kafka: ## fetch Apache Kafka 4 and run it until interrupted, on PORT or a free one
	compose/kafka/kafka.sh run $(PORT)

parts: ## install the real parts of the tests, on Debian and as root
	.ci/install-parts

clean: ## delete everything that make made
	rm -rf .venv .cache build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

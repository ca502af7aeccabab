# Every target works as the first command on a fresh clone: what it needs it makes.

# The first of these that is recent enough; `make PYTHON=...` names another.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)
VENV := .venv
BIN := $(VENV)/bin
COMPILED := $(shell grep -o 'collector/[a-z0-9_/]*\.py' pyproject.toml)
STAMP := $(VENV)/.installed
# `EXTRAS=dev,test-clickhouse` has the backends tested that others skip.
EXTRAS ?= dev
PIP := $(BIN)/pip install --quiet --disable-pip-version-check

# Modules are compiled once, not by each of the hundreds of daemons and commands that the tests start, and by each worker.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
TORTURED := build/torture/results.jsonl

.PHONY: help run test lint format conformance bench bench-memory bench-growth bench-log bench-query bench-backends oracle soak torture torture-exporters \
	overload fuzz golden docs lock sbom clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 20

run: $(STAMP) ## build, and start the daemon on config/collector.yaml
	@exec $(BIN)/ringtail run --config config/collector.yaml

test: $(STAMP) ## run the tests, WORKERS=3 at a time: many of them wait for servers and disks
	@if [ -f tests/e2e/node/package-lock.json ] && command -v npm >/dev/null && [ ! -d tests/e2e/node/node_modules ]; then \
		npm ci --prefix tests/e2e/node --no-audit --no-fund --silent; fi
	@$(BIN)/python -m pytest -n $(or $(WORKERS),3) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

lint: $(STAMP) ## ruff, mypy, and the rules of the house
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/house

format: $(STAMP) ## format the code
	@$(BIN)/ruff check --fix-only .
	@$(BIN)/ruff format .

conformance: $(STAMP) ## check Ringtail and rotel against the specification, and write docs/conformance.md
	@$(BIN)/pip show --quiet rotel 2>/dev/null || $(PIP) -e '.[bench]' || echo "without rotel: checking Ringtail alone"
	@$(BIN)/python -m tests.conformance.page

bench: $(STAMP) ## measure beside rotel: BENCH_ARGS=--quick for seconds instead of minutes
	@$(BIN)/pip show --quiet rotel 2>/dev/null || $(PIP) -e '.[bench]' || echo "without rotel: measuring Ringtail alone"
	@$(BIN)/python -m tests.benchmarks.run $(BENCH_ARGS)

bench-memory: $(STAMP) ## compare what the rings say that they hold with what the process holds: MEMORY_ARGS=--help
	@$(BIN)/python -m tests.benchmarks.memory $(MEMORY_ARGS)

bench-growth: $(STAMP) ## what a record costs as requests, connections, rings and logs grow: GROWTH_ARGS=--short
	@$(BIN)/python -m tests.benchmarks.growth $(GROWTH_ARGS)

bench-log: $(STAMP) ## the log's own figures against their goals: LOG_ARGS=--short
	@$(BIN)/python -m tests.benchmarks.log $(LOG_ARGS)

bench-query: $(STAMP) ## how long queries take, in ring and log, idle and while receiving: QUERY_ARGS=--short
	@$(BIN)/python -m tests.benchmarks.query $(QUERY_ARGS)

bench-backends: $(STAMP) ## what backends cost beside their drivers, and how fast they answer: BACKENDS_ARGS="--short --only sqlite"
	@$(BIN)/python -m tests.benchmarks.backends $(BACKENDS_ARGS)

oracle: $(STAMP) ## compare TraceQL with its definition on 100,000 random traces: FORESTS=1700 of sixty each, SEED=…
	@RINGTAIL_TRACEQL_FORESTS=$(or $(FORESTS),1700) $(if $(SEED),RINGTAIL_TEST_SEED=$(SEED)) \
		$(BIN)/python -m pytest -q -s tests/query/traceql/test_trees.py -k long_form

soak: $(STAMP) ## watch a daemon under steady mixed work for leaks: MINUTES=10
	@$(BIN)/pip show --quiet matplotlib 2>/dev/null || $(PIP) -e '.[soak]' || echo "without matplotlib: no picture"
	@$(BIN)/python -m tests.benchmarks.soak --minutes $(or $(MINUTES),10) $(SOAK_ARGS)

torture: $(STAMP) ## the crash and fault tests in their long form: MINUTES=90 SEED=…, as root for real power cuts
	@mkdir -p build/torture && rm -f $(TORTURED)
	@RINGTAIL_TORTURE_MINUTES=$(or $(MINUTES),90) RINGTAIL_TORTURE_RESULTS=$(TORTURED) $(if $(SEED),RINGTAIL_TEST_SEED=$(SEED)) \
		$(BIN)/python -m pytest -m torture -v -rs $(PYTEST_ARGS); status=$$?; \
		RINGTAIL_TEST_QUERIES_EVERY=1 RINGTAIL_TEST_CARDINALITY=1000000 \
		$(BIN)/python -m pytest -q tests/hostile/test_queries.py tests/hostile/test_cardinality.py || status=1; \
		$(BIN)/python -m tests.effort $(TORTURED); exit $$status

torture-exporters: $(STAMP) ## forward to another Ringtail, store to SQLite, PostgreSQL and ClickHouse under load, and kill either side 30 times: SEED=…
	@RINGTAIL_TORTURE_MINUTES=$(or $(MINUTES),90) $(if $(SEED),RINGTAIL_TEST_SEED=$(SEED)) \
		$(BIN)/python -m pytest -v -rs tests/crash/test_exporters.py tests/crash/test_sqlite.py tests/crash/test_postgres.py \
		tests/crash/test_clickhouse.py

overload: $(STAMP) ## attack a daemon with a small memory limit, and measure well-behaved clients beside: SECONDS=60 of each
	@$(BIN)/python -m tests.hostile.run --seconds $(or $(SECONDS),60) $(OVERLOAD_ARGS)

fuzz: $(STAMP) ## fuzz every target for SECONDS=60, two at a time; FUZZ_ARGS="http2 traceql" names some
	@$(BIN)/python -c 'import atheris, Cython' 2>/dev/null || $(PIP) -e '.[fuzz]' >/dev/null 2>&1 || \
		{ echo "atheris cannot be installed here: it has no wheel for this Python, and its own build wants clang"; exit 1; }
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(FUZZ_ARGS)

golden: $(STAMP) ## rewrite the outputs of golden scripts; review with git diff
	@RINGTAIL_GOLDEN=1 $(BIN)/python -m pytest -q tests/ring tests/wal -k script

docs: $(STAMP) ## rewrite the generated documentation
	@$(BIN)/python -m tests.house.configuration_page

lock: $(STAMP) ## pin by hash what the image installs, in the versions that the tests run with
	@$(PYTHON) -m venv build/lock && build/lock/bin/pip install --quiet --disable-pip-version-check pip-tools
	@$(BIN)/pip list --format=freeze --exclude-editable > build/lock/tested.txt
	@$(BIN)/python -m tests.house.lock build/lock/bin/pip-compile build/lock/tested.txt

sbom: $(STAMP) ## tell what the image holds, as CycloneDX, in build/sbom.cdx.json
	@mkdir -p build && $(BIN)/python -m tests.house.sbom > build/sbom.cdx.json && echo build/sbom.cdx.json

clean: ## remove what was built
	@rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis tests/e2e/node/node_modules
	@find collector -name "*.so" -delete -o -name "*.binpb" -delete -o -name '*.c' -delete

# Python compiles the modules that are imported when they are; pip would compile thousands that never are.
# One line for whatever is missing, before pip would tell it in two hundred.
$(STAMP): pyproject.toml build_proto.py $(wildcard proto/*/*/*.proto) $(COMPILED) $(wildcard collector/*/*.pxd collector/*/*/*.pxd)
	@[ -n "$(PYTHON)" ] || \
		{ echo "Python 3.11 or later is missing (Debian: apt-get install python3 python3-venv python3-dev gcc)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "$(PYTHON) is not Python 3.11 or later; try: make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "Python's venv module is missing (Debian: apt-get install python3-venv)"; exit 1; }
	@command -v $${CC:-cc} >/dev/null || \
		{ echo "a C compiler is missing (Debian: apt-get install gcc libc6-dev)"; exit 1; }
	@header=$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h; [ -e "$$header" ] || \
		{ echo "$$header is missing (Debian: apt-get install python3-dev)"; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	@echo "building Ringtail in $(VENV): a few minutes, once"
	@$(PIP) --no-compile -e '.[$(EXTRAS)]' > $(VENV)/build.log 2>&1 || { cat $(VENV)/build.log; exit 1; }
	@touch $@

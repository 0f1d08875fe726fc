# make demo    lose and recover a sample production in two minutes; ARGS=--keep leaves it up to try things on
# make test    everything that is checked, with real servers; TESTS=tests/unit ARGS="-k name" narrow it down
# make lint    style, types and the dependency rule only
# make bench   speed, side by side with the alternatives
# make soak    ten minutes of load, kills and restores (SECONDS=3600 SEED=7), then series of kills (KILLS=40 ROUNDS=20)
# make clean   remove everything these have made here

# One worker more than processors: for much of its time a test waits for servers.
JOBS ?= 3
TESTS ?= tests
ARGS ?=
ROUNDS ?= 20
SECONDS ?= 600
SEED ?=
# What draws its cases by chance: properties, fuzzing, kills at random instants.
SOAK ?= tests/unit tests/faults tests/acceptance/test_drill_compose.py
# Recoveries on a real stack, killed at every boundary and at KILLS random instants, or with their machine.
SERIES ?= tests/acceptance/test_recover_series.py tests/acceptance/test_recover_corruption.py \
          tests/acceptance/test_recover_blank.py tests/acceptance/test_recover_host.py
KILLS ?= 40

.PHONY: demo test lint bench soak clean
.SILENT:

demo:
	scripts/setup demo
	.venv/bin/recoup demo $(ARGS)

lint:
	scripts/setup test
	.venv/bin/ruff check
	.venv/bin/ruff format --check
	.venv/bin/mypy
	.venv/bin/lint-imports

test:
	scripts/packages
	$(MAKE) --no-print-directory lint
	.venv/bin/python -m tests.run -n $(JOBS) --dist loadfile -q $(TESTS) $(ARGS)

bench:
	scripts/packages pgbackrest postgresql-15 zstd openssl
	scripts/setup test
	.venv/bin/python -m bench $(ARGS)

soak:
	scripts/packages
	scripts/setup test
	RECOUP_SOAK_SECONDS=$(SECONDS) RECOUP_SOAK_SEED=$(SEED) .venv/bin/python -m pytest -q -s tests/soak $(ARGS)
	RECOUP_SOAK=1 RECOUP_KILLS=$(KILLS) $(if $(SEED),RECOUP_SEED=$(SEED)) .venv/bin/python -m pytest -q -s $(SERIES) $(ARGS)
	for round in $$(seq $(ROUNDS)); do \
	  RECOUP_SOAK=1 .venv/bin/python -m pytest -n $(JOBS) --dist loadfile -q --timeout 3600 $(SOAK) $(ARGS) || exit 1; \
	done

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .recoup-test build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

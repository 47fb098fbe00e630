# The commands of the house. Everything lives in .venv, made from Python 3.11+ and the package registries alone.

PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
INSTALLED := .venv/.installed
ONCE ?=

export PYRIGHT_PYTHON_IGNORE_WARNINGS := 1
export RAY_USAGE_STATS_ENABLED := 0

.PHONY: install axolotl loaders bench fuzz demo study faults soak test static lint types imports format clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Longweave needs Python 3.11 or later: none found"; exit 1; }
	$(PYTHON) -m venv .venv
	# torch by its exact version and before everything else: an open range would fetch gigabytes of another build
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[service,train,dev]'
	touch $@

# axolotl pins other versions of transformers and more, so its packing module lives in a venv of its own that sees ours.
AXOLOTL := .venv-axolotl/.installed

axolotl: $(AXOLOTL)

$(AXOLOTL): $(INSTALLED)
	$(PYTHON) -m venv .venv-axolotl
	$(BIN)/python -c 'import pathlib, sysconfig; print(sysconfig.get_path("purelib")); print(pathlib.Path.cwd())' \
		> $$(.venv-axolotl/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/longweave.pth
	.venv-axolotl/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		axolotl==0.19.0 addict==2.4.0 numba==0.68.1 llvmlite==0.50.0
	touch $@

# Loaders that pin older versions of numpy and more: a venv of their own that sees ours, for `make bench` alone.
LOADERS := .venv-loaders/.installed

loaders: $(LOADERS)

$(LOADERS): $(INSTALLED)
	$(PYTHON) -m venv .venv-loaders
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		> $$(.venv-loaders/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/longweave.pth
	.venv-loaders/bin/python -m pip install --quiet --disable-pip-version-check --no-deps \
		mosaicml-streaming==0.13.0 litdata==0.2.76 lightning-utilities==0.15.3 numpy==2.1.3 \
		brotli==1.2.1 cramjam==2.14.0 python-snappy==0.7.3 zstd==1.5.7.2 catalogue==2.0.10
	touch $@

# Beside the peers; some minutes, best on a machine that does nothing else. ROWS="cip needle" runs only these, ROWS=sustained takes 2 GB more.
bench: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[bench]'
	-@$(MAKE) --no-print-directory axolotl
	-@$(MAKE) --no-print-directory loaders
	$(BIN)/python -m tests.bench $(ROWS)

# Requests drawn from the API's own OpenAPI document until there were 10,000: edges, sequences, then draws; the tests hold a short form.
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.service.fuzz

demo: $(INSTALLED)
	$(BIN)/python scripts/demo.py $(if $(ONCE),--once)

# Tiny models, drawn at random, learn to find pass keys in our probes and rows in our tables: minutes on a CPU. SEED=1 draws others.
study: $(INSTALLED)
	$(BIN)/python scripts/study.py --out study/seed-$(or $(SEED),0) --seed $(or $(SEED),0)
	$(BIN)/python scripts/study_lookups.py --out study/seed-$(or $(SEED),0) --seed $(or $(SEED),0)

# The long form of tests/faults: kills, sleepers and damage, with figures; the better part of an hour.
faults: $(INSTALLED)
	$(BIN)/python -m tests.faults --rounds $(or $(ROUNDS),20)

# Jobs without end on an API and a runner that are killed at random, for 20 minutes or MINUTES.
soak: $(INSTALLED)
	$(BIN)/python -m tests.faults.soak --minutes $(or $(MINUTES),20)

# On two cores, a file of tests on one of them. Where axolotl cannot be installed its test says so and is skipped.
test: static
	-@$(MAKE) --no-print-directory axolotl
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

static: lint types imports

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(INSTALLED)
	$(BIN)/pyright

imports: $(INSTALLED)
	$(BIN)/lint-imports

format: $(INSTALLED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-axolotl .venv-loaders build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache

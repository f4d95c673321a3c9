# `make repro` trains and reports, `make test` tests; both set up .venv first and can be repeated.
PYTHON ?= python3
PROFILE ?= quick
UV_VERSION = 0.13.9
BIN = .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Threads that spin while they wait slow a run beside other work down 4 to 10 times.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: repro test report lock

repro: .venv/installed
	python -m pipelines.params $(PROFILE)
	dvc repro
	@echo "report: report/$(PROFILE)/index.html"

test: .venv/installed
	python -m pytest

# Every profile's report, in all formats, from results/ alone: needs no data, no weights, no training. Says where.
report: .venv/installed
	python -m report --all

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements.lock
	touch $@

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra suite --extra cluster --extra test --generate-hashes \
		--no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.lock

# `make repro` trains and reports, `make test` tests; both set up .venv first and can be repeated.
PYTHON ?= python3
PROFILE ?= quick
# Columns that `make compare` leaves out: what changed in code, results and pictures.
HIDDEN = ^(Created|State|Executor|rev|typ|probe|code[.].*|(baselines|colora|data|models|pipelines|report|results|weights)/.*)$$
UV_VERSION = 0.13.9
BIN = .venv/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Threads that spin while they wait slow a run beside other work down 4 to 10 times.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: repro test report compare cost lint lock

# The parameters are composed anew where the profile changes alone, so that what was edited there stays. One process
# trains all short runs; `dvc repro` then finds them complete.
repro: .venv/installed
	@grep -qx 'profile: $(PROFILE)' params.yaml || python -m pipelines.params $(PROFILE)
	python -m dvc repro prepare pretrain
	python -m pipelines.launch
	python -m dvc repro
	@echo "report: report/$(PROFILE)/index.html"

test: .venv/installed
	python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 10

# Every profile's report, in all formats, from results/ alone: needs no data, no weights, no training. Says where.
report: .venv/installed
	python -m report --all

# What changed between the experiments that `dvc exp run` made, and what came of it.
compare: .venv/installed
	@COLUMNS=120 python -m dvc exp show --only-changed --no-pager --drop '$(HIDDEN)'

# Minutes, with nothing else running; a profile that asks for no costs has every method measured. `dvc repro` keeps them.
cost: .venv/installed
	sed 's/^cost: null$$/cost: {rounds: 11}/' params.yaml > params.new && mv params.new params.yaml
	python -m dvc repro prepare
	python -m pipelines.cost --again
	python -m dvc repro

lint: .venv/installed
	python -m ruff check .
	python -m ruff format --check .
	python -m mypy

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit("Python >= 3.11 is needed, found " + sys.version.split()[0] if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	touch $@

lock:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --extra suite --extra cluster --extra test --generate-hashes \
		--no-emit-index-url --no-annotate --no-header pyproject.toml -o requirements.lock

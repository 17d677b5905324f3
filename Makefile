# Two commands do everything on a fresh machine: `make sweep-lambdas` and `make test`.
# Variables: DATA, PRESET, SEEDS, WEIGHTS, STORE, ADDRESS, WORKERS, GPUS, SET ("train.epochs=3 ...").

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DATA ?= drawn
PRESET ?=
SEEDS ?= 1
WEIGHTS ?=
STORE ?= results
ADDRESS ?=
WORKERS ?= 0
GPUS ?= 0
CPUS ?= 1
SET ?=
MLFLOW_PORT ?= 5000

PLAN_OPTIONS = --data "$(DATA)" --seeds $(SEEDS) --store "$(STORE)" \
	$(if $(PRESET),--preset $(PRESET)) $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	$(foreach setting,$(SET),--set $(setting))
RUN_OPTIONS = $(PLAN_OPTIONS) --workers $(WORKERS) --gpus $(GPUS) --cpus $(CPUS) \
	$(if $(ADDRESS),--address $(ADDRESS))

.DEFAULT_GOAL := help
.PHONY: help setup sweep-lambdas plan table mlflow test check bench clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than 3.11; give another with PYTHON=python3.11"; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@touch $(STAMP)

setup: $(STAMP) ## make .venv with the tested versions (the other targets do it when needed)

sweep-lambdas: $(STAMP) ## Table V: lambda_s x lambda_bs, 16 cells; again: resumes
	$(BIN)/sweeps run V $(RUN_OPTIONS)

plan: $(STAMP) ## what Tables III to VI need and what is finished
	$(BIN)/sweeps plan III IV V VI $(PLAN_OPTIONS)

table: $(STAMP) ## print the tables of the last sweep
	$(BIN)/sweeps table --store "$(STORE)"

mlflow: $(STAMP) ## open the MLflow server on the results, http://127.0.0.1:5000
	MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/mlflow server --host 127.0.0.1 \
		--port $(MLFLOW_PORT) --workers 1 --backend-store-uri "sqlite:///$(abspath $(STORE))/mlflow.db" \
		--artifacts-destination "$(abspath $(STORE))/mlartifacts"

test: $(STAMP) ## all tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

check: $(STAMP) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(STAMP) ## ratios against stated peers
	$(BIN)/python benchmarks/run.py

clean: ## remove caches and the drawn data; keeps .venv and results
	rm -rf data/drawn .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find wsss sweeps tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

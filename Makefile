# Two commands do everything on a fresh machine: `make sweep-lambdas` and `make test`.
# Variables: DATA, PRESET, RECIPE, SEEDS, WEIGHTS, STORE, ADDRESS, SET ("train.epochs=3 ..."),
# GPUS, CPUS (per trial or worker), WORKERS (Ray Train workers per trial; empty: 1 with GPUS, else 0),
# MICRO_BATCH (images per forward), CHECKPOINT_MINUTES (between checkpoints within an epoch),
# LOADER_WORKERS (data loading processes): empty, the commands choose,
# TABLES (of `make plan`, `make probe`), PROBE (its steps), CONCURRENT (trials at a time),
# SAMPLES (of `make search`), LABELS, EXPORT (of `make headline`),
# NOTIFY (a command to run at the end of a sweep, search or headline).

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DATA ?= drawn
PRESET ?=
RECIPE ?=
TABLES ?= III IV V VI
CONCURRENT ?=
SAMPLES ?=
PROBE ?= 200
SEEDS ?= 1
WEIGHTS ?=
STORE ?= results
ADDRESS ?=
WORKERS ?=
GPUS ?= 0
CPUS ?= 1
MICRO_BATCH ?=
CHECKPOINT_MINUTES ?=
LOADER_WORKERS ?=
LABELS ?=
EXPORT ?=
NOTIFY ?=
SET ?=
MLFLOW_PORT ?= 5000

# A word for the shell, whatever is in it.
quote = '$(subst ','\'',$(1))'

DATA_OPTIONS = --data $(call quote,$(DATA)) $(STORE_OPTION) \
	$(if $(PRESET),--preset $(PRESET)) $(if $(RECIPE),--recipe $(RECIPE)) $(if $(WEIGHTS),--weights $(call quote,$(WEIGHTS))) \
	$(foreach setting,$(SET),--set $(call quote,$(setting)))
PLAN_OPTIONS = $(DATA_OPTIONS) --seeds $(SEEDS)
TRAINING_OPTIONS = --gpus $(GPUS) --cpus $(CPUS) $(if $(ADDRESS),--address $(ADDRESS)) \
	$(if $(MICRO_BATCH),--micro-batch $(MICRO_BATCH)) \
	$(if $(CHECKPOINT_MINUTES),--checkpoint-minutes $(CHECKPOINT_MINUTES)) \
	$(if $(LOADER_WORKERS),--loader-workers $(LOADER_WORKERS)) \
	$(if $(NOTIFY),--notify $(call quote,$(NOTIFY)))
MACHINE_OPTIONS = $(TRAINING_OPTIONS) $(if $(CONCURRENT),--max-concurrent $(CONCURRENT))
WORKERS_OPTION = $(if $(WORKERS),--workers $(WORKERS))
RUN_OPTIONS = $(PLAN_OPTIONS) $(MACHINE_OPTIONS) $(WORKERS_OPTION)
# With ADDRESS=http://..., a sweep is submitted to that cluster, whose own store it fills.
RUN = $(if $(filter http%,$(ADDRESS)),$(BIN)/sweeps submit,$(BIN)/sweeps run)
STORE_OPTION = $(if $(filter http%,$(ADDRESS)),$(if $(filter-out results,$(STORE)),--store $(call quote,$(STORE))),--store $(call quote,$(STORE)))

BENCHMARKS ?= threshold_curve context train_step inference loading start_up memory whole_sweep paper_cost
MORE_BENCHMARKS ?= step_choices planning random_walk

each-benchmark = for name in $(1); do OMP_NUM_THREADS=1 $(BIN)/python benchmarks/$$name.py || exit 1; done

.DEFAULT_GOAL := help
.PHONY: help setup sweep-lambdas sweep-alpha-beta ablate-modules tables controls readings recipes \
	noise-floor background-score calibrate search headline crf secrets doctor plan probe status table \
	report mlflow gpu-check test chaos cluster-test check bench bench-more clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

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
	$(RUN) V $(RUN_OPTIONS)

sweep-alpha-beta: $(STAMP) ## alpha and beta of both views, and the readings of Eq. 2
	$(RUN) alpha-beta-enhanced alpha-beta-decreased eq2-readings $(RUN_OPTIONS)

ablate-modules: $(STAMP) ## Tables III, IV and VI: views, module parts, attention
	$(RUN) III IV VI $(RUN_OPTIONS)

tables: $(STAMP) ## Tables III to VI, then the report on them
	$(RUN) III IV V VI $(RUN_OPTIONS)
	$(if $(filter http%,$(ADDRESS)),,$(BIN)/sweeps report --store $(call quote,$(STORE)))

controls: $(STAMP) ## where a gain comes from: controls, and all 16 combinations of parts
	$(RUN) controls controls-late controls-summed factorial $(RUN_OPTIONS)

readings: $(STAMP) ## the open points of the paper, one at a time
	$(RUN) readings $(RUN_OPTIONS)

recipes: $(STAMP) ## Table III under each joint set of readings: default, literal, irn, seam, puzzle_cam
	$(RUN) recipes $(RUN_OPTIONS)

noise-floor: $(STAMP) ## how far mIoU moves when nothing but the seed changes
	$(RUN) noise-floor $(RUN_OPTIONS)

background-score: $(STAMP) ## the fixed background score; one training per row
	$(RUN) background-score $(RUN_OPTIONS)

search: $(STAMP) ## look for better alpha, beta and lambda; SAMPLES trials
	$(BIN)/sweeps search $(DATA_OPTIONS) $(MACHINE_OPTIONS) $(if $(SAMPLES),--samples $(SAMPLES))

calibrate: $(STAMP) ## does IRN's published CAM score come out here? DATA=/data/VOC2012 GPUS=1 [SEEDS=3]
	$(BIN)/sweeps calibrate $(RUN_OPTIONS)

plan: $(STAMP) ## what TABLES need, what is finished, and what the rest costs
	$(BIN)/sweeps plan $(TABLES) $(PLAN_OPTIONS) $(if $(CONCURRENT),--concurrent $(CONCURRENT))

probe: $(STAMP) ## the first PROBE steps of each training of TABLES: does it train, how fast, at what cost
	$(RUN) $(TABLES) $(RUN_OPTIONS) --probe $(PROBE)

status: $(STAMP) ## how far the last sweep is, cell by cell
	$(BIN)/sweeps status --store $(call quote,$(STORE))

table: $(STAMP) ## print the tables of the last sweep
	$(BIN)/sweeps table --store $(call quote,$(STORE))

report: $(STAMP) ## weigh the last sweep against the paper: verdicts, intervals, figures
	$(BIN)/sweeps report --store $(call quote,$(STORE))

mlflow: $(STAMP) ## serve MLflow's pages on the results, and print where their charts are
	$(BIN)/sweeps mlflow --store $(call quote,$(STORE)) --port $(MLFLOW_PORT)

headline: $(STAMP) ## Tables I and II: refined labels, DeepLabv2; LABELS="none random_walk masks"
	$(BIN)/sweeps headline $(LABELS) $(DATA_OPTIONS) $(TRAINING_OPTIONS) $(WORKERS_OPTION) \
		$(if $(EXPORT),--export $(EXPORT))

crf: $(STAMP) ## add the dense CRF (optional; needs a C++ compiler)
	$(BIN)/python -m pip install --quiet "pydensecrf2==1.1"

gpu-check: $(STAMP) ## is everything right and fast on this GPU? eight minutes; DATA, WEIGHTS=file
	$(BIN)/python -m wsss.gpu_check $(if $(filter-out drawn,$(DATA)),--data $(call quote,$(DATA))) \
		$(if $(WEIGHTS),--weights $(call quote,$(WEIGHTS))) $(if $(PRESET),--preset $(PRESET))

test: $(STAMP) ## all tests but those of `make chaos`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not chaos"

chaos: $(STAMP) ## break whole sweeps by killing their processes, nodes and servers; a quarter of an hour
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos tests/chaos

cluster-test: $(STAMP) ## a cluster for real, on two hosts in namespaces of this machine (Linux, root; 10-25 min)
	$(BIN)/python cluster/test/two_hosts.py

doctor: $(STAMP) ## say what is missing, open or mismatched here, or on the cluster at ADDRESS
	$(BIN)/sweeps doctor $(if $(ADDRESS),--address $(ADDRESS))

check: $(STAMP) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python cluster/lint.py cluster.yaml cluster.onprem.yaml

secrets: $(STAMP) ## Ray token and MLflow password of a cluster, mode 600, never printed
	$(BIN)/python -m sweeps.cluster.secrets

bench: $(STAMP) ## ratios against stated peers; a quarter of an hour on two idle cores
	@$(call each-benchmark,$(BENCHMARKS))
	@if $(BIN)/python -c 'import pydensecrf' 2> /dev/null; then $(call each-benchmark,crf crf_processes); \
		else echo "the dense CRF is left out: it needs 'make crf'"; fi

bench-more: $(STAMP) ## the choices behind the rules of docs/performance.md, and slower measurements
	@$(call each-benchmark,$(MORE_BENCHMARKS))
	@$(BIN)/python benchmarks/inference.py --four
	@$(BIN)/python benchmarks/memory.py --large

clean: ## remove caches and the drawn data; keeps .venv and results
	rm -rf data/drawn .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find wsss sweeps tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

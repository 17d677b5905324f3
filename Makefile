# Two commands do everything on a fresh machine: `make sweep-lambdas` and `make test`.
# docs/using.md says what each variable means.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DRAWN := drawn drawn-glare drawn-dim
DATA ?= drawn
PRESET ?=
RECIPE ?=
TABLES ?= III IV V VI
CONCURRENT ?=
SAMPLES ?=
PROBE ?= 200
SEEDS ?= 1
WEIGHTS ?=
STORE ?= $(OWN_STORE)
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

# The programs' own default.
OWN_STORE = $(or $(WSSS_STORE),results)

# A word for the shell, whatever is in it.
quote = '$(subst ','\'',$(1))'

# In a moved or copied checkout, the programs in .venv are those of the old place.
MADE_IN := $(shell cat $(STAMP) 2> /dev/null)
MOVED := $(if $(MADE_IN),$(shell test $(call quote,$(MADE_IN)) -ef . || echo yes))
ifdef MOVED
.PHONY: $(STAMP)
endif

# A slip, as SEED=3, would change nothing without a word.
KNOWN := WSSS_STORE $(shell sed -n 's/^\([A-Z_]*\) ?=.*/\1/p' $(firstword $(MAKEFILE_LIST)))
GIVEN := $(foreach name,$(.VARIABLES),$(if $(filter command,$(origin $(name))),$(name)))
$(foreach name,$(filter-out $(KNOWN),$(GIVEN)),$(warning $(name) is none of the variables here, see `make help`))

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
STORE_OPTION = $(if $(filter http%,$(ADDRESS)),$(if $(filter-out $(OWN_STORE),$(STORE)),--store $(call quote,$(STORE))),--store $(call quote,$(STORE)))

# For targets that read STORE on this machine, where a cluster's results are not.
HERE = $(if $(filter http%,$(ADDRESS)),$(error this reads STORE here: first give `sweeps fetch --address $(ADDRESS)`, then this without ADDRESS))

BENCHMARKS ?= labels.threshold_curve training.context training.train_step labels.inference training.loading \
	sweep.start_up sweep.memory sweep.whole_sweep training.paper_cost
MORE_BENCHMARKS ?= training.step_choices labels.random_walk

each-benchmark = for name in $(1); do OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.$$name || exit 1; done

.DEFAULT_GOAL := help
.PHONY: help setup sweep-lambdas sweep-alpha-beta ablate-modules tables controls readings recipes \
	noise-floor background-score calibrate search headline crf secrets doctor plan probe status table \
	report mlflow gpu-check test first-page pictures chaos cluster-test check bench bench-more clean

help: ## this list
	@awk -F ':.*## ' '/^##@/ {printf "\n%s:\n", substr($$0, 5)} \
		/^[a-z-]+:.*## / {printf "  make %-16s  %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "Variables, as in: make tables DATA=/data/mine SEEDS=3"
	@echo "  DATA PRESET RECIPE SEEDS WEIGHTS SET STORE GPUS CPUS WORKERS CONCURRENT ADDRESS TABLES"
	@echo "  PROBE SAMPLES LABELS EXPORT; docs/using.md says what each means"

# Pip unpacks 3 GB of downloads, for which a /tmp in memory may be too small.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' || \
		{ echo "error: $(PYTHON) is not Python 3.11 to 3.14; give another with PYTHON=python3.11"; exit 2; }
	@echo "making $(VENV): 7 GB of packages, most of it torch; some minutes, the first time"
	$(if $(MOVED),$(if $(filter /%,$(VENV)),,rm -rf $(VENV)))
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25"
	TMPDIR=$(VENV) $(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	@echo $(call quote,$(CURDIR)) > $(STAMP)

##@ The paper's tables; each command, given again, goes on where it was

sweep-lambdas: $(STAMP) ## Table V: lambda_s x lambda_bs, 16 trainings
	$(RUN) V $(RUN_OPTIONS)

ablate-modules: $(STAMP) ## Tables III, IV and VI: views, parts of the module, attention
	$(RUN) III IV VI $(RUN_OPTIONS)

tables: $(STAMP) ## Tables III to VI, then the report on them
	$(RUN) III IV V VI $(RUN_OPTIONS)
	$(if $(filter http%,$(ADDRESS)),,$(BIN)/sweeps report --store $(call quote,$(STORE)))

headline: $(STAMP) ## Tables I and II: refined LABELS, and DeepLabv2 trained on them
	$(BIN)/sweeps headline $(LABELS) $(DATA_OPTIONS) $(TRAINING_OPTIONS) $(WORKERS_OPTION) \
		$(if $(EXPORT),--export $(EXPORT))

calibrate: $(STAMP) ## does IRN's published CAM score come out here? needs all of VOC
	$(BIN)/sweeps calibrate $(RUN_OPTIONS)

##@ Studies that the paper lacks

sweep-alpha-beta: $(STAMP) ## alpha and beta of both views, and the readings of Eq. 2
	$(RUN) alpha-beta-enhanced alpha-beta-decreased eq2-readings $(RUN_OPTIONS)

controls: $(STAMP) ## where a gain comes from: controls, and all 16 combinations of parts
	$(RUN) controls controls-late controls-summed factorial $(RUN_OPTIONS)

readings: $(STAMP) ## the open points of the paper, one at a time
	$(RUN) readings $(RUN_OPTIONS)

recipes: $(STAMP) ## Table III under each joint set of readings, see RECIPE
	$(RUN) recipes $(RUN_OPTIONS)

noise-floor: $(STAMP) ## how far mIoU moves when nothing but the seed changes
	$(RUN) noise-floor $(RUN_OPTIONS)

background-score: $(STAMP) ## the fixed background score, from one training a row
	$(RUN) background-score $(RUN_OPTIONS)

search: $(STAMP) ## look for better alpha, beta and lambda; SAMPLES trials
	$(BIN)/sweeps search $(DATA_OPTIONS) $(MACHINE_OPTIONS) $(if $(SAMPLES),--samples $(SAMPLES))

##@ Before, meanwhile and after

plan: $(STAMP) ## what TABLES need, what of it is done, and how long the rest takes
	$(HERE)
	$(BIN)/sweeps plan $(TABLES) $(PLAN_OPTIONS) $(if $(CONCURRENT),--max-concurrent $(CONCURRENT))

probe: $(STAMP) ## the first PROBE steps of each training: does it train, how fast?
	$(RUN) $(TABLES) $(RUN_OPTIONS) --probe $(PROBE)

status: $(STAMP) ## how far the last sweep is, cell by cell
	$(BIN)/sweeps status $(STORE_OPTION) $(if $(filter http%,$(ADDRESS)),--address $(ADDRESS))

table: $(STAMP) ## print the tables of the last sweep
	$(HERE)
	$(BIN)/sweeps table --store $(call quote,$(STORE))

report: $(STAMP) ## does it hold? verdicts, intervals and figures of the last sweep
	$(HERE)
	$(BIN)/sweeps report --store $(call quote,$(STORE))

mlflow: $(STAMP) ## serve MLflow's pages on the results, and print their address
	$(HERE)
	$(BIN)/sweeps mlflow --store $(call quote,$(STORE)) --port $(MLFLOW_PORT)

##@ Machines

setup: $(STAMP) ## make .venv with the tested versions (all targets do it first)

crf: $(STAMP) ## add the dense CRF (optional; needs a C++ compiler)
	$(BIN)/python -m pip install --quiet "pydensecrf2==1.1"

gpu-check: $(STAMP) ## is everything right and fast on this GPU? eight minutes
	$(BIN)/python -m wsss.gpu_check $(if $(filter-out $(DRAWN),$(DATA)),--data $(call quote,$(DATA))) \
		$(if $(WEIGHTS),--weights $(call quote,$(WEIGHTS))) $(if $(PRESET),--preset $(PRESET))

doctor: $(STAMP) ## what is missing, open or mismatched here, or at ADDRESS
	$(BIN)/sweeps doctor $(if $(ADDRESS),--address $(ADDRESS))

secrets: $(STAMP) ## Ray's token and MLflow's password for a cluster, never printed
	$(BIN)/python -m sweeps.cluster.secrets

##@ Work on the code

check: $(STAMP) ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python cluster/lint.py cluster.yaml cluster.onprem.yaml

test: $(STAMP) ## all tests but those of `make chaos`; 10 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not chaos"

first-page: $(STAMP) ## the README's commands, one epoch each, as a newcomer gives them; 5-15 min
	$(BIN)/python .ci/first_page.py

pictures: $(STAMP) ## the README's pictures, from the last sweep; needs Chromium
	$(BIN)/python docs/pictures.py --store $(call quote,$(STORE))

chaos: $(STAMP) ## kill processes, nodes and servers of whole sweeps; 15 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m chaos tests/chaos

cluster-test: $(STAMP) ## a cluster of two hosts on this machine; Linux, root, 10-25 min
	$(BIN)/python cluster/test/two_hosts.py

bench: $(STAMP) ## speed as ratios to stated peers; 15 minutes on two idle cores
	@$(call each-benchmark,$(BENCHMARKS))
	@if $(BIN)/python -c 'import pydensecrf' 2> /dev/null; then $(call each-benchmark,labels.crf); \
		else echo "the dense CRF is left out: it needs 'make crf'"; fi

bench-more: $(STAMP) ## the choices behind docs/performance.md, and slower measurements
	@$(call each-benchmark,$(MORE_BENCHMARKS))
	@$(BIN)/python -m benchmarks.labels.inference --four
	@$(BIN)/python -m benchmarks.sweep.memory --large

clean: ## remove caches and the drawn data; keeps .venv and results
	rm -rf $(addprefix data/,$(DRAWN)) .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info
	find wsss sweeps tests benchmarks cluster -name __pycache__ -type d -prune -exec rm -rf {} +

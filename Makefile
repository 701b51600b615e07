# make bench METHOD=gias            the default run: embedded photographs, no download, no account, no GPU
# make bench METHOD=ig BATCH=1 ...  any option in capitals; see make help
# make bench METHOD=ig,gias DEFENSE=none,sparsification:0.9 ADAPT=both   every pair, and their matrix

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python -m
READY  := $(VENV)/.ready

CORES  := -n auto --maxprocesses 4 --dist worksteal

METHOD ?= gias
OUT    ?= results
WANDB  ?= offline

# VARIABLE=value on the command line of make becomes --option value of `python -m benchmark run`
OPTIONS := PRESET:preset DATA:data DATA_DIR:data_dir SPLIT:split SIZE:size RESIZE:resize VICTIM:victim \
           VICTIM_WEIGHTS:victim_weights MODE:victim_mode ROUNDS:rounds BETWEEN:between \
           LR:lr EPOCHS:epochs MINI_BATCH:mini_batch CLIENTS:clients KNOW_LR:know_lr MATCH:match \
           PRIOR:prior DEFENSE:defense ADAPT:adapt LABELS:labels BN:bn CONTROL:control \
           BATCH:batch BATCHES:batches TASKS:tasks PRECISION:precision RESTARTS:restarts STEPS:steps GROUP:group \
           CHUNK:chunk COMPILE:compile DEVICES:devices NODES:nodes SEED:seed WEIGHTS:weights_dir CONFIG:config
JOBS    := CLUSTER:cluster PARTITION:partition GPUS:gpus CPUS:cpus MINUTES:minutes AT_ONCE:at_once
AUDIT   := LABELS:labels DEFENSE:defense MINUTES:minutes VICTIM_WEIGHTS:weights MODE:mode PRIOR:prior SIZE:size \
           BATCH:batch MOST:most SEED:seed WEIGHTS:weights_dir
BOARD   := AGAINST:against METRIC:metric FROM_WANDB:from-wandb TO_WANDB:to-wandb GROUP:group
SPEED   := VICTIM:victim BATCH:batch RESTARTS:restarts SIZE:size COMPILE:compile BUDGET:budget
flag     = $(if $($(word 1,$(subst :, ,$(1)))),--$(word 2,$(subst :, ,$(1)))='$($(word 1,$(subst :, ,$(1))))')
ARGS     = $(foreach option,$(OPTIONS),$(call flag,$(option))) $(foreach pair,$(SET),--set+='$(pair)')

.PHONY: help bench submit reproduce audit leaderboard speed priors prior test test-all lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14
	@echo
	@echo 'bench takes METHOD= OUT= WANDB=online|offline|off SET="key=value ..." and'
	@echo '      $(foreach option,$(OPTIONS),$(word 1,$(subst :, ,$(option)))=)' | fold -s -w 100
	@echo 'METHOD and DEFENSE take several with commas between them, and ADAPT both: every pair is run'
	@echo 'Every option is explained by: $(RUN) benchmark run --help'

$(READY): pyproject.toml
	@echo 'Preparing $(VENV): PyTorch and what goes with it, several GB, a few minutes.'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@$(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	@touch $@

bench: $(READY)  ## attack private batches and score the reconstructions: make bench METHOD=gias
	@$(RUN) benchmark run --attack='$(METHOD)' --out='$(OUT)' --wandb=$(WANDB) $(ARGS)

submit: $(READY)  ## the same as jobs of a cluster: CLUSTER=slurm|local GPUS= CPUS= PARTITION= MINUTES= AT_ONCE=
	@$(RUN) benchmark submit --attack='$(METHOD)' --out='$(OUT)' --wandb=$(WANDB) $(ARGS) \
	  $(foreach option,$(JOBS),$(call flag,$(option)))

audit: $(READY)  ## what leaks from your own: MODEL=my.module:Net IMAGES=folder [LABELS=csv DEFENSE=none,noise:0.01 MINUTES=30]
	@$(RUN) benchmark audit --model='$(MODEL)' --images='$(IMAGES)' \
	  $(foreach option,$(AUDIT),$(call flag,$(option)))

reproduce: $(READY)  ## a published table again beside its numbers: make reproduce RECIPE=gifd-table3a SIZE=small|paper
	@$(RUN) benchmark reproduce '$(RECIPE)' --out='$(OUT)' --wandb=$(WANDB) \
	  $(foreach option,SIZE:size DATA_DIR:data_dir WEIGHTS:weights_dir DEVICES:devices,$(call flag,$(option)))

leaderboard: $(READY)  ## all rows under OUT as one page (leaderboard.html) and table: AGAINST=ig METRIC=ssim FROM_WANDB= TO_WANDB= GROUP=
	@$(RUN) leaderboard '$(OUT)' $(foreach option,$(BOARD),$(call flag,$(option)))

speed: $(READY)  ## what a step costs here beside the plain loop: METHOD= VICTIM= BATCH= RESTARTS= SIZE= COMPILE=off,on QUICK=yes
	@$(RUN) tests.speed --out='$(OUT)/speed' $(if $(QUICK),--quick) $(foreach option,$(SPEED),$(call flag,$(option))) \
	  $(if $(filter command environment,$(firstword $(origin METHOD))),--method='$(METHOD)')

priors: $(READY)  ## the generators there are, and where those that are not here can be had
	@$(RUN) benchmark prior list $(call flag,WEIGHTS:weights_dir)

prior: $(READY)  ## train the embedded prior anew (about an hour on one core)
	$(RUN) benchmark prior train priors/weights/dcgan-photos32.safetensors --data photos --size 32 --steps 8000

test: $(READY)  ## the tests that run in minutes
	$(RUN) pytest $(CORES)

test-all: $(READY)  ## all tests, the long ones too
	$(RUN) pytest $(CORES) -m 'slow or not slow'

lint: $(READY)  ## ruff: lint and format
	$(RUN) ruff check .
	$(RUN) ruff format --check .

format: $(READY)  ## fix what ruff can fix
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) .pytest_cache .ruff_cache *.egg-info

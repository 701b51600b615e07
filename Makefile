# make bench METHOD=gias            the default run: embedded photographs, no download, no account, no GPU
# make bench METHOD=ig BATCH=1 ...  any option in capitals; see make help
# make bench METHOD=ig,gias DEFENSE=none,sparsification:0.9 ADAPT=both   every pair, and their matrix

PYTHON ?= python3
VENV   := .venv
RUN    := $(VENV)/bin/python -m
READY  := $(VENV)/.ready
SITE   := $(VENV)/.ready-site
LOWEST := .venv-lowest

CORES  := -n auto --maxprocesses 4 --dist worksteal

OUT := results

# Every NAME=value on the command line of make becomes --name='value' of the command that a target runs. A value reaches
# the command as it was typed: make expands nothing in it, and the shell sees it in quotes.
OURS    := PYTHON VENV CORES
GIVEN   := $(sort $(foreach name,$(.VARIABLES),$(if $(filter command,$(firstword $(origin $(name)))),$(name))))
LOWER    = $(shell echo '$(1)' | tr A-Z_ a-z-)
QUOTED   = '$(subst ','\'',$(value $(1)))'
OPTIONS  = $(foreach name,$(filter-out $(OURS) $(1),$(GIVEN)),--$(call LOWER,$(name))=$(call QUOTED,$(name)))

ifneq ($(filter environment,$(firstword $(origin METHOD))),)
  $(error METHOD is in the environment; options go behind make: make bench METHOD=$(METHOD))
endif

.PHONY: help bench submit reproduce audit check track tune record verify board leaderboard speed gpu-check list priors prior docs models test test-all test-lowest site lint format clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 14
	@echo
	@echo 'bench and submit take every option of a run in capitals: METHOD=ig BATCH=1 SET="tv=1e-3 eta=0.05" ...'
	@echo 'METHOD and DEFENSE take several with commas between them, and ADAPT both: every pair is run'
	@echo 'Every option is explained in docs/options.md and by: $(RUN) benchmark run --help'

$(READY): pyproject.toml
	@echo 'Preparing $(VENV): PyTorch and what goes with it, several GB, a few minutes.'
	@$(PYTHON) -m venv $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --upgrade pip
	@PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet -e '.[dev]'
	@touch $@

$(SITE): $(READY)
	@PYTHONWARNINGS=ignore $(VENV)/bin/python -m pip install --quiet -e '.[docs]'
	@touch $@

$(LOWEST)/.ready: pyproject.toml
	@echo 'Preparing $(LOWEST): the lowest versions that pyproject.toml allows, 5 GB, a few minutes.'
	@$(PYTHON) -m venv $(LOWEST)
	@sed -nE 's/^  "([a-z0-9-]+)(\[[a-z]+\])?>=([0-9.]+).*/\1==\3/p' pyproject.toml > $(LOWEST)/lowest.txt
	@$(LOWEST)/bin/python -m pip install --quiet --upgrade pip
	@$(LOWEST)/bin/python -m pip install --quiet -c $(LOWEST)/lowest.txt -e '.[dev]'
	@touch $@

bench: $(READY)  ## attack private batches and score the reconstructions: make bench METHOD=gias
	@$(RUN) benchmark run $(OPTIONS)

submit: $(READY)  ## the same as jobs of a cluster: CLUSTER=slurm|local GPUS= CPUS= PARTITION= MINUTES= AT_ONCE=
	@$(RUN) benchmark submit $(OPTIONS)

audit: $(READY)  ## what leaks from your own: MODEL=my.module:Net IMAGES=folder [DEFENSE=none,noise:0.01 BATCH=1 LR=0.1 CLIENTS=1 MINUTES=30 FAIL_ON=recognisable], docs/audit.md
	@$(RUN) benchmark audit $(OPTIONS)

reproduce: $(READY)  ## a published table again beside its numbers: make reproduce RECIPE=gifd-table3a SIZE=small|paper
	@$(RUN) benchmark reproduce $(call QUOTED,RECIPE) $(call OPTIONS,RECIPE)

check: $(READY)  ## the contracts of an attack, defense, prior, victim, data set, metric or loss of your own: make check PLUGIN=my.module.Attack
	@$(RUN) benchmark check $(call QUOTED,PLUGIN) $(call OPTIONS,PLUGIN)

track: $(READY)  ## a track: setting, budget, the methods that take part, and what is missing here: make track TRACK=cifar10-b1
	@$(RUN) benchmark track $(OPTIONS)

tune: $(READY)  ## the options of a method for a track, on images that are never scored: TRACK=photos-default METHOD=ig,gias or all
	@$(RUN) benchmark tune $(OPTIONS)

record: $(READY)  ## the scored run of a method on a track, as tuned there, kept with the project: TRACK=photos-default METHOD=ig,gias or all
	@$(RUN) benchmark record $(OPTIONS)

verify: $(READY)  ## random tasks of a record again, and whether its scores hold: TRACK=photos-default METHOD=ig SAMPLE=3; SEALED=yes SAMPLE=8: new ones
	@$(RUN) benchmark $(if $(filter-out no,$(value SEALED)),sealed run,verify) $(call OPTIONS,SEALED)

board: $(READY)  ## write docs/board/ and the README's table anew, from the record
	@$(RUN) benchmark.tracks.board

leaderboard: $(READY)  ## all rows under OUT as one page (leaderboard.html) and table: AGAINST=ig METRIC=ssim FROM_WANDB= TO_WANDB= GROUP=
	@$(RUN) leaderboard $(call QUOTED,OUT) $(call OPTIONS,OUT)

speed: $(READY)  ## what a step costs here beside the loops of others: METHOD= VICTIM= BATCH= RESTARTS= SIZE= COMPILE=on QUICK=yes
	@TORCH_CPP_LOG_LEVEL=ERROR $(RUN) tests.speed --out=$(call QUOTED,OUT)/speed $(call OPTIONS,OUT)

gpu-check:  ## all that a fresh GPU machine can tell, in 8 minutes, with the Python that is there: DEVICE=cuda|cpu QUICK=yes DATA=folder
	@$(if $(wildcard $(VENV)/bin/python),$(VENV)/bin/python,$(PYTHON)) -m tests.gpu_check --out=$(call QUOTED,OUT)/gpu-check $(call OPTIONS,OUT)

list: $(READY)  ## everything that has a name: methods, priors, victims, data sets, defenses, label methods, losses, local optimizers, metrics, recipes, tracks
	@$(RUN) benchmark list $(OPTIONS)

priors: $(READY)  ## generators, denoisers and inverters: what they were trained on, and where to get the missing ones
	@$(RUN) benchmark prior list $(OPTIONS)

prior: $(READY)  ## train the embedded prior anew (about an hour on one core)
	$(RUN) benchmark prior train priors/weights/dcgan-photos32.safetensors --data photos --size 32 --steps 8000

test: $(READY)  ## the tests that run in minutes
	$(RUN) pytest $(CORES)

test-all: $(READY)  ## all tests, the long ones too
	$(RUN) pytest $(CORES) -m 'slow or not slow'

test-lowest: $(LOWEST)/.ready  ## the tests with the lowest versions that pyproject.toml allows, in an environment of their own
	$(LOWEST)/bin/python -m pytest $(CORES)

lint: $(READY)  ## ruff, lint and format; mypy, types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) mypy

docs: $(READY)  ## write docs/options.md and docs/presets.md anew, from the code itself
	$(RUN) benchmark.option_table docs/options.md
	$(RUN) benchmark.preset_table docs/presets.md

site: $(SITE) docs  ## build the site into site/, which opens from disk; its search needs: .venv/bin/mkdocs serve
	@NO_MKDOCS_2_WARNING=1 $(RUN) mkdocs build --strict
	@echo 'The site: site/index.html'

models: $(READY)  ## write docs/models.md anew: which models run, which are refused and why (some minutes)
	$(RUN) tests.zoo docs/models.md

format: $(READY)  ## fix what ruff can fix
	$(RUN) ruff check --fix .
	$(RUN) ruff format .

clean:  ## remove the environment and caches; results stay
	rm -rf $(VENV) $(LOWEST) site .pytest_cache .ruff_cache .mypy_cache build *.egg-info

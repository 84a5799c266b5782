# One word per task. Each sets up what it needs: .venv from requirements.lock, again only when that changes.
SHELL := /bin/sh
BIN := .venv/bin
export PYTHON
unexport PYTHONHOME PYTHONPATH PYTHONWARNINGS PYTHONOPTIMIZE PYTHONINSPECT PYTHONPLATLIBDIR PYTHONSTARTUP
export HOME ?= /
export LOGNAME ?= $(shell id -un 2>/dev/null || echo somebody)
export PATH := $(CURDIR)/$(BIN):$(PATH)

# Where stages run: JOBS stages at once on CORES of this machine, or CLUSTER=file, or SCHEDULER=tcp://... (docs/cluster.md).
WHERE = $(if $(JOBS),--jobs=$(JOBS)) $(if $(CORES),--cores=$(CORES)) $(if $(CLUSTER),--cluster="$(CLUSTER)") $(if $(SCHEDULER),--scheduler="$(SCHEDULER)")

.DEFAULT_GOAL := help
.NOTPARALLEL: # tasks in the order in which they are asked for, whatever MAKEFLAGS says
.PHONY: help setup repro demo model zoo score draw check share publish seeds sweep test portable bench verify lint format readme lock clean

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

setup: ## make or refresh .venv
	@sh tools/setup.sh

repro: setup ## run whatever is not up to date: data, training, scores, figures, report, on all cores (JOBS=N: stages at once)
	$(BIN)/python -m tools.jobs $(WHERE)

model: setup ## NAME=x: make, score and draw the model x of params.yaml or zoo/params.yaml alone, beside the others, also without their data
	@test -n "$(NAME)" || { echo "usage: make model NAME=x, x a block under 'models' in params.yaml or zoo/params.yaml" >&2; exit 2; }
	$(BIN)/python -m tools.jobs --models="$(NAME)" $(WHERE)

demo: setup ## the same pipeline with seconds of training, in .demo/; leaves the workspace alone
	$(BIN)/python -m tools.demo

zoo: setup ## train, score and draw the further models of zoo/ (MODELS="a b" some of them), beside those of make repro
	$(BIN)/python -m tools.jobs --pipeline=zoo $(if $(MODELS),--models="$(MODELS)") $(WHERE)

score: setup ## SAMPLES=path [LABELS=path] NAME=x: score your own samples under this protocol, beside the models here
	@test -n "$(SAMPLES)" -a -n "$(NAME)" || { echo "usage: make score SAMPLES=path [LABELS=path] NAME=x: a folder of PNG files, or .npy, .npz, .safetensors" >&2; exit 2; }
	@$(BIN)/python -m tools.score --samples="$(SAMPLES)" $(if $(LABELS),--labels="$(LABELS)") --name="$(NAME)"

draw: setup ## PROMPT="a light wide bag": draw samples of a prompt (NAME=model COUNT=20 SEED=0), into drawn/
	@test -n "$$PROMPT" || { echo 'usage: make draw PROMPT="a light wide bag" [NAME=model] [COUNT=20] [SEED=0]' >&2; exit 2; }
	@$(BIN)/python -m tools.draw --prompt="$$PROMPT" $(if $(NAME),--name="$(NAME)") $(if $(COUNT),--count="$(COUNT)") $(if $(SEED),--seed="$(SEED)")

publish: setup ## FOLDER=path: write the results into a folder that any web server can offer, for others to pull
	@test -n "$(FOLDER)" || { echo "usage: make publish FOLDER=path" >&2; exit 2; }
	@$(BIN)/python -m tools.publish --folder="$(FOLDER)"

share: setup ## push the results of this run to the remote (REMOTE=name), and read every object back
	$(BIN)/python -m tools.share $(if $(REMOTE),--remote $(REMOTE))

check: setup ## are the results here those of the last commit, byte for byte or as far as other seeds take them?
	$(BIN)/python -m tools.check

seeds: setup ## how far the scores spread over other seeds (SEEDS="1 2"), into seeds.tsv (MODELS="a b" of both pipelines; EXTRACTORS="1 2")
	$(BIN)/python -m tools.seeds $(if $(MODELS),--models="$(MODELS)") $(if $(SEEDS),--seeds="$(SEEDS)") $(if $(EXTRACTORS),--extractors="$(EXTRACTORS)") $(if $(HALVED),--halved) $(WHERE)

sweep: setup ## NAME=x VARY="sampling.guidance=1,2 training.epochs=5,10": score every combination, into sweeps/ (SEEDS="0 1" TITLE=y)
	@test -n "$(NAME)" -a -n "$(VARY)" || { echo 'usage: make sweep NAME=model VARY="sampling.guidance=1,2 training.epochs=5,10" [SEEDS="0 1"] [TITLE=name]' >&2; exit 2; }
	$(BIN)/python -m tools.sweep --name="$(NAME)" --vary="$(VARY)" $(if $(SEEDS),--seeds="$(SEEDS)") $(if $(TITLE),--title="$(TITLE)") $(WHERE)

test: setup ## run the tests, a few files at a time (SLOW=1: also those that run whole pipelines several times)
	$(BIN)/python -m tools.quietly $(BIN)/python -m pytest $(if $(SLOW),-m "not emulated") --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

portable: setup ## does an emulated processor compute the same bytes? Needs qemu-user; half an hour or more
	$(BIN)/python -m pytest -m emulated tests/test_portable.py

bench: setup ## how fast each model trains here, alone and beside others, and a run with nothing to do (after make repro)
	$(BIN)/python -m benchmarks.nothing_to_do
	$(BIN)/python -m benchmarks.training_speed
	$(BIN)/python -m benchmarks.neighbours

verify: setup ## do lock, params, code, metrics and remote agree? Needs no data; for the CI of a fork
	$(BIN)/python -m tools.verify

lint: setup ## check style, types, the results in README.md
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/python -m tools.readme --check
	$(BIN)/python -m tools.pipelines --check

format: setup ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/python -m tools.pipelines

readme: setup ## write the results of metrics/ into README.md
	$(BIN)/python -m tools.readme

lock: ## resolve pyproject.toml into requirements.lock anew (needs uv)
	uv pip compile --upgrade --universal --generate-hashes --no-header --python-version 3.11 \
	  pyproject.toml --group dev --all-extras --output-file requirements.lock

clean: ## remove everything that can be made again, but not the DVC cache
	rm -rf .venv .demo .cells .checkpoints build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache data models plots/epochs plots/training* zoo/data zoo/models zoo/plots/epochs zoo/plots/training zoo/.checkpoints
	find . -name __pycache__ -prune -exec rm -rf {} +

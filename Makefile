# Everything one does with gfs from a checkout. `make` alone explains itself.

DIR ?= ./.cluster
PYTEST_ARGS ?=
WORKERS ?= 4
BENCH_ARGS ?=
MINUTES ?= 2
TORTURE_ARGS ?=
POSIX_ARGS ?=
export PYTHON

VENV := .venv/bin
PACKAGES := gfs master chunkd mount projections bench tests

.DEFAULT_GOAL := help
.PHONY: help setup demo up down status test check install-mount sim torture model posix bench bench-peers bench-views clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  DIR=PATH          where the local cluster lives (default ./.cluster)"
	@echo "  PYTHON=PATH       the Python, 3.11 or newer, that .venv is made with"
	@echo "  MINUTES=N         how long make torture breaks things (default 2)"
	@echo "  WORKERS=N         how many processes share the tests (default 4; 0: this one alone)"
	@echo "  PYTEST_ARGS, BENCH_ARGS, TORTURE_ARGS   words added to pytest, benchmarks, torture"

setup: ## install what is missing: system packages, .venv, the command .venv/bin/gfs
	@scripts/setup

demo: setup ## start a cluster, do real work on it, show the result, stop it
	@$(VENV)/python -m bench.demo

up: setup ## start the local cluster in DIR and mount it at DIR/mnt1
	@$(VENV)/gfs cluster up --dir "$(DIR)"

down: setup ## unmount and stop the local cluster; its data stay
	@$(VENV)/gfs cluster down --dir "$(DIR)"

status: setup ## say how the local cluster is
	@$(VENV)/gfs cluster status --dir "$(DIR)"

# Bytecode is kept even where one does not want it: each of hundreds of processes would compile all.
test: setup ## run every test; ends with the skipped ones and their reasons
	@PYTHONDONTWRITEBYTECODE= $(VENV)/python -m pytest -n $(WORKERS) --dist loadfile \
		--no-loadscope-reorder $(PYTEST_ARGS)

check: setup ## formatting, lint, types, architecture
	@$(VENV)/ruff format --check $(PACKAGES)
	@$(VENV)/ruff check $(PACKAGES)
	@$(VENV)/mypy
	@$(VENV)/python -m pytest -q tests/test_architecture.py

install-mount: setup ## let mount(8) and fstab know the type fuse.gfs (root; DESTDIR)
	@printf '#!/bin/sh\nexec "%s" mount-helper "$$@"\n' "$(abspath $(VENV))/gfs" >"$(DESTDIR)/sbin/mount.fuse.gfs"
	@chmod 755 "$(DESTDIR)/sbin/mount.fuse.gfs"

torture: setup ## break a real cluster at random for MINUTES, then check everything (root: links too)
	@$(VENV)/python -m tests.torture --minutes $(MINUTES) $(TORTURE_ARGS)

sim: setup ## simulate a cluster under faults: SEEDS=200 of them, or SEED=n with a trace
	@$(VENV)/python -m tests.sim $(if $(SEED),--seed $(SEED),--seeds $(or $(SEEDS),20)) $(if $(PLANT),--plant $(PLANT))

model: setup ## random programs on two mounts and on a local directory: STEPS=10000, SEED=n
	@GFS_MODEL_STEPS=$(or $(STEPS),10000) $(VENV)/python -m pytest -q tests/fuse/test_model.py \
		$(if $(SEED),--hypothesis-seed=$(SEED))

posix: setup ## run real programs on ext4 and on a mount; writes docs/programs.md unless POSIX_ARGS
	@$(VENV)/python -m bench.posix $(or $(POSIX_ARGS),--page docs/programs.md)

bench: setup ## measure this project beside the local disk
	@$(VENV)/python -m bench --targets local,ours $(BENCH_ARGS)

bench-peers: setup ## the same beside MooseFS and GlusterFS (needs root)
	@$(VENV)/python -m bench --targets local,ours,moosefs,glusterfs $(BENCH_ARGS)

bench-views: setup ## measure the views: FILES=1000000, beside find, plocate and databases
	@$(VENV)/python -m bench.views --files $(or $(FILES),1000000) $(BENCH_ARGS)

clean: ## stop the local cluster, remove .venv and caches; the data in DIR stay
	@if [ -x $(VENV)/gfs ] && [ -e "$(DIR)/pids" ]; then $(VENV)/gfs cluster down --dir "$(DIR)"; fi
	@rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -not -path './.cluster/*' -prune -exec rm -rf {} +

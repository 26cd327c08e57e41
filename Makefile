# One place for everything that people and CI run. `make` alone lists it.
.DEFAULT_GOAL := help
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

# The parts that setup installs come first, so `opa`, `mongodb-mcp-server` and `secantusd-py` are the locked ones.
export PATH := $(CURDIR)/.parts/bin:$(CURDIR)/.venv/bin:$(PATH)

# Without its cache of compiled modules each start of the program compiles a thousand of them: 3 s of CPU, not 1.
unexport PYTHONDONTWRITEBYTECODE

# ARGS reaches the program behind a target: make run ARGS=--once, make test ARGS='-k pipeline -x'
ARGS ?=
# Test processes. Each waits for its real parts a third of its time and more, so two cores are busy with four of them.
WORKERS ?= 4

.PHONY: help setup run test check nightly conformance mutants fmt lock jaeger bench bench-policy bench-floods bench-sessions bench-identity bench-evidence bench-against bench-calls bench-rolling clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 23

setup: ## install what the lock files name into .venv and .parts (fast when there is nothing to do)
	@scripts/setup

run: ## set up, play the tour on real parts, then serve (ARGS=--once: only the tour)
	@scripts/setup --run
	@exec mcp-sidecar demo $(ARGS)

test: setup ## every test, on real parts (ARGS='-k name' for a few; WORKERS=n processes)
	@exec pytest -n $(WORKERS) --dist loadscope --durations=20 $(ARGS)

check: setup ## format, lint, types, import contracts, policies, documents, compose, locks (ARGS=name for one)
	@scripts/check $(ARGS)

nightly: setup ## slow and rare checks, deep searches, every mutant; about two hours (ARGS='tests/mcp' for some of its tests)
	@scripts/setup --nightly
	@WORKERS=$(WORKERS) exec scripts/nightly $(ARGS)

conformance: setup ## the official MCP conformance suite, directly and through the sidecar, as one table
	@exec python -m tests.conformance.run $(ARGS)

mutants: setup ## change every rule of the policies, one at a time: some test has to notice (minutes; ARGS='teams/…/policy.rego')
	@exec python tools/mutate_policies.py $(ARGS)

fmt: setup ## format Python and Rego
	@ruff format --quiet . && ruff check --quiet --fix-only . && opa fmt --write policies

lock: ## resolve every lock file again (needs the network; review the difference)
	@scripts/lock $(ARGS)

jaeger: ## build Jaeger once and run it on loopback, for the traces of a run
	@exec scripts/jaeger

bench: setup ## measure the sidecar against the MCP server alone
	@exec python bench/overhead.py $(ARGS)

bench-policy: setup ## measure decisions and reloads, at 10 teams of 30 grants and 100 of 100
	@exec python bench/policy.py $(ARGS)

bench-floods: setup ## measure what floods cost: memory of large answers, refused megabytes, idle connections
	@exec python bench/floods.py $(ARGS)

bench-sessions: setup ## measure many sessions at once: lost or crossed answers, memory, a flood of new ones
	@exec python bench/sessions.py $(ARGS)

bench-identity: setup ## measure what proving a caller costs: remembered and new tokens, proofs, memory
	@exec python bench/identity.py $(ARGS)

bench-evidence: setup ## measure writing, proving and asking audit records (ARGS='--records 100000')
	@exec python bench/evidence.py $(ARGS)

bench-against: setup ## this tree against another in one run (REV=main): CPU per call and calls/s, alternating rounds
	@exec python bench/against.py $(or $(REV),main) $(ARGS)

bench-calls: setup ## CPU per call with a server behind that answers at once (ARGS='--against main --rows hit miss')
	@exec python bench/calls.py $(ARGS)

bench-rolling: setup ## roll everything under load: three sidecars behind nginx, 64 callers, ten minutes (ARGS='--seconds 60')
	@exec python bench/rolling.py $(ARGS)

clean: ## remove everything that setup, tests and demos made
	@rm -rf .venv .parts .demo dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage*
	@find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +

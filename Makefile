# HX-Citadel Shield: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
RUN := tools/run

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

sync: ## install everything into .venv
	@tools/bootstrap

check: sync ## the fast gate: format, lint, types, import contracts, generated files
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports

test: sync ## all tests that need no cluster
	@$(RUN) pytest -n 2

up: sync ## set everything up, build the samples, answer one question, and serve (ARGS=--no-samples)
	@$(RUN) shield up $(ARGS)

format: sync ## format the code
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

.PHONY: help sync check up test format

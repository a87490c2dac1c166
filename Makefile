# HX-Citadel Shield: `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
RUN := tools/run
CLUSTER ?= local

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  %-18s %s\n", $$1, $$2}'

sync: ## install everything into .venv
	@tools/bootstrap

check: sync ## the fast gate: format, lint, types, import contracts, generated files
	@$(RUN) ruff format --check .
	@$(RUN) ruff check .
	@$(RUN) mypy
	@$(RUN) lint-imports
	@$(RUN) python tools/generate_docs.py --check
	@$(RUN) python -m shield_operator.manifests --check
	@$(RUN) python -m monitoring.generate --check
	@$(RUN) python tools/generate_chart.py --check

chromium: ## make Chromium available for pages that need a browser (as root on Debian or Ubuntu; otherwise says how)
	@tools/chromium

test: sync ## the tests: everything but whole processes, in under ten minutes
	@$(RUN) pytest -n 2 -m "not whole and not kubernetes"

test-whole: sync chromium ## the tests of whole processes: servers, fleets and browsers that are started, killed and started again
	@$(RUN) pytest -n 2 -m "whole and not kubernetes"

test-kubernetes: sync ## the tests on a real API server and cluster (builds Kubernetes once: minutes, 14 GB while it builds, Go)
	@$(RUN) python -m kind build
	@$(RUN) pytest -n0 -m kubernetes tests/kubernetes tests/e2e tests/chart $(ARGS)

test-chart: sync ## the chart's suites: every template, every flavour on a real API server, both Helm versions (builds Helm once)
	@$(RUN) pytest -n 2 -m "" tests/chart $(ARGS)

test-previous: sync ## the previous release's code and integration tests on databases with this release's schema (ARGS="REF" names another release)
	@$(RUN) python tools/previous_release.py $(ARGS)

e2e: sync ## the product on a local cluster as its users meet it: images, services, operator, IngestJobs, attacks, tools over MCP; then its chart
	@$(RUN) python -m tests.kubernetes.e2e $(ARGS)
	@$(RUN) python -m tests.kubernetes.release $(ARGS)

e2e-full: sync ## the same with what fails around it, canary traffic, alerts and upgrades; writes docs/reports/e2e.md and release.md
	@$(RUN) python -m tests.kubernetes.e2e --full $(ARGS)
	@$(RUN) python -m tests.kubernetes.release --full $(ARGS)

canary-demo: sync ## a good version goes from 10 % to 100 % of the traffic, a bad one comes back by itself: Traefik and Prometheus on the local cluster
	@$(RUN) python -m tests.kubernetes.release.canary_demo

install: sync ## install the chart on the local cluster, with stand-ins for stores (ARGS="--set mcp.replicas=2")
	@$(RUN) python tools/local_release.py install $(ARGS)

upgrade: sync ## upgrade it to this checkout's chart, with earlier values (ARGS="--set worker.replicas=2")
	@$(RUN) python tools/local_release.py upgrade $(ARGS)

uninstall: sync ## remove it, but for the CRDs
	@$(RUN) python tools/local_release.py uninstall $(ARGS)

cluster-up: sync ## start a Kubernetes of one node here, without Docker (root, Linux; CLUSTER=kind: in Docker); builds it once, in minutes
	@$(RUN) python -m kind up --provider $(CLUSTER) $(ARGS)

cluster-down: sync ## stop it and remove every trace
	@$(RUN) python -m kind down --provider $(CLUSTER) $(ARGS)

cluster-status: sync ## show it: API, registry, components with their memory (ARGS=--json)
	@$(RUN) python -m kind status --provider $(CLUSTER) $(ARGS)

proof-clean: sync ## start a cluster, use it, stop it, count what is left behind; a mount left on purpose must be noticed
	@$(RUN) python -m kind proof-clean
	@$(RUN) python -m kind proof-clean --sabotage

diagrams-check: sync chromium ## draw the Mermaid diagrams of the documents; a syntax error fails (npm, Chromium; ARGS="--into DIRECTORY" leaves pictures)
	@$(RUN) python tools/render_diagrams.py $(ARGS)

docs-run: sync ## run the commands that the documents show (ARGS=--cluster: also those on the local cluster, after make install; ARGS=--list)
	@$(RUN) python -m tools.docs_run $(ARGS)

images: sync ## build the images, print their sizes, push them to the local cluster (BUILDER=docker|buildah REGISTRY=host:port ARGS="server --no-push")
	@$(RUN) python -m images $(ARGS)

up: sync ## set everything up, build the samples, answer one question, and serve (ARGS=--no-samples)
	@$(RUN) shield up $(ARGS)

dev: sync ## a whole fleet on this machine: PostgreSQL, Valkey, Qdrant peer, orchestrator, MCP server, 2 workers; prints its URLs (ARGS=)
	@$(RUN) python -m tests.fleet $(ARGS)

generate: sync ## renew the generated files (API reference, OpenAPI, settings, metrics, CRDs, operator manifests, rules, dashboards, chart)
	@$(RUN) python tools/generate_docs.py
	@$(RUN) python -m shield_operator.manifests
	@$(RUN) python -m monitoring.generate
	@$(RUN) python tools/generate_chart.py

proof-fresh: ## clone into a bare Debian, empty caches: make up answers, make test passes (needs root and mmdebstrap)
	@tools/proof_fresh

proof-delete: sync ## delete a document, look for it everywhere from the outside; a broken deletion must be noticed
	@$(RUN) python -m tests.proofs delete
	@$(RUN) python -m tests.proofs delete --sabotage

proof-errors: sync ## every error on every surface, compared with the catalogue; a mute surface must be noticed
	@$(RUN) python -m tests.proofs errors
	@$(RUN) python -m tests.proofs errors --sabotage

chaos: sync ## a fleet under kill -9, SIGSTOP and data loss; ARGS="--seed N" repeats a run, ARGS=--short takes 90 s
	@$(RUN) python -m tests.chaos $(ARGS)

chaos-sabotage: sync ## the same with the fence broken on purpose: must be noticed
	@$(RUN) python -m tests.chaos --short --sabotage $(ARGS)

load: sync ## capacity of a fleet, and what it answers at three times that; ARGS="--soak 10" watches its memory for 10 minutes
	@$(RUN) python -m tests.load $(ARGS)

proof-isolation: sync ## every route and tool as everybody; nothing of another's may be seen, and a missing check must be noticed
	@$(RUN) python -m tests.proofs isolation
	@$(RUN) python -m tests.proofs isolation --sabotage

proof-boundaries: sync ## the operator killed at every action, under failing API servers, nodes and leaders; lost 0, duplicate 0 (ARGS="--smoke" is CI's, --only NAME, --seed N)
	@$(RUN) python -m tests.kubernetes.boundaries $(ARGS)

proof-boundaries-sabotage: sync ## the same, short, with the operator broken in three ways: each must be noticed
	@$(RUN) python -m tests.kubernetes.boundaries --only 'job-made-unseen' --sabotage names
	@$(RUN) python -m tests.kubernetes.boundaries --only 'active-deadline' --sabotage cancel
	@$(RUN) python -m tests.kubernetes.boundaries --only 'strangers-job' --sabotage owner

proof-monitoring: sync ## each alert quiet, fired, recovered on the chart's rules; each panel with data of a real run; a runbook each; harm must be noticed
	@$(RUN) python -m tests.monitoring
	@$(RUN) python -m tests.monitoring --sabotage

bench-operator: sync ## IngestJobs a second on a real API server, latency, API writes, memory and cold start with 10,000; writes docs/BENCHMARKS.md
	@$(RUN) python -m tests.bench.operator --write $(ARGS)

bench-graph: sync ## one knowledge base, 1 and 4 workers: speed-up, serial share, equal graphs (ARGS="--workers 1,2,4")
	@$(RUN) python -m tests.bench.graph_scaling $(ARGS)

bench-memory: sync ## memory of a server 60 s after it built the samples, by part
	@$(RUN) python -m tests.bench.memory

bench-breaker: sync ## what an open circuit costs: price of a refusal, what it retains, probes let out
	@$(RUN) python -m tests.bench.breaker

test-litellm: sync ## models and tools through a real LiteLLM proxy, which gets an environment of its own (about 600 MB, once)
	@SHIELD_TEST_LITELLM=$$(tests/litellm/environment) $(RUN) pytest tests/litellm -n0 --timeout 180

coverage: sync chromium ## all tests with branch coverage; fails under 85 %
	@$(RUN) coverage erase
	@$(RUN) pytest -n 2 -m "not kubernetes" --cov=shield --cov-report=term

build: sync ## build the wheel and the source archive into dist/
	@rm -rf dist && tools/bootstrap --uv build --quiet && ls dist

format: sync ## format the code
	@$(RUN) ruff format .
	@$(RUN) ruff check --fix .

.PHONY: help sync docs-run diagrams-check check chromium test test-whole test-previous test-kubernetes e2e e2e-full canary-demo install upgrade uninstall cluster-up cluster-down cluster-status proof-clean up dev generate proof-fresh proof-delete proof-errors proof-isolation proof-monitoring proof-boundaries proof-boundaries-sabotage chaos chaos-sabotage load bench-operator bench-breaker bench-graph bench-memory test-litellm test-chart coverage build format

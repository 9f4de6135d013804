# Everything a person types. `make demo` and `make test` set up what they need first.
PYTHON := .venv/bin/python
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup:  ## virtual environment, container engine, Redis, images; does only what is missing
	@ops/setup

demo: setup  ## eight strategies through the queue, four good and four not
	@$(PYTHON) ops/demo.py

agent-demo: setup  ## from a sentence to a tested strategy, with a scripted model in place of DeepSeek
	@$(PYTHON) ops/agent_demo.py

test:  ## all tests, in real containers, with a real Redis and a real browser
	@ops/setup test
	@$(if $(ARGS),$(PYTHON) -m pytest $(ARGS),ops/test)

check: setup  ## formatter, linter, types, import rules
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m mypy
	@.venv/bin/lint-imports

soak: setup  ## 2,000 pieces of honest work under our seccomp profile and under the engine's; EXECUTIONS=n
	@$(PYTHON) tests/soak/soak.py --executions $(or $(EXECUTIONS),2000) $(ARGS)

gvisor: setup  ## register gVisor with the local engine as runtime "runsc", and run a strategy under it
	@$(PYTHON) ops/engine/gvisor.py

security-table: setup  ## attack, and write the table in docs/security.md from what was seen
	@$(PYTHON) ops/security_table.py $(ARGS)

controls: setup  ## switch each control of the sandbox off in turn; fails if no test notices (7 minutes)
	@$(PYTHON) tests/security/controls.py

fuzz: setup  ## a coverage-guided attack on the code policy, 60 s (SECONDS=)
	@$(PYTHON) -c "import atheris" 2>/dev/null || $(PYTHON) -m pip install -q --require-hashes -r ops/requirements/fuzz.txt
	@$(PYTHON) tests/fuzz/fuzz_validator.py $(SECONDS)

bench:  ## how fast strategies run, beside a plain `docker run` and others (35 minutes; ARGS="--json FILE" or --help)
	@ops/setup bench
	@PYTHONPATH=ops $(PYTHON) -m bench.speed $(ARGS)

bench-report:  ## draw the chart and write the figures of bench/results.json into README.md and docs/performance.md
	@ops/setup bench
	@$(PYTHON) -m bench.report

chaos: setup  ## 2,000 submissions while everything beneath them is killed, each accounted for; SEED=1
	@$(PYTHON) -m tests.chaos.chaos --seed $(or $(SEED),1) $(ARGS)

protections: setup  ## take each protection against loss away in turn; fails if no test notices
	@$(PYTHON) tests/chaos/protections.py

exports: setup  ## write the lists of numpy's and pandas' names again, from the image
	@$(PYTHON) ops/generate_exports.py && git diff --stat tasks/exports.py

# `make up MONITORING=1`, or MONITORING=prometheus where Grafana is not to be had.
PROFILE := $(if $(MONITORING),$(if $(filter prometheus,$(MONITORING)),prometheus,monitoring))

up: export COMPOSE_PROFILES = $(PROFILE)
up:  ## the stack in containers: Redis, workers, Flower; with MONITORING=1 also Prometheus and Grafana
	@ops/setup $(PROFILE)
	@ops/stack/compose up -d
	@$(PYTHON) ops/stack/environment.py next

scale:  ## so many workers in the stack: make scale N=4
	@test -n "$(N)" || { echo "scale: say how many: make scale N=4" >&2; exit 2; }
	@ops/stack/compose up -d --no-recreate --scale worker=$(N) worker

logs: export COMPOSE_PROFILES = monitoring
logs:  ## follow what the stack says; SERVICE=worker for one part of it
	@ops/stack/compose logs --follow --tail 50 $(SERVICE)

down: export COMPOSE_PROFILES = monitoring
down:  ## end the stack, workers finish what runs; VOLUMES=1 also removes queue, results and metrics
	@ops/stack/compose down --remove-orphans $(if $(VOLUMES),--volumes)

redis: setup  ## a Redis for local work, in the foreground, data in .setup/redis
	@mkdir -p .setup/redis && exec redis-server ops/redis.conf --dir .setup/redis

worker: setup  ## a worker of two processes, in the foreground
	@exec .venv/bin/stratbox worker

requirements:  ## lock the requirements again, newest allowed versions
	@command -v uv >/dev/null || { echo "requirements: install uv first"; exit 1; }
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	    --custom-compile-command "make requirements" --all-extras --group dev pyproject.toml -o ops/requirements/dev.txt
	uv pip compile -q --upgrade --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-annotate \
	    --custom-compile-command "make requirements" --extra flower --extra otel pyproject.toml -o ops/requirements/worker.txt
	uv pip compile -q --upgrade --universal --python-version 3.13 --generate-hashes --no-emit-index-url --no-annotate \
	    --custom-compile-command "make requirements" ops/requirements/executor.in -o ops/requirements/executor.txt
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	    --custom-compile-command "make requirements" ops/requirements/fuzz.in -o ops/requirements/fuzz.txt
	uv pip compile -q --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate \
	    --custom-compile-command "make requirements" -c ops/requirements/dev.txt ops/requirements/bench.in -o ops/requirements/bench.txt

clean:  ## remove caches and the virtual environment; images and the engine stay
	@rm -rf .venv .setup .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.PHONY: help setup demo agent-demo test check security-table controls fuzz bench bench-report exports chaos protections soak gvisor up scale logs down redis worker requirements clean

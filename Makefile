# Everything installs what it needs into .venv; Python 3.11 or newer and make are enough.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test chaos check bench bench-servers bench-others typecheck lint clean

$(READY): pyproject.toml requirements-dev.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "amends needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

demo: $(READY) ## place a few hundred orders, kill the services midway, and prove that stock and money balance
	$(BIN)/python -m examples.orders

test: $(READY) ## all tests
	$(BIN)/python -m pytest -n auto --dist worksteal

ON ?= rabbitmq,kafka,embedded
SEED ?= 1
ORDERS ?= 2500
MINUTES ?= 0
ORDERS_FILE ?= $(firstword $(wildcard ../*/data/orders.csv))

chaos: $(READY) ## orders on real servers while all is killed, paused, restarted; ON= SEED= ORDERS= MINUTES= ORDERS_FILE=
	$(BIN)/python -m tests.chaos --on $(ON) --seed $(SEED) --orders $(ORDERS) --minutes $(MINUTES) --file "$(ORDERS_FILE)"

check: $(READY) lint typecheck ## what must be clean before a commit: style, types, imports

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

typecheck: $(READY)
	$(BIN)/mypy
	$(BIN)/mypy examples benchmarks tests/chaos

bench: $(READY) ## how fast, as ratios to what the parts allow, and how much memory a saga takes
	$(BIN)/python -m benchmarks
	$(BIN)/python -m benchmarks.memory

bench-servers: $(READY) ## the same on RabbitMQ, Kafka and Redis; takes minutes
	$(BIN)/python -m benchmarks rabbitmq kafka

bench-others: $(READY) ## beside DBOS, Restate and Celery, which it installs from PyPI and npm; PostgreSQL must be there
	$(BIN)/python -m benchmarks rabbitmq kafka others --install

clean:
	rm -rf $(VENV) .amends build dist

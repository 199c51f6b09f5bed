# Two commands do everything: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

CHECK := $(BIN)/icediag check --events 64 --batch-size 64 --fail-on never --format console,html,markdown

.PHONY: demo test lint bench versus sweep score score-learning readme check clean help
.DEFAULT_GOAL := help

help:
	@echo "make demo   set up, diagnose the case of the README and the default pipeline, write reports"
	@echo "make test   set up, run the tests"
	@echo "make lint   ruff, mypy and import-linter"
	@echo "make bench  time collate, packing and recording beside their yardsticks"
	@echo "make versus write the README's table of parts beside other ways anew; wants a quiet machine"
	@echo "make score  diagnose every fault of tests/faults and every healthy twin; takes a while"
	@echo "make score-learning  diagnose every fault of learning, in the built-in model and in others"
	@echo "make readme  write the table of checks in README.md anew"
	@echo "make check  NAME=the-fault CODE=X01: a new check to be filled in, and its test"
	@echo "make sweep  train every make of the built-in model with 20 seeds; takes long"
	@echo "make clean  remove .venv and caches"

.venv/pyvenv.cfg:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "icediag needs Python 3.11 or newer: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv

# Empty files remember what is installed; a changed requirement installs again.
.venv/.run: .venv/pyvenv.cfg pyproject.toml constraints.txt
	$(PIP) --editable .
	@touch $@

.venv/.test: .venv/.run
	$(PIP) --editable '.[test]'
	@touch $@

.venv/.dev: .venv/.test
	$(PIP) --editable '.[dev]'
	@touch $@

demo: .venv/.run
	$(CHECK) --fault case --out runs/demo/case
	$(CHECK) --out runs/demo/default

test: .venv/.test
	$(BIN)/python -m pytest --numprocesses auto

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: .venv/.run
	$(BIN)/icediag bench

versus: .venv/.run
	$(BIN)/python -m tools.versus

sweep: .venv/.test
	$(BIN)/python -m tests.faults.sweep

score: .venv/.test
	$(BIN)/python -m tests.faults.score

score-learning: .venv/.test
	$(BIN)/python -m tests.faults.score --learning

readme: .venv/.run
	$(BIN)/python -m tools.readme

check: .venv/.run
	$(BIN)/python -m tools.new_check $(NAME) $(CODE) $(if $(TITLE),--title "$(TITLE)")

clean:
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache build dist *.egg-info

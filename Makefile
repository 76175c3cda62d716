# What every commit passes. `make check PYTHON=.venv/bin` uses the tools of that folder.
PYTHON ?= .venv/bin

.PHONY: check format
check:
	$(PYTHON)/ruff format --check .
	$(PYTHON)/ruff check .
	$(PYTHON)/mypy
	$(PYTHON)/pytest -q -n 2 -m "not kill"

format:
	$(PYTHON)/ruff format .
	$(PYTHON)/ruff check --fix .

# What every commit passes. `make check PYTHON=.venv/bin` uses the tools of that folder.
PYTHON ?= .venv/bin

.PHONY: check format docs release
check:
	$(PYTHON)/ruff format --check .
	$(PYTHON)/ruff check .
	$(PYTHON)/mypy
	$(PYTHON)/pytest -q -n 2 -m "not kill"

format:
	$(PYTHON)/ruff format .
	$(PYTHON)/ruff check --fix .

# The documentation site, in build/docs: `pip install -e '.[docs]'` first.
docs:
	$(PYTHON)/python -m sphinx -W --keep-going -q -b html docs build/docs

# `make release VERSION=0.3.0`: see CONTRIBUTING.md.
release:
	$(PYTHON)/python .ci/release.py $(VERSION)

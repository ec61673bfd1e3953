# Convoy's commands. Each does its own set-up; `make setup` alone is rarely needed.
.PHONY: setup demo test test-slow lint clean

PY := .venv/bin/python

setup:  ## create .venv with pinned packages and a Horovod built here
	@scripts/setup.sh

demo: setup  ## train EfficientNet-B0 on real images and label a folder of JPEGs
	@scripts/demo.sh

test: setup lint  ## what a change can break, within 15 minutes on 2 cores
	@$(PY) -m pytest -m "not slow"

test-slow: setup  ## the tests that take minutes
	@$(PY) -m pytest -m slow

lint: setup
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

clean:  ## remove what make created in this folder
	rm -rf .venv demo build *.egg-info

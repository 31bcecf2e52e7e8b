# `make demo` and `make test` each start from nothing: they make .venv, install, and run. A second call is quick.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test format lint types unit clean

demo: $(READY)  ## anonymize two real photos and say where to look
	$(BIN)/python -m anondata.tools.demo

test: lint types unit  ## everything that CI runs

lint: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(READY)
	$(BIN)/mypy -p anondata

unit: $(READY)  ## tests, doctests and the check of the built wheel; threads that spin while they wait slow each other down
	OMP_WAIT_POLICY=passive $(BIN)/python -m pytest -q -n auto --maxprocesses 4 --dist worksteal tests anondata

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The plain torch wheel (CUDA build) runs on machines without a GPU, too; the CPU-only one breaks torchvision's operators.
$(READY): pyproject.toml
	test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV): about 6 GB, one to four minutes"
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[cpu,test]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info demo-out .pytest_cache .mypy_cache .ruff_cache

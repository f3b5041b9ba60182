# Two commands on a fresh machine: `make demo` and `make test`. Each needs python3 (3.10 or newer) alone.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test test-avx2 lint bench docs compile-gate roofline gpu clean

demo: .venv/.ready
	$(BIN)/python -m examples.demo

test: .venv/.ready lint
	$(BIN)/python -m pytest -n 2

# What runs on a CPU, as one with AVX2 alone would run it.
test-avx2: .venv/.ready
	.ci/lowered avx2

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The model and the peers of some benches are not needed elsewhere.
bench: .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[bench-models]"
	$(BIN)/python -m bench.run

# The pages in site/, with the reference from the code; a warning fails.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/.docs: .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[docs]"
	touch $@

# With the triton that is installed, and with the oldest one that PyTorch in use comes with.
OLD_TRITON := 3.6.0

compile-gate: .venv/.ready build/triton-$(OLD_TRITON)
	$(BIN)/python -m bench.compile_gate
	PYTHONPATH=build/triton-$(OLD_TRITON) $(BIN)/python -m bench.compile_gate

build/triton-$(OLD_TRITON): .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $@ triton==$(OLD_TRITON)
	touch $@

# These two need an NVIDIA GPU.
roofline: .venv/.ready
	$(BIN)/python -m bench.roofline

gpu: .venv/.ready
	PYTHON=$(BIN)/python bench/gpu.sh

# Installed once; again when what it installs has changed.
.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[test,bench,lint]"
	touch $@

clean:
	rm -rf .venv

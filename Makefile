# Two commands on a fresh machine: `make demo` and `make test`. Each needs python3 (3.10 or newer) alone.
PYTHON ?= python3
BIN := .venv/bin
# The tests start scores of processes, each of which would compile every module that it imports.
unexport PYTHONDONTWRITEBYTECODE

# Plugins by name: others that happen to be installed take seconds of every process.
PYTEST := $(BIN)/python -m pytest --disable-plugin-autoload -p xdist -p hypothesispytest -n 2 --dist worksteal

.PHONY: demo test test-full test-all test-avx2 test-oldest gpu-dry lint bench docs compile-gate roofline gpu clean

# What the demo needs and nothing else.
demo: .venv/.demo
	@$(BIN)/python -m examples.demo

# The fast set: what a change can break, in some minutes.
test: .venv/.ready lint
	$(PYTEST)

# What is slow or exhaustive: every sample, setting and tile, compilers, builds, memory.
test-full: .venv/.interop
	$(PYTEST) -m full

# Walks through the script for a machine with a GPU, without one.
gpu-dry: .venv/.ready
	PYTHON=$(BIN)/python tools/gpu.sh --dry

test-all: test test-full test-avx2 test-oldest gpu-dry

# What runs on a CPU, as one with AVX2 alone would run it.
test-avx2: .venv/.ready
	.ci/lowered avx2

# The oldest versions that are allowed, and no extra.
OLDEST := tests/test_codec_laws.py tests/test_codes.py tests/test_files.py tests/test_golden.py

test-oldest: .venv-oldest/.ready
	.venv-oldest/bin/python -m pytest -q -n 2 $(OLDEST)

.venv-oldest/.ready: pyproject.toml constraints.txt constraints-oldest.txt
	@test -x .venv-oldest/bin/pip || $(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -c constraints-oldest.txt \
		-e . pytest pytest-xdist hypothesis
	@touch $@

lint: .venv/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The model and the peers of some benches are not needed elsewhere.
bench: .venv/.ready
	$(PIP) --quiet -e ".[bench-models]"
	$(BIN)/python -m bench.run

# The pages in site/, with the reference from the code; a warning fails.
docs: .venv/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

.venv/.docs: .venv/.ready
	$(PIP) --quiet -e ".[docs]"
	touch $@

# With the triton that is installed, and with the oldest one that PyTorch in use comes with.
OLD_TRITON := 3.6.0

compile-gate: .venv/.ready build/triton-$(OLD_TRITON)
	$(BIN)/python -m tools.compile_gate
	PYTHONPATH=build/triton-$(OLD_TRITON) $(BIN)/python -m tools.compile_gate

build/triton-$(OLD_TRITON): .venv/.ready
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --target $@ triton==$(OLD_TRITON)
	touch $@

# These two need an NVIDIA GPU.
roofline: .venv/.ready
	$(BIN)/python -m tools.roofline

gpu: .venv/.ready
	PYTHON=$(BIN)/python tools/gpu.sh

# Installed once; again when what it installs has changed.
PIP := $(BIN)/pip install --disable-pip-version-check -c constraints.txt

.venv/.demo: pyproject.toml constraints.txt
	@echo "Installing gpuzip and what it needs into .venv: torch is the largest part, and takes some minutes."
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	@$(PIP) --progress-bar off -e . | grep --line-buffered -E "^(Collecting|Downloading|Installing|Successfully)" | cut -c1-100
	@touch $@

.venv/.ready: pyproject.toml constraints.txt
	@test -x $(BIN)/pip || $(PYTHON) -m venv .venv
	$(PIP) --quiet -e ".[test,bench,lint]"
	@touch $@ .venv/.demo

# The packages of other projects that the full set tests gpuzip with.
.venv/.interop: .venv/.ready
	$(PIP) --quiet -e ".[test-interop]"
	@touch $@

clean:
	rm -rf .venv .venv-oldest

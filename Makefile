# Every target makes the virtual environment that it needs, from scratch or from what an earlier call left.

export ORT_DISABLE_TELEMETRY = 1

PYTHON ?= python3
# PyTorch of PyPI is a CUDA build of several GB. A CPU build is enough:
#   make test PIP_TORCH="--index-url https://download.pytorch.org/whl/cpu"
PIP_TORCH ?=
PIP = -m pip --disable-pip-version-check install --quiet

DEMO = .venv-demo/bin
TEST = .venv-test/bin

.PHONY: demo test lint parity wheel-check benchmarks artifacts clean check-python

demo: .venv-demo/.installed
	mkdir -p demo
	$(DEMO)/pxdbg generate --model resnet --events 2 --seed 7 --output demo/background.parquet
	$(DEMO)/pxdbg show demo/background.parquet
	$(DEMO)/pxdbg plot demo/background.parquet --output demo/event.png

test: .venv-test/.installed
	$(TEST)/python -m pytest --cov --cov-report=term $(PYTEST_ARGS)

lint: .venv-test/.installed
	$(TEST)/ruff check .
	$(TEST)/ruff format --check .
	$(TEST)/mypy

# Five random checkpoints of each model, three events each, digit by digit against PyTorch.
parity: .venv-test/.installed
	$(TEST)/python -m pytest tests/test_exactness.py -m exhaustive -rP $(PYTEST_ARGS)

# Ours beside the original and other runtimes, one core; a quarter of an hour. On a GPU machine: python -m benchmarks providers.
benchmarks: .venv-test/.installed
	$(TEST)/python $(PIP) --editable ".[cpu,plot,export,bench]"
	mkdir -p build
	$(TEST)/python -m benchmarks peers --json build/peers.json --plot build/peers.png

# The wheel as a user installs it: an environment without PyTorch.
wheel-check: .venv-test/.installed
	rm -rf dist .venv-wheel
	$(TEST)/python -m build --wheel --no-isolation --outdir dist .
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python $(PIP) "$$(ls dist/*.whl)[cpu]"
	cd dist && ../.venv-wheel/bin/pxdbg generate --model resnet --events 1 --seed 7 --output event.npz
	cd dist && ../.venv-wheel/bin/pxdbg show event.npz
	.venv-wheel/bin/python -c "import importlib.util as u; assert not (u.find_spec('torch') or u.find_spec('onnx'))"

DEMONSTRATION = Seeded random weights of the true ResNet architecture (python -m export.demonstration --model resnet \
--seed 3): a demonstration without any physics. Only the mean occupancy and the mean charge of the hits were set, near \
those of the real background.

# Makes the shipped graphs anew. Weights and graph are the same each time, the parity on fresh latents is not.
artifacts: .venv-test/.installed
	mkdir -p build
	$(TEST)/python -m export.demonstration --model resnet --seed 3 --output build/resnet.safetensors
	for precision in float32 int8; do $(TEST)/python -m export build/resnet.safetensors --model resnet \
	  --precision $$precision --output artifacts --nature demonstration --provenance "$(DEMONSTRATION)" || exit 1; done
	$(TEST)/python -m export.manifest artifacts

clean:
	rm -rf .venv-demo .venv-test .venv-wheel demo dist build

check-python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "$(PYTHON) is older than 3.11: say which to use, make PYTHON=python3.12 ..."; exit 1; }

.venv-demo/.installed: pyproject.toml $(wildcard pxdbg_runtime/*.py pxdbg_runtime/command_line/*.py artifacts/*) | check-python
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python $(PIP) --force-reinstall --no-deps .
	$(DEMO)/python $(PIP) ".[cpu,parquet,plot]"
	touch $@

.venv-test/.installed: pyproject.toml | check-python
	$(PYTHON) -m venv .venv-test
	$(TEST)/python $(PIP) $(PIP_TORCH) torch==2.13.0
	$(TEST)/python $(PIP) --editable ".[cpu,parquet,plot,validate,export,dev]"
	touch $@

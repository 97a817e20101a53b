# make demo: source code -> trained, released model and a report.   make test: lint, types and the default tests.
# Every target makes what it needs, from uv.lock; nothing but Python and pip (or uv) is expected.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# uv as found, else one of our own in .uv.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
RUN := $(UV) run --no-sync
DEFAULT_TESTS := not slow and not oracle and not aot and not seqio and not cluster and not guides

.PHONY: help sync demo lint test test-only test-wheel test-guides test-slow test-oracle oracle test-seqio test-aot test-cluster test-lowest
help:
	@echo "make demo         train a small model from real source code and write a report (SOURCE=directory for another corpus)"
	@echo "make test         lint, types, default tests"
	@echo "make test-slow    tests that take minutes;  test-guides (docs/guides)   test-oracle (PyTorch)  test-seqio  test-aot  test-cluster  test-lowest"

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv

sync: $(filter .uv/bin/uv,$(UV))
	$(UV) sync --quiet --locked --extra data --extra dev

demo: sync
	$(RUN) python scripts/demo/demo.py $(if $(SOURCE),--source "$(SOURCE)") $(if $(OUT),--out "$(OUT)")

lint: sync
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) codespell $$(git ls-files)
	$(RUN) lint-imports
	$(RUN) deptry .
	$(RUN) pyright

test: lint test-only

# Two processes, each file in one of them: fixtures of a module are made once.
test-only: sync
	$(RUN) pytest -n 2 --dist loadfile -m "$(DEFAULT_TESTS)"

# The wheel, installed outside the repository.
test-wheel: sync
	rm -rf .wheel
	$(UV) build --quiet --wheel --out-dir .wheel
	$(RUN) python scripts/tools/check_wheel.py .wheel/*.whl

test-slow: sync
	$(RUN) pytest -m slow

# Every command of docs/guides.
test-guides: sync
	$(RUN) pytest -m guides

# PyTorch has no place in the training environment: an environment of its own, by pip, on Python 3.11.
.venv-oracle/ready: scripts/oracle/requirements.txt $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear --seed --python 3.11 .venv-oracle
	.venv-oracle/bin/pip install --quiet -r scripts/oracle/requirements.txt
	touch $@

test-oracle oracle: sync .venv-oracle/ready
	$(RUN) pytest -m oracle

# Heavy extras get environments of their own, so that the one for daily work stays small.
test-seqio test-aot: test-%: $(filter .uv/bin/uv,$(UV))
	export UV_PROJECT_ENVIRONMENT=.venv-$*
	$(UV) sync --quiet --locked --extra data --extra dev --extra $*
	$(RUN) pytest -m $* $(TESTS)

test-cluster: $(filter .uv/bin/uv,$(UV))
	export UV_PROJECT_ENVIRONMENT=.venv-cluster
	$(UV) sync --quiet --locked --extra data --extra dev --extra ray
	$(RUN) pytest -m cluster

# The lowest versions that pyproject.toml allows for what is there, jax 0.11.2 among them.
test-lowest: $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear .venv-lowest
	$(UV) pip compile --quiet --resolution lowest-direct --extra data --extra dev --extra aot pyproject.toml --output-file .venv-lowest/requirements.txt
	$(UV) pip install --quiet --python .venv-lowest -r .venv-lowest/requirements.txt --editable . --no-deps
	.venv-lowest/bin/python -c "import jax; print('jax', jax.__version__)"
	.venv-lowest/bin/python -m pytest -m "$(DEFAULT_TESTS)" tests/opencoder_jax tests/opencoder_kernels
	.venv-lowest/bin/python -m pytest -m aot tests/opencoder_kernels

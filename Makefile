# make demo: source code -> trained, released model and a report.   make test: lint, types and the default tests.
# Every target makes what it needs, from uv.lock; nothing but Python and pip (or uv) is expected.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help

# uv as found, else one of our own in .uv.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo .uv/bin/uv)
RUN := $(UV) run --no-sync
DEFAULT_TESTS := not slow and not oracle and not aot and not seqio and not cluster and not guides and not clients

.PHONY: help sync demo lint test test-only test-wheel test-guides test-slow test-oracle oracle test-clients test-seqio test-aot test-cluster test-lowest test-languages
help:
	@echo "make demo         train a small model from real source code and write a report (SOURCE=directory for another corpus)"
	@echo "make test         lint, types, default tests"
	@echo "make test-slow    tests that take minutes;  test-guides (docs/guides)   test-oracle (PyTorch)  test-clients (llama.cpp)  test-seqio  test-aot  test-cluster  test-lowest  test-languages"

.uv/bin/uv:
	python3 -m venv .uv
	.uv/bin/pip install --quiet uv

sync: $(filter .uv/bin/uv,$(UV))
	$(UV) sync --quiet --locked --extra data --extra eval --extra serve --extra dev

demo: sync
	$(RUN) python scripts/demo/demo.py $(if $(SOURCE),--source "$(SOURCE)") $(if $(OUT),--out "$(OUT)")

lint: sync
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	$(RUN) codespell $$(git ls-files)
	$(RUN) python scripts/tools/check_words.py
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

# All languages that Debian has (11 GB, by apt), each with a program that passes and one that fails.
test-languages: sync
	scripts/tools/toolchains.sh
	OPENCODER_REQUIRE_SANDBOX=1 $(RUN) pytest tests/opencoder_eval/sandbox/test_languages.py $(TESTS)

# Every command of docs/guides.
test-guides: sync
	$(RUN) pytest -m guides

# PyTorch has no place in the training environment: an environment of its own, by pip, on Python 3.11.
.venv-oracle/ready: scripts/oracle/requirements.txt $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear --seed --python 3.11 .venv-oracle
	.venv-oracle/bin/pip install --quiet -r scripts/oracle/requirements.txt
	touch $@

test-oracle oracle: .venv-oracle/ready $(filter .uv/bin/uv,$(UV))
	$(UV) sync --quiet --locked --extra data --extra dev --extra teacher
	$(RUN) pytest -m oracle

# llama.cpp from its source package, 20 minutes, in an environment of its own; the source holds its converter, too.
LLAMA_CPP := llama_cpp_python-0.3.36
.venv-llamacpp/ready: $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear --seed --python 3.12 .venv-llamacpp
	.venv-llamacpp/bin/pip download --quiet --no-deps --no-binary llama-cpp-python --dest .venv-llamacpp/source llama-cpp-python==0.3.36
	tar -C .venv-llamacpp/source -xf .venv-llamacpp/source/$(LLAMA_CPP).tar.gz
	.venv-llamacpp/bin/pip install --quiet .venv-llamacpp/source/$(LLAMA_CPP)
	touch $@

# The real clients of what a release or a server gives. The converter runs in the oracle's environment, which has PyTorch.
test-clients: .venv-llamacpp/ready .venv-oracle/ready
	$(UV) sync --quiet --locked --extra data --extra dev --extra teacher
	$(RUN) pytest -m clients

# Heavy extras get environments of their own, so that the one for daily work stays small.
test-seqio test-aot: test-%: $(filter .uv/bin/uv,$(UV))
	export UV_PROJECT_ENVIRONMENT=.venv-$*
	$(UV) sync --quiet --locked --extra data --extra eval --extra dev --extra $*
	$(RUN) pytest -m $* $(TESTS)

test-cluster: $(filter .uv/bin/uv,$(UV))
	export UV_PROJECT_ENVIRONMENT=.venv-cluster
	$(UV) sync --quiet --locked --extra data --extra eval --extra dev --extra ray
	$(RUN) pytest -m cluster

# The lowest versions that pyproject.toml allows for what is there, jax 0.11.2 among them.
test-lowest: $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear .venv-lowest
	$(UV) pip compile --quiet --resolution lowest-direct --extra data --extra serve --extra dev --extra aot pyproject.toml --output-file .venv-lowest/requirements.txt
	$(UV) pip install --quiet --python .venv-lowest -r .venv-lowest/requirements.txt --editable . --no-deps
	.venv-lowest/bin/python -c "import jax; print('jax', jax.__version__)"
	.venv-lowest/bin/python -m pytest -m "$(DEFAULT_TESTS)" tests/opencoder_jax tests/opencoder_kernels
	.venv-lowest/bin/python -m pytest -m aot tests/opencoder_kernels

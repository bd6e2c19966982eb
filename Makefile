# make demo           encode and decode examples/audio into demo/, to listen to
# make check          the quick part of the test suite, for every save (WORKERS=1 for one process)
# make test           the whole test suite
# make mutations      break the code on purpose, and check that the tests notice
# make lint types     style, import contracts and types
# make kernels        compile every kernel for two targets on the installed triton, and for one on triton 3.6
# make kernels-all    compile every kernel for every target on both
# make docs           build the documentation into site/
# make dist           build wheel and sdist into dist/, and try the wheel in an environment of its own
# make web            build the page that runs the codec in a browser into web/dist/ (needs Node)
# make web-test       test the page and the npm package (needs Node and Chromium)
# make gpu            the tests that need a CUDA device, and the benchmarks
# make gpu-budget     rehearse the GPU runs of profiling/gpu_budget.py on a CPU
#
# Everything runs in .venv, which the first call creates. With PYTHON=python3 that interpreter is used instead, and nothing is installed.
# PyTorch for the CPU alone: PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

VENV := .venv
WORKERS ?= 2
GPU_WORKERS ?= 4

# The triton of PyTorch 2.11, with which the kernels ran on a GPU. It compiles to other code than the
# triton in $(VENV), so it is checked separately.
OLDER_TRITON := 3.6.0

# This folder comes before the installed packages on the path. A second environment would need a
# second copy of PyTorch.
older_folder = $(VENV)/triton-$(OLDER_TRITON)

ifdef PYTHON
installed =
older_triton =
else
PYTHON := $(VENV)/bin/python
# The dev extra holds all the others.
installed = $(or $(wildcard $(VENV)/.installed-dev),$(VENV)/.installed-$(1))
older_triton = $(older_folder)/.installed
endif

.PHONY: demo check test mutations lint types kernels kernels-all docs dist web web-test gpu gpu-budget gpu-tests gpu-sanitize gpu-absent
# pip must not run twice at once in one environment
.NOTPARALLEL:

demo: $(call installed,plot)
	$(PYTHON) examples/demo.py

check: $(call installed,test)
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal --quick

test: $(call installed,test)
	$(PYTHON) -m pytest -n $(WORKERS) --dist worksteal --durations 25

mutations: $(call installed,dev)
	$(PYTHON) tests/mutations/run.py --workers $(WORKERS)

lint: $(call installed,dev)
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -c 'from importlinter.cli import lint_imports_command as lint; lint()' --no-logo

types: $(call installed,dev)
	$(PYTHON) -m mypy

kernels: $(call installed,test) $(older_triton)
	TRITON_INTERPRET=0 $(PYTHON) profiling/aot.py --check --target sm_90 --target gfx942
	$(if $(older_triton),PYTHONPATH=$(older_folder) TRITON_INTERPRET=0 $(PYTHON) profiling/aot.py --check --target sm_90)

kernels-all: $(call installed,test) $(older_triton)
	TRITON_INTERPRET=0 $(PYTHON) profiling/aot.py --check
	$(if $(older_triton),PYTHONPATH=$(older_folder) TRITON_INTERPRET=0 $(PYTHON) profiling/aot.py --check)

docs: $(call installed,docs)
	NO_MKDOCS_2_WARNING=1 $(PYTHON) -m mkdocs build --strict --quiet

dist: $(call installed,dev)
	rm -rf dist
	$(PYTHON) -m build --no-isolation --outdir dist
	$(PYTHON) tests/packaging/try_wheel.py dist/*.whl

web: $(call installed,test) web/node_modules/.installed
	$(PYTHON) web/assemble.py $(if $(DOCS),--docs $(DOCS))

web-test: web $(call installed,web)
	$(PYTHON) -m pytest -m web tests/web -n $(WORKERS) --dist loadfile --durations 5

web/node_modules/.installed: web/package-lock.json
	@command -v npm >/dev/null || { echo 'the page needs Node 20 and npm: https://nodejs.org' >&2; exit 1; }
	npm ci --prefix web --no-audit --no-fund --ignore-scripts
	@touch $@

gpu: $(call installed,test)
	@$(PYTHON) -c 'import importlib.util as u, sys; sys.exit(u.find_spec("melcap.kernels") is None)' || { \
	  echo 'melcap is not installed here: $(PYTHON) -m pip install --no-deps --no-build-isolation -e .' >&2; exit 1; }
	@cuda=$$($(PYTHON) -c 'import torch; print(torch.cuda.is_available())') || exit 1; \
	if [ "$$cuda" = True ]; then $(MAKE) --no-print-directory gpu-tests; \
	else $(MAKE) --no-print-directory gpu-absent; fi

gpu-tests:
	TRITON_INTERPRET=0 $(PYTHON) -m pytest -m gpu -n $(GPU_WORKERS) --dist loadfile
	$(PYTHON) profiling/kernels.py
	$(PYTHON) profiling/rtf.py --device cuda
	$(MAKE) --no-print-directory gpu-sanitize

# PyTorch's memory pool is off, so that each tensor is an allocation with its own bounds.
gpu-sanitize:
	@sanitizer=$$(command -v compute-sanitizer) || { \
	  echo 'LEFT OUT: compute-sanitizer is not on the PATH (it comes with the CUDA toolkit)'; exit 0; }; \
	for tool in memcheck racecheck; do \
	  TRITON_INTERPRET=0 PYTORCH_NO_CUDA_MEMORY_CACHING=1 $$sanitizer --tool $$tool --error-exitcode 1 \
	    $(PYTHON) -m pytest -m gpu tests/kernels/test_sanitized.py || exit 1; done

# docs/gpu-budget.md describes the steps after the rehearsal.
gpu-budget: $(call installed,test)
	$(PYTHON) -m pytest -m rehearsal

gpu-absent:
	@echo 'No CUDA device here: the GPU tests and benchmarks are left out, the checks that need none follow.'
	$(PYTHON) -m melcap doctor
	$(PYTHON) -m pytest tests/ops tests/kernels

# The newest Python that the pinned versions have wheels for is 3.14.
$(VENV)/.created:
	@for python in python3 python3.14 python3.13 python3.12 python3.11 python3.10; do \
	  if $$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then \
	    echo "making $(VENV) with $$($$python --version)"; \
	    $$python -m venv $(VENV) && touch $@; exit; \
	  fi; \
	done; \
	echo 'melcap needs Python 3.10 to 3.14: none of python3, python3.10 to python3.14 on the PATH is one.' >&2; exit 1

$(VENV)/.installed-%: pyproject.toml constraints.txt | $(VENV)/.created
	@echo 'installing melcap[$*] and what it needs into $(VENV); the first time PyTorch is downloaded'
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) -c constraints.txt -e '.[$*]'
	@touch $@

$(VENV)/triton-%/.installed: | $(VENV)/.created
	@$(PYTHON) -m pip install --quiet --disable-pip-version-check $(PIP_FLAGS) --no-deps --upgrade --target $(@D) triton==$*
	@touch $@

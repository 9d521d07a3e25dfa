# Every target sets up what it needs: a virtual environment beside this file, with the versions of constraints.txt.
# Only Python (3.11 or newer) and make have to be there.

# For benchmarks, PYTHON on the command line names the interpreter to measure with, and each has an environment of its
# own: make bench-kernel PYTHON=python3.13 uses .venv-bench-313. All other targets use the one in VENV whatever it says.
ifeq ($(origin PYTHON),command line)
BENCH_PYTHON := $(PYTHON)
BENCH_VENV := .venv-bench-$(subst .,,$(patsubst python%,%,$(notdir $(PYTHON))))
endif
BENCH_VENV ?= .venv-bench

VENV := .venv
override PYTHON := $(VENV)/bin/python
INPUTS := pyproject.toml constraints.txt

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1

PYTEST := -m pytest
QUICK := -m "not slow"
# All rules of flake8-async but 109, which forbids arguments named timeout (a grace period is data), 127, which wants
# another client library, and 910, 911, 913 (every async function always checkpoints): they cannot see through calls
# of private functions; tests/actors/test_checkpoints.py holds the public ones to it.
ASYNC_RULES := --disable=ASYNC109,ASYNC127,ASYNC910,ASYNC911,ASYNC913
# Passed through to pytest: make test PYTEST_ARGS="tests/kernel -x"
PYTEST_ARGS ?=
# Passed through to the run of mutants: make mutants MUTANTS_ARGS="drain --jobs 1"
MUTANTS_ARGS ?=
# Passed through to the run of broken inputs: make fuzz FUZZ_ARGS="--count 10000 --seed 2"
FUZZ_ARGS ?=
# Passed through to the soak: make soak SOAK_ARGS="--seconds 15 --only own"
SOAK_ARGS ?=
# Passed through to the demo: make demo DEMO_ARGS="--seed 2 --no-kill"
DEMO_ARGS ?=
# Passed through to the pre-training script.
PRETRAIN_ARGS ?=
# Passed through to a benchmark: make bench-kernel BENCH_ARGS="--only tell,ask --pairs 5"
BENCH_ARGS ?=
# Passed through to the example that is killed: make crash CRASH_ARGS="--seed 2"
CRASH_ARGS ?=
# Passed through to the comparison with the official client: make interop-codec INTEROP_ARGS="--examples 50"
INTEROP_ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# ---------------------------------------------------------------------------------------------------- environments

comma := ,
# $(call install,<venv>,<extras>,<what for>): hatchling comes first, so that the build obeys constraints.txt as well.
define install
	@echo "Installing into $(1), for $(3) ..."
	@$(1)/bin/python -m pip install -qq -c constraints.txt hatchling editables
	@$(1)/bin/python -m pip install -qq -c constraints.txt --no-build-isolation -e '.$(2)'
	@touch $@
endef

$(VENV)/bin/python:
	@python=$$(sh .ci/find-python 3.11 or-newer) && "$$python" -m venv $(VENV)

.venv-py312/bin/python:
	@python=$$(sh .ci/find-python 3.12) && "$$python" -m venv .venv-py312

.venv-py313/bin/python:
	@python=$$(sh .ci/find-python 3.13) && "$$python" -m venv .venv-py313

$(VENV)/.run: $(INPUTS) | $(PYTHON)
	$(call install,$(VENV),,the demo)

$(VENV)/.test: $(VENV)/.run
	$(call install,$(VENV),[test],the tests)

$(VENV)/.dev: $(VENV)/.test
	$(call install,$(VENV),[dev],the checks)

.venv-py312/.test: $(INPUTS) | .venv-py312/bin/python
	$(call install,.venv-py312,[test],the tests)

.venv-py313/.test: $(INPUTS) | .venv-py313/bin/python
	$(call install,.venv-py313,[test],the tests)

# A version that is not on PATH may be elsewhere; find-python knows where to look.
$(BENCH_VENV)/bin/python:
	@python=$$($(or $(BENCH_PYTHON),false) -c 'import sys; print(sys.executable)' 2>/dev/null) \
		|| python=$$(sh .ci/find-python $(patsubst python%,%,$(notdir $(or $(BENCH_PYTHON),3.11 or-newer)))) \
		&& "$$python" -m venv $(BENCH_VENV)

$(BENCH_VENV)/.bench: $(INPUTS) benchmarks/requirements.txt | $(BENCH_VENV)/bin/python
	$(call install,$(BENCH_VENV),,the benchmarks)
	@$(BENCH_VENV)/bin/python -m pip install -qq -c constraints.txt -r benchmarks/requirements.txt

# The official client has an environment of its own, with ours beside it.
.venv-tinker/bin/python:
	@python=$$(sh .ci/find-python 3.11 or-newer) && "$$python" -m venv .venv-tinker

.venv-tinker/.interop: $(INPUTS) tests/interop/requirements.txt | .venv-tinker/bin/python
	$(call install,.venv-tinker,[zstd],the official client)
	@.venv-tinker/bin/python -m pip install -qq -c constraints.txt -r tests/interop/requirements.txt
	@touch $@

# Packages with automatic gradients have an environment of their own: they are large. The pin of torch also admits a
# build without CUDA (2.13.0+cpu), which pip prefers where it finds one; else pip on Linux fetches CUDA as well.
.venv-torch/bin/python:
	@python=$$(sh .ci/find-python 3.11 or-newer) && "$$python" -m venv .venv-torch

.venv-torch/.gradients: $(INPUTS) | .venv-torch/bin/python
	$(call install,.venv-torch,[test$(comma)torch$(comma)jax$(comma)autograd],torch$(comma) jax and autograd)

# Servers that others wrote have environments of their own, and none of ours: their requirements contradict ours.
.venv-skyrl/bin/python:
	@python=$$(sh .ci/find-python 3.11) && "$$python" -m venv .venv-skyrl

.venv-skyrl/.server: tests/contract/servers/skyrl.txt | .venv-skyrl/bin/python
	@echo "Installing into .venv-skyrl, for SkyRL (2 GB, minutes) ..."
	@.venv-skyrl/bin/python -m pip install -qq -r tests/contract/servers/skyrl.txt
	@touch $@

.venv-tuft/bin/python:
	@python=$$(sh .ci/find-python 3.11) && "$$python" -m venv .venv-tuft

.venv-tuft/.server: tests/contract/servers/tuft.txt tests/contract/servers/tuft_itself.txt | .venv-tuft/bin/python
	@echo "Installing into .venv-tuft, for TuFT (1.5 GB, minutes) ..."
	@.venv-tuft/bin/python -m pip install -qq -r tests/contract/servers/tuft.txt
	@.venv-tuft/bin/python -m pip install -qq --no-deps -r tests/contract/servers/tuft_itself.txt
	@touch $@

# ------------------------------------------------------------------------------------------------------------- use

.PHONY: demo
demo: $(VENV)/.run ## train addition on the embedded service, lose the model on the way, and go on
	@$(VENV)/bin/tinker-actors demo $(DEMO_ARGS)

.PHONY: examples
examples: $(VENV)/.run ## run every example once, in its short form
	@for example in examples/*.py; do echo "== $$example --quick"; $(PYTHON) "$$example" --quick || exit 1; done

.PHONY: pretrain
pretrain: $(VENV)/.run ## train the base model of the embedded service anew
	$(PYTHON) tools/pretrain.py $(PRETRAIN_ARGS)

# ----------------------------------------------------------------------------------------------------------- tests

.PHONY: test
test: $(VENV)/.test ## the tests, all but the slow ones
	@$(PYTHON) $(PYTEST) $(QUICK) $(PYTEST_ARGS)

.PHONY: test-py312
test-py312: .venv-py312/.test ## the same on Python 3.12
	@.venv-py312/bin/python $(PYTEST) $(QUICK) $(PYTEST_ARGS)

.PHONY: test-py313
test-py313: .venv-py313/.test ## the same on Python 3.13
	@.venv-py313/bin/python $(PYTEST) $(QUICK) $(PYTEST_ARGS)

.PHONY: test-torch
test-torch: .venv-torch/.gradients ## losses written in torch, jax and autograd, with these packages (some GB, minutes at first)
	@.venv-torch/bin/python $(PYTEST) tests/bridges/gradients $(PYTEST_ARGS)

.PHONY: test-slow
test-slow: $(VENV)/.dev ## the slow tests only, in full, in two processes (15 to 20 minutes)
	@$(MAKE) --no-print-directory -j2 test-slow-runs test-slow-others

# One of them may have nothing to do with what PYTEST_ARGS selects: pytest then ends with 5.
.PHONY: test-slow-runs test-slow-others
test-slow-runs: $(VENV)/.dev
	@$(PYTHON) $(PYTEST) -m slow tests/runs tests/journal $(PYTEST_ARGS) || [ $$? = 5 ]

test-slow-others: $(VENV)/.dev
	@$(PYTHON) $(PYTEST) -m slow --ignore=tests/runs --ignore=tests/journal $(PYTEST_ARGS) || [ $$? = 5 ]

.PHONY: mutants
mutants: $(VENV)/.test ## break kernel, journal and recovery on purpose, a rule at a time: their tests must notice each time (minutes)
	@$(PYTHON) tools/run_mutants.py $(MUTANTS_ARGS)

.PHONY: fuzz
fuzz: $(VENV)/.test ## 200,000 broken inputs to all that reads the network: only our own errors may come out
	@$(PYTHON) tools/fuzz.py $(FUZZ_ARGS)

.PHONY: interop-codec
interop-codec: .venv-tinker/.interop ## our codecs against the official client's, over thousands of messages each way
	@.venv-tinker/bin/python tests/interop/codec.py $(INTEROP_ARGS)

.PHONY: soak
soak: $(VENV)/.run ## wear our connections and httpx's own down with callers who come and go (2 minutes)
	@$(PYTHON) tools/soak.py $(SOAK_ARGS)

.PHONY: crash
crash: $(VENV)/.run ## kill a run 20 times and its service 3 times: no step twice, none missing, the same weights (minutes)
	@$(PYTHON) examples/crash_and_resume.py --kills 20 --server-kills 3 $(CRASH_ARGS)

.PHONY: crash-skyrl
crash-skyrl: $(VENV)/.test .venv-skyrl/.server ## kill a run on SkyRL 5 times (2 GB and minutes at first)
	@$(PYTHON) tests/contract/crash.py skyrl $(CRASH_ARGS)

.PHONY: crash-tuft
crash-tuft: $(VENV)/.test .venv-tuft/.server ## the same on TuFT (1.5 GB and minutes at first)
	@$(PYTHON) tests/contract/crash.py tuft $(CRASH_ARGS)

.PHONY: coverage
coverage: $(VENV)/.dev ## the tests, with the lines and branches they did not reach
	@rm -f .coverage .coverage.*
	@$(PYTHON) -m coverage run $(PYTEST) $(QUICK) $(PYTEST_ARGS)
	@$(PYTHON) -m coverage combine -q
	@$(PYTHON) -m coverage report

.PHONY: coverage-pure
coverage-pure: $(VENV)/.dev ## wire and protocol by their own tests: every line and every branch
	@rm -f .coverage .coverage.*
	@$(PYTHON) -m coverage run $(PYTEST) -q $(QUICK) tests/wire tests/protocol
	@$(PYTHON) -m coverage combine -q
	@$(PYTHON) -m coverage report --fail-under=100 --include='*/tinker_actors/wire/*,*/tinker_actors/protocol/*'

# ------------------------------------------------------------------------------------------------------ benchmarks

.PHONY: bench-kernel
bench-kernel: $(BENCH_VENV)/.bench ## the kernel against bare trio channels, pykka and TriOTP, in CPU seconds
	@$(BENCH_VENV)/bin/python benchmarks/kernel.py $(BENCH_ARGS)

.PHONY: bench-transport
bench-transport: $(BENCH_VENV)/.bench .venv-tinker/.interop ## the clients against the official SDK, on a stub over loopback (20 minutes)
	@$(BENCH_VENV)/bin/python benchmarks/transport.py --official .venv-tinker/bin/python $(BENCH_ARGS)

.PHONY: bench-heartbeat
bench-heartbeat: $(BENCH_VENV)/.bench ## how late beats are while samples saturate, models compute and user code blocks (2 minutes)
	@$(BENCH_VENV)/bin/python benchmarks/heartbeat.py --both $(BENCH_ARGS)

.PHONY: bench-events
bench-events: $(BENCH_VENV)/.bench ## what writing the event file costs while samples are drawn at a steady rate (3 minutes)
	@$(BENCH_VENV)/bin/python benchmarks/event_file.py $(BENCH_ARGS)

.PHONY: bench-journal
bench-journal: $(BENCH_VENV)/.bench ## what the journal of a run costs: steps, batches, a whole run, opening 100,000 steps (3 minutes)
	@$(BENCH_VENV)/bin/python benchmarks/journal.py $(BENCH_ARGS)

# ---------------------------------------------------------------------------------------------------------- checks

.PHONY: lint
lint: $(VENV)/.dev ## ruff (rules and format) and flake8-async
	@$(PYTHON) -m ruff check
	@$(PYTHON) -m ruff format --check
	@find tinker_actors examples tools benchmarks -name '*.py' -exec $(VENV)/bin/flake8-async $(ASYNC_RULES) {} +

.PHONY: types
types: $(VENV)/.dev ## mypy --strict, pyright, and what both must and must not accept
	@$(PYTHON) -m mypy
	@$(PYTHON) -m pyright --pythonpath $(PYTHON)
	@PATH="$(abspath $(VENV))/bin:$$PATH" $(PYTHON) -m pyright --verifytypes tinker_actors.kernel --ignoreexternal >$(VENV)/public-types.txt || \
		{ cat $(VENV)/public-types.txt; exit 1; }
	@$(PYTHON) $(PYTEST) -q tests/test_typing.py

.PHONY: layers
layers: $(VENV)/.test ## the direction of imports
	@$(VENV)/bin/lint-imports --no-logo

.PHONY: check
check: lint types layers ## all static checks
	@$(PYTHON) $(PYTEST) -q tests/test_budgets.py tests/test_house.py tests/test_layers.py tests/docs

.PHONY: pages
pages: $(VENV)/.run ## write the generated pages of docs anew
	@$(PYTHON) tools/write_kernel_pages.py
	@$(PYTHON) tools/write_wire_pages.py
	@$(PYTHON) tools/write_requirement_pages.py
	@$(PYTHON) tools/write_channel_pages.py

# ---------------------------------------------------------------------------------------------------- distribution

.PHONY: wheel
wheel: $(VENV)/.dev ## the source distribution, and the wheel built from it, in dist/
	@rm -rf dist
	@$(PYTHON) -m build --no-isolation

.PHONY: clean
clean: ## remove what builds, checks and tests left (the environments stay)
	@rm -rf build dist htmlcov .coverage .coverage.* .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	@find tinker_actors tests examples tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

.PHONY: help
help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile

# Every target sets up what it needs. `make` alone lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TORCH  := $(VENV)/.torch
OLD_TFLITE := $(VENV)/tflite-runtime/.ready
TRITON := $(VENV)/tritonclient/.ready
CODE   := fleet converters agent hub tests benchmarks

# The benchmarks' peers, each in an environment of its own. This Python, by version or path, is for those that need
# a newer one than Muster does.
PEER_PYTHON ?= 3.12
PEERS  := $(addprefix $(VENV)/peers/converters,/.ready -tensorflow/.ready -onnxruntime/.ready -muster/.ready)
SERVERS := $(patsubst %,$(VENV)/peers/agent-%/.ready,mlserver bentoml litserve fastapi)

QUALITY_PEERS := $(addprefix $(VENV)/peers/drift-,$(addsuffix /.ready,nannyml river))
DRIFT_PEERS := $(addprefix $(VENV)/peers/drift-,$(addsuffix /.ready,whylogs datasketches evidently nannyml))

# Tests start hundreds of processes from these sources; compiled once, each starts sooner.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-torch demo test test-faults fmt lint types imports wheel-check lock check clean bench-converters bench-agent bench-drift bench-ingest bench-health bench-quality bench-gates bench-rollout bench-simulate bench-fleet

help: ## List the targets
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-16s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(READY) ## Make .venv with the locked dependencies and this project

$(READY): requirements/dev.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "Muster needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version)."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null \
		|| { echo "Python's venv module is missing: apt-get install python3-venv"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --require-hashes --requirement requirements/dev.lock
	@$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

setup-torch: $(TORCH) ## Add PyTorch to .venv, for its models and the tests that need it

# pip wants a hash for everything as soon as one constraint has one, so the lock is read without them.
$(TORCH): requirements/torch.txt $(READY)
	@echo "Installing PyTorch into $(VENV) ..."
	@sed -E '/^ +--hash=/d; s/ *\\$$//' requirements/dev.lock > $(VENV)/lock-without-hashes.txt
	@$(BIN)/python -m pip install --quiet --requirement requirements/torch.txt \
		--constraint $(VENV)/lock-without-hashes.txt $(ARGS)
	@touch $@

# The runtime of older devices, which needs an older numpy: in an environment of its own, for the tests. It has
# no build for Python 3.12 and newer; the tests that need it say so there.
$(OLD_TFLITE): requirements/tflite-runtime.lock $(READY)
	@$(BIN)/python -m venv $(@D)
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info >= (3, 12))'; then \
		$(@D)/bin/python -m pip install --quiet --require-hashes --requirement requirements/tflite-runtime.lock; \
	fi
	@touch $@

# A client of the local inference API that is not ours; it patches sockets, so not in .venv.
$(TRITON): requirements/tritonclient.lock $(READY)
	@$(BIN)/python -m venv $(@D)
	@$(@D)/bin/python -m pip install --quiet --require-hashes --requirement requirements/tritonclient.lock
	@touch $@

# What cannot be installed here is left out, and the benchmark says so.
$(VENV)/peers/drift-%/.ready: PEER_PYTHON = $(BIN)/python
$(VENV)/peers/%-muster/.ready $(VENV)/peers/%-onnxruntime/.ready: PEER_PYTHON = $(BIN)/python
$(VENV)/peers/agent-%/.ready: PEER_PYTHON = $(BIN)/python
$(VENV)/peers/%/.ready: requirements/peers-%.txt | $(READY)
	@echo "Installing $(<F) into $(@D) ..."
	@rm -rf $(@D)
	@{ $(BIN)/uv venv --quiet --python $(PEER_PYTHON) $(@D) \
		&& $(BIN)/uv pip install --quiet --compile-bytecode --python $(@D) --requirement $< && touch $@; } \
		|| { rm -rf $(@D); echo "$(<F) is left out: it cannot be installed with Python $(PEER_PYTHON)."; }

demo: $(READY) ## Run the whole story on an embedded broker, in under two minutes
	@$(BIN)/muster demo $(ARGS)

# Files go to the workers in their order, not by how many tests they have: those whose tests are short come last, and
# even out the end.
test: $(READY) $(OLD_TFLITE) $(TRITON) ## Run the test suite (and say so if Mosquitto is missing)
	@$(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder $(ARGS)

test-faults: $(READY) ## Try every fault at every place, and on every broker
	@MUSTER_ALL_FAULTS=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist load \
		-m "thorough or long" $(ARGS)

fmt: $(READY) ## Format the code
	@$(BIN)/ruff format $(CODE)
	@$(BIN)/ruff check --fix --quiet $(CODE)

lint: $(READY) ## Check style and formatting
	@$(BIN)/ruff check $(CODE)
	@$(BIN)/ruff format --check $(CODE)

types: $(READY) ## Check types, strictly
	@$(BIN)/mypy

imports: $(READY) ## Check who imports whom
	@$(BIN)/lint-imports

wheel-check: $(READY) ## Install the wheel as a device would and run the agent from it
	@$(BIN)/python tests/support/wheel_check.py

check: lint types imports wheel-check ## Everything but tests and demo

lock: ## Resolve the dependencies anew, with hashes, for every Python and platform
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" pyproject.toml -o requirements/agent.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" --extra hub --extra parquet --extra plot --extra tracing \
		--extra dev pyproject.toml -o requirements/dev.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" requirements/tflite-runtime.in \
		-o requirements/tflite-runtime.lock
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
		--no-emit-find-links --custom-compile-command "make lock" requirements/tritonclient.in \
		-o requirements/tritonclient.lock

bench-converters: $(TORCH) $(PEERS) ## Compare our conversions with others', side by side
	@$(BIN)/python -m benchmarks.converters $(ARGS)

bench-agent: $(READY) $(SERVERS) ## Compare the agent with other servers of models, side by side
	@$(BIN)/python -m benchmarks.agent $(ARGS)

bench-drift: $(READY) $(DRIFT_PEERS) ## Compare drift profiles and alarms with others', side by side
	@$(BIN)/python -m benchmarks.drift $(ARGS)

bench-quality: $(READY) $(QUALITY_PEERS) ## Compare estimated accuracies with the truth and with others'
	@$(BIN)/python -m benchmarks.quality $(ARGS)

bench-ingest: $(READY) ## Measure what taking in messages costs the hub, beside its peers
	@$(BIN)/python -m benchmarks.ingest $(ARGS)

bench-health: $(READY) ## Measure what health of a fleet of 100,000 devices costs
	@$(BIN)/python -m benchmarks.health $(ARGS)

bench-rollout: $(READY) ## Measure a rollout of 100,000 devices: reports through engine and store, memory
	@$(BIN)/python -m benchmarks.rollout $(ARGS)

bench-fleet: $(READY) ## Bring a version to thousands of real connections on Mosquitto
	@$(BIN)/python -m benchmarks.fleet $(ARGS)

bench-gates: $(READY) ## Measure how well gates decide, beside fixed thresholds
	@$(BIN)/python -m benchmarks.gates $(ARGS)

bench-simulate: $(READY) ## Measure a simulated rollout of a million devices, and how the ready scenarios end
	@$(BIN)/python -m benchmarks.simulate $(ARGS)

clean: ## Remove what was built and installed here
	@rm -rf $(VENV) build dist *.egg-info .import_linter_cache .mypy_cache .ruff_cache .pytest_cache .hypothesis

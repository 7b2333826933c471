# Personal Health Train for radiology. `make help` lists the targets.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PY := .venv/bin/python
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1
export PYTHON
DATA ?=
STAGE = @bash .ci/stage

.PHONY: help setup engine engines reader tools images images-cuda lock-base demo gpu-check test test-rootless lint fast fuzz faults bench-round bench-scale bench-data bench-map bench-guard bench-noise bench-strategies bench-judging bench-patches bench-training study record-protocol clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

setup: ## make .venv with the four programs and the tests' needs
	$(STAGE) setup bash .ci/setup

engine: ## see that a Docker engine answers (installs one as root on Debian/Ubuntu)
	$(STAGE) engine bash .ci/engine

engines: engine ## see that the further engines of the tests can be started: a newer Docker, gVisor (made as root on Debian/Ubuntu)
	$(STAGE) engines bash .ci/engines

images: setup engine ## build the base images that trains are made on
	$(STAGE) images $(PY) -m train_images.base

reader: ## see that tesseract is there, with which stations look for burned-in text (installs it as root on Debian/Ubuntu)
	$(STAGE) reader bash .ci/tools tesseract

tools: ## see that the tests' PACS, dcmtk and DICOM checkers are there (installs them as root on Debian/Ubuntu)
	$(STAGE) tools bash .ci/tools all

lock-base: setup ## write the base images' lists of wheels again, with hashes (UPGRADE=1: the newest that fit)
	$(PY) -m train_images.base.lock $(if $(UPGRADE),--upgrade)

images-cuda: setup engine ## build the torch base image for NVIDIA's GPUs (2.4 GB fetched)
	$(PY) -m train_images.base --variant cuda

demo: setup engine reader images ## the main job: three hospitals train one model; results in demo-output/
	$(STAGE) demo $(PY) -m tests.e2e.demo --output demo-output $(if $(DATA),--data $(DATA))

# Stages of their own, so that the two lines of `make test` end at about the same time.
TRAIN_TESTS := tests/integration/trains tests/integration/train_images

test: setup engine engines reader tools images lint ## run every test, in two lines beside each other where there are two cores
	@$(PY) .ci/lines.py 'integration=tests/integration $(TRAIN_TESTS:%=--ignore=%)' unit=tests/unit security=tests/security \
	                    end-to-end=tests/e2e $(foreach each,$(TRAIN_TESTS),$(notdir $(each))=$(each)) contracts=tests/contracts faults=tests/faults
	@bash .ci/stage --report

fast: ## only the quick tests (needs: make setup)
	$(PY) -m pytest tests/unit -q -m "not docker and not superlink"

fuzz: setup ## the property tests with new random examples, thirty times as many
	PHT_HYPOTHESIS=pht-fuzz $(PY) -m pytest tests/unit tests/contracts tests/security -q -m hypothesis

gpu-check: setup ## discovery, leases, scrubbing and a container on this machine's own GPU (never part of make test)
	$(STAGE) gpu bash .ci/gpu

test-rootless: setup engine ## the launcher's contract under a rootless Podman, in a Linux of its own (root on Debian; minutes; not part of make test)
	$(STAGE) test-rootless bash .ci/rootless

lint: setup ## ruff and mypy strict
	$(STAGE) lint bash -c '.venv/bin/ruff check . && .venv/bin/ruff format --check -q . && .venv/bin/mypy'

faults: setup engine images ## kill, cut, fill and step whatever there is while runs go on: FAULTS=200 SEED=... (root; an hour)
	$(PY) -m tests.faults.run --faults $(or $(FAULTS),200) $(if $(SEED),--seed $(SEED)) $(if $(MINUTES),--minutes $(MINUTES)) --keep faults-output

bench-round: setup engine images ## round overhead against stock Flower, as a ratio
	$(PY) -u -m tests.bench.bench_round

bench-scale: setup ## what 100 stations cost one orchestrator, as ratios, in 25 minutes: SCALE="--scenes rounds,links --stations 10,30 --minutes 10"
	$(PY) -u -m tests.bench.bench_scale $(SCALE)

record-protocol: setup ## record what this version's station and orchestrator say to each other (once per version; see policies/README.md)
	PYTHONPATH=tests:tests/integration/orchestrator:tests/contracts/protocol:. $(PY) tests/contracts/protocol/record.py

bench-map: setup engine ## what a container per patient costs, as ratios
	$(PY) -m tests.bench.bench_map

bench-guard: setup ## the egress guard at 100 and 400 MB against one read of the bytes, as ratios
	$(PY) -m tests.bench.bench_guard

bench-noise: setup ## what noise costs: draws, and an update of 100 MB beside the same without, as ratios
	$(PY) -m tests.bench.bench_noise

bench-strategies: setup ## what each aggregation strategy costs at 100 MB and three stations beside one read of the bytes, as ratios
	$(PY) -m tests.bench.bench_strategies

bench-judging: setup ## what judging stations' updates costs beside one read of them, by one thread and as a stage does it
	$(PY) -m tests.bench.bench_judging

bench-patches: setup ## patches and whole volumes through our reader against MONAI's own transforms and DICOM, as ratios
	$(PY) -m tests.bench.bench_patches

bench-training: setup engine images ## training in the sandbox against the same code outside of it, as a ratio
	$(PY) -m tests.bench.bench_sandbox_training

study: setup ## what hospitals get from training together, over seeds, on ../shared/data/cxr (an hour): STUDY="--seeds 10 --out FOLDER"
	$(PY) -m tests.bench.study $(STUDY)

bench-data: setup tools ## pseudonymisation, reception and cohorts against their peers, as ratios
	$(PY) -m tests.bench.bench_data

clean: ## remove what the demo and the tests left in this folder
	rm -rf demo-output faults-output study-output .mypy_cache .ruff_cache .pytest_cache .hypothesis build *.egg-info

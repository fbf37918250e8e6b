# make demo                 a small project from nothing, or DATA=folder-or-star for your own particles
# make test                 all tests     (TESTS=… for some, CRYOLIKE_REQUIRE_ALL=1: a skipped test fails)
# make bench                every speed table as Markdown (BENCH_OPTIONS=--full: the published settings, hours)
# make calibration          are the probabilities what they claim? populations, structures, poses (hours; CALIBRATION=… for less)
# make convergence          are sums over poses those of a grid four times finer? (minutes)
# make limit                structures told apart with contrast and noise known and learned: the two_state data (minutes)
# make junk               areas under the curve of junk, real particles beside decoys (minutes)
# make fairness             one structure as map, sharpened, re-boxed and as atoms against another one (minutes)
# make proof                RELION goes on from our poses, and its E-step beside our search: 2,000 particles, minutes
# make screenshots          the pictures of docs/, from a Scipion window on a screen that nobody sees
# make lint | clean
PYTHON ?= python3.11
VENV ?= .venv
TESTS ?= cryolike_scipion/tests
DEMO_OUT ?= demo_output
CALIBRATION ?=
BENCH_OPTIONS ?=
TWO_STATE ?= ../shared/data/two_state
JOBS ?= 2

# Their readers are tested; installed beside the environment, or Scipion would load their protocols everywhere.
OTHER_PLUGINS := scipion-em-cryosparc2==5.0.1 scipion-em-xmipp==29.0.1
BIN := $(VENV)/bin
TORCH := $(shell sed -n 's/^ *"\(torch==[^"]*\)",$$/\1/p' cryolike_scipion/constants.py)

.PHONY: demo test lint bench calibration convergence limit fairness junk proof screenshots clean environment

environment: $(VENV)/.ready

# torch first and pinned: otherwise its dependants choose another one, with gigabytes of CUDA libraries.
$(VENV)/.ready: setup.py pyproject.toml requirements-test.txt cryolike_scipion/constants.py
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install "$(TORCH)"
	$(BIN)/python -m pip install -e ".[engine]" -r requirements-test.txt
	$(BIN)/python -m pip install --no-deps --upgrade --target $(VENV)/other-plugins $(OTHER_PLUGINS)
	touch $@

demo: environment
	$(BIN)/python tools/demo.py --out "$(DEMO_OUT)" $(if $(DATA),--data "$(DATA)")

test: environment
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(TESTS) $(PYTEST_OPTIONS)

lint: environment
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	$(BIN)/python -m mypy cryolike_scipion/engine cryolike_scipion/convert cryolike_scipion/parameters.py cryolike_scipion/cli.py

bench: environment
	$(BIN)/python benchmarks/all.py $(BENCH_OPTIONS)

calibration: environment
	$(BIN)/python benchmarks/ensemble.py --largest
	$(BIN)/python benchmarks/calibration.py --out calibration_output $(CALIBRATION)

convergence: environment
	$(BIN)/python benchmarks/convergence.py --out calibration_output/convergence

limit: environment
	$(BIN)/python benchmarks/known_scale.py --data "$(TWO_STATE)" --out calibration_output/limit

fairness: environment
	$(BIN)/python benchmarks/fairness.py --out calibration_output/fairness

junk: environment
	$(BIN)/python benchmarks/junk.py --out calibration_output/junk --data "$(dir $(TWO_STATE))"

proof: environment
	$(BIN)/python benchmarks/beside_relion.py --count 2000 --box 64 --resolution 8

screenshots: environment
	OMP_NUM_THREADS=1 $(BIN)/python tools/screenshots.py

clean:
	rm -rf $(DEMO_OUT) calibration_output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find cryolike_scipion tools benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

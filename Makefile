PYTHON ?= python3
MODELS = moons_plain moons_residual moons_gated mnist1d_resnet
BIN = .venv/bin
MODEL ?= moons_residual
RATE ?= 100
REQUESTS ?= 100000
SECONDS ?= 1800
SLO ?= p50=15ms,p99=50ms,errors=0
# Processes that run tests; each takes a gigabyte.
WORKERS ?= 2
PYTEST = $(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder
# Tests start hundreds of processes: what each imports is compiled once.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: serve fast test coverage load soak bench figures docs clean

serve: .venv/serve  ## build what is missing, then serve on 127.0.0.1:8080
	$(BIN)/skipserve build $(MODELS:%=export/%.toml)
	exec $(BIN)/skipserve serve --server torchserve $(MODELS)

fast: .venv/dev  ## style, types and the tests that start no service and build no model
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/mypy
	$(PYTEST) -q --hypothesis-profile fast -m "not server and not slow and not extras"

test: .venv/dev  ## style, types and tests; WORKERS= changes how many run at once
	tests/install-tools.sh
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(PYTEST) --durations 25

coverage: .venv/dev  ## the tests, and which lines they run
	tests/install-tools.sh
	$(PYTEST) --cov --cov-report=term

load: .venv/load  ## load test of moons_residual: PASS, FAIL or INVALID; MODEL=, RATE=, SLO= change it
	$(BIN)/skipserve build export/$(MODEL).toml
	$(BIN)/skipserve loadtest --start --model $(MODEL) --rate $(RATE) --duration 30 --slo $(SLO)

soak: .venv/dev  ## 100,000 requests that are nearly right, and half an hour of them; SECONDS= changes it
	SKIPSERVE_FUZZ=$(REQUESTS) SKIPSERVE_SOAK=$(SECONDS) $(BIN)/python -m pytest tests/hosts/test_fuzz.py -q -s

bench: .venv/dev  ## the benchmarks that need no other data; docs/benchmarks.md has the others
	$(BIN)/skipserve build export/moons_residual.toml export/mnist1d_resnet.toml export/mnist1d_encoder.toml
	$(BIN)/python benchmarks/overhead.py
	$(BIN)/python benchmarks/depth.py
	$(BIN)/python benchmarks/signals.py
	$(BIN)/python benchmarks/guarantee.py
	$(BIN)/python benchmarks/guard.py
	$(BIN)/python benchmarks/routing.py
	$(BIN)/python benchmarks/routing.py --model mnist1d_encoder

figures: .venv/serve  ## the figure of the experiment
	$(BIN)/skipserve build export/moons_plain.toml export/moons_residual.toml
	$(BIN)/skipserve plot checkpoints/moons_plain checkpoints/moons_residual --out docs/gradients.png

docs: .venv/docs  ## the manual as a site that opens from disk: site/index.html
	$(BIN)/mkdocs build --strict --quiet

clean:  ## forget everything that was built
	rm -rf .venv .build site checkpoints artifacts model_store/*.mar model_store/*.versions

.venv/python:
	$(PYTHON) -m venv .venv
	touch $@

.venv/serve: .venv/python pyproject.toml
	@echo "installing packages: 2 GB, some minutes, without further output"
	$(BIN)/pip install --quiet --no-compile --editable '.[cpu,train,torchserve]'
	touch $@

.venv/load: .venv/serve
	$(BIN)/pip install --quiet --editable '.[cpu,train,torchserve,loadtest]'
	touch $@

.venv/docs: .venv/serve
	$(BIN)/pip install --quiet --editable '.[cpu,train,torchserve,docs]'
	touch $@

.venv/dev: .venv/serve
	$(BIN)/pip install --quiet --editable '.[cpu,train,torchserve,loadtest,dev]'
	# What `make serve` left uncompiled. Some packages hold files that are no Python of this version.
	$(BIN)/python -W ignore -m compileall -qq -j 0 .venv/lib || true
	touch $@

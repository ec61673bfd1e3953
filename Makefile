# Convoy's commands. Each does its own set-up; `make setup` alone is rarely needed.
.PHONY: setup demo demo-finetune demo-photos test tests waiting test-wheel test-slow test-oldest test-parity test-parity-slow test-dali test-export test-trackers test-cluster bench lint style types docs notebook clean

PY := .venv/bin/python
QUICK := "not slow and not cluster and not multihost"

setup:  ## create .venv with pinned packages and a Horovod built here
	@scripts/setup.sh

demo: setup  ## train EfficientNet-B0 on real images and label a folder of JPEGs
	@scripts/demo.sh

demo-finetune: setup  ## fine-tune a checkpoint on new classes, against training from scratch; SEEDS=5
	@scripts/demo_finetune.sh

demo-photos: setup  ## label photographs with ImageNet's weights, and fine-tune these on pieces of photographs
	@scripts/demo_photos.sh

test: setup style  ## lint, and what a change can break, within 15 minutes on 2 cores
	@$(MAKE) --no-print-directory --jobs=3 types waiting tests

# Tests that mostly wait for the processes that they start: a third process runs them while the others compute.
WAITING := tests/utils/watchdog tests/integration/test_interruptions.py

tests:  # beside mypy, which uses one core for a minute; tests start other builds, which are not part of this make
	@env -u MAKEFLAGS $(PY) -m pytest -m $(QUICK) $(WAITING:%=--ignore=%) -n 2 --dist loadfile --no-loadscope-reorder

waiting:
	@env -u MAKEFLAGS $(PY) -m pytest -m $(QUICK) $(WAITING)

test-wheel: setup  ## build the wheel, and run it outside the checkout beside a user's own utils.py
	@$(PY) -m pytest tests/integration/test_wheel.py

test-slow: setup  ## the tests that take minutes
	@$(PY) -m pytest -m slow

test-oldest:  ## the same as `make test` with TensorFlow 2.18, in an environment of its own
	@VENV=.venv-oldest TENSORFLOW=2.18 scripts/setup.sh
	@.venv-oldest/bin/python -m pytest -m $(QUICK) -n 2 --dist loadfile --no-loadscope-reorder

test-parity: .venv-parity/installed  ## our models against PyTorch's, in an environment of its own
	@.venv-parity/bin/python -m pytest -m "not slow" -n 2 tests/parity

test-parity-slow: .venv-parity/installed  ## the same for B7, B8 and L2, which take gigabytes
	@.venv-parity/bin/python -m pytest -m slow tests/parity

.venv-parity/installed: constraints.txt pyproject.toml
	@test -x .venv-parity/bin/python || python3 -m venv .venv-parity
	@.venv-parity/bin/python -m pip install -qq -c constraints.txt -e ".[cpu,dev,parity]"
	@touch $@

test-export:  ## exports in every format, ONNX and Parquet among them, in an environment of its own
	@VENV=.venv-export EXTRAS=export,parquet scripts/setup.sh
	@.venv-export/bin/python -m pytest tests/runtime/export/test_export.py tests/runtime/export/test_onnx_graph.py tests/runtime/export/test_onnx_int8.py tests/runtime/predict tests/runtime/evaluate/test_by_export.py tests/runtime/benchmark/test_benchmark.py

test-trackers:  ## W&B offline and MLflow's files, in an environment of its own
	@VENV=.venv-trackers EXTRAS=wandb,mlflow scripts/setup.sh
	@.venv-trackers/bin/python -m pytest tests/runtime/trackers/test_workers.py

test-dali:  ## input through DALI, on the CPU, in an environment of its own
	@VENV=.venv-dali EXTRAS=dali scripts/setup.sh
	@.venv-dali/bin/python -m pytest tests/dali

test-cluster: setup  ## jobs on a Slurm started for it, and hosts made of network namespaces (root)
	@scripts/cluster_tools.sh
	@$(PY) -m pytest -m "cluster or multihost" tests/cluster

bench:  ## measure Convoy beside others, in an environment of its own; ONLY="word …", WRITE=1: into docs/
	@VENV=.venv-bench EXTRAS=export,dali,bench scripts/setup.sh
	@.venv-bench/bin/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(WRITE),--write)

lint: style  ## style, and types
	@$(MAKE) --no-print-directory types

style: setup
	@$(PY) -m ruff check . && $(PY) -m ruff format --check .

types:
	@$(PY) scripts/check_types.py

docs: .venv-docs/installed  ## the pages of docs/ as a site in build/docs; a broken link is an error
	@NO_MKDOCS_2_WARNING=1 .venv-docs/bin/python -m mkdocs build --strict

notebook: .venv-docs/installed  ## execute the notebook in place, after its cells or what they call changed
	@.venv-docs/bin/python scripts/run_notebook.py

.venv-docs/installed: constraints.txt pyproject.toml
	@test -x .venv-docs/bin/python || python3 -m venv .venv-docs
	@.venv-docs/bin/python -m pip install -qq -c constraints.txt -e ".[cpu,demo,docs,report]"
	@touch $@

clean:  ## remove what make created in this folder
	rm -rf .venv .venv-oldest .venv-parity .venv-dali .venv-export .venv-trackers .venv-bench .venv-bundle .venv-docs demo demo-finetune demo-photos build *.egg-info
	rm -f dataloader/native/convoy-* dataloader/plain/native/convoy-* model/native/convoy-*

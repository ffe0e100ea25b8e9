# make demo   install, then localise a replayed drive on a real ROS 2 graph
# make test   install, then run the tests on all cores, four at most; the slowest ten are listed
# make check  format, lint, types, tests
# make soak   load and faults for longer than a test may take; docs/robustness.md has its tables
# make card   DATA=folder: the figures of the model that ships, docs/model_card.md
# make fix    format and mend what can be mended
# make docs   the API reference, into site/

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test soak card check docs fix install browser clean

install: $(VENV)/installed
ifneq ($(filter install,$(MAKECMDGOALS)),)
	@echo "Installed. In the folder that your photographs and the bag of your drive are in:"
	@echo "next: . '$$(cd $(VENV) && pwd)/bin/activate' && geowarp doctor"
endif

$(VENV)/installed: setup.py setup.cfg constraints.txt .ci/system-packages
	bash .ci/system-packages $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip "setuptools<80" wheel
	$(PIP) install --quiet --constraint constraints.txt torch
	$(PIP) install --quiet --constraint constraints.txt --editable ".[ros,lab,test,docs]"
	touch $@

# in which the tests look at the evaluation's reports; the demo does without
browser:
	bash .ci/system-packages $(PYTHON) browser

demo: install
	$(BIN)/geowarp demo --output demo

# one worker a core, each with one thread (test/conftest.py); an idle worker takes tests over from a busy one
TESTS := $(BIN)/python -m pytest --numprocesses logical --maxprocesses 4 --dist worksteal

test: install browser
	$(TESTS)

soak: install
	$(BIN)/python -m test.soak

METHODS := --set rerank.mode=exact --rerank none geowarp-unwarped geowarp sift

card: install
	test -d $(DATA)/world || $(BIN)/geowarp world --seed 7 --streets 4 --val-streets 4 --train-streets 40 --no-drive --output $(DATA)/world
	$(BIN)/geowarp evaluate dataset $(DATA)/world --gallery-split gallery --query-split query --thresholds 5 10 25 $(METHODS) --output runs/card/world
	$(BIN)/geowarp evaluate dataset $(DATA)/tower --thresholds 1.5 2 3 5 10 25 $(METHODS) --output runs/card/tower
	$(BIN)/geowarp evaluate dataset $(DATA)/seneca --thresholds 10 25 50 $(METHODS) --output runs/card/seneca
	$(BIN)/geowarp evaluate dataset $(DATA)/lund --every 2 --thresholds 5 10 25 $(METHODS) --output runs/card/lund

check: install browser
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(TESTS)

fix: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

ROOMS := geowarp_ros $(filter-out geowarp_ros.__init__ geowarp_ros.lab,$(subst /,.,$(sort \
	$(patsubst %.py,%,$(wildcard geowarp_ros/*.py)) $(patsubst %/__init__.py,%,$(wildcard geowarp_ros/*/__init__.py)))))

# the API reference from the docstrings: site/geowarp_ros.html; launch is not among the wheels of ROS 2
docs: install
	$(BIN)/python -m pdoc --docformat google --output-directory site $(ROOMS) '!geowarp_ros.ros.launching'

clean:
	rm -rf $(VENV) demo build install log site *.egg-info

# Each target is a line that you could type yourself.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PARAMETERS ?= notebooks/parameters/demo.yaml
FLAGS = -f $(PARAMETERS) $(if $(DATA),-r DATA_DIR "$(DATA)") $(if $(WEIGHTS),-r WEIGHTS "$(WEIGHTS)") \
    $(if $(EXTERNAL),-r EXTERNAL_DIR "$(EXTERNAL)")
FETCH.kaggle = kaggle_client download $(if $(DATASET),--dataset "$(DATASET)")
FETCH.isic = isic_archive

.PHONY: help install submission test lint lab app charts bench data submit
help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/'

install: .venv/installed  ## .venv with all that requirements.txt names
.venv/installed: requirements.txt pyproject.toml
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --disable-pip-version-check --progress-bar off -r requirements.txt
	touch $@

submission: install  ## notebooks 01-05: [DATA=DIR] [PARAMETERS=FILE.yaml] [WEIGHTS=FILE] [EXTERNAL=DIR]; the synthetic competition without DATA
	.venv/bin/python -m melanoma_utils.pipeline $(FLAGS) $(ARGS)

test: install  ## all tests but the slow ones; make test SLOW=1 runs those too
	@echo "slow tests: $(if $(SLOW),included,left out; make test SLOW=1 runs them). Tests on real data: MELANOMA_REAL_DATA=$(or $(MELANOMA_REAL_DATA),DIR runs them)"
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -n logical --maxprocesses 4 --dist worksteal $(if $(SLOW),,-m "not slow")

lint: install  ## ruff over modules, notebooks and tests
	.venv/bin/ruff check .

lab: install  ## Jupyter in the project's folder
	.venv/bin/jupyter lab

app: install  ## the demo in a browser, for this machine alone: http://localhost:8501; [ARGS="--server.port 8502"]
	TMPDIR=$$(test -w /dev/shm && echo /dev/shm || echo $${TMPDIR:-/tmp}) .venv/bin/python -m streamlit run Streamlit/app.py $(ARGS)

charts: install  ## EDA/charts from the tables of a competition folder: DATA=DIR
	$(if $(DATA),,$(error say whose tables: make charts DATA=DIR))
	.venv/bin/python -m melanoma_utils.pipeline --notebook 01_explore_metadata -r DATA_DIR "$(DATA)" -r CHARTS_DIR EDA/charts

bench: install  ## output/benchmark.csv: what is how fast beside what, on this machine; [PHOTOGRAPHS=DIR of large JPEG files]
	.venv/bin/python -m melanoma_utils.pipeline --notebook 10_benchmark $(if $(PHOTOGRAPHS),-r PHOTOGRAPHS_DIR "$(PHOTOGRAPHS)") $(ARGS)

data: install  ## the competition's data: [SOURCE=kaggle|isic] [DATASET=OWNER/NAME, a mirror on Kaggle] [DATA=input/siim-isic]
	.venv/bin/python -m melanoma_utils.$(or $(FETCH.$(or $(SOURCE),kaggle)),$(error SOURCE=$(SOURCE) is not one of kaggle, isic)) "$(or $(DATA),input/siim-isic)"

submit: install  ## send submissions/NAME.csv to Kaggle: EXPERIMENT=NAME [MESSAGE="..."]
	$(if $(EXPERIMENT),,$(error say which: make submit EXPERIMENT=NAME MESSAGE="..."))
	.venv/bin/python -m melanoma_utils.kaggle_client submit "submissions/$(EXPERIMENT).csv" -m "$(or $(MESSAGE),$(EXPERIMENT))"

# A thin door to kdrv: its environment, and the two commands of the README.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test fast lint clean

demo: $(VENV)/kdrv
	$(BIN)/kdrv demo

test: lint fast
	$(BIN)/python -m pytest tests/real -n 2 --dist loadfile --no-loadscope-reorder

fast: $(VENV)/dev
	$(BIN)/python -m pytest -q tests/fast

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(VENV)/kdrv: pyproject.toml
	$(call venv,-e .)

$(VENV)/dev: pyproject.toml
	$(call venv,-e '.[dev]')
	@touch $(VENV)/kdrv

# Debian ships venv apart from Python; root gets it installed, others are told how.
define venv
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { [ "$$(id -u)" = 0 ] && \
	  apt-get update -q && apt-get install -y -q --no-install-recommends python3-venv; } || \
	  { echo 'kdrv: Python has no venv; remedy: sudo apt-get install -y python3-venv' >&2; exit 2; }
	@[ -x $(BIN)/python ] || { echo "kdrv: making $(VENV)" && $(PYTHON) -m venv $(VENV); }
	@echo 'kdrv: installing kdrv and its Python packages into $(VENV)'
	@$(BIN)/python -m pip install -q --disable-pip-version-check $(1) 2> $(VENV)/pip.log || \
	  { cat $(VENV)/pip.log >&2; exit 2; }
	@touch $@
endef

clean:
	rm -rf $(VENV)

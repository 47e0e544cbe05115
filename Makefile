# Python 3.11 or newer, make and git are all that a machine needs; everything else goes into $(VENV).
# `make PYTHON=python3.13 VENV=.venv-3.13 test` works with another interpreter, beside the first.
# The checkout's path may contain spaces; VENV may not, because it names targets.

VENV ?= .venv
PYTHON ?=
PYTEST_ARGS ?=
PIP = "$(VENV)/bin/python" -m pip --disable-pip-version-check
CACHES = .pytest_cache .ruff_cache .mypy_cache .import_linter_cache .hypothesis build understudy.egg-info

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # Two installations at once into one environment would damage it.
.PHONY: help demo test nightly check format setup constraints clean

help: ## List these targets.
	@sed -n 's/^\([a-z]*\):[^#]*## /\1\t/p' Makefile | while IFS='	' read -r target text; do \
		printf '  make %-12s %s\n' "$$target" "$$text"; \
	done

demo: $(VENV)/.installed-cli ## Send a batch of texts over three model servers that fail, and compare the books.
	@"$(VENV)/bin/understudy" demo

test: $(VENV)/.installed-dev ## Run every test, doctest and documentation block; long proofs for a tenth of their length.
	@"$(VENV)/bin/pytest" --numprocesses auto --dist worksteal $(PYTEST_ARGS)

nightly: $(VENV)/.installed-dev ## Run every test in its whole length, benchmarks too, and say how long each part took.
	@"$(VENV)/bin/pytest" --numprocesses auto --dist worksteal --nightly --durations 25 --durations-min 5 $(PYTEST_ARGS)

check: $(VENV)/.installed-dev $(VENV)/linter/.installed ## Check format, lint, strict types and import contracts.
	"$(VENV)/bin/ruff" format --check .
	"$(VENV)/bin/ruff" check .
	"$(VENV)/bin/basedpyright" --pythonpath "$(VENV)/bin/python"
# Its cache would not notice that a module which others import has been added since.
	"$(VENV)/linter/bin/lint-imports" --no-cache
# A warning and no failure; where there is no history, there is nothing to warn of.
	@test ! -e .git || git log -50 --no-merges --format=%s 2>/dev/null | awk '\
		length > 60 && ++found <= 10 { named = named "\n  " $$0 } \
		END { if (found) print "WARNING: of the last " NR " commits, " found " have a subject of more than 60" \
			" characters" (found > 10 ? ", such as:" : ":") named }'

format: $(VENV)/.installed-dev ## Format the code and apply the safe fixes of the linter.
	"$(VENV)/bin/ruff" format .
	"$(VENV)/bin/ruff" check --fix .

setup: $(VENV)/.installed-dev ## Set up the environment for development, and nothing else.

# A stamp newer than both files says that pip has nothing to do, so the next start costs no more than make.
$(VENV)/.installed-cli: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing understudy into $(VENV) (once) ..."
	@$(PIP) install --quiet --editable '.[cli,http,serve]' --constraint constraints.txt
	@touch "$@"

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/pip
	@echo "Installing understudy and its development tools into $(VENV) (once) ..."
	@$(PIP) install --quiet --editable '.[dev]' --constraint constraints.txt
	@touch "$(VENV)/.installed-cli" "$@"

# It reads the packages as text, so it needs none of what they import; what it needs itself does not go with that.
$(VENV)/linter/.installed: .ci/import-linter.txt | $(VENV)/bin/pip
	@"$(VENV)/bin/python" -m venv "$(VENV)/linter"
	@"$(VENV)/linter/bin/python" -m pip --disable-pip-version-check install --quiet --requirement .ci/import-linter.txt
	@touch "$@"

# pip is the last thing that venv writes: where it exists, the environment is whole.
$(VENV)/bin/pip:
	@set -- python3.11 python3 python3.12 python3.13; \
	if [ -n "$(PYTHON)" ]; then set -- "$(PYTHON)"; fi; \
	for candidate in "$$@"; do \
		if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; then \
			echo "Creating $(VENV) with $$candidate ..."; \
			"$$candidate" -m venv "$(VENV)" && exit 0; \
			echo "error: '$$candidate -m venv $(VENV)' failed; on Debian and Ubuntu, install the package" \
				"python3-venv (or python3.11-venv)." >&2; \
			exit 1; \
		fi; \
	done; \
	echo "error: no Python 3.11 or newer among: $$*. Install one, or name yours:" \
		"make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1

constraints: ## Refresh constraints.txt with the newest versions that pyproject.toml allows.
	@rm -rf "$(VENV)-constraints"
	@$(MAKE) --no-print-directory VENV="$(VENV)-constraints" "$(VENV)-constraints/bin/pip"
	@"$(VENV)-constraints/bin/python" -m pip --disable-pip-version-check install --quiet --editable '.[agirails,cli,dev,http,test,uvloop]'
	@sed -n '/^[^#]/q;p' constraints.txt > "$(VENV)-constraints/constraints.txt"
	@"$(VENV)-constraints/bin/python" -m pip --disable-pip-version-check list --format=freeze --exclude-editable \
		--exclude pip --exclude setuptools >> "$(VENV)-constraints/constraints.txt"
	@mv "$(VENV)-constraints/constraints.txt" constraints.txt
	@rm -rf "$(VENV)-constraints"

clean: ## Remove the environment, the caches and what a build leaves.
	rm -rf "$(VENV)" $(CACHES)
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

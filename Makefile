# Needs GNU make, a Python, and PyPI (or a mirror of it, as pip is configured).

# The first of these that is new enough, and not too new for the Airflow in question, makes the environments.
PYTHON ?= python3
PYTHONS = "$(PYTHON)" python3.13 python3.12 python3.11

# As Debian calls it.
CHROMIUM ?= chromium

# Hundreds of processes import the same modules. Without bytecode each compiles them, and pytest rewrites all tests.
unexport PYTHONDONTWRITEBYTECODE

PIP_INSTALL = python -m pip --disable-pip-version-check install --quiet

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo check test test-client test-airflow test-spark test-lowest test-newest test-2.11 test-3.3 test-matrix test-browser needs-chromium test-deployment explore chaos corpus bench bench-imports bench-parse bench-breakage official-names clean

help: ## List what can be made
	@sed -n 's/^\([a-z0-9.-]*\):.*## \(.*\)/\1|\2/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-16s %s\n' "$$name" "$$text"; \
	done

demo: .venv/installed ## Run the example DAGs on a real Airflow; KEEP=1 keeps it up to look at
	@PYTHONPATH=tests/support .venv/bin/python tests/tools/demo.py $(if $(KEEP),--keep)

check: .venv/installed ## Lint, formatting, types, and which room may import which
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports

test: test-client test-lowest test-2.11 test-3.3 ## All tests but those that run Airflow, with the oldest versions too: without Airflow, on 2.11, on 3.3

test-client: .venv-client/installed ## The client in an environment without Airflow
	.venv-client/bin/python tests/tools/without_airflow.py

# -n 2: each test has a server of its own, and mostly waits.
test-spark: .venv-spark/installed ## Spark in the tasks of a local workspace, on Sail, in an environment without Airflow
	.venv-spark/bin/python -m pytest -n 2 -m spark --confcutdir=tests/unit/local_workspace tests/unit/local_workspace/test_spark*.py

# A client, an operator, a trigger, the checker and the workspace.
LOWEST_TESTS = client/test_client client/test_transport hooks/test_hooks operators/test_operators triggers/test_triggers \
	payloads/test_command_line local_workspace/test_server

test-lowest: .venv-lowest/installed ## With the oldest versions of what the package depends on, without Airflow and on Airflow 2.11
	.venv-lowest/client/bin/python tests/tools/without_airflow.py
	.venv-lowest/bin/python -m pytest -n 2 -m "not airflow" $(LOWEST_TESTS:%=tests/unit/%.py)

test-newest: ## Unit tests on Airflow 3.3 with the newest versions of all else, installed now and without our constraints
	@python=$$(.ci/find-python 3.11 3.14 $(PYTHONS)) && "$$python" -m venv --clear .venv-newest
	@.venv-newest/bin/$(PIP_INSTALL) --editable ".[dev]" "apache-airflow==3.3.*"
	.venv-newest/bin/python -m pytest -n 2 -m "not (airflow or $(ELSEWHERE))"

# What these test depends on no Airflow: rooms that import none, as import-linter checks, and what concerns tests and
# errors only. `test-3.3` tests them, `test-matrix` everywhere.
WITHOUT_AIRFLOW = client local_workspace payloads runs sdk_agreement test_errors.py test_leftovers.py
# Nor does what these classes test: how long calls, launches and polls are retried. What kills do does, and stays.
FAULTS_WITHOUT_AIRFLOW = TestCall TestLaunch TestOutage TestRejectedCredentials

# loadgroup: the tests that share one Airflow go to one worker, and so do those of a file. 3: on two cores, as many of
# them mostly wait.
PYTEST = python -m pytest -n 3 --dist loadgroup
# What other targets run. -m replaces the expression in pyproject.toml.
ELSEWHERE = browser or deployment or spark

test-2.11: .venv-2.11/installed ## What depends on Airflow, tested on Airflow 2.11
	.venv-2.11/bin/$(PYTEST) -m "not (airflow or $(ELSEWHERE))" $(WITHOUT_AIRFLOW:%=--ignore=tests/unit/%) \
		$(FAULTS_WITHOUT_AIRFLOW:%=--deselect tests/unit/test_fault_injection.py::%)

test-3.3: .venv/installed ## All tests on Airflow 3.3 but those that run it
	.venv/bin/$(PYTEST) -m "not (airflow or $(ELSEWHERE))"

test-airflow: .venv-2.11/installed .venv/installed .venv-official/installed ## Airflow 2.11 and 3.3 run: scheduler, triggerer, workers that are killed, dag.test()
	.venv-2.11/bin/$(PYTEST) -m "airflow and not ($(ELSEWHERE))"
	.venv/bin/$(PYTEST) -m "airflow and not ($(ELSEWHERE))"

# A random one. It is shown in the command that make prints.
SEED := $(or $(SEED),$(shell od -An -N4 -tu4 /dev/urandom | tr -d ' '))

explore: .venv/installed ## Hypothesis tests with ten times as many, random examples (half an hour); SEED=number repeats them
	.venv/bin/python -m pytest -n 2 -m hypothesis tests/unit/runs --hypothesis-profile=explore --hypothesis-seed=$(SEED)

test-browser: needs-chromium .venv/browser ## The links in Airflow's UI and the pages of the local workspace, in Chromium; CHROMIUM=command, screenshots in .screenshots
	@CHROMIUM="$(CHROMIUM)" .venv/bin/python -m pytest -m browser tests/airflow/stack tests/unit/local_workspace

needs-chromium:
	@command -v "$(CHROMIUM)" >/dev/null || { \
		echo "There is no $(CHROMIUM). Install Debian's package chromium, or say where it is: make test-browser CHROMIUM=path" >&2; \
		exit 1; \
	}

test-deployment: .venv-deployment/installed ## What Airflow does on PostgreSQL, Redis and Celery, when any of these is killed; ONLY=file
	.venv-deployment/bin/python -m pytest -s -m deployment tests/airflow/stack$(ONLY:%=/%)

test-matrix: ## Tests on Airflow 2.11 and 3.0 to 3.3, and a table of them (forty minutes); ONLY="3.0 3.1" picks some
	@python=$$(.ci/find-python 3.11 3.14 $(PYTHONS)) && "$$python" tests/tools/matrix.py $(ONLY)

chaos: .venv/installed ## Kill what runs, on a real Airflow, and count what was launched; ONLY="name ..." plays some
	@PYTHONPATH=tests/support .venv/bin/python tests/tools/chaos.py $(ONLY)

corpus: .venv/installed ## Check the payload rules on a folder of cases that others wrote; CORPUS=folder
	@.venv/bin/python tests/tools/corpus.py $(CORPUS)

# The second script runs also where the first one finds a budget exceeded.
bench: .venv-bench/installed ## What waiting for runs costs, compared with the official provider (twenty minutes); QUICK=1, ONLY=N,N, OUTPUT=file, PLOT=file
	@PYTHONPATH=tests/support .venv-bench/bin/python tests/benchmarks/polling.py $(if $(QUICK),--quick) \
		$(if $(ONLY),--only $(ONLY)) $(if $(OUTPUT),--output $(OUTPUT)) $(if $(PLOT),--plot $(PLOT)); kept=$$?; \
	$(if $(ONLY),true,PYTHONPATH=tests/support .venv-bench/bin/python tests/benchmarks/task_cost.py $(if $(QUICK),--quick)) && exit $$kept

bench-imports: .venv-bench/installed ## What importing the operators costs, compared with the official provider
	.venv-bench/bin/python tests/benchmarks/import_time.py

bench-parse: .venv/installed ## What the check of payloads costs when a DAG file is parsed
	.venv/bin/python tests/benchmarks/parse_time.py

bench-breakage: .venv-bench/installed ## What each fault does to a task, compared with the official provider (ten minutes); OUTPUT=file
	@PYTHONPATH=tests/support .venv-bench/bin/python tests/benchmarks/breakage.py \
		$(if $(OUTPUT),--output $(OUTPUT)) $(if $(ONLY),--only $(ONLY))

official-names: .venv-bench/installed ## Write down the official provider's names, with which docs/migrating.md is tested
	.venv-bench/bin/python tests/benchmarks/official_names.py

clean: ## Remove environments and whatever else was made here
	rm -rf .venv .venv-* .demo .screenshots build dist .mypy_cache .pytest_cache .ruff_cache
	find airflow_dbjobs example_dags tests -name __pycache__ -prune -exec rm -rf {} +

# The newest Python that an Airflow runs on, where that is not 3.14.
NEWEST_PYTHON_2.11 = 3.12
NEWEST_PYTHON_3.0 = 3.12
NEWEST_PYTHON_3.1 = 3.13

# An environment is recreated when what it is made of changes. The file is written last: without it, an interrupted
# installation starts again.
define INSTALL_AIRFLOW
@echo "Installing Airflow $(1) into $(@D) (about a minute)"
@python=$$(.ci/find-python 3.11 $(or $(NEWEST_PYTHON_$(1)),3.14) $(PYTHONS)) && "$$python" -m venv --clear $(@D)
@$(@D)/bin/$(PIP_INSTALL) --constraint .ci/constraints-airflow-$(1).txt --editable ".[dev]"
@touch $@
endef

.venv/installed: pyproject.toml .ci/constraints-airflow-3.3.txt
	$(call INSTALL_AIRFLOW,3.3)

.venv-%/installed: pyproject.toml .ci/constraints-airflow-%.txt
	$(call INSTALL_AIRFLOW,$*)

.venv-client/installed: pyproject.toml .ci/constraints-airflow-3.3.txt
	@echo "Installing the client's dependencies into .venv-client"
	@python=$$(.ci/find-python 3.11 3.14 $(PYTHONS)) && "$$python" -m venv --clear .venv-client
	@.venv-client/bin/$(PIP_INSTALL) --constraint .ci/constraints-airflow-3.3.txt requests tenacity
	@.venv-client/bin/$(PIP_INSTALL) --no-deps --editable .
	@touch $@

# Without the constraints, which Airflow needs: Spark's client wants its own versions.
.venv-spark/installed: pyproject.toml
	@echo "Installing Spark for the local workspace into .venv-spark (two minutes)"
	@python=$$(.ci/find-python 3.11 3.13 $(PYTHONS)) && "$$python" -m venv --clear $(@D)
	@$(@D)/bin/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]; \
		print(*extras["local"], *extras["spark"], sep="\n")' >$(@D)/requirements.txt
	@$(@D)/bin/$(PIP_INSTALL) --requirement $(@D)/requirements.txt pytest pytest-xdist pyyaml requests
	@$(@D)/bin/$(PIP_INSTALL) --no-deps --editable .
	@touch $@

.venv-lowest/installed: pyproject.toml .ci/lowest .ci/constraints-airflow-2.11.txt
	@echo "Installing Airflow 2.11 and the oldest versions of what else is needed into .venv-lowest (about a minute)"
	@python=$$(.ci/find-python 3.11 3.12 $(PYTHONS)) && "$$python" -m venv --clear .venv-lowest && "$$python" -m venv .venv-lowest/client
	@.venv-lowest/bin/python .ci/lowest .ci/constraints-airflow-2.11.txt >.venv-lowest/constraints.txt
	@.venv-lowest/bin/$(PIP_INSTALL) --constraint .venv-lowest/constraints.txt --editable ".[local]" pytest pytest-mock pytest-xdist
	@.venv-lowest/client/bin/$(PIP_INSTALL) --constraint .venv-lowest/constraints.txt requests tenacity
	@.venv-lowest/client/bin/$(PIP_INSTALL) --no-deps --editable .
	@touch $@

.venv/browser: .venv/installed
	@echo "Installing what drives a browser into .venv"
	@.venv/bin/$(PIP_INSTALL) --constraint .ci/constraints-airflow-3.3.txt --editable ".[browser]"
	@touch $@

.venv-deployment/installed: pyproject.toml .ci/constraints-airflow-3.3.txt
	@echo "Installing Airflow 3.3 as it is deployed, with Celery, into .venv-deployment (about a minute)"
	@python=$$(.ci/find-python 3.11 3.14 $(PYTHONS)) && "$$python" -m venv --clear $(@D)
	@$(@D)/bin/$(PIP_INSTALL) --constraint .ci/constraints-airflow-3.3.txt --editable ".[dev,deployment]"
	@touch $@

# Not an environment but a folder for the path of one test: what the official provider's workflow groups import, without the
# pandas, pyarrow and SQL client (350 MB) that it also wants. The newest release that fits the constraints.
.venv-official/installed: .venv/installed
	@echo "Installing the official provider's workflow groups into .venv-official (20 seconds)"
	@rm -rf $(@D)
	@.venv/bin/$(PIP_INSTALL) --target $(@D) --constraint .ci/constraints-airflow-3.3.txt aiohttp mergedeep
	@.venv/bin/$(PIP_INSTALL) --target $(@D) --no-deps apache-airflow-providers-databricks==7.21.0
	@touch $@

# Without the constraints: the official provider's own dependencies want other versions.
.venv-bench/installed: pyproject.toml
	@echo "Installing Airflow 3.3 and the official provider into .venv-bench (about a minute)"
	@python=$$(.ci/find-python 3.11 3.13 $(PYTHONS)) && "$$python" -m venv --clear .venv-bench
	@.venv-bench/bin/$(PIP_INSTALL) --editable ".[bench]"
	@touch $@

"""The link "Databricks run" in Airflow's UI, clicked in a real browser: it opens the page of the task's run.

`make test-browser` runs this and leaves screenshots of what it saw in `.screenshots`.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_stack import AirflowStack, DagRun, WorkspaceServer
    from playwright.sync_api import BrowserContext, Locator, Page

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CHROMIUM", "chromium")
SCREENSHOTS = Path(__file__).parents[3] / ".screenshots"
LINK = "Databricks run"

NOTEBOOKS = {
    "answers": "dbutils.notebook.exit('42')",
    "fails": "raise ValueError('not today')",
    "sleeps": "import time\ntime.sleep(600)",
    "fails_once": """
import pathlib
marker = pathlib.Path(dbutils.widgets.get("marker"))
if not marker.exists():
    marker.touch()
    raise ValueError("not yet")
""",
}

DAG = """
from datetime import timedelta
from airflow.sdk import dag
from airflow_dbjobs.operators import DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

def notebook(name):
    return {"notebook_task": {"notebook_path": f"/notebooks/{name}"}}

# The name of each run is the id of its task.
@dag(schedule=None, default_args={"polling_period_seconds": 0.5, "poke_interval": 1})
def links():
    DatabricksSubmitRunOperator(task_id="succeeded", **notebook("answers"))
    DatabricksSubmitRunOperator(task_id="deferred", deferrable=True, **notebook("answers"))
    DatabricksSubmitRunOperator(task_id="going_on", deferrable=True, **notebook("sleeps"))
    DatabricksSubmitRunOperator(task_id="not_waited_for", wait_for_termination=False, **notebook("answers"))
    DatabricksSubmitRunOperator(task_id="without_xcom", do_xcom_push=False, **notebook("answers"))
    DatabricksSubmitRunOperator(task_id="tried_twice", retries=1, retry_delay=timedelta(0), **notebook("fails"))
    DatabricksSubmitRunOperator(task_id="without_a_run", databricks_conn_id="nobody", **notebook("answers"))
    DatabricksSubmitRunOperator.partial(task_id="mapped", **notebook("answers")).expand(
        run_name=["the first", "the second"]
    )
    DatabricksRunNowOperator(task_id="skipped", job_name="busy", on_skipped="skip")
    DatabricksRunNowOperator(task_id="repaired", job_name="fails once", repair_run=True)
    DatabricksRunSensor(task_id="sensor_of_a_run", run_id="{{ dag_run.conf.failed }}", soft_fail=True)
    DatabricksRunSensor(task_id="sensor_in_reschedule_mode", job_name="sensed", mode="reschedule")
    DatabricksRunSensor(task_id="sensor_deferred", run_id="{{ dag_run.conf.going_on }}", deferrable=True)
    DatabricksJobIdleSensor(task_id="sensor_of_an_idle_job", job_name="sensed")

links()
"""


@dataclass(frozen=True)
class Case:
    """A task instance, the run whose page its link opens (by name, its latest), and the state that is shown there."""

    task_id: str
    state: str
    run: str
    shows: str
    map_index: int = -1

    @property
    def name(self) -> str:
        return self.task_id if self.map_index < 0 else f"{self.task_id}[{self.map_index}]"


CASES = [
    Case("succeeded", "success", "succeeded", "SUCCESS"),
    Case("deferred", "success", "deferred", "SUCCESS"),
    Case("going_on", "deferred", "going_on", "RUNNING"),
    Case("not_waited_for", "success", "not_waited_for", "SUCCESS"),
    Case("without_xcom", "success", "without_xcom", "SUCCESS"),
    Case("tried_twice", "failed", "tried_twice", "FAILED"),
    Case("mapped", "success", "the first", "SUCCESS", map_index=0),
    Case("mapped", "success", "the second", "SUCCESS", map_index=1),
    Case("skipped", "skipped", "busy", "MAXIMUM_CONCURRENT_RUNS_REACHED"),
    Case("repaired", "success", "fails once", "SUCCESS"),
    Case("sensor_of_a_run", "skipped", "failed elsewhere", "FAILED"),
    Case("sensor_in_reschedule_mode", "success", "sensed", "SUCCESS"),
    Case("sensor_deferred", "deferred", "goes on elsewhere", "RUNNING"),
    Case("sensor_of_an_idle_job", "success", "sensed", "SUCCESS"),
]
STATES = {**{case.name: case.state for case in CASES}, "without_a_run": "failed"}


@pytest.fixture(scope="module")
def dag_run(
    airflow: AirflowStack, workspace_server: WorkspaceServer, tmp_path_factory: pytest.TempPathFactory
) -> DagRun:
    """Return a run of the DAG when each of its task instances is as far as it shall come."""
    folder = workspace_server.root / "notebooks"
    folder.mkdir()
    for name, source in NOTEBOOKS.items():
        (folder / f"{name}.py").write_text(f"# Databricks notebook source\n{source}\n")

    def call(path: str, **body: Any) -> dict[str, Any]:
        return dict(workspace_server.call("POST", f"jobs/{path}", body))

    def notebook(name: str, **parameters: str) -> dict[str, Any]:
        return {"notebook_task": {"notebook_path": f"/notebooks/{name}", "base_parameters": parameters}}

    busy = call("create", name="busy", queue={"enabled": False}, max_concurrent_runs=1, **notebook("sleeps"))
    call("run-now", **busy)
    fails_once = notebook("fails_once", marker=str(tmp_path_factory.mktemp("marker") / "it has failed"))
    call("create", name="fails once", tasks=[{"task_key": "only", **fails_once}])
    call("run-now", **call("create", name="sensed", **notebook("answers")))
    failed = call("runs/submit", run_name="failed elsewhere", **notebook("fails"))
    going_on = call("runs/submit", run_name="goes on elsewhere", **notebook("sleeps"))

    airflow.add_dag("links.py", DAG)
    run = airflow.trigger("links", {"failed": failed["run_id"], "going_on": going_on["run_id"]})

    states: dict[str, str | None] = {}

    def played() -> DagRun | None:
        now = airflow.api.dag_run(run)
        states.update({task.name: task.state for task in now.tasks})
        return now if states.items() >= STATES.items() else None

    try:
        return airflow.wait_for("the tasks to come as far as they shall", played, 180)
    except TimeoutError as error:
        error.add_note(f"They are {states}, and should be {STATES}")
        raise


@pytest.fixture(scope="session", autouse=True)
def chromium() -> str:
    """Return the path of the browser; without it nothing else is started."""
    path = shutil.which(CHROMIUM)
    if path is None:
        pytest.exit(f"There is no {CHROMIUM}. Install Debian's package chromium, or set CHROMIUM to a path.", 1)
    return path


@pytest.fixture(scope="module")
def context(chromium: str) -> Iterator[BrowserContext]:
    """Return a window of the browser. There is nothing to sign in to: Airflow makes everybody an admin here."""
    from playwright.sync_api import expect, sync_playwright

    # The patience of everything else that waits for a page.
    expect.set_options(timeout=30_000)
    shutil.rmtree(SCREENSHOTS, ignore_errors=True)
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium) as browser,
        browser.new_context(viewport={"width": 1280, "height": 800}) as context,
    ):
        yield context


@pytest.fixture(scope="module")
def page(context: BrowserContext, airflow: AirflowStack, dag_run: DagRun) -> Page:
    """Return the tab with Airflow's UI, the details of a task on its screen."""
    page = context.new_page()
    page.goto(f"{airflow.api.url}{details_of(dag_run, CASES[0].task_id)}")
    return page


def screenshot(page: Page, name: str) -> None:
    page.screenshot(path=SCREENSHOTS / f"{name}.png")


def details_of(run: DagRun, task_id: str) -> str:
    return f"/dags/{run.dag_id}/runs/{run.run_id}/tasks/{task_id}/details"


def open_details(page: Page, run: DagRun, task_id: str, map_index: int = -1) -> None:
    """Go to a task instance by a click in the grid, which keeps the tab "Details"; a mapped one is further away."""
    if map_index < 0:
        # Away from the grid, where the last click has left a tooltip.
        page.mouse.move(0, 0)
        page.locator(f'a[href="{details_of(run, task_id)}"]').first.click()
    else:
        page.goto(page.url.partition("/dags/")[0] + details_of(run, f"{task_id}/mapped/{map_index}"))


def click(link: Locator) -> Page:
    """Click a link that opens a tab, and return that."""
    with link.page.context.expect_page() as opened:
        link.click()
    return opened.value


def assert_is_page_of(tab: Page, run: dict[str, Any], shows: str) -> None:
    from playwright.sync_api import expect

    expect(tab).to_have_url(run["run_page_url"])
    expect(tab.locator("h1")).to_have_text(f"Run {run['run_id']}: {run['run_name']}")
    expect(tab.locator(".facts .state")).to_have_text(shows)


def runs_named(workspace_server: WorkspaceServer, name: str) -> list[dict[str, Any]]:
    return [run for run in workspace_server.runs() if run["run_name"] == name]


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_the_link_opens_the_page_of_the_run(
    page: Page, workspace_server: WorkspaceServer, dag_run: DagRun, case: Case
) -> None:
    from playwright.sync_api import expect

    run = runs_named(workspace_server, case.run)[-1]
    open_details(page, dag_run, case.task_id, case.map_index)
    page.get_by_role("heading", name=case.task_id).wait_for()
    link = page.get_by_role("link", name=LINK, exact=True)
    expect(link).to_have_attribute("href", run["run_page_url"])
    screenshot(page, case.name)
    tab = click(link)
    assert_is_page_of(tab, run, case.shows)
    screenshot(tab, f"{case.name} its run")
    tab.close()


def test_a_task_without_a_run_has_no_link(page: Page, airflow: AirflowStack, dag_run: DagRun) -> None:
    assert airflow.api.extra_links(dag_run.task("without_a_run")) == {LINK: None}
    open_details(page, dag_run, "without_a_run")
    page.get_by_role("heading", name="without_a_run").wait_for()
    # It is shown when Airflow has answered which links there are.
    page.get_by_role("heading", name="Extra Links").wait_for()
    screenshot(page, "without_a_run")
    assert page.get_by_text(LINK).count() == 0


def test_the_run_of_an_earlier_try_is_a_link_in_its_log(
    context: BrowserContext, airflow: AirflowStack, workspace_server: WorkspaceServer, dag_run: DagRun
) -> None:
    first, second = runs_named(workspace_server, "tried_twice")
    assert first["run_id"] != second["run_id"]
    log = details_of(dag_run, "tried_twice").removesuffix("/details")
    page = context.new_page()
    page.goto(f"{airflow.api.url}{log}?try_number=1")
    link = page.get_by_role("link", name=first["run_page_url"]).first
    link.wait_for()
    screenshot(page, "tried_twice the first try")
    assert_is_page_of(click(link), first, "FAILED")


def test_the_page_of_a_repaired_run_shows_each_repair_and_the_log_what_failed_before(
    context: BrowserContext, airflow: AirflowStack, workspace_server: WorkspaceServer, dag_run: DagRun
) -> None:
    from playwright.sync_api import expect

    (run,) = runs_named(workspace_server, "fails once")
    page = context.new_page()
    page.goto(run["run_page_url"])
    rows = page.locator("h2", has_text="Repairs").locator("+ table tr")
    assert [row.split("\t")[:2] for row in rows.all_inner_texts()[1:]] == [
        ["Original run", "FAILED"],
        ["Repair 1", "SUCCESS"],
    ]
    original, repair = (rows.nth(number).get_by_role("link", name="only") for number in (1, 2))
    log = airflow.api.log(dag_run.task("repaired"))
    assert str(original.get_attribute("href")) in log, "the task that failed"
    repair.click()
    expect(page.locator("h1")).to_have_text("Task only")
    expect(page.locator(".facts .state")).to_have_text("SUCCESS")
    screenshot(page, "repaired the task of the repair")

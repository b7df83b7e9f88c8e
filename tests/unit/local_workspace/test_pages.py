"""The HTML pages."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from typing import TYPE_CHECKING

import pytest
from in_process import connect_clients

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.local_workspace import LocalWorkspace

from .conftest import mounted
from .markup import Element, parse
from .support import NOTEBOOK, TOKEN, settle, simulated_task

if TYPE_CHECKING:
    from pathlib import Path

    from .support import Client

NASTY = "<script>alert('x')</script>"


def page(client: Client, path: str) -> str:
    """Return a page without its script; if it has one, no other can run."""
    client.session.headers.pop("Authorization", None)
    response = client.send("GET", path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    policy = response.headers["content-security-policy"].split("; ")
    assert "default-src 'none'" in policy
    scripts = re.findall("<script>(.*?)</script>", response.text, re.DOTALL)
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = [f"script-src 'sha256-{digest}'" for digest in hashes]
    assert [directive for directive in policy if directive.startswith("script-src")] == allowed
    text: str = response.text.replace(f"<script>{scripts[0]}</script>", "") if scripts else response.text
    return text


def parsed(client: Client, path: str) -> Element:
    return parse(page(client, path))


def path_of(client: Client, run: dict) -> str:
    path: str = run["run_page_url"].removeprefix(client.base_url)
    return path


def href(client: Client, run: dict) -> str:
    """Return a link to the page of a run as pages have it."""
    return f'href="{html.escape(path_of(client, run))}"'


def front(workspace: LocalWorkspace) -> str:
    return workspace.pages_url.removeprefix(workspace.base_url)


def bare(path: str) -> str:
    return path.partition("?")[0]


class TestRunPage:
    def test_shows_tasks_and_their_errors(self, client: Client, write) -> None:
        write("bad.py", "print('on its way')\nraise ValueError('broken')")
        run = client.finish(
            run_name="Nightly",
            tasks=[
                {"task_key": "load", "spark_python_task": {"python_file": "/bad.py"}},
                {
                    "task_key": "report",
                    "depends_on": [{"task_key": "load"}],
                    "spark_python_task": {"python_file": "/x.py"},
                },
            ],
        )
        text = page(client, path_of(client, run))
        for expected in ("Nightly", "FAILED", "load", "report", "UPSTREAM_FAILED", "ValueError: broken"):
            assert expected in text
        assert "http-equiv" not in text
        task_path = path_of(client, run["tasks"][0])
        assert href(client, run["tasks"][0]) in text
        text = page(client, task_path)
        assert "on its way" in text
        assert "Traceback" in text
        assert href(client, run) in text

    def test_shows_exit_value_and_parameters(self, client: Client, notebook) -> None:
        notebook("main", "dbutils.notebook.exit('the value')")
        job_id = client.post("create", notebook_task={"notebook_path": "/main"})["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, notebook_params={"day": "sunday"})["run_id"])
        text = page(client, path_of(client, run))
        assert "the value" in text
        assert "sunday" in text

    def test_of_a_single_task_shows_everything(self, client: Client, write) -> None:
        write("bad.py", "print('on its way')\nraise ValueError('broken')")
        task = {"python_file": "/bad.py", "parameters": ["sunday", NASTY]}
        run = client.finish(spark_python_task=task, max_retries=1)
        assert len(run["tasks"]) == 2
        text = page(client, path_of(client, run))
        for expected in ("/bad.py", "sunday", "on its way", "ValueError: broken", "Traceback"):
            assert expected in text
        assert "<script" not in text
        assert "&lt;script&gt;" in text

    def test_of_several_tasks_shows_their_parameters(self, client: Client, notebook) -> None:
        notebook("main", "")
        tasks = [
            {"task_key": "a", "notebook_task": {"notebook_path": "/main", "base_parameters": {"day": "sunday"}}},
            {"task_key": "b", "spark_python_task": {"python_file": "/missing.py", "parameters": [NASTY]}},
            {"task_key": "c", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}},
        ]
        text = page(client, path_of(client, client.finish(tasks=tasks)))
        for expected in ("base_parameters", "sunday", "&lt;script&gt;"):
            assert expected in text
        assert "<script" not in text

    def test_of_a_task_shows_the_parameters_that_it_got(self, client: Client, notebook) -> None:
        notebook("main", "dbutils.jobs.taskValues.set('day', 'sunday')")
        notebook("next", "")
        parameters = {"day": "{{tasks.a.values.day}}", "run": "{{job.run_id}}"}
        tasks = [
            {"task_key": "a", "notebook_task": {"notebook_path": "/main"}},
            {
                "task_key": "b",
                "depends_on": [{"task_key": "a"}],
                "notebook_task": {"notebook_path": "/next", "base_parameters": parameters},
            },
        ]
        run = client.finish(tasks=tasks)
        (task,) = [item for item in run["tasks"] if item["task_key"] == "b"]
        shown = parsed(client, path_of(client, task)).after("Resolved parameters").text
        assert json.loads(shown) == {"base_parameters": {"day": "sunday", "run": str(run["run_id"])}}
        assert "sunday" in parsed(client, path_of(client, run)).after("Tasks").text

    def test_task_that_never_ran_has_no_duration(self, client: Client) -> None:
        run = client.finish(
            tasks=[
                {"task_key": "a", "spark_python_task": {"python_file": "/missing.py"}},
                {"task_key": "b", "depends_on": [{"task_key": "a"}], "spark_python_task": {"python_file": "/x.py"}},
            ]
        )
        (blocked,) = [
            row for row in parsed(client, path_of(client, run)).after("Tasks").all("tr") if "UPSTREAM" in row.text
        ]
        assert blocked.all("td")[2].text == ""
        text = parsed(client, path_of(client, run["tasks"][1])).one("main").text
        assert "UPSTREAM_FAILED" in text
        assert "Duration" not in text
        assert "Started" not in text

    def test_shows_repairs_and_their_tasks(self, client: Client, notebook) -> None:
        notebook("main", "raise ValueError('broken')")
        tasks = [{"task_key": key, "notebook_task": {"notebook_path": "/main"}} for key in ("load", "report")]
        run = client.finish(tasks=tasks)
        assert "Repair" not in page(client, path_of(client, run))
        client.session.headers["Authorization"] = "Bearer a-token"
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=["load"])
        again = client.wait_for(run["run_id"])
        table = parsed(client, path_of(client, run)).after("Repairs")
        original, repair = table.one("tbody").all("tr")
        assert original.text.startswith("Original runFAILED")
        assert repair.text.startswith("Repair 1FAILED")
        before = {task["run_id"] for task in run["tasks"]}
        (new,) = [task for task in again["tasks"] if task["run_id"] not in before]
        assert [link.attributes["href"] for link in original.all("a")] == [
            path_of(client, task) for task in run["tasks"]
        ]
        assert [link.attributes["href"] for link in repair.all("a")] == [path_of(client, new)]

    def test_of_an_active_run_refreshes_itself(self, client: Client, workspace: LocalWorkspace, write) -> None:
        write("sleep.py", "import time; time.sleep(60)")
        run = client.wait_for(client.submit(spark_python_task={"python_file": "/sleep.py"}), "RUNNING")
        for path in (path_of(client, run), front(workspace)):
            found = parsed(client, path)
            assert "data-live" in found.one("main").attributes
            assert found.one("noscript").one("meta").attributes["http-equiv"] == "refresh"

    def test_of_an_unknown_run_is_not_found(self, client: Client, workspace: LocalWorkspace) -> None:
        response = client.send("GET", "/jobs/1/runs/7" + front(workspace).removeprefix("/"))
        assert response.status_code == 404
        assert "does not exist" in response.text


class TestGraph:
    def test_shows_states_and_links(self, simulated: LocalWorkspace, advance) -> None:
        client = mounted(simulated)
        tasks = [
            {"task_key": "load", **simulated_task(1)},
            {"task_key": "check", "depends_on": [{"task_key": "load"}], **simulated_task(1, "FAILED")},
            {"task_key": "report", "depends_on": [{"task_key": "check"}], **simulated_task(1)},
            {"task_key": "slow", **simulated_task(100)},
        ]
        run_id = client.submit(tasks=tasks)
        for seconds in (0, 1, 1):
            advance(seconds)
        run = client.get("runs/get", run_id=run_id)
        found = parsed(client, path_of(client, run))
        svg = found.one("svg")
        boxes = {box.attributes["id"]: box for box in svg.all("g", "box")}
        shown = {key: (box.classes[1], box.one("a").attributes["aria-label"]) for key, box in boxes.items()}
        assert shown == {
            "g-load": ("good", "load: SUCCESS · 1.0 s"),
            "g-check": ("bad", "check: FAILED · 1.0 s"),
            "g-report": ("skipped", "report: UPSTREAM_FAILED"),
            "g-slow": ("busy", "slow: RUNNING · 2.0 s"),
        }
        assert [sign.text for sign in svg.all(css="sign")] == ["✓", "✕", "\u2013", "●"]
        links = [box.one("a").attributes["href"] for box in boxes.values()]
        assert links == [path_of(client, task) for task in run["tasks"]]
        assert found.one("p", "counts").text == "1 succeeded 1 failed 1 did not run 1 running"

    def test_shows_which_branch_a_condition_took(self, simulated: LocalWorkspace) -> None:
        client = mounted(simulated)
        branches = [
            {"task_key": f"on_{outcome}", "depends_on": [{"task_key": "if", "outcome": outcome}], **NOTEBOOK}
            for outcome in ("true", "false")
        ]
        condition = {"task_key": "if", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
        run_id = client.submit(tasks=[condition, *branches])
        settle(simulated)
        svg = parsed(client, path_of(client, client.get("runs/get", run_id=run_id))).one("svg")
        assert {line.one(css="outcome").text: line.classes for line in svg.all("g", "line")} == {
            "true": ["line"],
            "false": ["line", "off"],
        }

    def test_of_a_thousand_tasks_is_a_mark_for_each(self, simulated: LocalWorkspace) -> None:
        client = mounted(simulated)
        tasks = [
            {"task_key": f"t{index}", "depends_on": [{"task_key": f"t{index // 10}"}] if index else [], **NOTEBOOK}
            for index in range(1000)
        ]
        run_id = client.submit(tasks=tasks)
        found = parsed(client, path_of(client, client.get("runs/get", run_id=run_id)))
        assert not found.all("svg")
        stages = found.one("ol", "stages").all("li")
        assert [len(stage.all("a", "mark")) for stage in stages] == [1, 9, 90, 900]
        assert stages[0].one("a").attributes["title"] == "t0: BLOCKED"
        assert len(found.after("Timeline").one("tbody").all("tr")) == 1000
        assert len(found.after("Tasks").one("tbody").all("tr")) == 1000

    @pytest.mark.parametrize("key", ["x" * 100, "שלום_עולם", "漢" * 100])
    def test_names_fit_into_their_boxes(self, simulated: LocalWorkspace, key: str) -> None:
        client = mounted(simulated)
        tasks = [{"task_key": key, **NOTEBOOK}, {"task_key": "b", "depends_on": [{"task_key": key}], **NOTEBOOK}]
        run = client.get("runs/get", run_id=client.submit(tasks=tasks))
        box = parsed(client, path_of(client, run)).one("svg").all("g", "box")[0]
        shown = box.one("text", "key").text
        assert len(shown) <= 26
        assert shown[0] == key[0]
        assert box.one("title").text.startswith(key)

    def test_is_left_out_for_a_single_task_and_for_none(self, simulated: LocalWorkspace) -> None:
        client = mounted(simulated)
        one = client.get("runs/get", run_id=client.submit(**NOTEBOOK))
        job_id = client.post("create", name="Empty")["job_id"]
        none = client.get("runs/get", run_id=client.post("run-now", job_id=job_id)["run_id"])
        for run in (one, none):
            found = parsed(client, path_of(client, run))
            assert "Graph" not in [heading.text for heading in found.all("h2")]


class TestLog:
    def test_is_cut_at_a_line_and_whole_as_text(self, client: Client, write) -> None:
        write("long.py", "for number in range(50_000): print('line', number)")
        run = client.finish(spark_python_task={"python_file": "/long.py"})
        found = parsed(client, path_of(client, run))
        lines = found.one(css="log").text.strip().splitlines()
        assert lines[-1] == "line 49999"
        assert all(line.startswith("line ") for line in lines)
        assert 90_000 < len(found.one(css="log").text) <= 100_001
        (link,) = [link for link in found.all("a") if link.text == "whole log"]
        response = client.send("GET", link.attributes["href"])
        assert response.headers["content-type"] == "text/plain; charset=utf-8"
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.text.splitlines() == [f"line {number}" for number in range(50_000)]

    def test_needs_the_key(self, client: Client) -> None:
        run = client.finish(spark_python_task={"python_file": "/missing.py"})
        assert client.send("GET", bare(path_of(client, run["tasks"][0])) + "?log=1").status_code == 403

    def test_keeps_an_empty_first_line(self, client: Client, write) -> None:
        write("lines.py", "print(); print('x')")
        run = client.finish(spark_python_task={"python_file": "/lines.py"})
        # A browser drops the first of them.
        assert parsed(client, path_of(client, run)).one(css="log").text == "\n\nx\n"


class TestJobPage:
    def test_shows_settings_tasks_and_runs(self, simulated: LocalWorkspace, advance) -> None:
        client = mounted(simulated)
        tasks = [
            {"task_key": "a", **simulated_task(1)},
            {"task_key": "b", "depends_on": [{"task_key": "a"}], **simulated_task(1)},
        ]
        job_id = client.post("create", name="Nightly", tasks=tasks, description="Loads <orders>")["job_id"]
        first = client.post("run-now", job_id=job_id)["run_id"]
        for seconds in (0, 1, 1):
            advance(seconds)
        second = client.post("run-now", job_id=job_id)["run_id"]
        client.post("runs/cancel", run_id=second)
        advance(0)
        run = client.get("runs/get", run_id=first)
        (link,) = parsed(client, path_of(client, run)).one("nav").all("a")[1:]
        assert link.text == "Nightly"
        found = parsed(client, link.attributes["href"])
        assert found.one("h1").text == f"Job {job_id}: Nightly"
        assert "Loads <orders>" in found.one("table", "facts").text
        assert [mark.classes[1] for mark in found.after("Runs").all("a", "mark")] == ["good", "stopped"], "oldest first"
        rows = found.one("table", "list").one("tbody").all("tr")
        assert [row.all("td")[0].text for row in rows] == [str(second), str(first)], "newest first"
        assert [box.text for box in found.one("svg").all("g", "box")] == [
            "a: notebookanotebook",
            "b: notebookbnotebook",
        ]
        assert '"task_key": "b"' in found.after("Settings").text

    def test_of_a_job_without_runs_or_tasks(self, client: Client, workspace: LocalWorkspace) -> None:
        job_id = client.post("create", name=NASTY)["job_id"]
        (link,) = [link for link in parsed(client, front(workspace)).all("a") if link.text == NASTY]
        found = parsed(client, link.attributes["href"])
        assert found.one("h1").text == f"Job {job_id}: {NASTY}"
        assert found.after("Runs").text == "There are no runs yet."

    def test_of_a_one_time_run_does_not_exist(self, client: Client, workspace: LocalWorkspace) -> None:
        run = client.finish(spark_python_task={"python_file": "/missing.py"})
        response = client.send("GET", f"/jobs/{run['job_id']}{front(workspace).removeprefix('/')}")
        assert response.status_code == 404
        assert f"Job {run['job_id']} does not exist" in response.text


class TestTaskPage:
    def test_leads_to_other_attempts_and_to_the_run_it_started(self, simulated: LocalWorkspace, advance) -> None:
        client = mounted(simulated)
        child_id = client.post("create", **simulated_task(1, "FAILED"))["job_id"]
        run_id = client.submit(tasks=[{"task_key": "a", "run_job_task": {"job_id": child_id}, "max_retries": 1}])
        for _ in range(3):
            advance(1)
        first, second = client.get("runs/get", run_id=run_id)["tasks"]
        found = parsed(client, path_of(client, second))
        facts = {row.one("th").text: row.one("td") for row in found.one("table", "facts").all("tr")}
        assert facts["Attempt"].text == "1, 2"
        assert facts["Attempt"].one("a").attributes["href"] == path_of(client, first)
        started = parsed(client, facts["Started run"].one("a").attributes["href"])
        assert f"by a task of run {run_id}" in started.one("table", "facts").text

    def test_of_a_loop_counts_and_lists_its_iterations(self, client: Client) -> None:
        inner = {"task_key": "one", "condition_task": {"op": "GREATER_THAN", "left": "{{input}}", "right": "0"}}
        tasks = [
            {"task_key": "each", "for_each_task": {"inputs": json.dumps([1, NASTY]), "task": inner}},
            {"task_key": "other", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}},
        ]
        run = client.finish(tasks=tasks)
        (loop,) = (task for task in run["tasks"] if task["task_key"] == "each")
        iterations = client.get("runs/get", run_id=loop["run_id"])["iterations"]
        counts = "2 iterations: 1 succeeded 1 failed"
        of_run = parsed(client, path_of(client, run))
        assert [row.all("td")[0].text for row in of_run.after("Tasks").one("tbody").all("tr")] == ["each", "other"]
        assert counts in of_run.after("Tasks").one("tbody").all("tr")[0].text
        assert len(of_run.all("g", "box")) == 2
        found = parsed(client, path_of(client, loop))
        assert counts in found.text
        rows = found.one("table", "list").one("tbody").all("tr")
        assert [row.one("a").attributes["href"] for row in rows] == [path_of(client, item) for item in iterations]
        assert NASTY in rows[1].text
        of_iteration = parsed(client, path_of(client, iterations[1])).one("table", "facts")
        facts = {row.one("th").text: row.one("td") for row in of_iteration.all("tr")}
        assert (facts["Input"].text, facts["Attempt"].text) == (json.dumps(NASTY), "1")
        assert facts["Iteration of"].one("a").attributes["href"] == path_of(client, loop)


class TestFrontPage:
    def test_lists_recent_runs(self, client: Client, workspace: LocalWorkspace) -> None:
        assert "no runs yet" in page(client, front(workspace))
        client.session.headers["Authorization"] = "Bearer a-token"
        run = client.finish(run_name="Nightly", spark_python_task={"python_file": "/missing.py"})
        text = page(client, front(workspace))
        assert "Nightly" in text
        assert href(client, run) in text

    def test_lists_jobs_with_their_latest_results(self, simulated: LocalWorkspace, advance) -> None:
        client = mounted(simulated)
        job_id = client.post("create", name="Nightly", **simulated_task(1))["job_id"]
        client.post("create", name="Weekly")
        client.post("run-now", job_id=job_id)
        advance(0)
        advance(1)
        client.post("update", job_id=job_id, new_settings=simulated_task(1, "FAILED"))
        client.post("run-now", job_id=job_id)
        advance(0)
        advance(1)
        weekly, nightly = parsed(client, front(simulated)).after("Jobs").one("tbody").all("tr")
        assert weekly.text == "Weekly0 tasks"
        assert nightly.text.startswith("Nightly1 task✓✕")

    def test_shows_the_newest_of_many_runs(self, simulated: LocalWorkspace) -> None:
        ids = simulated.create_runs(150)
        found = parsed(mounted(simulated), front(simulated))
        rows = found.after("Runs").one("tbody").all("tr")
        assert [int(row.all("td")[0].text) for row in rows] == ids[:49:-1]
        assert found.one("h2").text == "Runs the newest 100 of 150"


class TestEscaping:
    def test_everything_is_escaped(self, client: Client, workspace: LocalWorkspace, notebook) -> None:
        notebook("main", f'print("{NASTY}")\nimport sys\nraise ValueError("{NASTY}" + dbutils.widgets.get("{NASTY}"))')
        task = {"notebook_path": "/main", "base_parameters": {NASTY: NASTY}}
        run = client.finish(run_name=NASTY, notebook_task=task)
        missing = client.finish(run_name=NASTY, notebook_task={"notebook_path": NASTY})
        for path in (
            front(workspace),
            path_of(client, run),
            path_of(client, run["tasks"][0]),
            path_of(client, missing),
        ):
            text = page(client, path)
            assert not re.search("<script", text, re.IGNORECASE)
            assert NASTY in parse(text).one("main").text


class TestKey:
    @pytest.mark.parametrize("query", ["", "?o=0", "?key=", "?key=wrong", "?key=\u00e9", f"?key={TOKEN}"])
    def test_is_needed_for_every_page(self, client: Client, query: str) -> None:
        run = client.finish(run_name="Nightly", spark_python_task={"python_file": "/missing.py"})
        # The API token does not open pages, so that nobody puts it into a URL.
        for path in ("/", bare(path_of(client, run)), bare(path_of(client, run["tasks"][0])), "/jobs/1/runs/7"):
            response = client.send("GET", path + query)
            assert response.status_code == 403
            assert "Nightly" not in response.text
            assert "run_page_url" in response.text, "what to do"

    def test_every_link_has_it(self, client: Client, workspace: LocalWorkspace) -> None:
        task = {"spark_python_task": {"python_file": "/missing.py"}}
        run = client.finish(tasks=[{"task_key": "a", **task}, {"task_key": "b", **task}])
        for path in (front(workspace), path_of(client, run), path_of(client, run["tasks"][0])):
            links = re.findall('href="(.*?)"', page(client, path))
            assert links
            for link in links:
                page(client, html.unescape(link))

    def test_is_not_the_api_token(self, client: Client, workspace: LocalWorkspace) -> None:
        key = workspace.pages_url.partition("?key=")[2]
        assert len(key) >= 32
        assert TOKEN not in workspace.pages_url
        assert client.send("GET", "list", headers={"Authorization": f"Bearer {key}"}).status_code == 403

    def test_links_survive_a_restart(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with LocalWorkspace(root, token=TOKEN) as workspace:
            run_id = mounted(workspace).finish(spark_python_task={"python_file": "/missing.py"})["run_id"]
            connect_clients(monkeypatch, workspace.adapter)
            link = JobsClient(workspace.base_url, token=TOKEN).get_run(run_id).page_url
        with LocalWorkspace(root, token=TOKEN) as workspace:
            assert f"Run {run_id}" in page(mounted(workspace), link.removeprefix(workspace.base_url))

    def test_is_not_sent_to_other_sites(self, client: Client, workspace: LocalWorkspace) -> None:
        assert client.send("GET", front(workspace)).headers["Referrer-Policy"] == "no-referrer"

"""The HTML pages."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import pytest
from in_process import connect_clients

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.local_workspace import LocalWorkspace

from .conftest import mounted
from .support import TOKEN

if TYPE_CHECKING:
    from pathlib import Path

    from .support import Client

NASTY = "<script>alert('x')</script>"


def page(client: Client, path: str) -> str:
    client.session.headers.pop("Authorization", None)
    response = client.send("GET", path)
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in response.headers["content-security-policy"]
    return response.text


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

    def test_task_that_never_ran_has_no_duration(self, client: Client) -> None:
        run = client.finish(
            tasks=[
                {"task_key": "a", "spark_python_task": {"python_file": "/missing.py"}},
                {"task_key": "b", "depends_on": [{"task_key": "a"}], "spark_python_task": {"python_file": "/x.py"}},
            ]
        )
        assert len(re.findall(r"\d s<", page(client, path_of(client, run)))) == 2, "the run and its first task"
        text = page(client, path_of(client, run["tasks"][1]))
        assert "UPSTREAM_FAILED" in text
        assert "<th>Duration" not in text
        assert "<th>Started" not in text

    def test_shows_repairs_and_their_tasks(self, client: Client, notebook) -> None:
        notebook("main", "raise ValueError('broken')")
        tasks = [{"task_key": key, "notebook_task": {"notebook_path": "/main"}} for key in ("load", "report")]
        run = client.finish(tasks=tasks)
        assert "Repair" not in page(client, path_of(client, run))
        client.session.headers["Authorization"] = "Bearer a-token"
        client.post("runs/repair", run_id=run["run_id"], rerun_tasks=["load"])
        again = client.wait_for(run["run_id"])
        _, text = page(client, path_of(client, run)).split("<h2>Repairs</h2>")
        original, repair = re.findall(r"<tr><td>(.*?)</tr>", text)
        assert original.startswith("Original run")
        assert all(href(client, task) in original for task in run["tasks"])
        assert repair.startswith("Repair 1")
        before = {task["run_id"] for task in run["tasks"]}
        (new,) = [task for task in again["tasks"] if task["run_id"] not in before]
        assert re.findall('href=".*?"', repair) == [href(client, new)]
        assert "FAILED" in original
        assert "FAILED" in repair

    def test_of_an_active_run_refreshes_itself(self, client: Client, workspace: LocalWorkspace, write) -> None:
        write("sleep.py", "import time; time.sleep(60)")
        run = client.wait_for(client.submit(spark_python_task={"python_file": "/sleep.py"}), "RUNNING")
        assert 'http-equiv="refresh"' in page(client, path_of(client, run))
        assert 'http-equiv="refresh"' in page(client, front(workspace))

    def test_of_an_unknown_run_is_not_found(self, client: Client, workspace: LocalWorkspace) -> None:
        response = client.send("GET", "/jobs/1/runs/7" + front(workspace).removeprefix("/"))
        assert response.status_code == 404
        assert "does not exist" in response.text


class TestFrontPage:
    def test_lists_recent_runs(self, client: Client, workspace: LocalWorkspace) -> None:
        assert "no runs yet" in page(client, front(workspace))
        client.session.headers["Authorization"] = "Bearer a-token"
        run = client.finish(run_name="Nightly", spark_python_task={"python_file": "/missing.py"})
        text = page(client, front(workspace))
        assert "Nightly" in text
        assert href(client, run) in text


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
            assert "&lt;script&gt;" in text


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

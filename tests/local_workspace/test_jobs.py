"""Jobs: create, get, list, reset, update, delete."""

from __future__ import annotations

import pytest

from .support import Client, eventually

PYTHON = {"python_file": "/file.py"}
TASKS = [
    {"task_key": "a", "spark_python_task": PYTHON},
    {"task_key": "b", "depends_on": [{"task_key": "a"}], "spark_python_task": PYTHON},
]


def create(client: Client, **settings: object) -> int:
    settings.setdefault("spark_python_task", PYTHON) if "tasks" not in settings else None
    job_id: int = client.post("create", **settings)["job_id"]
    return job_id


def settings_of(client: Client, job_id: int, version: str = "2.2") -> dict:
    return client.get("get", job_id=job_id, version=version)["settings"]


def test_a_flat_job_reads_flat_in_2_0_and_with_tasks_later(client: Client) -> None:
    job_id = create(client, name="My job!", max_retries=2, timeout_seconds=60)
    old = settings_of(client, job_id, "2.0")
    assert old["format"] == "SINGLE_TASK"
    assert old["spark_python_task"] == PYTHON
    assert old["max_retries"] == 2
    new = settings_of(client, job_id, "2.1")
    assert new["format"] == "MULTI_TASK"
    assert "spark_python_task" not in new
    (task,) = new["tasks"]
    assert task["task_key"] == "My_job_"
    assert task["max_retries"] == 2
    assert task["spark_python_task"] == {**PYTHON, "source": "WORKSPACE"}
    assert new["timeout_seconds"] == 60


def test_a_job_with_tasks_reads_with_tasks_in_2_0_too(client: Client) -> None:
    job = client.get("get", job_id=create(client, tasks=TASKS), version="2.0")
    assert job["settings"]["format"] == "MULTI_TASK"
    assert [task["task_key"] for task in job["settings"]["tasks"]] == ["a", "b"]
    assert job["creator_user_name"]
    assert job["created_time"] > 1_600_000_000_000


def test_names_are_not_unique(client: Client) -> None:
    assert create(client, name="same") != create(client, name="same")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"name": "no task"}, "notebook_task"),
        ({"spark_python_task": PYTHON, "notebook_task": {"notebook_path": "/a"}}, "and 'notebook_task'"),
        ({"notebook_task": {}}, "notebook_task.notebook_path"),
        ({"spark_python_task": PYTHON, "tasks": TASKS}, "'tasks' and 'spark_python_task'"),
        ({"tasks": [{"task_key": "a"}]}, "task 'a'"),
        ({"tasks": [TASKS[0], TASKS[0]]}, "twice"),
        ({"tasks": [TASKS[1]]}, "depends_on"),
        ({"tasks": [{**TASKS[0], "depends_on": [{"task_key": "b"}]}, TASKS[1]]}, "cycle"),
        ({"tasks": [{**TASKS[0], "task_key": "a b"}]}, "task_key"),
        ({"tasks": [{**TASKS[0], "run_if": "NEVER"}]}, "run_if"),
        ({"spark_python_task": PYTHON, "job_clusters": [{"job_cluster_key": "x"}]}, "job_clusters"),
        ({"spark_python_task": PYTHON, "max_concurrent_runs": 1001}, "max_concurrent_runs"),
        ({"spark_python_task": PYTHON, "timeout_seconds": -1}, "timeout_seconds"),
        ({"spark_python_task": PYTHON, "parameters": [{"name": "a b"}]}, "parameters"),
        ({"tasks": [{**TASKS[0], "task_key": f"t{i}"} for i in range(1001)]}, "at most 1000"),
    ],
)
def test_settings_that_break_a_rule_are_refused_by_field(client: Client, settings: dict, named: str) -> None:
    for operation in ("create", "runs/submit"):
        error = client.refused("POST", operation, settings)
        assert error["error_code"] == "INVALID_PARAMETER_VALUE"
        assert named in error["message"]


def test_2_1_takes_at_most_100_tasks_and_shows_no_more(client: Client) -> None:
    tasks = [{**TASKS[0], "task_key": f"t{i}"} for i in range(101)]
    assert "at most 100" in client.refused("POST", "create", {"tasks": tasks}, version="2.1")["message"]
    job_id = create(client, tasks=tasks)
    assert "API 2.2" in client.refused("GET", "get", {"job_id": job_id}, version="2.1")["message"]
    assert len(client.get("list", version="2.1", expand_tasks="True")["jobs"][0]["settings"]["tasks"]) == 100


def test_2_2_pages_through_the_tasks_of_a_job(client: Client) -> None:
    job_id = create(client, tasks=[{**TASKS[0], "task_key": f"t{i}"} for i in range(250)], name="big")
    keys, token = [], ""
    while True:
        page = client.get("get", job_id=job_id, page_token=token)
        assert page["settings"]["name"] == "big"
        keys += [task["task_key"] for task in page["settings"]["tasks"]]
        token = page.get("next_page_token")
        if not token:
            break
    assert keys == [f"t{i}" for i in range(250)]
    (entry,) = client.get("list", expand_tasks="true")["jobs"]
    assert entry["has_more"] is True
    assert len(entry["settings"]["tasks"]) == 100


def test_jobs_are_listed_whole_in_2_0_and_by_pages_later(client: Client) -> None:
    ids = [create(client, name=f"Job {i}") for i in range(25)]
    assert [job["job_id"] for job in client.get("list", version="2.0")["jobs"]] == ids[::-1]
    first = client.get("list", limit=20)
    assert "tasks" not in first["jobs"][0]["settings"]
    assert "has_more" not in first
    create(client, name="meanwhile")
    second = client.get("list", limit=20, page_token=first["next_page_token"])
    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == ids[::-1]
    assert "next_page_token" not in second
    back = client.get("list", limit=20, page_token=second["prev_page_token"])
    assert back["jobs"] == first["jobs"]
    assert [job["job_id"] for job in client.get("list", name="jOB 3")["jobs"]] == [ids[3]]
    assert client.get("list", name="nobody") == {}


def test_reset_replaces_all_settings_but_the_identity(client: Client) -> None:
    job_id = create(client, name="old", tags={"a": "b"}, run_as={"user_name": "me"})
    assert client.post("reset", job_id=job_id, new_settings={"name": "new", "tasks": TASKS}) == {}
    settings = settings_of(client, job_id)
    assert settings["name"] == "new"
    assert "tags" not in settings
    assert settings["run_as"] == {"user_name": "me"}


def test_update_merges_keyed_arrays_and_removes_fields(client: Client) -> None:
    job_id = create(client, name="job", tasks=TASKS, tags={"a": "b"}, timeout_seconds=5)
    changed = {"task_key": "b", "spark_python_task": {"python_file": "/changed.py"}}
    added = {"task_key": "c", "spark_python_task": PYTHON}
    client.post("update", job_id=job_id, new_settings={"tasks": [changed, added]}, fields_to_remove=["tags", "tasks/a"])
    settings = settings_of(client, job_id)
    assert [task["task_key"] for task in settings["tasks"]] == ["b", "c"]
    assert settings["tasks"][0]["spark_python_task"]["python_file"] == "/changed.py"
    assert "depends_on" not in settings["tasks"][0]
    assert "tags" not in settings
    assert settings["timeout_seconds"] == 5


def test_update_may_not_leave_a_job_broken(client: Client) -> None:
    job_id = create(client, tasks=TASKS)
    client.refused("POST", "update", {"job_id": job_id, "fields_to_remove": ["tasks/a"]})
    assert len(settings_of(client, job_id)["tasks"]) == 2


def test_a_new_timeout_reaches_runs_that_are_under_way(client: Client, write) -> None:
    write("file.py", "import time; time.sleep(60)")
    job_id = create(client)
    run_id = client.post("run-now", job_id=job_id)["run_id"]
    client.wait_for(run_id, "RUNNING")
    client.post("update", job_id=job_id, new_settings={"timeout_seconds": 1})
    assert client.wait_for(run_id)["state"]["result_state"] == "TIMEDOUT"


def test_deleting_a_job_takes_its_runs_along(client: Client, write, root) -> None:
    write("file.py", "import time; time.sleep(60)")
    job_id = create(client)
    run_id = client.post("run-now", job_id=job_id, idempotency_token="tok")["run_id"]
    client.wait_for(run_id, "RUNNING")
    assert client.post("delete", job_id=job_id) == {}
    assert client.post("delete", job_id=job_id) == {}
    assert f"Job {job_id} does not exist" in client.refused("GET", "get", {"job_id": job_id})["message"]
    assert f"Run {run_id} does not exist" in client.refused("GET", "runs/get", {"run_id": run_id})["message"]
    assert client.get("runs/list") == {}
    eventually(lambda: not list((root / ".airflow_dbjobs" / "runs").iterdir()), "the program being gone")
    assert "deleted" in client.refused("POST", "runs/submit", {"idempotency_token": "tok"})["message"]


@pytest.mark.parametrize(
    ("method", "operation"),
    [("GET", "get"), ("POST", "reset"), ("POST", "update"), ("POST", "run-now"), ("POST", "runs/cancel-all")],
)
def test_an_unknown_job_does_not_exist(client: Client, method: str, operation: str) -> None:
    error = client.refused(method, operation, {"job_id": 7})
    assert error == {"error_code": "INVALID_PARAMETER_VALUE", "message": "Job 7 does not exist."}
    assert "Job 0 does not exist" in client.refused(method, operation, {})["message"]

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


class TestCreate:
    def test_flat_job_has_tasks_from_2_1_on(self, client: Client) -> None:
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

    def test_job_with_tasks_has_them_in_2_0(self, client: Client) -> None:
        job = client.get("get", job_id=create(client, tasks=TASKS), version="2.0")
        assert job["settings"]["format"] == "MULTI_TASK"
        assert [task["task_key"] for task in job["settings"]["tasks"]] == ["a", "b"]
        assert job["creator_user_name"]
        assert job["created_time"] > 1_600_000_000_000

    def test_names_are_not_unique(self, client: Client) -> None:
        assert create(client, name="same") != create(client, name="same")

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"spark_python_task": PYTHON, "notebook_task": {"notebook_path": "/a"}}, "and 'notebook_task'"),
            ({"notebook_task": {}}, "notebook_task.notebook_path"),
            ({"spark_python_task": PYTHON, "tasks": TASKS}, "'tasks' and 'spark_python_task'"),
            ({"tasks": [{"task_key": "a"}]}, "task 'a'"),
            ({"tasks": [TASKS[0], TASKS[0]]}, "twice"),
            ({"tasks": [TASKS[1]]}, "depends_on"),
            ({"tasks": [{**TASKS[0], "depends_on": [{"task_key": "b"}]}, TASKS[1]]}, "cycle"),
            ({"tasks": [{**TASKS[0], "task_key": "a b"}]}, "task_key"),
            ({"tasks": [{"spark_python_task": PYTHON}]}, "digits, - or _; it is missing."),
            ({"tasks": TASKS, "git_source": {"git_url": "https://x"}}, "; it is missing."),
            ({"tasks": [{**TASKS[0], "run_if": "NEVER"}]}, "run_if"),
            ({"spark_python_task": PYTHON, "max_concurrent_runs": 1001}, "max_concurrent_runs"),
            ({"spark_python_task": PYTHON, "timeout_seconds": -1}, "timeout_seconds"),
            ({"spark_python_task": PYTHON, "parameters": [{"name": "a b"}]}, "parameters"),
            ({"tasks": [{**TASKS[0], "task_key": f"t{i}"} for i in range(1001)]}, "at most 1000"),
            ({"tasks": [{**TASKS[0], "job_cluster_key": "gone"}]}, "'gone', which is not in 'job_clusters'"),
            ({"tasks": [{**TASKS[0], "job_cluster_key": "a", "new_cluster": {}}]}, "'new_cluster' of task 'a' exclude"),
        ],
    )
    def test_invalid_settings_are_refused_by_field(self, client: Client, settings: dict, named: str) -> None:
        for operation in ("create", "runs/submit"):
            error = client.refused("POST", operation, settings)
            assert error["error_code"] == "INVALID_PARAMETER_VALUE"
            assert named in error["message"]

    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"spark_python_task": PYTHON, "job_clusters": [{"job_cluster_key": "a"}]}, "'job_clusters' needs 'tasks'"),
            ({"tasks": TASKS, "job_clusters": [{"job_cluster_key": "a"}] * 2}, "found 'a'"),
            ({"tasks": TASKS, "job_clusters": [{"job_cluster_key": "a b"}]}, "found 'a b'"),
            ({"tasks": TASKS, "job_clusters": [{}]}, "it is missing"),
        ],
    )
    def test_invalid_job_clusters_are_refused(self, client: Client, settings: dict, named: str) -> None:
        assert named in client.refused("POST", "create", settings)["message"]

    @pytest.mark.parametrize("source", [{}, {"git_url": "https://x"}, {"git_url": "https://x", "git_provider": "svn"}])
    def test_git_source_needs_a_known_provider(self, client: Client, source: dict) -> None:
        error = client.refused("POST", "create", {"spark_python_task": PYTHON, "git_source": source})
        assert "azuredevopsservices" in error["message"]
        job_id = create(client, git_source={"git_url": "https://x", "git_provider": "gitHub"})
        assert settings_of(client, job_id)["tasks"][0]["spark_python_task"]["source"] == "GIT"

    def test_health_rules_have_each_versions_spelling(self, client: Client, write) -> None:
        def health(name: str) -> dict:
            return {"rules": [{"metric": "RUN_DURATION_SECONDS", name: "GREATER_THAN", "value": 60}]}

        write("file.py", "")
        flat = create(client, health=health("operator"))
        multi = create(client, tasks=[{**TASKS[0], "health": health("op")}], health=health("op"))
        run_id = client.post("run-now", job_id=multi)["run_id"]
        for version, name in (("2.0", "operator"), ("2.1", "op"), ("2.2", "op")):
            assert settings_of(client, flat, version)["health"] == health(name)
            assert settings_of(client, multi, version)["health"] == health(name)
            assert settings_of(client, multi, version)["tasks"][0]["health"] == health(name)
            assert client.get("runs/get", run_id=run_id, version=version)["tasks"][0]["health"] == health(name)


class TestJobsWithoutTasks:
    @pytest.mark.parametrize("settings", [{}, {"name": "empty", "tasks": []}])
    def test_can_be_created_and_read(self, client: Client, settings: dict) -> None:
        job_id = client.post("create", **settings)["job_id"]
        for version in ("2.0", "2.1", "2.2"):
            assert "tasks" not in settings_of(client, job_id, version)
        assert "tasks" not in client.get("list", expand_tasks="true")["jobs"][0]["settings"]

    @pytest.mark.parametrize("version", ["2.0", "2.1", "2.2"])
    def test_run_fails_with_the_reason(self, client: Client, version: str) -> None:
        job_id = client.post("create", name="empty", version=version)["job_id"]
        run = client.wait_for(client.post("run-now", job_id=job_id, version=version)["run_id"])
        assert run["state"]["life_cycle_state"] == "INTERNAL_ERROR"
        assert run["state"]["result_state"] == "FAILED"
        assert f"Job {job_id} has no tasks" in run["state"]["state_message"]
        assert "it has none" in client.refused("GET", "runs/get-output", {"run_id": run["run_id"]})["message"]

    def test_run_job_task_fails(self, client: Client) -> None:
        job_id = client.post("create", name="empty")["job_id"]
        run = client.finish(run_job_task={"job_id": job_id})
        assert run["state"]["result_state"] == "FAILED"

    def test_tasks_can_be_added_and_removed(self, client: Client, write) -> None:
        write("file.py", "")
        job_id = client.post("create", name="later", job_clusters=[{"job_cluster_key": "x"}])["job_id"]
        client.post("update", job_id=job_id, new_settings={"tasks": TASKS})
        run = client.wait_for(client.post("run-now", job_id=job_id)["run_id"])
        assert run["state"]["result_state"] == "SUCCESS"
        client.post("update", job_id=job_id, fields_to_remove=["tasks/a", "tasks/b"])
        assert "tasks" not in settings_of(client, job_id)
        client.post("reset", job_id=job_id, new_settings={"spark_python_task": PYTHON})
        client.post("update", job_id=job_id, fields_to_remove=["spark_python_task"])
        assert "tasks" not in settings_of(client, job_id)
        client.post("reset", job_id=job_id, new_settings={"name": "none again"})

    def test_one_time_run_needs_a_task(self, client: Client) -> None:
        for settings in ({"run_name": "none"}, {"tasks": []}):
            assert "'notebook_task'" in client.refused("POST", "runs/submit", settings)["message"]


class TestPages:
    def test_2_1_has_at_most_100_tasks(self, client: Client) -> None:
        tasks = [{**TASKS[0], "task_key": f"t{i}"} for i in range(101)]
        assert "at most 100" in client.refused("POST", "create", {"tasks": tasks}, version="2.1")["message"]
        job_id = create(client, tasks=tasks)
        assert "API 2.2" in client.refused("GET", "get", {"job_id": job_id}, version="2.1")["message"]
        assert len(client.get("list", version="2.1", expand_tasks="True")["jobs"][0]["settings"]["tasks"]) == 100

    def test_2_2_pages_through_tasks(self, client: Client) -> None:
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

    def test_one_full_page_has_no_next(self, client: Client) -> None:
        job_id = create(client, tasks=[{**TASKS[0], "task_key": f"t{i}"} for i in range(100)])
        assert "has_more" not in client.get("get", job_id=job_id)

    def test_only_2_2_pages_through_nested_arrays(self, client: Client) -> None:
        names = [f"p{i}" for i in range(150)]
        clusters = [{"job_cluster_key": f"c{i}", "new_cluster": {}} for i in range(101)]
        job_id = create(client, tasks=TASKS, parameters=[{"name": name} for name in names], job_clusters=clusters)
        run_id = client.post("run-now", job_id=job_id)["run_id"]
        for operation, fields in (("get", {"job_id": job_id}), ("runs/get", {"run_id": run_id})):
            for version in ("2.0", "2.1"):
                assert "API 2.2" in client.refused("GET", operation, fields, version=version)["message"]
            first = client.get(operation, **fields)
            second = client.get(operation, **fields, page_token=first["next_page_token"])
            assert "next_page_token" not in second
            pages = [page.get("settings", page) for page in (first, second)]
            parameters = "parameters" if operation == "get" else "job_parameters"
            assert [item["name"] for page in pages for item in page[parameters]] == names
            assert [len(page["job_clusters"]) for page in pages] == [100, 1]
            assert [len(page["tasks"]) for page in pages] == [2, 0]
        small = create(client)
        assert "API" in client.refused("GET", "get", {"job_id": job_id, "page_token": "x"}, version="2.1")["message"]
        assert client.get("get", job_id=small, page_token="nonsense", version="2.1")["settings"]["tasks"]
        client.refused("GET", "get", {"job_id": small, "page_token": "nonsense"})


class TestList:
    def test_has_pages_from_2_1_on(self, client: Client) -> None:
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

    def test_limit_is_1_to_100_from_2_1_on(self, client: Client) -> None:
        ids = [create(client) for _ in range(2)]
        for version in ("2.1", "2.2"):
            for limit in (-1, 0, 101):
                assert "'limit'" in client.refused("GET", "list", {"limit": limit}, version=version)["message"]
            assert len(client.get("list", limit=100, version=version)["jobs"]) == 2
            assert [job["job_id"] for job in client.get("list", offset=1, limit=1, version=version)["jobs"]] == ids[:1]
        first = client.get("list", limit=1, version="2.1")
        assert first["has_more"] is True
        assert client.get("list", limit=1, page_token=first["next_page_token"], version="2.1")["has_more"] is False
        # 2.0 has none of these parameters.
        assert len(client.get("list", version="2.0", limit=1, offset=1, page_token="nonsense", name="x")["jobs"]) == 2


class TestReset:
    def test_replaces_all_settings_but_run_as(self, client: Client) -> None:
        job_id = create(client, name="old", tags={"a": "b"}, run_as={"user_name": "me"})
        assert client.post("reset", job_id=job_id, new_settings={"name": "new", "tasks": TASKS}) == {}
        settings = settings_of(client, job_id)
        assert settings["name"] == "new"
        assert "tags" not in settings
        assert client.get("get", job_id=job_id)["run_as_user_name"] == "me"


class TestUpdate:
    def test_merges_keyed_arrays_and_removes_fields(self, client: Client) -> None:
        job_id = create(client, name="job", tasks=TASKS, tags={"a": "b"}, timeout_seconds=5)
        changed = {"task_key": "b", "spark_python_task": {"python_file": "/changed.py"}}
        added = {"task_key": "c", "spark_python_task": PYTHON}
        client.post(
            "update", job_id=job_id, new_settings={"tasks": [changed, added]}, fields_to_remove=["tags", "tasks/a"]
        )
        settings = settings_of(client, job_id)
        assert [task["task_key"] for task in settings["tasks"]] == ["b", "c"]
        assert settings["tasks"][0]["spark_python_task"]["python_file"] == "/changed.py"
        assert "depends_on" not in settings["tasks"][0]
        assert "tags" not in settings
        assert settings["timeout_seconds"] == 5

    def test_invalid_result_is_refused(self, client: Client) -> None:
        job_id = create(client, tasks=TASKS)
        client.refused("POST", "update", {"job_id": job_id, "fields_to_remove": ["tasks/a"]})
        assert len(settings_of(client, job_id)["tasks"]) == 2

    def test_2_1_updates_a_flat_job_by_its_task(self, client: Client) -> None:
        job_id = create(client, name="Nightly load", existing_cluster_id="c-1", timeout_seconds=5)
        (task,) = settings_of(client, job_id, "2.1")["tasks"]
        changed = {**task, "spark_python_task": {"python_file": "/changed.py"}}
        client.post("update", job_id=job_id, new_settings={"tasks": [changed, TASKS[0]]}, version="2.1")
        settings = settings_of(client, job_id, "2.1")
        assert [item["task_key"] for item in settings["tasks"]] == ["Nightly_load", "a"]
        assert settings["tasks"][0]["spark_python_task"]["python_file"] == "/changed.py"
        assert settings["tasks"][0]["existing_cluster_id"] == "c-1"
        assert settings["timeout_seconds"] == 5
        flat = create(client, name="flat")
        client.post("update", {"job_id": flat, "fields_to_remove": ["tasks/flat"]}, version="2.1")
        assert "tasks" not in settings_of(client, flat, "2.1")
        assert settings_of(client, flat, "2.0")["format"] == "SINGLE_TASK"

    def test_new_cluster_replaces_the_other_kind(self, client: Client) -> None:
        cluster = {"spark_version": "15.4.x-scala2.12", "num_workers": 1}
        job_id = create(client, new_cluster=cluster, libraries=[{"jar": "dbfs:/a.jar"}])
        # The example of the 2.0 reference.
        new = {"existing_cluster_id": "1201-my-cluster", "email_notifications": {"on_start": ["someone@example.com"]}}
        client.post("update", job_id=job_id, new_settings=new, fields_to_remove=["libraries"], version="2.0")
        settings = settings_of(client, job_id, "2.0")
        assert settings["existing_cluster_id"] == "1201-my-cluster"
        assert settings.keys().isdisjoint({"new_cluster", "libraries"})
        client.post("update", job_id=job_id, new_settings={"new_cluster": cluster}, version="2.0")
        settings = settings_of(client, job_id, "2.0")
        assert settings["new_cluster"] == cluster
        assert "existing_cluster_id" not in settings

    def test_new_timeout_applies_to_active_runs(self, client: Client, write) -> None:
        write("file.py", "import time; time.sleep(60)")
        job_id = create(client)
        run_id = client.post("run-now", job_id=job_id)["run_id"]
        client.wait_for(run_id, "RUNNING")
        client.post("update", job_id=job_id, new_settings={"timeout_seconds": 1})
        assert client.wait_for(run_id)["state"]["result_state"] == "TIMEDOUT"


class TestDelete:
    def test_removes_the_jobs_runs(self, client: Client, write, root) -> None:
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


class TestUnknownJob:
    @pytest.mark.parametrize(
        ("method", "operation"),
        [("GET", "get"), ("POST", "reset"), ("POST", "update"), ("POST", "run-now"), ("POST", "runs/cancel-all")],
    )
    def test_does_not_exist(self, client: Client, method: str, operation: str) -> None:
        error = client.refused(method, operation, {"job_id": 7})
        assert error == {"error_code": "INVALID_PARAMETER_VALUE", "message": "Job 7 does not exist."}
        assert "Job 0 does not exist" in client.refused(method, operation, {})["message"]

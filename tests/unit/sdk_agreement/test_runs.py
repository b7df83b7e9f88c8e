"""Runs: our client and the databricks-sdk get the same answers, and launch, repair and stop the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.service import jobs as sdk

from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.client.workspace import API_VERSIONS

from .made import CONDITION, FULL, SMALL, STUCK, large
from .scene import NOT_OF_RUNS, NOT_OF_TASK_RUNS, differences, in_each

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.client.models import Run

    from .scene import Scene

NEWER = ("2.1", "2.2")
#: What 2.0 tells otherwise than 2.2, which the SDK speaks: it counts the runs of a job, and has one form of state only.
OF_2_0 = {"number_in_job", "-status"}
#: What was told in pages is whole for both; only the SDK leaves the mark of a first page on it.
OF_A_FIRST_PAGE = {"-has_more"}
#: As SMALL, of which any number of runs may be at work.
BUSY = {**SMALL, "name": "busy", "max_concurrent_runs": 1000}
LATEST = 1 << 53


def unlike(version: str, unknown: set[str], *, tasks: bool = False) -> set[str]:
    """Return where an answer of a version may differ from the SDK's, who knows no fields called `unknown`."""
    if version != "2.0":
        return unknown
    return unknown | OF_2_0 | ({"-tasks[].status"} if tasks else set())


def raws(runs: Iterable[Run]) -> list[Any]:
    return [run.raw for run in runs]


def dicts(runs: Iterable[sdk.BaseRun]) -> list[dict[str, Any]]:
    return [run.as_dict() for run in runs]


@pytest.fixture(scope="module")
def run(scene: Scene) -> Run:
    """A run with a task of each kind: a condition, a notebook that returns something, and one that fails."""
    (scene.root / "good.py").write_text("# Databricks notebook source\ndbutils.notebook.exit('bye')\n")
    (scene.root / "bad.py").write_text("# Databricks notebook source\nraise ValueError('no such day')\n")
    job_id = scene.ours.create_job(FULL)
    ended = scene.finished(scene.ours.run_now({"job_id": job_id, "job_parameters": {"day": "friday"}}))
    assert [task.state.result_state for task in ended.tasks] == ["SUCCESS", "SUCCESS", "FAILED"]
    return ended


def task_run(run: Run, key: str) -> int:
    return next(task.run_id for task in run.tasks if task.task_key == key)


@pytest.fixture(scope="module")
def busy(scene: Scene) -> tuple[int, int]:
    """A job with over 50 runs that are over, and one with a run that is not."""
    job_id, stuck = scene.ours.create_job(BUSY), scene.ours.create_job(STUCK)
    scene.ours.run_now({"job_id": stuck})
    for run_id in [scene.ours.run_now({"job_id": job_id}) for _ in range(52)]:
        scene.finished(run_id)
    return job_id, stuck


class TestListRuns:
    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_returns_the_same_runs_over_several_pages(self, scene: Scene, busy: tuple[int, int], version: str) -> None:
        job_id, _ = busy
        listed = raws(scene.speaking(version).list_runs(job_id=job_id))
        assert len(listed) == 52
        # 2.0 tells of tasks without being asked.
        expected = unlike(version, NOT_OF_RUNS | ({"+tasks"} if version == "2.0" else set()))
        assert differences(listed, dicts(scene.theirs.list_runs(job_id=job_id))) == in_each(expected)

    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize(
        "query",
        [{"active_only": True}, {"completed_only": True}, {"run_type": "SUBMIT_RUN"}, {"job_id": 7}, {}],
        ids=str,
    )
    def test_selects_the_same_runs_by_query(
        self, scene: Scene, busy: tuple[int, int], version: str, query: dict[str, Any]
    ) -> None:
        scene.finished(scene.ours.submit_run({"tasks": SMALL["tasks"]}))
        their_query = {**query, "run_type": sdk.RunType(query["run_type"])} if "run_type" in query else query
        listed = [run.run_id for run in scene.speaking(version).list_runs(**query)]
        assert listed == [run.run_id for run in scene.theirs.list_runs(**their_query)]
        assert bool(listed) == (query != {"job_id": 7})

    @pytest.mark.parametrize("version", NEWER)
    def test_selects_the_same_runs_by_time(self, scene: Scene, busy: tuple[int, int], version: str) -> None:
        starts = [run.start_time for run in scene.theirs.list_runs(job_id=busy[0])]
        first, middle, last = min(starts), starts[20], max(starts)
        for earliest, latest in ((middle, None), (None, middle), (middle, middle), (last + 1, None), (first, last)):
            times = {"start_time_from": earliest, "start_time_to": latest}
            listed = raws(scene.speaking(version).list_runs(job_id=busy[0], **times))
            found = differences(listed, dicts(scene.theirs.list_runs(job_id=busy[0], **times)))
            assert found == (in_each(NOT_OF_RUNS) if listed else set())
            chosen = [start for start in starts if (earliest or 0) <= start <= (latest or LATEST)]
            assert [entry["start_time"] for entry in listed] == chosen

    @pytest.mark.parametrize("version", NEWER)
    def test_returns_the_same_expanded_runs(self, scene: Scene, run: Run, busy: tuple[int, int], version: str) -> None:
        for job_id in (run.job_id, *busy):
            listed = raws(scene.speaking(version).list_runs(job_id=job_id, expand_tasks=True))
            assert all(entry["tasks"] for entry in listed)
            told = dicts(scene.theirs.list_runs(job_id=job_id, expand_tasks=True))
            assert differences(listed, told) == in_each(NOT_OF_RUNS)


@pytest.fixture
def twins(scene: Scene) -> tuple[int, int]:
    """Two jobs of the same settings: three tasks, of which the first precedes the others."""
    tasks = [{"task_key": "a", "condition_task": CONDITION}]
    tasks += [{**tasks[0], "task_key": key, "depends_on": [{"task_key": "a"}]} for key in "bc"]
    settings = {**SMALL, "tasks": tasks, "parameters": FULL["parameters"]}
    return scene.ours.create_job(settings), scene.ours.create_job(settings)


class TestLaunch:
    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize(
        "fields", [{}, {"job_parameters": {"day": "friday", "new": "1"}}, {"notebook_params": {"x": "z"}}]
    )
    def test_runs_a_job_equally(
        self, scene: Scene, twins: tuple[int, int], version: str, fields: dict[str, Any]
    ) -> None:
        mine, other = twins
        run_id = scene.speaking(version).run_now({"job_id": mine, **fields})
        assert scene.run(run_id) == scene.run(scene.theirs.run_now(other, **fields).run_id)

    @pytest.mark.parametrize(("only", "keys"), [(["+b"], ["a", "b"]), (["c"], ["c"]), (["a+"], ["a", "b", "c"])])
    def test_runs_some_tasks_of_a_job_equally(
        self, scene: Scene, twins: tuple[int, int], only: list[str], keys: list[str]
    ) -> None:
        mine, other = twins
        first = scene.run(scene.ours.run_now({"job_id": mine, "only": only}))
        assert first == scene.run(scene.theirs.run_now(other, only=only).run_id)
        assert [task["task_key"] for task in first["tasks"]] == keys

    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_by_either_client_is_found_by_the_others_token(
        self, scene: Scene, twins: tuple[int, int], version: str
    ) -> None:
        client, (job_id, _) = scene.speaking(version), twins
        made = client.run_now({"job_id": job_id, "idempotency_token": f"ours in {version}"})
        assert scene.theirs.run_now(job_id, idempotency_token=f"ours in {version}").run_id == made
        made = scene.theirs.run_now(job_id, idempotency_token=f"theirs beside {version}").run_id
        assert client.run_now({"job_id": job_id, "idempotency_token": f"theirs beside {version}"}) == made

    @pytest.mark.parametrize("version", NEWER)
    def test_submits_a_one_time_run_equally(self, scene: Scene, version: str) -> None:
        tasks = [*SMALL["tasks"], {**SMALL["tasks"][0], "task_key": "b"}]
        body = {"run_name": "once", "timeout_seconds": 60, "tasks": tasks}
        first, second = map(scene.run, (scene.speaking(version).submit_run(body), scene.their_run(body)))
        assert first == second
        assert first["run_name"] == "once"


class TestReadRun:
    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_returns_the_same_run(self, scene: Scene, run: Run, version: str) -> None:
        found = scene.speaking(version).get_run(run.run_id)
        told = scene.theirs.get_run(run.run_id)
        assert differences(found.raw, told.as_dict()) == unlike(version, NOT_OF_RUNS, tasks=True)
        assert (found.run_id, found.job_id, found.run_name) == (told.run_id, told.job_id, told.run_name)
        assert found.state.life_cycle_state == told.state.life_cycle_state.value
        assert found.state.result_state == told.state.result_state.value == "FAILED"
        assert [task.run_id for task in found.tasks] == [task.run_id for task in told.tasks]

    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize(
        ("key", "own"),
        [
            ("check", {"+condition_task"}),
            ("load", {"+notebook_task", "+depends_on", "+job_cluster_key", "+libraries"}),
            ("break", {"+notebook_task", "+max_retries"}),
        ],
    )
    def test_returns_the_same_task_run_and_output(
        self, scene: Scene, run: Run, version: str, key: str, own: set[str]
    ) -> None:
        client, run_id = scene.speaking(version), task_run(run, key)
        expected = unlike(version, NOT_OF_TASK_RUNS | own)
        assert differences(client.get_run(run_id).raw, scene.theirs.get_run(run_id).as_dict()) == expected
        output, told = client.get_run_output(run_id), scene.theirs.get_run_output(run_id)
        metadata = output.pop("metadata")
        assert differences(metadata, told.metadata.as_dict()) == expected
        assert {**output, "metadata": {}} == {**told.as_dict(), "metadata": {}}
        assert (output.get("error"), output.get("error_trace")) == (told.error, told.error_trace)
        if key == "break":
            assert output["error"] == "ValueError: no such day"
            assert "Traceback" in output["error_trace"]
        if key == "load":
            assert output["notebook_output"]["result"] == told.notebook_output.result == "bye"

    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize("views", ["CODE", "DASHBOARDS", "ALL"])
    def test_exports_the_same_notebook(self, scene: Scene, run: Run, version: str, views: str) -> None:
        run_id = task_run(run, "load")
        exported = scene.speaking(version).export_run(run_id, views=views)
        their_views = scene.theirs.export_run(run_id, views_to_export=sdk.ViewsToExport(views)).views
        assert exported == [view.as_dict() for view in their_views]
        assert bool(exported) == (views != "DASHBOARDS")

    def test_returns_a_large_run_completely(self, scene: Scene) -> None:
        job_id = scene.ours.create_job(large(250))
        run_id = scene.ours.run_now({"job_id": job_id})
        scene.finished(run_id)
        for history in (False, True):
            told = scene.ours.get_run(run_id, include_history=history).raw
            assert [len(told[name]) for name in ("tasks", "job_parameters", "job_clusters")] == [250, 120, 3]
            their_told = scene.theirs.get_run(run_id, include_history=history).as_dict()
            assert differences(told, their_told) == NOT_OF_RUNS | OF_A_FIRST_PAGE
        listed = raws(scene.ours.list_runs(job_id=job_id, expand_tasks=True))
        assert [len(entry["tasks"]) for entry in listed] == [250]
        expected = in_each(NOT_OF_RUNS)
        assert differences(listed, dicts(scene.theirs.list_runs(job_id=job_id, expand_tasks=True))) == expected

    @pytest.mark.parametrize("version", NEWER)
    def test_returns_the_same_skipped_run(self, scene: Scene, version: str) -> None:
        job_id = scene.ours.create_job({**SMALL, "max_concurrent_runs": 0})
        run_id = scene.speaking(version).run_now({"job_id": job_id})
        found = scene.speaking(version).get_run(run_id)
        assert found.outcome is Outcome.SKIPPED
        assert differences(found.raw, scene.theirs.get_run(run_id).as_dict()) == NOT_OF_RUNS


class TestChangeRun:
    @pytest.mark.parametrize("version", NEWER)
    def test_repairs_a_run_equally_any_number_of_times(self, scene: Scene, version: str) -> None:
        tasks = [*SMALL["tasks"], {"task_key": "bad", "notebook_task": {"notebook_path": "/missing"}, "max_retries": 0}]
        tasks.append({**SMALL["tasks"][0], "task_key": "after_a", "depends_on": [{"task_key": "a"}]})
        mine, other = (scene.ours.submit_run({"tasks": tasks}) for _ in range(2))
        client = scene.speaking(version)
        repairs: list[int] = []
        for asked in (
            {"rerun_all_failed_tasks": True},
            {"rerun_tasks": ["a", "bad"]},
            {"rerun_tasks": ["a"], "rerun_dependent_tasks": True},
            {"rerun_all_failed_tasks": True},
        ):
            assert scene.run(mine) == scene.run(other)
            # Our client looks latest_repair_id up where it has none, as in the last one.
            latest = {"latest_repair_id": repairs[-1]} if len(repairs) in (1, 2) else {}
            their_history = scene.theirs.get_run(other, include_history=True).repair_history
            repairs.append(client.repair_run({"run_id": mine, **asked, **latest}))
            scene.theirs.repair_run(other, latest_repair_id=their_history[-1].id, **asked)
        assert scene.run(mine) == scene.run(other)
        found = client.get_run(mine, include_history=True)
        told = scene.theirs.get_run(mine, include_history=True)
        assert differences(found.raw, told.as_dict()) == NOT_OF_RUNS
        assert [item.id for item in told.repair_history] == [None, *repairs]
        assert [len(item.task_run_ids) for item in told.repair_history] == [3, 1, 2, 2, 1]
        assert found.raw["repair_history"] == [item.as_dict() for item in told.repair_history]

    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_cancels_runs_equally(self, scene: Scene, version: str) -> None:
        client = scene.speaking(version)
        jobs = mine, other = [scene.ours.create_job(STUCK) for _ in range(2)]
        runs = [[scene.ours.run_now({"job_id": job_id}) for _ in range(3)] for job_id in jobs]
        client.cancel_run(runs[0][0])
        scene.theirs.cancel_run(runs[1][0])
        assert scene.run(runs[0][0]) == scene.run(runs[1][0])
        still = [[run.run_id for run in scene.theirs.list_runs(job_id=job_id, active_only=True)] for job_id in jobs]
        assert still == [[third, second] for _, second, third in runs]
        client.cancel_all_runs(mine)
        scene.theirs.cancel_all_runs(job_id=other)
        for first, second in zip(*runs, strict=True):
            assert scene.run(first) == scene.run(second)
            assert scene.ours.get_run(first).outcome is Outcome.CANCELED
        # What is over stays as it is.
        client.cancel_run(runs[1][0])
        scene.theirs.cancel_run(runs[0][0])
        assert scene.run(runs[0][0]) == scene.run(runs[1][0])

    @pytest.mark.parametrize("version", NEWER)
    def test_cancels_one_task_equally(self, scene: Scene, version: str) -> None:
        (scene.root / "sleep.py").write_text("# Databricks notebook source\nimport time; time.sleep(60)\n")
        tasks = [{"task_key": "a", "notebook_task": {"notebook_path": "/sleep"}}, *SMALL["tasks"]]
        tasks[1] = {**tasks[1], "task_key": "b"}
        tasks += [{**tasks[1], "task_key": "c", "depends_on": [{"task_key": "a"}]}]
        tasks += [{**tasks[2], "task_key": "d", "run_if": "ALL_FAILED"}]
        mine, other = (scene.ours.submit_run({"tasks": tasks}) for _ in range(2))
        scene.speaking(version).cancel_run(task_run(scene.ours.get_run(mine), "a"))
        scene.theirs.cancel_run(task_run(scene.ours.get_run(other), "a"))
        cancelled = scene.run(mine)
        assert cancelled == scene.run(other)
        ends = {task["task_key"]: task["state"]["result_state"] for task in cancelled["tasks"]}
        assert ends == {"a": "CANCELED", "b": "SUCCESS", "c": "UPSTREAM_CANCELED", "d": "SUCCESS"}
        assert cancelled["state"]["result_state"] == "CANCELED"

    @pytest.mark.parametrize("version", API_VERSIONS)
    def test_deletes_a_run_equally(self, scene: Scene, version: str) -> None:
        job_id = scene.ours.create_job(BUSY)
        runs = [scene.finished(scene.ours.run_now({"job_id": job_id})).run_id for _ in range(3)]
        scene.speaking(version).delete_run(runs[0])
        scene.theirs.delete_run(runs[1])
        for client in (scene.speaking(version), scene.theirs):
            assert [run.run_id for run in client.list_runs(job_id=job_id)] == runs[2:]

"""What Airflow has around the tasks of a workflow group, and a workspace in which a test says how they end."""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from airflow import DAG
from airflow_context import FAST, TaskDeferred, connect, fire, rebuilt  # type: ignore[attr-defined]
from in_process import connect_clients

from airflow_dbjobs.airflow_compat import AirflowSkipException, launches, task_states, xcoms
from airflow_dbjobs.local_workspace import LocalWorkspace, workspace
from airflow_dbjobs.local_workspace.engine.executor import Output
from airflow_dbjobs.local_workspace.engine.simulation import SimulatedExecutor
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    import pytest
    from pytest_mock import MockerFixture

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.client.models import TaskRun
    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import Run as RunRecord
    from airflow_dbjobs.local_workspace.state.records import State
    from airflow_dbjobs.local_workspace.state.records import TaskRun as TaskRecord

TOKEN = "local-token-of-the-tests"
GROUP = "etl"


class ScriptedExecutor(SimulatedExecutor):
    """Ends tasks at once, as the test says: `failures` by task key, and not before they are released from `held`."""

    def __init__(self, seconds: float, now_ms: Callable[[], int]) -> None:
        super().__init__(seconds, now_ms)
        self.failures: dict[str, int] = defaultdict(int)
        self.held: set[str] = set()

    def start(self, run: RunRecord, task: TaskRecord, spec: Json, upstream: Iterable[TaskRecord] = ()) -> None:
        super().start(run, task, spec, upstream)
        if self.failures[task.task_key] > 0:
            self.failures[task.task_key] -= 1
            task.planned_result = "FAILED"

    def poll(self, task: TaskRecord) -> State | None:
        is_held = task.task_key in self.held and task.state.life != "TERMINATING"
        return None if is_held else super().poll(task)

    def output(self, task: TaskRecord, **_: Any) -> Output:
        value = json.dumps({"attempt": task.attempt})
        return Output(
            "", log_truncated=False, exit_value=value, exit_value_truncated=False, error=None, error_trace=None
        )


class MemberInstance:
    """A task instance, as its tries see it."""

    dag_id = "nightly"
    run_id = "manual__1"
    map_index = -1

    def __init__(self, scene: GroupScene, task_id: str, retries: int) -> None:
        self.task_id = task_id
        self.retries = self.max_tries = retries
        self.try_number = 1
        self.start_date = datetime.now(UTC)
        self.scene = scene

    def xcom_push(self, key: str, value: Any) -> None:
        self.scene.xcoms[self.task_id, key] = json.loads(json.dumps(value))

    def xcom_pull(self, task_ids: str, key: str = "return_value") -> Any:
        return self.scene.xcoms.get((task_ids, key))


class GroupScene:
    """A DAG run with a workflow group. `edges` are pairs of tasks, `members` the parameters of each."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> None:
        monkeypatch.setattr(workspace, "SimulatedExecutor", self._script)
        self.workspace = LocalWorkspace(root, token=TOKEN, simulate=0)
        connect_clients(monkeypatch, self.workspace.adapter)
        connect(monkeypatch, self.workspace.base_url, TOKEN)
        self.members: dict[str, dict[str, Any]] = {}
        self.edges: list[tuple[str, str]] = []
        self.group: dict[str, Any] = {}
        self.xcoms: dict[tuple[str, str], Any] = {}
        self.states: dict[str, str] = {}
        self.dag_run_state = "running"
        self.instances: dict[str, MemberInstance] = {}
        self.deferrals: dict[str, TaskDeferred] = {}
        #: The operators of the processes that tasks run in now.
        self.operators: dict[str, Any] = {}
        mocker.patch.object(xcoms, "store_xcom", side_effect=self._store)
        mocker.patch.object(xcoms, "read_xcom", side_effect=self._read)
        mocker.patch.object(task_states, "states_of_tasks", side_effect=lambda *_: self.states_in_airflow())
        mocker.patch.object(task_states, "is_run_wanted", side_effect=self._is_run_wanted)
        mocker.patch.object(
            task_states, "is_run_wanted_within", side_effect=lambda _, *args: self._is_run_wanted(*args)
        )
        mocker.patch.object(task_states, "task_state", side_effect=lambda ti, **_: self.states[ti.task_id])
        mocker.patch.object(
            task_states, "is_worker_stopping", side_effect=lambda ti, _: self.states[ti.task_id] == "running"
        )
        mocker.patch.object(launches, "report_launch")
        mocker.patch.object(launches, "reported_launches", return_value=[])

    def _script(self, seconds: float, now_ms: Callable[[], int]) -> ScriptedExecutor:
        self.executor = ScriptedExecutor(seconds, now_ms)
        return self.executor

    # --- what Airflow knows ---

    def _store(self, ti: MemberInstance, key: str, value: Any, *, task_id: str = "") -> None:
        self.xcoms[task_id or ti.task_id, key] = json.loads(json.dumps(value))

    def _read(self, _: MemberInstance, key: str, *, task_id: str) -> Any:
        return self.xcoms.get((task_id, key))

    def _is_run_wanted(self, _: MemberInstance, launch_task_id: str) -> bool:
        return self.states[launch_task_id] == "success" and self.dag_run_state == "running"

    def states_in_airflow(self) -> dict[str, str]:
        return dict(self.states)

    def note(self, name: str) -> Any:
        return self.xcoms.get((f"{GROUP}.launch", f"member.{name}"))

    # --- the DAG ---

    def add(self, name: str, *, after: tuple[str, ...] = (), **parameters: Any) -> str:
        """Add a member, which is deferrable unless `parameters` say otherwise; return its name."""
        self.members[name] = {"polling_period_seconds": FAST, **parameters}
        self.edges += [(upstream, name) for upstream in after]
        return name

    def dag(self) -> Any:
        dag = DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC))
        with dag, DatabricksWorkflowTaskGroup(group_id=GROUP, **self.group):
            tasks = {
                name: DatabricksNotebookOperator(task_id=name, notebook_path=f"/{name}", **parameters)
                for name, parameters in self.members.items()
            }
            for upstream, downstream in self.edges:
                tasks[upstream] >> tasks[downstream]
        return dag

    # --- tries of a task ---

    def launch(self) -> int:
        """Run the task `launch`, again if it has run before; return the run."""
        self.states |= {f"{GROUP}.{name}": "cleared" for name in self.members}
        metadata = self.run("launch")
        return int(metadata["run_id"])

    def run(self, name: str) -> Any:
        """Let a task begin its next try, and finish it as Airflow does; return its result or raise its error."""
        result = self.begin(name)
        return self.run_on(name) if name in self.deferrals else result

    def run_on(self, name: str) -> Any:
        """Finish a try that is deferred."""
        while True:
            result = self.resume(name)
            if name not in self.deferrals:
                return result

    def begin(self, name: str) -> Any:
        """Let a task begin its next try; it ends, or is deferred."""
        task_id = f"{GROUP}.{name}"
        if (instance := self.instances.get(name)) is None:
            retries = self.members.get(name, {}).get("retries", 0)
            instance = self.instances[name] = MemberInstance(self, task_id, retries)
        else:
            instance.try_number += 1
        instance.start_date = datetime.now(UTC)
        # Airflow deletes them before each try.
        for key in [key for key in self.xcoms if key[0] == task_id]:
            del self.xcoms[key]
        return self._call(name, lambda operator, context: operator.execute(context))

    def resume(self, name: str) -> Any:
        """Let the trigger of a deferred task fire, and the task resume."""
        deferral = self.deferrals[name]
        event = self.fire(name)
        return self._call(
            name,
            lambda operator, context: operator.resume_execution(
                deferral.method_name, {**json.loads(json.dumps(deferral.kwargs or {})), "event": event}, context
            ),
        )

    def trigger(self, name: str) -> Any:
        """Return the trigger of a deferred task, as the triggerer gets it."""
        trigger = rebuilt(self.deferrals[name].trigger)
        trigger.task_instance = self.instances[name]
        return trigger

    def fire(self, name: str) -> Any:
        """Run the trigger of a deferred task; return its event."""
        event = fire(self.trigger(name))
        del self.deferrals[name]
        return event

    def _call(self, name: str, work: Callable[[Any, Any], Any]) -> Any:
        task_id = f"{GROUP}.{name}"
        launches._counter = None
        operator = self.operators[name] = self.dag().get_task(task_id)
        dag_run = SimpleNamespace(start_date=datetime.now(UTC) - timedelta(minutes=1))
        context = {"ti": self.instances[name], "dag_run": dag_run}
        self.states[task_id] = "running"
        try:
            result = work(operator, context)
        except TaskDeferred as deferral:
            self.states[task_id], self.deferrals[name] = "deferred", deferral
            return None
        except AirflowSkipException:
            self.states[task_id] = "skipped"
            raise
        except Exception:
            instance = self.instances[name]
            has_retry = instance.try_number <= instance.max_tries
            self.states[task_id] = "up_for_retry" if has_retry else "failed"
            raise
        self.states[task_id] = "success"
        if result is not None:
            self.xcoms[task_id, "return_value"] = json.loads(json.dumps(result))
        return result

    def outside(self, name: str, **parameters: Any) -> partial[Any]:
        """Return what runs the next try of a task outside the group, with `workflow_run_metadata` as `rendered`."""
        instance = MemberInstance(self, name, parameters.get("retries", 0))
        instance.try_number = 0

        def run(*, rendered: Any = parameters["workflow_run_metadata"]) -> Any:
            instance.try_number += 1
            operator = DatabricksNotebookOperator(
                task_id=name, notebook_path="/any", polling_period_seconds=FAST, **parameters
            )
            operator.workflow_run_metadata = rendered
            return operator.execute({"ti": instance})  # type: ignore[typeddict-item]

        return partial(run)

    def clear(self, *names: str) -> None:
        """Clear tasks, as a user does."""
        for name in names:
            if (instance := self.instances.get(name)) is not None:
                instance.max_tries = instance.try_number + instance.retries
            self.states[f"{GROUP}.{name}"] = "cleared"

    # --- what the workspace has ---

    @property
    def run_id(self) -> int:
        """The run that was launched last."""
        return int(self.xcoms[f"{GROUP}.launch", "run_id"])

    def task(self, client: JobsClient, name: str) -> TaskRun:
        return next(task for task in client.get_run(self.run_id).tasks if task.task_key == name)

    def state(self, client: JobsClient, name: str) -> str:
        return str(self.task(client, name).state)

    def repairs(self, client: JobsClient) -> list[list[str]]:
        """Return the keys of the tasks that each repair of the latest run ran again."""
        history: Any = client.get_run(self.run_id, include_history=True).raw
        keys = {task["run_id"]: task["task_key"] for task in history["tasks"]}
        return [
            sorted(keys[run_id] for run_id in item["task_run_ids"])
            for item in history["repair_history"]
            if item["type"] == "REPAIR"
        ]


def running(root: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> Iterator[GroupScene]:
    """Yield a scene while its workspace runs."""
    root.mkdir()
    scene = GroupScene(root, monkeypatch, mocker)
    with scene.workspace:
        yield scene

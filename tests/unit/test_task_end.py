"""Which deferred tasks succeed in the triggerer: what a success may need a worker for."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import Scene, submit

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, task_end
from airflow_dbjobs.airflow_compat.task_end import settling_seconds, success_arguments
from airflow_dbjobs.operators import DatabricksSubmitRunOperator
from airflow_dbjobs.sensors import DatabricksJobIdleSensor, DatabricksRunSensor

if TYPE_CHECKING:
    from collections.abc import Callable

needs_airflow_3 = pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="On Airflow 2 a worker ends each task")

NOTEBOOK = {"notebook_path": "/a"}
ENDS = {"ends_task": True, "max_result_bytes": 1000}


class Subclass(DatabricksSubmitRunOperator):
    """A user's operator that changes nothing of what happens at a success."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def execute(self, context: Any) -> Any:
        return super().execute(context)

    def helper(self) -> None:
        """A method that no operator of the package has."""


class Completes(Subclass):
    def execute_complete(self, context: Any, event: Any = None, **kwargs: Any) -> Any:
        return super().execute_complete(context, event, **kwargs)


class Resumes(DatabricksRunSensor):
    def resume_execution(self, *args: Any) -> Any:
        return super().resume_execution(*args)


class Posts(Subclass):
    def post_execute(self, context: Any, result: Any = None) -> None:
        """Something."""


class Finishes(Subclass):
    def _finish(self, *args: Any, **kwargs: Any) -> Any:
        return super()._finish(*args, **kwargs)


class CompletesWithAnything(Subclass):
    execute_complete = partial(print)  # type: ignore[assignment]


class Mixin:
    """Of another provider, for example."""

    __module__ = "airflow.providers.another"

    def execute_complete(self, context: Any, event: Any = None) -> Any:
        """Complete in another way."""


class Mixed(Mixin, Subclass):  # type: ignore[misc]
    """A class that overrides nothing itself."""


class Rerenders(Subclass):
    overwrite_rtif_after_execution = True


class Link:
    """A link of a user's own."""


class Linked(Subclass):
    operator_extra_links = (*DatabricksSubmitRunOperator.operator_extra_links, Link())


def arguments(
    make: Callable[..., Any] = DatabricksSubmitRunOperator, *, before: Callable[[Any], Any] = lambda _: 0, **kwargs: Any
) -> dict[str, Any]:
    """Return what the trigger of a task in a DAG gets."""
    from airflow.sdk import DAG

    if issubclass(make, DatabricksSubmitRunOperator):  # type: ignore[arg-type]
        kwargs["notebook_task"] = NOTEBOOK
    with DAG("nightly", schedule=None):
        task = make(task_id="load", **kwargs)
        before(task)
    ti = SimpleNamespace(task_id="load", task=task)
    context = {"ti": ti, "map_index_template": getattr(task, "map_index_template", None)}
    return success_arguments(task, context, max_result_bytes=1000)  # type: ignore[arg-type]


def map_over(task: Any) -> None:
    DatabricksSubmitRunOperator.partial(task_id="each", notebook_task=NOTEBOOK).expand(run_name=task.output)


def complete_otherwise(task: Any) -> None:
    task.execute_complete = print


def post_otherwise(task: Any) -> None:
    task.post_execute = print


def use(task: Any) -> None:
    DatabricksSubmitRunOperator(task_id="after", notebook_task=NOTEBOOK, run_name=task.output)


@needs_airflow_3
class TestEndsInTriggerer:
    @pytest.mark.parametrize(
        ("make", "kwargs"),
        [
            (DatabricksSubmitRunOperator, {}),
            (DatabricksSubmitRunOperator, {"before": use, "on_failure_callback": print, "retries": 3}),
            (DatabricksSubmitRunOperator, {"on_success_callback": [], "outlets": [], "pre_execute": print}),
            (DatabricksRunSensor, {"run_id": 7}),
            (DatabricksJobIdleSensor, {"job_id": 7}),
            (Subclass, {}),
        ],
    )
    def test_a_success_that_needs_no_worker(self, make: Any, kwargs: dict[str, Any]) -> None:
        assert arguments(make, **kwargs) == ENDS

    def test_without_xcoms_and_result(self) -> None:
        assert arguments(do_xcom_push=False) == {"ends_task": True, "max_result_bytes": None}


@needs_airflow_3
class TestNeedsWorker:
    @pytest.mark.parametrize(
        ("make", "kwargs", "reason"),
        [
            (DatabricksSubmitRunOperator, {"on_success_callback": print}, "it has an on_success_callback"),
            (DatabricksSubmitRunOperator, {"on_success_callback": [print]}, "it has an on_success_callback"),
            (DatabricksSubmitRunOperator, {"post_execute": print}, "it has a post_execute"),
            (DatabricksSubmitRunOperator, {"before": map_over}, "another task is mapped over its result"),
            (DatabricksSubmitRunOperator, {"map_index_template": "{{ ti }}"}, "it has a map_index_template"),
            (Posts, {}, "it has a post_execute"),
            (Completes, {}, "it overrides methods of the operator"),
            (Resumes, {"run_id": 7}, "it overrides methods of the operator"),
            (Finishes, {}, "it overrides methods of the operator"),
            (CompletesWithAnything, {}, "it overrides methods of the operator"),
            (Mixed, {}, "it overrides methods of the operator"),
            (Subclass, {"before": complete_otherwise}, "it overrides methods of the operator"),
            (Subclass, {"before": post_otherwise}, "it has a post_execute"),
            (DatabricksSubmitRunOperator, {"multiple_outputs": True}, "it has multiple_outputs"),
            (Rerenders, {}, "it renders its template fields again afterwards"),
            (Linked, {}, "it has further extra links"),
        ],
    )
    def test_what_the_task_has(
        self, make: Any, kwargs: dict[str, Any], reason: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert arguments(make, **kwargs) == {}
        assert f"resume on a worker even after a success, because {reason}." in capsys.readouterr().out

    def test_outlets(self, capsys: pytest.CaptureFixture[str]) -> None:
        from airflow.sdk import Asset

        assert arguments(outlets=[Asset("made")]) == {}
        assert "because it has outlets." in capsys.readouterr().out

    def test_a_result_of_the_dag(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # Airflow 3.3 has it.
        monkeypatch.setattr(Subclass, "returns_dag_result", True, raising=False)
        assert arguments(Subclass) == {}

    def test_switched_off(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert arguments(end_in_triggerer=False) == {}
        assert "resume on a worker" not in capsys.readouterr().out

    def test_a_listener(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.sdk.execution_time import task_runner

        calls: list[Any] = []
        hook = SimpleNamespace(on_task_instance_success=SimpleNamespace(get_hookimpls=lambda: calls))
        monkeypatch.setattr(task_runner, "get_listener_manager", lambda: SimpleNamespace(hook=hook))
        assert arguments() == ENDS
        calls.append(print)
        assert arguments() == {}

    def test_a_custom_xcom_backend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow_dbjobs import airflow_compat

        class Backend(airflow_compat.BaseXCom):
            """Stores elsewhere."""

        monkeypatch.setattr(airflow_compat, "XCom", Backend)
        assert arguments() == {}
        assert arguments(do_xcom_push=False)["ends_task"], "nothing is stored"

    def test_dag_test(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from airflow.sdk.execution_time import task_runner

        comms = type("InProcessSupervisorComms", (), {})()
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", comms, raising=False)
        assert arguments() == {}

    def test_an_operator_that_another_one_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        outer = DatabricksSubmitRunOperator(task_id="load", notebook_task=NOTEBOOK)
        inner = DatabricksSubmitRunOperator(task_id="load", notebook_task=NOTEBOOK)
        context: Any = {"ti": SimpleNamespace(task_id="load", task=outer)}
        assert success_arguments(inner, context, max_result_bytes=1000) == {}
        assert "because another operator runs it." in capsys.readouterr().out

    def test_traces(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__TRACES__OTEL_ON", "True")
        assert arguments() == {}

    def test_clearing_the_tasks_state(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__STATE_STORE__CLEAR_ON_SUCCESS", "True")
        assert arguments() == {}

    def test_what_cannot_be_checked(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        def broken(*_: Any) -> bool:
            raise RuntimeError("a plugin")

        monkeypatch.setitem(task_end._NEEDS, "it has outlets", broken)
        assert arguments() == {}
        assert "because checking what it needs failed: RuntimeError('a plugin')." in capsys.readouterr().out


@pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="On Airflow 3 the triggerer ends successes")
def test_airflow_2_ends_no_task_in_the_triggerer(scene: Scene) -> None:
    deferral = scene.defer_task(lambda: submit(deferrable=True, notebook_task=scene.notebook()))
    scene.open_gate()
    assert deferral.trigger.ends_task is False


class TestSettling:
    @pytest.mark.parametrize(("interval", "seconds"), [(None, 6), ("1", 2)])
    def test_follows_the_workers_heartbeat(
        self, monkeypatch: pytest.MonkeyPatch, interval: str | None, seconds: float
    ) -> None:
        if interval:
            monkeypatch.setenv("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", interval)
        assert settling_seconds() == (seconds if AIRFLOW_V_3_0_PLUS else 0)


@needs_airflow_3
class TestTrigger:
    @pytest.mark.parametrize(("states", "ends"), [("SUCCESS", True), ("FAILED", False), ("TERMINATED", True)])
    def test_of_a_sensor_ends_only_a_success_that_it_waits_for(
        self, scene: Scene, states: str, ends: bool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("airflow_dbjobs.sensors.base.success_arguments", lambda *_, **__: dict(ENDS))
        scene.defer_task(lambda: submit(deferrable=True, notebook_task=scene.notebook()))
        run_id = scene.ti.xcom["run_id"]
        deferral = scene.defer_task(
            lambda: DatabricksRunSensor(task_id="wait", run_id=run_id, states=states, deferrable=True)
        )
        scene.open_gate()
        assert deferral.trigger.ends_task is ends

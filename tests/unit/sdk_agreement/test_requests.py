"""Requests: our client and the databricks-sdk send the same bodies, and are refused in the same words."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from databricks.sdk.errors import DatabricksError
from databricks.sdk.service import compute
from databricks.sdk.service import jobs as sdk

from airflow_dbjobs import payloads
from airflow_dbjobs.client.workspace import API_VERSIONS
from airflow_dbjobs.errors import ApiError, NotFound

from .made import FULL, HEALTH, SMALL, STUCK, TASK
from .scene import close_sdk, differences

if TYPE_CHECKING:
    from collections.abc import Callable

    from databricks.sdk.service.jobs import JobsAPI

    from airflow_dbjobs.client import JobsClient

    from .scene import Scene

    Calls = tuple[Callable[[JobsClient], Any], Callable[[JobsAPI], Any]]


# One task of most types, and most fields that hold objects of their own.
WIDE: dict[str, Any] = {
    **FULL,
    "health": HEALTH,
    "continuous": {"pause_status": "PAUSED"},
    "trigger": {"file_arrival": {"url": "abfss://c@a.dfs.core.windows.net/in/"}, "pause_status": "UNPAUSED"},
    "git_source": {"git_url": "https://git.example/r.git", "git_provider": "gitHub", "git_branch": "main"},
    "run_as": {"service_principal_name": "robot"},
    "edit_mode": "EDITABLE",
    "performance_target": "STANDARD",
    "budget_policy_id": "b",
    "tasks": [
        *FULL["tasks"],
        {
            "task_key": "python",
            "run_if": "AT_LEAST_ONE_SUCCESS",
            "spark_python_task": {"python_file": "/a.py", "parameters": ["1", "2"], "source": "WORKSPACE"},
            "new_cluster": {
                "spark_version": "15.4.x-scala2.12",
                "autoscale": {"min_workers": 1, "max_workers": 4},
                "azure_attributes": {"availability": "SPOT_WITH_FALLBACK_AZURE", "first_on_demand": 1},
                "spark_conf": {"spark.speculation": "true"},
                "spark_env_vars": {"A": "b"},
                "cluster_log_conf": {"dbfs": {"destination": "dbfs:/logs"}},
                "init_scripts": [{"workspace": {"destination": "/init.sh"}}],
                "custom_tags": {"c": "d"},
                "data_security_mode": "SINGLE_USER",
                "enable_elastic_disk": False,
            },
        },
        {
            "task_key": "jar",
            "spark_jar_task": {"main_class_name": "a.B", "parameters": []},
            "existing_cluster_id": "0923-164208-meows279",
            "libraries": [{"jar": "/a.jar"}, {"maven": {"coordinates": "a:b:1", "exclusions": ["c:d"]}}],
            "max_retries": -1,
            "min_retry_interval_millis": 0,
            "retry_on_timeout": False,
        },
        {
            "task_key": "wheel",
            "python_wheel_task": {"package_name": "p", "entry_point": "e", "named_parameters": {"n": "v"}},
        },
        {"task_key": "sql", "sql_task": {"warehouse_id": "w", "query": {"query_id": "q"}, "parameters": {"a": "1"}}},
        {"task_key": "dbt", "dbt_task": {"commands": ["dbt run"]}, "environment_key": "default"},
        {"task_key": "pipeline", "pipeline_task": {"pipeline_id": "p", "full_refresh": True}},
        {"task_key": "job", "run_job_task": {"job_id": 7, "job_parameters": {"day": "x"}}},
        {
            "task_key": "each",
            "for_each_task": {"inputs": "[1, 2]", "concurrency": 2, "task": {"task_key": "one", **TASK}},
            "email_notifications": {"on_start": ["a@b.example"], "no_alert_for_skipped_runs": True},
            "notification_settings": {"alert_on_last_attempt": True},
            "disabled": True,
        },
    ],
}


def same_body(scene: Scene, ours: Callable[[], Any], theirs: Callable[[], Any]) -> dict[str, Any]:
    """Return the body that both calls send, as ours does: the SDK leaves out empty arrays in its objects."""
    (mine,), (other,) = scene.sent(ours), scene.sent(theirs)
    assert mine[:2] == other[:2]
    assert differences(mine[2], other[2]) == set()
    return mine[2]


PARAMETERS = {
    "notebook_params": {"a": "1"},
    "python_params": ["x", "y"],
    "jar_params": [],
    "python_named_params": {"n": "v"},
    "sql_params": {"s": "1"},
    "dbt_commands": ["dbt run"],
    "job_parameters": {"day": "friday"},
}
PIPELINE = {"full_refresh": True}
GRANTS = [{"user_name": "a@b.example", "permission_level": "IS_OWNER"}]


class TestRequests:
    @pytest.mark.parametrize("settings", [SMALL, FULL, WIDE], ids=["small", "full", "wide"])
    def test_for_a_job_are_those_of_the_sdk(self, scene: Scene, settings: dict[str, Any]) -> None:
        mine, other = settings, sdk.JobSettings.from_dict(settings)
        bodies = [
            same_body(
                scene, lambda: scene.ours.create_job(mine), lambda: scene.theirs.create(**other.as_shallow_dict())
            ),
            same_body(scene, lambda: scene.ours.reset_job(1, mine), lambda: scene.theirs.reset(1, other))[
                "new_settings"
            ],
            same_body(
                scene,
                lambda: scene.ours.update_job(1, mine, ["schedule"]),
                lambda: scene.theirs.update(1, new_settings=other, fields_to_remove=["schedule"]),
            )["new_settings"],
        ]
        assert bodies == [settings] * 3

    def test_for_a_typed_run_are_those_of_the_sdk(self, scene: Scene) -> None:
        mine = payloads.SubmitRun(
            run_name="typed",
            idempotency_token="once",
            timeout_seconds=0,
            access_control_list=[payloads.JobAccessControlRequest(group_name="viewers", permission_level="CAN_VIEW")],
            email_notifications=payloads.JobEmailNotifications(on_failure=["a@b.example"]),
            queue=payloads.QueueSettings(enabled=False),
            tasks=[
                payloads.SubmitTask(
                    task_key="load",
                    depends_on=[payloads.TaskDependency(task_key="check", outcome="true")],
                    run_if=payloads.RunIf.ALL_DONE,
                    notebook_task=payloads.NotebookTask(notebook_path="/good", base_parameters={"a": "1"}),
                    new_cluster=payloads.NewCluster(
                        spark_version="15.4.x-scala2.12", autoscale=payloads.AutoScale(min_workers=1, max_workers=2)
                    ),
                    libraries=[payloads.Library(pypi=payloads.PythonPyPiLibrary(package="simplejson"))],
                )
            ],
        )
        other = {
            "run_name": "typed",
            "idempotency_token": "once",
            "timeout_seconds": 0,
            "access_control_list": [
                sdk.JobAccessControlRequest(group_name="viewers", permission_level=sdk.JobPermissionLevel.CAN_VIEW)
            ],
            "email_notifications": sdk.JobEmailNotifications(on_failure=["a@b.example"]),
            "queue": sdk.QueueSettings(enabled=False),
            "tasks": [
                sdk.SubmitTask(
                    task_key="load",
                    depends_on=[sdk.TaskDependency(task_key="check", outcome="true")],
                    run_if=sdk.RunIf.ALL_DONE,
                    notebook_task=sdk.NotebookTask(notebook_path="/good", base_parameters={"a": "1"}),
                    new_cluster=compute.ClusterSpec(
                        spark_version="15.4.x-scala2.12", autoscale=compute.AutoScale(min_workers=1, max_workers=2)
                    ),
                    libraries=[compute.Library(pypi=compute.PythonPyPiLibrary(package="simplejson"))],
                )
            ],
        }
        body = same_body(scene, lambda: scene.ours.submit_run(mine), lambda: scene.theirs.submit(**other))
        assert body["tasks"][0]["new_cluster"]["autoscale"] == {"min_workers": 1, "max_workers": 2}
        assert body["timeout_seconds"] == 0

    @pytest.mark.parametrize(
        ("ours", "theirs"),
        [
            (
                lambda client: client.run_now(
                    payloads.RunNow(
                        job_id=1,
                        **PARAMETERS,
                        only=["a"],
                        queue=payloads.QueueSettings(enabled=True),
                        pipeline_params=payloads.PipelineParams(**PIPELINE),
                    )
                ),
                lambda api: api.run_now(
                    1,
                    **PARAMETERS,
                    only=["a"],
                    queue=sdk.QueueSettings(enabled=True),
                    pipeline_params=sdk.PipelineParams(**PIPELINE),
                ),
            ),
            (
                lambda client: client.repair_run(
                    payloads.RepairRun(run_id=1, latest_repair_id=2, rerun_tasks=["a"], rerun_dependent_tasks=False)
                ),
                lambda api: api.repair_run(1, latest_repair_id=2, rerun_tasks=["a"], rerun_dependent_tasks=False),
            ),
            (lambda client: client.delete_job(1), lambda api: api.delete(1)),
            (lambda client: client.cancel_run(1), lambda api: api.cancel_run(1)),
            (lambda client: client.cancel_all_runs(1), lambda api: api.cancel_all_runs(job_id=1)),
            (lambda client: client.delete_run(1), lambda api: api.delete_run(1)),
            *(
                (
                    lambda client, name=name: getattr(client, name)(1, [payloads.JobAccessControlRequest(**GRANTS[0])]),
                    lambda api, name=name: getattr(api, name)(
                        "1", access_control_list=[sdk.JobAccessControlRequest.from_dict(GRANTS[0])]
                    ),
                )
                for name in ("set_permissions", "update_permissions")
            ),
        ],
        ids=["run-now", "repair", "delete", "cancel", "cancel-all", "delete-run", "set", "update"],
    )
    def test_for_all_other_calls_have_the_same_json(
        self, scene: Scene, ours: Callable[[JobsClient], Any], theirs: Callable[[JobsAPI], Any]
    ) -> None:
        assert same_body(scene, lambda: ours(scene.ours), lambda: theirs(scene.theirs))


def refusals(ours: Callable[[], Any], theirs: Callable[[], Any]) -> tuple[ApiError, DatabricksError]:
    """Return the errors of two calls, whose classes have the same name.

    A sentence that says that something does not exist is NotFound to us wherever it comes, to the SDK only from
    jobs/get and runs/get.
    """
    with pytest.raises(ApiError) as mine:
        ours()
    with pytest.raises(DatabricksError) as other:
        theirs()
    names = {type(mine.value).__name__} | ({"BadRequest"} if isinstance(mine.value, NotFound) else set())
    assert names & {kind.__name__ for kind in type(other.value).__mro__}
    return mine.value, other.value


MISSING = 5
MISSING_CALLS: dict[str, Calls] = {
    "get": (lambda client: client.get_job(MISSING), lambda api: api.get(MISSING)),
    "reset": (
        lambda client: client.reset_job(MISSING, SMALL),
        lambda api: api.reset(MISSING, sdk.JobSettings.from_dict(SMALL)),
    ),
    "update": (lambda client: client.update_job(MISSING, {}), lambda api: api.update(MISSING)),
    "run-now": (lambda client: client.run_now({"job_id": MISSING}), lambda api: api.run_now(MISSING)),
    "cancel-all": (lambda client: client.cancel_all_runs(MISSING), lambda api: api.cancel_all_runs(job_id=MISSING)),
    "runs/get": (lambda client: client.get_run(MISSING), lambda api: api.get_run(MISSING)),
    "get-output": (lambda client: client.get_run_output(MISSING), lambda api: api.get_run_output(MISSING)),
    "export": (lambda client: client.export_run(MISSING), lambda api: api.export_run(MISSING)),
    "cancel": (lambda client: client.cancel_run(MISSING), lambda api: api.cancel_run(MISSING)),
    "runs/delete": (lambda client: client.delete_run(MISSING), lambda api: api.delete_run(MISSING)),
    "permissions": (lambda client: client.get_permissions(MISSING), lambda api: api.get_permissions(str(MISSING))),
    "levels": (
        lambda client: client.get_permission_levels(MISSING),
        lambda api: api.get_permission_levels(str(MISSING)),
    ),
}


class TestErrors:
    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize("name", MISSING_CALLS)
    def test_for_missing_objects_are_the_same(self, scene: Scene, version: str, name: str) -> None:
        ours, theirs = MISSING_CALLS[name]
        mine, other = refusals(lambda: ours(scene.speaking(version)), lambda: theirs(scene.theirs))
        assert (mine.error_code, mine.message) == (other.error_code, str(other))
        assert "5 does not exist" in mine.message

    @pytest.mark.parametrize("version", ["2.1", "2.2"])
    def test_for_a_repair_of_a_missing_run_are_the_same(self, scene: Scene, version: str) -> None:
        body = {"run_id": MISSING, "rerun_all_failed_tasks": True}
        mine, other = refusals(
            lambda: scene.speaking(version).repair_run(body), lambda: scene.theirs.repair_run(**body)
        )
        assert (mine.error_code, mine.message) == (other.error_code, str(other))

    @pytest.mark.parametrize("name", ["get", "run-now", "runs/get", "permissions"])
    def test_for_a_wrong_token_are_the_same(self, scene: Scene, name: str) -> None:
        ours, theirs = MISSING_CALLS[name]
        their_client = scene.their_client("another-token")
        with closing(scene.our_client("another-token")) as client:
            mine, other = refusals(lambda: ours(client), lambda: theirs(their_client.jobs))
        close_sdk(their_client)
        # The SDK adds its configuration to the message. The cloud's error_code is the number 403 here, which names
        # nothing: we leave it out.
        assert str(other).startswith(mine.message.rstrip("."))
        assert (mine.status, mine.error_code, other.error_code) == (403, "", 403)

    @pytest.mark.parametrize("version", API_VERSIONS)
    @pytest.mark.parametrize(
        "settings",
        [
            {"tasks": [{"task_key": "a", **TASK}, {"task_key": "a", **TASK}]},
            {"tasks": [{"task_key": "a", "depends_on": [{"task_key": "b"}], **TASK}]},
            {"max_concurrent_runs": 5000, "tasks": SMALL["tasks"]},
            {"timeout_seconds": -5, "tasks": SMALL["tasks"]},
        ],
        ids=str,
    )
    def test_for_invalid_settings_are_the_same(self, scene: Scene, version: str, settings: dict[str, Any]) -> None:
        mine, other = refusals(lambda: scene.speaking(version).create_job(settings), lambda: scene.their_job(settings))
        assert (mine.error_code, mine.message) == (other.error_code, str(other))
        assert mine.error_code == "INVALID_PARAMETER_VALUE"

    def test_for_invalid_run_requests_are_the_same(self, scene: Scene) -> None:
        ours, theirs = scene.ours, scene.theirs
        job_id = ours.create_job(STUCK)
        run_id = ours.run_now({"job_id": job_id})
        over = ours.submit_run({"tasks": [*SMALL["tasks"], {"task_key": "b", **TASK}]})
        scene.finished(over)
        codes = []
        for our_call, their_call in (
            (lambda: ours.submit_run({}), theirs.submit),
            (lambda: ours.delete_run(run_id), lambda: theirs.delete_run(run_id)),
            (lambda: ours.get_run_output(over), lambda: theirs.get_run_output(over)),
            (lambda: ours.export_run(over), lambda: theirs.export_run(over)),
            (lambda: ours.run_now({"job_id": job_id, "only": ["z"]}), lambda: theirs.run_now(job_id, only=["z"])),
            (lambda: ours.repair_run({"run_id": over}), lambda: theirs.repair_run(over)),
            (
                lambda: list(ours.list_runs(active_only=True, completed_only=True)),
                lambda: list(theirs.list_runs(active_only=True, completed_only=True)),
            ),
            (
                lambda: ours.set_permissions(job_id, [{"group_name": "a", "permission_level": "CAN_VIEW"}]),
                lambda: theirs.set_permissions(
                    str(job_id),
                    access_control_list=[
                        sdk.JobAccessControlRequest(group_name="a", permission_level=sdk.JobPermissionLevel.CAN_VIEW)
                    ],
                ),
            ),
        ):
            mine, other = refusals(our_call, their_call)
            assert (mine.error_code, mine.message) == (other.error_code, str(other))
            codes.append(mine.error_code)
        assert set(codes) == {"INVALID_PARAMETER_VALUE", "INVALID_STATE"}

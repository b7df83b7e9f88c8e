"""What counts as a difference between the settings a job is to have and those it has, and what does not."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from job_cases import FLAT, OF_TASKS, JobCase

from airflow_dbjobs.client.settings_diff import differences

CRON = {"quartz_cron_expression": "0 0 6 * * ?", "timezone_id": "Europe/Berlin"}
CLUSTER = {"spark_version": "15.4.x-scala2.12", "node_type_id": "m5.xlarge", "num_workers": 2}
GIT = {"git_url": "https://example.com/etl.git", "git_provider": "gitHub", "git_branch": "main"}
NOTEBOOK = {"notebook_path": "/etl/load"}
LOAD = {"task_key": "load", "notebook_task": NOTEBOOK}
CHECK = {"task_key": "check", "notebook_task": {"notebook_path": "/etl/check"}, "depends_on": [{"task_key": "load"}]}


def one(**fields: Any) -> dict[str, Any]:
    """Return a job of one task that has these fields besides."""
    return {"tasks": [{**LOAD, **fields}]}


def cluster(**fields: Any) -> dict[str, Any]:
    return one(new_cluster={**CLUSTER, **fields})


def notebook(**fields: Any) -> dict[str, Any]:
    return one(notebook_task={**NOTEBOOK, **fields})


# Each: what is wanted, and what the API answers.
THE_SAME: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "defaults of a job": (
        one(),
        {"timeout_seconds": 0, "max_concurrent_runs": 1, "email_notifications": {}, "webhook_notifications": {},
         "format": "MULTI_TASK", "edit_mode": "EDITABLE", "performance_target": "PERFORMANCE_OPTIMIZED", **one()},
    ),
    "defaults of a task": (
        one(),
        one(run_if="ALL_SUCCESS", timeout_seconds=0, email_notifications={}, webhook_notifications={}, max_retries=0,
            min_retry_interval_millis=0, retry_on_timeout=False, disabled=False, libraries=[], depends_on=[],
            notification_settings={"no_alert_for_skipped_runs": False, "alert_on_last_attempt": False}),
    ),
    "nothing that is asked for": (
        {"schedule": None, "description": "", "tags": {}, "email_notifications": {"on_failure": []}, **one()},
        {"email_notifications": {}, **one()},
    ),
    "files of the workspace": (one(), notebook(source="WORKSPACE")),
    "files of the git source": (
        {"git_source": GIT, **one()}, {"git_source": GIT, **notebook(source="GIT")}
    ),
    "files of a loop's task": (
        one(for_each_task={"inputs": "[1]", "task": LOAD}),
        one(for_each_task={"inputs": "[1]", "concurrency": 1,
                           "task": {**LOAD, "run_if": "ALL_SUCCESS", **notebook(source="WORKSPACE")["tasks"][0]}}),
    ),
    "a schedule that is not paused": (
        {"schedule": CRON, **one()}, {"schedule": {**CRON, "pause_status": "UNPAUSED"}, **one()}
    ),
    "the queue that 2.2 gives a job": (one(), {"queue": {"enabled": True}, **one()}),
    "the identity that a reset keeps": (one(), {"run_as": {"user_name": "ann@example.com"}, **one()}),
    "the format, whatever is asked for": ({"format": "SINGLE_TASK", **one()}, {"format": "MULTI_TASK", **one()}),
    "what a git source has checked out": (
        {"git_source": GIT, **one()}, {"git_source": {**GIT, "git_snapshot": {"used_commit": "a1"}}, **one()}
    ),
    "a git provider in another letter case": (
        {"git_source": {**GIT, "git_provider": "GITHUB"}, **one()}, {"git_source": GIT, **one()}
    ),
    "the cloud's defaults on AWS": (
        cluster(),
        cluster(aws_attributes={"availability": "SPOT_WITH_FALLBACK", "zone_id": "us-east-1c", "first_on_demand": 0},
                data_security_mode="SINGLE_USER", enable_elastic_disk=False),
    ),
    "the cloud's defaults on Azure": (
        cluster(),
        cluster(azure_attributes={"availability": "ON_DEMAND_AZURE", "first_on_demand": 1, "spot_bid_max_price": -1.0},
                enable_elastic_disk=True),
    ),
    "the cloud's defaults beside what is wanted": (
        cluster(azure_attributes={"spot_bid_max_price": "0.5"}),
        cluster(azure_attributes={"availability": "ON_DEMAND_AZURE", "first_on_demand": 1, "spot_bid_max_price": 0.5}),
    ),
    "tasks in another order": ({"tasks": [LOAD, CHECK]}, {"tasks": [CHECK, LOAD]}),
    "dependencies in another order": (
        one(depends_on=[{"task_key": "b"}, {"task_key": "a", "outcome": "true"}]),
        one(depends_on=[{"task_key": "a", "outcome": "true"}, {"task_key": "b"}]),
    ),
    "other arrays with names in another order": (
        {"job_clusters": [{"job_cluster_key": key, "new_cluster": CLUSTER} for key in "ab"],
         "environments": [{"environment_key": key, "spec": {"environment_version": "3"}} for key in "ab"],
         "parameters": [{"name": key, "default": key} for key in "ab"],
         "webhook_notifications": {"on_failure": [{"id": key} for key in "ab"]}, **one()},
        {"job_clusters": [{"job_cluster_key": key, "new_cluster": CLUSTER} for key in "ba"],
         "environments": [{"environment_key": key, "spec": {"environment_version": "3"}} for key in "ba"],
         "parameters": [{"name": key, "default": key} for key in "ba"],
         "webhook_notifications": {"on_failure": [{"id": key} for key in "ba"]}, **one()},
    ),
    "the flat form and a list of one": (
        {"name": "n", "notebook_task": NOTEBOOK, "new_cluster": CLUSTER, "libraries": [{"whl": "a"}], "max_retries": 2},
        {"name": "n", **one(task_key="n", new_cluster=CLUSTER, libraries=[{"whl": "a"}], max_retries=2)},
    ),
    "a list of one without a key": ({"tasks": [{"notebook_task": NOTEBOOK}]}, one()),
    "the flat form as 2.0 tells it": (
        {"notebook_task": NOTEBOOK, "existing_cluster_id": "c"},
        {"notebook_task": NOTEBOOK, "existing_cluster_id": "c", "format": "SINGLE_TASK", "email_notifications": {},
         "max_retries": 0, "min_retry_interval_millis": 0, "retry_on_timeout": False, "libraries": []},
    ),
    "numbers as strings": (
        {"timeout_seconds": "600", "max_concurrent_runs": "5", **cluster(num_workers="2")},
        {"timeout_seconds": 600, "max_concurrent_runs": 5, **cluster(num_workers=2)},
    ),
    "fractions as strings": (
        cluster(azure_attributes={"spot_bid_max_price": "-1"}), cluster(azure_attributes={"spot_bid_max_price": -1.0})
    ),
    "booleans as strings": (
        {"queue": {"enabled": "True"}, **one(retry_on_timeout="false")},
        {"queue": {"enabled": True}, **one(retry_on_timeout=False)},
    ),
    "values that the API keeps as text": (
        {"parameters": [{"name": "n", "default": 5}], **notebook(base_parameters={"a": 1, "b": True, "c": 1.0})},
        {"parameters": [{"name": "n", "default": "5"}],
         **notebook(base_parameters={"a": "1", "b": "true", "c": "1.0"})},
    ),
    "unknown fields": (
        {"colour": {"of": ["tomorrow", 1]}, **one(mood="good")}, {"colour": {"of": ["tomorrow", 1]}, **one(mood="good")}
    ),
}  # fmt: skip


# Each: what is given, and what there is besides. A later edit by hand is no other thing.
MORE_THAN_GIVEN: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "a driver like the other nodes": (cluster(), cluster(driver_node_type_id="m5.xlarge")),
    "what a JAR task is told to have": (
        one(spark_jar_task={"main_class_name": "a.B"}),
        one(spark_jar_task={"main_class_name": "a.B", "run_as_repl": True, "jar_uri": ""}),
    ),
    "attributes of the cloud": (
        cluster(gcp_attributes={"zone_id": "auto"}),
        cluster(gcp_attributes={"zone_id": "auto", "local_ssd_count": 1, "use_preemptible_executors": False}),
    ),
    "attributes of the cloud in a shared cluster": (
        {"job_clusters": [{"job_cluster_key": "a", "new_cluster": CLUSTER}], **one()},
        {"job_clusters": [{"job_cluster_key": "a", "new_cluster": {**CLUSTER, "enable_elastic_disk": True}}], **one()},
    ),
    "all Spark settings removed": (
        cluster(), cluster(spark_conf={"spark.a": "1"})
    ),
    "all libraries removed": (one(), one(libraries=[{"whl": "a"}])),
    "a library of the flat form removed": (
        {"notebook_task": NOTEBOOK}, {"notebook_task": NOTEBOOK, "libraries": [{"whl": "a"}]}
    ),
    "retries of the flat form removed": (
        {"notebook_task": NOTEBOOK}, {"notebook_task": NOTEBOOK, "max_retries": 3}
    ),
    "a parameter removed": (
        one(), notebook(base_parameters={"day": ""})
    ),
    "a value back to its default": (one(), {"max_concurrent_runs": 2, **one()}),
    "an outcome removed": (
        one(depends_on=[{"task_key": "a"}]), one(depends_on=[{"task_key": "a", "outcome": "true"}])
    ),
    "a dependency on nothing": (
        one(depends_on=[{"outcome": "true"}]), one(depends_on=[{"task_key": "a", "outcome": "true"}])
    ),
    "an edit mode": (one(), {"edit_mode": "UI_LOCKED", **one()}),
    "a job cluster removed": (
        one(), {"job_clusters": [{"job_cluster_key": "a", "new_cluster": CLUSTER}], **one()}
    ),
    "a performance target": (one(), {"performance_target": "STANDARD", **one()}),
    "a health rule removed": (
        one(), {"health": {"rules": [{"metric": "RUN_DURATION_SECONDS", "op": "GREATER_THAN", "value": 9}]}, **one()}
    ),
    "all tags removed": (one(), {"tags": {"a": "1"}, **one()}),
    "a policy removed": (cluster(), cluster(policy_id="p")),
    "spot instances removed": (
        cluster(), cluster(azure_attributes={"availability": "SPOT_AZURE", "first_on_demand": 1})
    ),
    "an instance profile removed": (
        cluster(aws_attributes={"availability": "SPOT"}),
        cluster(aws_attributes={"availability": "SPOT", "instance_profile_arn": "arn:x"})
    ),
    "an unknown field removed": (one(), {"colour": "blue", **one()}),
    "a schedule that somebody paused": (
        {"schedule": CRON, **one()}, {"schedule": {**CRON, "pause_status": "PAUSED"}, **one()}
    ),
    "a queue that was switched off": (one(), {"queue": {"enabled": False}, **one()}),
    "a git source removed": (one(), {"git_source": GIT, **notebook(source="GIT")}
    ),
    "files of the workspace in spite of the git source": (
        {"git_source": GIT, **one()}, {"git_source": GIT, **notebook(source="WORKSPACE")}
    ),
}  # fmt: skip


# What the API never answers back, or leaves out: each is written every time.
NOT_TOLD_BACK: dict[str, tuple[dict[str, Any], list[str]]] = {
    "the default condition of a trigger": (
        {"trigger": {"table_update": {"table_names": ["a.b.c"], "condition": "ANY_UPDATED"}}},
        ["trigger.table_update.condition"],
    ),
    "another condition of a trigger": (
        {"trigger": {"table_update": {"table_names": ["a.b.c"], "condition": "ALL_UPDATED"}}},
        ["trigger.table_update.condition"],
    ),
    "defaults that are asked for": (
        {"timeout_seconds": 0, "max_concurrent_runs": 1, "trigger": {"table_update": {"table_names": ["a.b.c"]}}},
        ["max_concurrent_runs", "timeout_seconds"],
    ),
}


# Each: what is wanted, what the API answers, and where they differ.
DIFFERENT: dict[str, tuple[dict[str, Any], dict[str, Any], list[str]]] = {
    "a changed value": ({"timeout_seconds": 60, **one()}, {"timeout_seconds": 600, **one()}, ["timeout_seconds"]),
    "a value added": ({"max_concurrent_runs": 2, **one()}, one(), ["max_concurrent_runs"]),
    "a value emptied": (
        {"email_notifications": {"on_failure": []}, **one()},
        {"email_notifications": {"on_failure": ["ann@example.com"]}, **one()},
        ["email_notifications.on_failure"],
    ),
    # --- what was removed
    "a schedule removed": (one(), {"schedule": CRON, **one()}, ["schedule"]),
    "a trigger removed": (one(), {"trigger": {"file_arrival": {"url": "s3://in/"}}, **one()}, ["trigger"]),
    "a job that ran ever": (one(), {"continuous": {"pause_status": "UNPAUSED"}, **one()}, ["continuous"]),
    "a tag removed": (
        {"tags": {"a": "1"}, **one()}, {"tags": {"a": "1", "team.name": ""}, **one()}, ["tags.team.name"]
    ),
    "a task removed": ({"tasks": [LOAD]}, {"tasks": [LOAD, CHECK]}, ["tasks[check]"]),
    "a task in place of another": (
        {"tasks": [LOAD]}, {"tasks": [CHECK]}, ["tasks[check]", "tasks[load]"]
    ),
    "a Spark setting removed": (
        cluster(spark_conf={"spark.a": "1"}), cluster(spark_conf={"spark.a": "1", "spark.b": "true"}),
        ["tasks[load].new_cluster.spark_conf.spark.b"],
    ),
    "a library removed": (
        one(libraries=[{"whl": "a"}]), one(libraries=[{"whl": "a"}, {"pypi": {"package": "b"}}]),
        ["tasks[load].libraries"],
    ),
    "a dependency removed": (
        {"tasks": [LOAD, {**CHECK, "depends_on": []}]}, {"tasks": [LOAD, CHECK]}, ["tasks[check].depends_on[load]"]
    ),
    "an address removed": (
        {"email_notifications": {"on_failure": ["a"]}, **one()},
        {"email_notifications": {"on_failure": ["a", "b"]}, **one()},
        ["email_notifications.on_failure"],
    ),
    # --- what was added or changed
    "a schedule": (
        {"schedule": CRON, **one()}, {"schedule": {**CRON, "timezone_id": "UTC"}, **one()}, ["schedule.timezone_id"]
    ),
    "a schedule to be paused": (
        {"schedule": {**CRON, "pause_status": "PAUSED"}, **one()}, {"schedule": CRON, **one()},
        ["schedule.pause_status"],
    ),
    "a job that is to run ever": ({"continuous": {"pause_status": "UNPAUSED"}, **one()}, one(), ["continuous"]),
    "a queue to be switched off": (
        {"queue": {"enabled": False}, **one()}, {"queue": {"enabled": True}, **one()}, ["queue.enabled"]
    ),
    "a queue to be had": ({"queue": {"enabled": True}, **one()}, one(), ["queue"]),
    "another identity": (
        {"run_as": {"user_name": "a"}, **one()}, {"run_as": {"user_name": "b"}, **one()}, ["run_as.user_name"]
    ),
    "an identity": ({"run_as": {"user_name": "a"}, **one()}, one(), ["run_as"]),
    "a task of another kind": (
        {"tasks": [{"task_key": "load", "spark_python_task": {"python_file": "/a.py"}}]}, one(),
        ["tasks[load].spark_python_task"],
    ),
    "a condition": (one(run_if="ALL_DONE"), one(run_if="ALL_SUCCESS"), ["tasks[load].run_if"]),
    "the order of arguments": (
        one(spark_python_task={"parameters": ["a", "b"]}), one(spark_python_task={"parameters": ["b", "a"]}),
        ["tasks[load].spark_python_task.parameters"],
    ),
    "the order of init scripts": (
        cluster(init_scripts=[{"workspace": {"destination": "/a"}}, {"workspace": {"destination": "/b"}}]),
        cluster(init_scripts=[{"workspace": {"destination": "/b"}}, {"workspace": {"destination": "/a"}}]),
        [f"tasks[load].new_cluster.init_scripts[{number}].workspace.destination" for number in (0, 1)],
    ),
    "a value in a loop's task": (
        one(for_each_task={"inputs": "[1]", "task": {**LOAD, "max_retries": 1}}),
        one(for_each_task={"inputs": "[1]", "task": LOAD}),
        ["tasks[load].for_each_task.task.max_retries"],
    ),
    "a scaling cluster in place of a fixed one": (
        one(new_cluster={"autoscale": {"min_workers": 1, "max_workers": 2}}), one(new_cluster={"num_workers": 2}),
        ["tasks[load].new_cluster.autoscale"],
    ),
    "the letter case of text": (notebook(base_parameters={"a": "True"}), notebook(base_parameters={"a": "true"}),
                                ["tasks[load].notebook_task.base_parameters.a"]),
    "another number as a string": ({"timeout_seconds": "61", **one()}, {"timeout_seconds": 60, **one()},
                                   ["timeout_seconds"]),
    "text where a number was": ({"timeout_seconds": "soon", **one()}, {"timeout_seconds": 60, **one()},
                                ["timeout_seconds"]),
    "something of another type": ({"schedule": "daily", **one()}, {"schedule": CRON, **one()}, ["schedule"]),
    "elements of one name": (
        {"parameters": [{"name": "day", "default": "1"}, {"name": "day", "default": "2"}]},
        {"parameters": [{"name": "day", "default": "3"}, {"name": "day", "default": "2"}]},
        ["parameters[0].default"],
    ),
    "elements of another type": ({"tasks": ["load"]}, one(), ["tasks"]),
    "an unknown field": ({"colour": {"of": [1]}, **one()}, {"colour": {"of": [2]}, **one()}, ["colour.of"]),
    "several at once": (
        {"name": "b", "tasks": [{**LOAD, "max_retries": 1}, CHECK]}, {"name": "a", "tasks": [LOAD]},
        ["name", "tasks[check]", "tasks[load].max_retries"],
    ),
}  # fmt: skip


# What a cluster is given that says nothing of its cloud.
CLOUDS: dict[str, dict[str, Any]] = {
    "AWS": {
        "aws_attributes": {"availability": "SPOT_WITH_FALLBACK", "zone_id": "us-west-2b"},
        "data_security_mode": "SINGLE_USER",
        "enable_elastic_disk": False,
    },
    "Azure": {
        "azure_attributes": {"availability": "ON_DEMAND_AZURE", "first_on_demand": 1, "spot_bid_max_price": -1.0},
        "enable_elastic_disk": True,
    },
}


def told_by(cloud: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Return a job's settings as the API answers with them: in its own order, and with its defaults."""
    settings = copy.deepcopy(settings)
    source = "GIT" if "git_source" in settings else "WORKSPACE"
    for task in settings.get("tasks", [settings]):
        for kind in ("notebook_task", "spark_python_task", "dbt_task"):
            if kind in task:
                task[kind] = {"source": source, **task[kind]}
        if "new_cluster" in task:
            task["new_cluster"] = {**CLOUDS[cloud], **task["new_cluster"]}
        if "depends_on" in task:
            task["depends_on"].sort(key=lambda item: item["task_key"])
    for shared in settings.get("job_clusters", ()):
        shared["new_cluster"] = {**CLOUDS[cloud], **shared["new_cluster"]}
    if "tasks" in settings:
        defaults = {"run_if": "ALL_SUCCESS", "timeout_seconds": 0, "email_notifications": {}}
        settings["tasks"] = sorted(({**defaults, **task} for task in settings["tasks"]), key=lambda it: it["task_key"])
    return {
        "email_notifications": {},
        "webhook_notifications": {},
        "timeout_seconds": 0,
        "max_concurrent_runs": 1,
        "queue": {"enabled": True},
        **settings,
        "format": "MULTI_TASK",
    }


class TestSettingsDiff:
    @pytest.mark.parametrize(("wanted", "actual"), THE_SAME.values(), ids=THE_SAME)
    def test_ignores_what_the_api_only_spells_differently(self, wanted: dict[str, Any], actual: dict[str, Any]) -> None:
        before = copy.deepcopy((wanted, actual))
        assert differences(wanted, actual) == []
        assert (wanted, actual) == before

    @pytest.mark.parametrize(("wanted", "actual"), MORE_THAN_GIVEN.values(), ids=MORE_THAN_GIVEN)
    def test_ignores_what_was_not_given(self, wanted: dict[str, Any], actual: dict[str, Any]) -> None:
        assert differences(wanted, actual) == []

    @pytest.mark.parametrize(("wanted", "paths"), NOT_TOLD_BACK.values(), ids=NOT_TOLD_BACK)
    def test_includes_what_the_api_does_not_return(self, wanted: dict[str, Any], paths: list[str]) -> None:
        actual = {"trigger": {"table_update": {"table_names": ["a.b.c"]}}, **one()}
        assert differences({**wanted, **one()}, actual) == paths

    @pytest.mark.parametrize(("wanted", "actual", "paths"), DIFFERENT.values(), ids=DIFFERENT)
    def test_names_the_path_of_each_change(
        self, wanted: dict[str, Any], actual: dict[str, Any], paths: list[str]
    ) -> None:
        assert differences(wanted, actual) == paths

    def test_contains_no_values(self) -> None:
        wanted = cluster(spark_conf={"spark.password": "s3cr3t"}, spark_env_vars={"TOKEN": "s3cr3t"})
        assert "s3cr3t" not in " ".join(differences(wanted, cluster()))

    @pytest.mark.parametrize("cloud", CLOUDS)
    @pytest.mark.parametrize("case", [*FLAT.values(), *OF_TASKS.values()], ids=[*FLAT, *OF_TASKS])
    def test_of_a_clouds_real_answer_has_only_the_changes(self, cloud: str, case: JobCase) -> None:
        assert differences(case.settings, told_by(cloud, case.settings)) == []
        assert case.changed() != case.settings
        assert differences(case.changed(), told_by(cloud, case.settings)) == [case.named]

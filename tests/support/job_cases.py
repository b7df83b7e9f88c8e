"""Jobs such as people keep: their settings, one change to each, and how that change is called."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

REMOVED = object()

_CLUSTER = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "Standard_D4ds_v5",
    "num_workers": 4,
    "spark_conf": {"spark.sql.shuffle.partitions": "64", "spark.databricks.delta.preview.enabled": "true"},
}
_SINGLE_NODE = {
    "spark_version": "14.3.x-scala2.12",
    "node_type_id": "m6gd.large",
    "num_workers": 0,
    "spark_conf": {"spark.databricks.cluster.profile": "singleNode", "spark.master": "local[*]"},
    "custom_tags": {"ResourceClass": "SingleNode", "cost-centre": "4711"},
}
_NIGHTLY = {"quartz_cron_expression": "0 30 2 * * ?", "timezone_id": "Europe/Berlin"}
_GIT = {"git_url": "https://git.example.com/etl.git", "git_provider": "gitLabEnterpriseEdition", "git_branch": "main"}
_SQL = {"warehouse_id": "4b9b953939869799"}


class JobCase(NamedTuple):
    """A job; `where` are the keys and indexes that lead to what is changed, `named` is what a difference calls it."""

    settings: dict[str, Any]
    where: tuple[str | int, ...]
    value: Any
    named: str

    def changed(self) -> dict[str, Any]:
        settings = copy.deepcopy(self.settings)
        *way, last = self.where
        holder: Any = settings
        for step in way:
            holder = holder[step]
        if self.value is REMOVED:
            del holder[last]
        else:
            holder[last] = self.value
        return settings


def _tasks(*tasks: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"tasks": list(tasks), **fields}


# In the form of API 2.0, which the later ones take too.
FLAT: dict[str, JobCase] = {
    "notebook on a new cluster": JobCase(
        {"name": "customer snapshot", "new_cluster": _CLUSTER, "timeout_seconds": 7200, "max_retries": 2,
         "min_retry_interval_millis": 60_000, "retry_on_timeout": True, "schedule": _NIGHTLY,
         "notebook_task": {"notebook_path": "/Shared/crm/snapshot", "base_parameters": {"country": "DE",
         "full": "no"}}},
        ("notebook_task", "base_parameters", "country"), "AT", "tasks[0].notebook_task.base_parameters.country",
    ),
    "jar with libraries": JobCase(
        {"name": "clickstream sessions", "new_cluster": {**_CLUSTER, "enable_elastic_disk": True},
         "libraries": [{"jar": "dbfs:/jars/sessions-2.4.jar"}, {"maven": {"coordinates": "org.jsoup:jsoup:1.7.2",
                        "exclusions": ["slf4j:slf4j"]}}],
         "email_notifications": {"on_failure": ["data@example.com"], "no_alert_for_skipped_runs": True},
         "spark_jar_task": {"main_class_name": "com.example.Sessions", "parameters": ["--window", "30"]}},
        ("libraries", 1, "maven", "exclusions"), [], "tasks[0].libraries[1].maven.exclusions",
    ),
    "python file on a standing cluster": JobCase(
        {"name": "exchange rates", "existing_cluster_id": "0712-091213-wages42", "max_concurrent_runs": 3,
         "spark_python_task": {"python_file": "dbfs:/scripts/rates.py", "parameters": ["--base", "EUR", "--days",
         "7"]}},
        ("spark_python_task", "parameters", 1), "USD", "tasks[0].spark_python_task.parameters",
    ),
    "spark-submit": JobCase(
        {"name": "legacy aggregation", "new_cluster": {"spark_version": "13.3.x-scala2.12", "num_workers": 1,
         "node_type_id": "m5.large", "spark_env_vars": {"PYSPARK_PYTHON": "/opt/py"}},
         "spark_submit_task": {"parameters": ["--class", "org.example.Main", "s3://jars/agg.jar", "2026"]}},
        ("new_cluster", "spark_env_vars", "PYSPARK_PYTHON"), REMOVED,
        "tasks[0].new_cluster.spark_env_vars.PYSPARK_PYTHON",
    ),
    "pipeline": JobCase(
        {"name": "orders pipeline", "schedule": {**_NIGHTLY, "pause_status": "PAUSED"},
         "pipeline_task": {"pipeline_id": "a12cd3e4-0ab1-1abc-1a2b-1a2bcd3e4fg5"}},
        ("schedule",), REMOVED, "schedule",
    ),
    "everything as text": JobCase(
        {"name": "from a form", "existing_cluster_id": "0712-091213-wages42", "timeout_seconds": "900",
         "max_retries": "1", "retry_on_timeout": "False", "max_concurrent_runs": "1",
         "notebook_task": {"notebook_path": "/Shared/form"}},
        ("timeout_seconds",), "1800", "timeout_seconds",
    ),
    "defaults spelled out": JobCase(
        {"name": "exported", "format": "SINGLE_TASK", "existing_cluster_id": "0712-091213-wages42", "libraries": [],
         "timeout_seconds": 0, "max_retries": 0, "min_retry_interval_millis": 0, "retry_on_timeout": False,
         "max_concurrent_runs": 1, "email_notifications": {"on_start": [], "on_success": [], "on_failure": []},
         "webhook_notifications": {}, "notebook_task": {"notebook_path": "/Shared/exported", "base_parameters": {}}},
        ("max_retries",), 3, "tasks[0].max_retries",
    ),
    "notified by webhook": JobCase(
        {"name": "partner feed", "new_cluster": {**_CLUSTER,
         "azure_attributes": {"availability": "SPOT_WITH_FALLBACK_AZURE",
         "first_on_demand": 2, "spot_bid_max_price": -1}, "cluster_log_conf": {"dbfs": {"destination": "dbfs:/logs"}}},
         "webhook_notifications": {"on_failure": [{"id": "b7"}, {"id": "a3"}], "on_start": [{"id": "a3"}]},
         "notification_settings": {"no_alert_for_canceled_runs": True},
         "notebook_task": {"notebook_path": "/feeds/in"}},
        ("webhook_notifications", "on_failure"), [{"id": "b7"}], "webhook_notifications.on_failure[a3]",
    ),
    "init scripts from a pool": JobCase(
        {"name": "geo index", "new_cluster": {"spark_version": "13.3.x-scala2.12", "instance_pool_id": "p-1",
         "policy_id":
         "9C6308F703005DF2", "autoscale": {"min_workers": 1, "max_workers": 8}, "init_scripts":
         [{"workspace": {"destination": "/Shared/gdal.sh"}}, {"workspace": {"destination": "/Shared/proj.sh"}}],
         "data_security_mode": "SINGLE_USER", "single_user_name": "geo@example.com", "runtime_engine": "PHOTON"},
         "notebook_task": {"notebook_path": "/geo/index"}},
        ("new_cluster", "autoscale", "max_workers"), 12, "tasks[0].new_cluster.autoscale.max_workers",
    ),
}  # fmt: skip

# With a list of tasks: from API 2.1 on.
OF_TASKS: dict[str, JobCase] = {
    "three tasks on a shared cluster": JobCase(
        _tasks(
            {"task_key": "publish", "job_cluster_key": "main", "notebook_task": {"notebook_path": "/dwh/publish"},
             "depends_on": [{"task_key": "transform"}, {"task_key": "extract"}], "run_if": "NONE_FAILED"},
            {"task_key": "extract", "job_cluster_key": "main", "notebook_task": {"notebook_path": "/dwh/extract"},
             "max_retries": 1, "libraries": [{"pypi": {"package": "requests==2.32.3"}},
             {"whl": "/Volumes/a/b/c/dwh.whl"}]},
            {"task_key": "transform", "job_cluster_key": "main", "notebook_task": {"notebook_path": "/dwh/transform"},
             "depends_on": [{"task_key": "extract"}], "timeout_seconds": 1800},
            name="dwh load", job_clusters=[{"job_cluster_key": "main", "new_cluster": _CLUSTER}],
            tags={"team": "dwh", "env": "prod"}, schedule=_NIGHTLY,
        ),
        ("job_clusters", 0, "new_cluster", "spark_conf", "spark.sql.shuffle.partitions"), REMOVED,
        "job_clusters[main].new_cluster.spark_conf.spark.sql.shuffle.partitions",
    ),
    "wheel on serverless compute": JobCase(
        _tasks(
            {"task_key": "score", "environment_key": "default", "python_wheel_task": {"package_name": "churn",
             "entry_point": "score", "named_parameters": {"model": "champion", "limit": "1000"}}},
            name="churn scores", performance_target="STANDARD", environments=[{"environment_key": "default",
            "spec": {"environment_version": "3", "dependencies": ["/Volumes/ml/dist/churn-1.2.whl", "pandas>=2"]}}],
        ),
        ("environments", 0, "spec", "dependencies", 0), "/Volumes/ml/dist/churn-1.3.whl",
        "environments[default].spec.dependencies",
    ),
    "notebooks of a repository": JobCase(
        _tasks(
            {"task_key": "train", "existing_cluster_id": "0712-091213-ml7",
             "notebook_task": {"notebook_path": "nb/train"}},
            {"task_key": "report", "existing_cluster_id": "0712-091213-ml7", "depends_on": [{"task_key": "train"}],
             "spark_python_task": {"python_file": "src/report.py", "source": "GIT"}},
            name="model of the week", git_source=_GIT,
        ),
        ("git_source", "git_branch"), "release", "git_source.git_branch",
    ),
    "dbt": JobCase(
        _tasks(
            {"task_key": "dbt", "environment_key": "dbt", "dbt_task": {"commands": ["dbt deps", "dbt build"],
             "project_directory": "dbt", "catalog": "main", "schema": "marts", **_SQL}},
            name="marts", git_source=_GIT, environments=[{"environment_key": "dbt", "spec":
            {"environment_version": "2", "dependencies": ["dbt-databricks>=1.9,<2"]}}],
        ),
        ("tasks", 0, "dbt_task", "commands"), ["dbt deps", "dbt build --select tag:daily"],
        "tasks[dbt].dbt_task.commands",
    ),
    "SQL query and alert": JobCase(
        _tasks(
            {"task_key": "refresh", "sql_task": {**_SQL, "query": {"query_id": "c1"}, "parameters": {"days": "3"}}},
            {"task_key": "alarm", "sql_task": {**_SQL, "alert": {"alert_id": "d2", "subscriptions":
             [{"user_name": "ops@example.com"}]}}, "depends_on": [{"task_key": "refresh"}]},
            name="stock level alarm", schedule={**_NIGHTLY, "timezone_id": "UTC"},
        ),
        ("tasks", 1, "sql_task", "alert", "subscriptions", 0, "user_name"), "boss@example.com",
        "tasks[alarm].sql_task.alert.subscriptions[0].user_name",
    ),
    "SQL file": JobCase(
        _tasks({"task_key": "vacuum", "sql_task": {**_SQL, "file": {"path": "sql/vacuum.sql", "source": "GIT"}}},
               name="vacuum", git_source=_GIT),
        ("tasks", 0, "sql_task", "file", "source"), "WORKSPACE", "tasks[vacuum].sql_task.file.source",
    ),
    "condition": JobCase(
        _tasks(
            {"task_key": "count", "existing_cluster_id": "c-1", "notebook_task": {"notebook_path": "/q/count"}},
            {"task_key": "any", "depends_on": [{"task_key": "count"}], "condition_task":
             {"op": "GREATER_THAN", "left": "{{tasks.count.values.rows}}", "right": "0"}},
            {"task_key": "mail", "depends_on": [{"task_key": "any", "outcome": "true"}], "existing_cluster_id": "c-1",
             "notebook_task": {"notebook_path": "/q/mail"}},
            name="quarantine", parameters=[{"name": "table", "default": "raw.orders"}, {"name": "limit",
            "default": 10}],
        ),
        ("tasks", 2, "depends_on", 0, "outcome"), "false", "tasks[mail].depends_on[any].outcome",
    ),
    "loop": JobCase(
        _tasks(
            {"task_key": "countries", "for_each_task": {"inputs": '["de", "fr", "pl"]', "concurrency": 2, "task":
             {"task_key": "country", "existing_cluster_id": "c-1", "notebook_task": {"notebook_path": "/tax/country",
              "base_parameters": {"country": "{{input}}"}}}}},
            name="VAT returns", max_concurrent_runs=1,
        ),
        ("tasks", 0, "for_each_task", "task", "notebook_task", "notebook_path"), "/tax/country_v2",
        "tasks[countries].for_each_task.task.notebook_task.notebook_path",
    ),
    "job of jobs": JobCase(
        _tasks(
            {"task_key": "bronze", "run_job_task": {"job_id": 101,
             "job_parameters": {"day": "{{job.start_time.iso_date}}"}}},
            {"task_key": "silver", "run_job_task": {"job_id": 102}, "depends_on": [{"task_key": "bronze"}]},
            name="medallion",
        ),
        ("tasks", 1, "run_job_task", "job_id"), 103, "tasks[silver].run_job_task.job_id",
    ),
    "arrival of files": JobCase(
        _tasks(
            {"task_key": "ingest", "notebook_task": {"notebook_path": "/in/ingest"}}, name="invoices in",
            trigger={"file_arrival": {"url": "s3://invoices/in/", "min_time_between_triggers_seconds": 120}},
            queue={"enabled": True},
        ),
        ("trigger", "file_arrival", "min_time_between_triggers_seconds"), 300,
        "trigger.file_arrival.min_time_between_triggers_seconds",
    ),
    "every four hours": JobCase(
        _tasks(
            {"task_key": "sync", "notebook_task": {"notebook_path": "/crm/sync"}}, name="CRM sync",
            trigger={"pause_status": "UNPAUSED", "periodic": {"interval": 4, "unit": "HOURS"}},
            queue={"enabled": False},
        ),
        ("queue", "enabled"), True, "queue.enabled",
    ),
    "always running": JobCase(
        _tasks(
            {"task_key": "stream", "new_cluster": _SINGLE_NODE, "notebook_task": {"notebook_path": "/stream/orders"}},
            name="orders stream", continuous={"pause_status": "UNPAUSED"},
            health={"rules": [{"metric": "STREAMING_BACKLOG_SECONDS", "op": "GREATER_THAN", "value": 300}]},
            email_notifications={"on_streaming_backlog_exceeded": ["stream@example.com"]},
        ),
        ("continuous",), REMOVED, "continuous",
    ),
    "in another's name": JobCase(
        _tasks(
            {"task_key": "payroll", "notebook_task": {"notebook_path": "/hr/payroll"}, "existing_cluster_id": "c-hr"},
            name="payroll", run_as={"service_principal_name": "2f1c9f3e-77aa-4f3c-9a52-1d2a35b3a001"},
        ),
        ("run_as", "service_principal_name"), "9e1c9f3e-77aa-4f3c-9a52-1d2a35b3a002", "run_as.service_principal_name",
    ),
    "watched for its duration": JobCase(
        _tasks(
            {"task_key": "close", "existing_cluster_id": "c-fin", "notebook_task": {"notebook_path": "/fin/close"},
             "health": {"rules": [{"metric": "RUN_DURATION_SECONDS", "op": "GREATER_THAN", "value": 3600}]},
             "notification_settings": {"alert_on_last_attempt": True}, "email_notifications": {"on_failure":
             ["fin@example.com"], "on_duration_warning_threshold_exceeded": ["fin@example.com"]}},
            name="month's end", description="Closes the books.",
        ),
        ("tasks", 0, "health", "rules", 0, "value"), 5400, "tasks[close].health.rules[RUN_DURATION_SECONDS].value",
    ),
    "dashboard": JobCase(
        _tasks(
            {"task_key": "kpi", "dashboard_task": {"dashboard_id": "01ef", "subscription": {"custom_subject": "KPIs",
             "subscribers": [{"user_name": "ceo@example.com"}]}, **_SQL}}, name="Monday's KPIs",
        ),
        ("tasks", 0, "dashboard_task", "subscription", "custom_subject"), "Figures",
        "tasks[kpi].dashboard_task.subscription.custom_subject",
    ),
    "full refresh of a pipeline": JobCase(
        _tasks({"task_key": "dlt", "pipeline_task": {"pipeline_id": "77", "full_refresh": True}}, name="rebuild"),
        ("tasks", 0, "pipeline_task", "full_refresh"), False, "tasks[dlt].pipeline_task.full_refresh",
    ),
    "clusters of several clouds' options": JobCase(
        _tasks(
            {"task_key": "etl", "job_cluster_key": "small", "spark_jar_task": {"main_class_name": "com.example.Etl"},
             "libraries": [{"jar": "/Volumes/a/b/c/etl.jar"}]},
            {"task_key": "ml", "job_cluster_key": "gpu", "notebook_task": {"notebook_path": "/ml/fit"},
             "depends_on": [{"task_key": "etl"}], "disabled": False, "description": "Fits the model"},
            name="AWS", job_clusters=[
                {"job_cluster_key": "small", "new_cluster": {**_SINGLE_NODE, "aws_attributes": {"availability": "SPOT",
                 "zone_id": "auto", "first_on_demand": 1, "ebs_volume_count": 1, "ebs_volume_size": 100,
                 "ebs_volume_type": "GENERAL_PURPOSE_SSD"}}},
                {"job_cluster_key": "gpu", "new_cluster": {"spark_version": "15.4.x-gpu-ml-scala2.12", "node_type_id":
                 "g5.xlarge", "num_workers": 1, "docker_image": {"url": "registry.example.com/ml:3"}}},
            ],
        ),
        ("job_clusters", 0, "new_cluster", "aws_attributes", "ebs_volume_size"), 200,
        "job_clusters[small].new_cluster.aws_attributes.ebs_volume_size",
    ),
    "one of many tags": JobCase(
        _tasks(
            {"task_key": "a", "existing_cluster_id": "c-1", "notebook_task": {"notebook_path": "/a"}},
            name="tagged", tags={"team": "a", "env": "", "gdpr": "yes", "tier": "3"}, edit_mode="UI_LOCKED",
        ),
        ("tags", "env"), REMOVED, "tags.env",
    ),
    "table updates": JobCase(
        _tasks(
            {"task_key": "a", "existing_cluster_id": "c-1", "notebook_task": {"notebook_path": "/a"}},
            name="on orders", trigger={"table_update": {"table_names": ["main.sales.orders"],
            "condition": "ANY_UPDATED"}},
        ),
        ("trigger", "table_update", "table_names"), ["main.sales.orders", "main.sales.returns"],
        "trigger.table_update.table_names",
    ),
    "a task less": JobCase(
        _tasks(
            *({"task_key": key, "existing_cluster_id": "c-1",
             "notebook_task": {"notebook_path": f"/{key}"}} for key in "abc"),
            name="independent tasks", notification_settings={"no_alert_for_skipped_runs": False},
        ),
        ("tasks", 1), REMOVED, "tasks[b]",
    ),
}  # fmt: skip

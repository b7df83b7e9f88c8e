"""One passing and one failing case, or more, for each rule: changes to a payload in which nothing is wrong."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

GONE = object()

CLUSTER = {"spark_version": "15.4.x-scala2.12", "num_workers": 1, "node_type_id": "m"}
TASK = {"task_key": "a", "notebook_task": {"notebook_path": "/a"}, "new_cluster": CLUSTER}
FLAT = {"notebook_task": {"notebook_path": "/a"}, "new_cluster": CLUSTER}
SETTINGS = {"name": "nightly", "tasks": [TASK]}
GOOD: dict[str, dict[str, Any]] = {
    "create": SETTINGS,
    "reset": {"job_id": 1, "new_settings": SETTINGS},
    "update": {"job_id": 1, "new_settings": {"name": "nightly"}},
    "delete": {"job_id": 1},
    "get": {"job_id": 1},
    "list": {},
    "run-now": {"job_id": 1},
    "runs/submit": {"run_name": "nightly", "tasks": [TASK]},
    "runs/repair": {"run_id": 1, "rerun_tasks": ["a"]},
    "runs/cancel": {"run_id": 1},
    "runs/cancel-all": {"job_id": 1},
    "runs/delete": {"run_id": 1},
    "runs/get": {"run_id": 1},
    "runs/get-output": {"run_id": 1},
    "runs/export": {"run_id": 1},
    "runs/list": {},
    "permissions": {"access_control_list": [{"user_name": "a@example.com", "permission_level": "CAN_VIEW"}]},
}


class Case(NamedTuple):
    """A rule, what keeps it and what breaks it (value by path), and the place that must be told."""

    rule: str
    good: dict[str, Any]
    bad: dict[str, Any]
    where: str
    endpoint: str = "create"
    version: str = "2.2"
    warns: bool = False


def body_of(endpoint: str, version: str, changes: dict[str, Any]) -> Any:
    """Return a payload in which nothing is wrong but the changes."""
    body: Any = copy.deepcopy(GOOD[endpoint])
    if version == "2.0":
        for holder in (body, body.get("new_settings", {})):
            if holder.pop("tasks", None):
                holder.update(copy.deepcopy(FLAT))
    for path, value in changes.items():
        if not path:
            return value
        steps: list[Any] = [
            int(step[1:-1]) if step.startswith("[") else step for step in re.findall(r"[^.\[\]]+|\[\d+\]", path)
        ]
        holder = body
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if following is None:
                _set(holder, step, copy.deepcopy(value) if value is not GONE else GONE)
            else:
                if isinstance(step, str) and step not in holder:
                    holder[step] = [] if isinstance(following, int) else {}
                elif isinstance(step, int) and step == len(holder):
                    holder.append({})
                holder = holder[step]
    return body


def _set(holder: Any, step: Any, value: Any) -> None:
    if value is GONE:
        del holder[step]
    elif isinstance(step, int) and step == len(holder):
        holder.append(value)
    else:
        holder[step] = value


def _task(kind: str, definition: Any, **more: Any) -> dict[str, Any]:
    """Return changes that make the first task one of another type."""
    return {"tasks[0]": {"task_key": "a", kind: definition, **more}}


T = "tasks[0]"
C = "tasks[0].new_cluster"
N = "tasks[0].notebook_task"
SQL = {"warehouse_id": "w", "query": {"query_id": "q"}}
DBT = {"commands": ["dbt run"]}
WHEEL = {"package_name": "p", "entry_point": "e"}
TRIGGER = {"periodic": {"interval": 1, "unit": "DAYS"}}
SCHEDULE = {"quartz_cron_expression": "0 15 22 * * ?", "timezone_id": "Europe/Berlin"}
FILE = {"url": "s3://in/"}
TABLE = {"table_names": ["a.b.c"]}
GIT = {"git_url": "https://git.example.com/a", "git_provider": "gitHub"}
RULE = {"metric": "RUN_DURATION_SECONDS", "op": "GREATER_THAN", "value": 60}
OLD_RULE = {"metric": "RUN_DURATION_SECONDS", "operator": "GREATER_THAN", "value": 60}
WINDOW = {"start_hour": 3, "day_of_week": "SUNDAY", "timezone_id": "UTC"}
ACL = {"user_name": "a@example.com", "permission_level": "CAN_VIEW"}
B = {"task_key": "b", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": ""}}
WRAPPED = len('{"jar_params":[""]}')

CASES = [
    # --- requests ---
    Case("REQ-BODY-OBJECT", {}, {"": [1]}, ""),
    Case("REQ-FIELD-TYPE", {f"{C}.num_workers": "2"}, {f"{C}.num_workers": "two"}, f"{C}.num_workers"),
    Case("REQ-FIELD-TYPE", {f"{C}.enable_elastic_disk": "true"}, {f"{C}.enable_elastic_disk": 1}, C),
    Case("REQ-FIELD-TYPE", {f"{C}.spark_conf": {"a": True}}, {f"{C}.spark_conf": {"a": []}}, f"{C}.spark_conf.a"),
    Case("REQ-FIELD-TYPE", {f"{C}.ssh_public_keys": ["a"]}, {f"{C}.ssh_public_keys": "a"}, f"{C}.ssh_public_keys"),
    Case("REQ-FIELD-TYPE", {f"{C}.autoscale": {}}, {f"{C}.autoscale": 3}, f"{C}.autoscale"),
    Case("REQ-FIELD-TYPE", {f"{T}.libraries": []}, {f"{T}.libraries": [{"jar": "a"}, None]}, f"{T}.libraries[1]"),
    Case("REQ-FIELD-TYPE", {"name": 7}, {"name": ["a"]}, "name"),
    Case("REQ-BODY-SIZE", {"tags": {"a": "b"}}, {"more": "é" * 5_300_000}, ""),
    Case("REQ-JOB-ID", {"job_id": "17"}, {"job_id": 0}, "job_id", "run-now"),
    Case("REQ-JOB-ID", {}, {"job_id": GONE}, "job_id", "run-now"),
    Case("REQ-JOB-ID", {"job_id": GONE, "job_name": "n"}, {"job_name": "n"}, "job_id", "run-now"),
    Case("REQ-JOB-ID", {}, {"job_id": "nightly"}, "job_id", "reset"),
    Case("REQ-JOB-ID", {}, {"job_id": -1}, "job_id", "update", "2.0"),
    Case("REQ-JOB-ID", {}, {"job_id": True}, "job_id", "delete"),
    Case("REQ-JOB-ID", {}, {"job_id": GONE}, "job_id", "get"),
    Case("REQ-RUN-ID", {}, {"run_id": GONE}, "run_id", "runs/get"),
    Case("REQ-RUN-ID", {}, {"run_id": 0}, "run_id", "runs/get-output"),
    Case("REQ-RUN-ID", {}, {"run_id": []}, "run_id", "runs/export"),
    Case("REQ-RUN-ID", {}, {"run_id": GONE}, "run_id", "runs/cancel"),
    Case("REQ-RUN-ID", {}, {"run_id": GONE}, "run_id", "runs/delete", "2.0"),
    Case("REQ-REPAIR-RUN-ID", {}, {"run_id": GONE}, "run_id", "runs/repair"),
    Case("REQ-CANCEL-ALL-TARGET", {}, {"job_id": GONE}, "", "runs/cancel-all"),
    Case("REQ-CANCEL-ALL-TARGET", {"job_id": GONE, "all_queued_runs": True}, {"job_id": GONE}, "", "runs/cancel-all"),
    Case("REQ-RESET-SETTINGS", {}, {"new_settings": GONE}, "new_settings", "reset"),
    Case("REQ-RESET-SETTINGS", {}, {"new_settings": "a"}, "new_settings", "reset", "2.0"),
    Case("REQ-UPDATE-NOOP", {}, {"new_settings": GONE}, "", "update", warns=True),
    Case("REQ-ID-64BIT", {"job_id": 2**63 - 1}, {"job_id": 2**63}, "job_id", "run-now"),
    Case("REQ-ID-64BIT", {}, {"run_id": 2**63}, "run_id", "runs/get"),
    # --- names and tokens ---
    Case("TOKEN-SUBMIT-LENGTH", {"idempotency_token": "é" * 64}, {"idempotency_token": "t" * 65}, "idempotency_token",
         "runs/submit"),
    Case("TOKEN-RUNNOW-LENGTH", {"idempotency_token": "t" * 64}, {"idempotency_token": "t" * 65}, "idempotency_token",
         "run-now"),
    Case("TOKEN-NONEMPTY", {"idempotency_token": "t"}, {"idempotency_token": ""}, "idempotency_token", "run-now",
         warns=True),
    Case("NAME-RUN", {"run_name": "é" * 2048}, {"run_name": "é" * 2049}, "run_name", "runs/submit"),
    Case("NAME-JOB", {"name": "n" * 4096}, {"name": "n" * 4097}, "name"),
    Case("NAME-JOB-2_0", {"name": "n" * 4096}, {"name": "n" * 4097}, "name", "create", "2.0", warns=True),
    Case("DESC-JOB", {"description": "d" * 27_700}, {"description": "d" * 27_701}, "description"),
    Case("DESC-TASK", {f"{T}.description": "d" * 4096}, {f"{T}.description": "é" * 2049}, f"{T}.description"),
    Case("RUNNAME-AS-TASKKEY", {"tasks": GONE, **FLAT, "run_name": "n" * 100},
         {"tasks": GONE, **FLAT, "run_name": "n" * 101}, "run_name", "runs/submit", warns=True),
    # --- parameters of runs ---
    Case("PARAM-SIZE-JAR-PARAMS", {"jar_params": ["x" * (10_000 - WRAPPED)]},
         {"jar_params": ["x" * (10_001 - WRAPPED)]}, "jar_params", "run-now"),
    Case("PARAM-SIZE-NOTEBOOK-PARAMS", {"notebook_params": {"a": "x"}}, {"notebook_params": {"a": "é" * 5000}},
         "notebook_params", "runs/repair"),
    Case("PARAM-SIZE-PYTHON-PARAMS", {"python_params": ["x"]}, {"python_params": ["x" * 10_000]}, "python_params",
         "run-now", "2.0"),
    Case("PARAM-SIZE-SPARK-SUBMIT-PARAMS", {"spark_submit_params": ["x"]}, {"spark_submit_params": ["x" * 10_000]},
         "spark_submit_params", "run-now"),
    Case("PARAM-ASCII-PYTHON-PARAMS", {"python_params": ["a"]}, {"python_params": ["é"]}, "python_params", "run-now"),
    Case("PARAM-ASCII-SPARK-SUBMIT-PARAMS", {"spark_submit_params": ["a"]}, {"spark_submit_params": ["é"]},
         "spark_submit_params", "run-now"),
    Case("PARAM-ASCII-NOTEBOOK-PARAMS", {"notebook_params": {"a": "b"}}, {"notebook_params": {"é": "b"}},
         "notebook_params", "run-now", "2.0"),
    Case("PARAM-ASCII-BASE", {"notebook_task.base_parameters": {"a": "b"}},
         {"notebook_task.base_parameters": {"a": "é"}}, "notebook_task.base_parameters", "runs/submit", "2.0"),
    Case("PARAM-BASE-SIZE", {f"{N}.base_parameters": {"a": "é"}}, {f"{N}.base_parameters": {"a": "x" * 1_048_576}},
         f"{N}.base_parameters"),
    Case("PARAM-JAR-XOR-NOTEBOOK", {"jar_params": ["a"], "notebook_params": {}},
         {"jar_params": ["a"], "notebook_params": {"a": "b"}}, "", "run-now"),
    Case("PARAM-ONE-KIND-2_0", {"python_params": ["a"]}, {"python_params": ["a"], "jar_params": ["a"]}, "", "run-now",
         "2.0", warns=True),
    Case("PARAM-JOB-XOR-TASK", {"job_parameters": {"a": "b"}, "python_params": []},
         {"job_parameters": {"a": "b"}, "python_params": ["a"]}, "", "run-now", warns=True),
    Case("PARAM-MAP-VALUES", {"notebook_params": {"a": "1"}}, {"notebook_params": {"a": 1}}, "notebook_params.a",
         "run-now"),
    Case("PARAM-MAP-VALUES", {"job_parameters": {}}, {"job_parameters": [{"name": "a"}]}, "job_parameters", "run-now"),
    Case("PARAM-LIST-VALUES", {"jar_params": ["1"]}, {"jar_params": ["1", 2]}, "jar_params[1]", "run-now"),
    Case("PARAM-LIST-VALUES", {"dbt_commands": []}, {"dbt_commands": "dbt run"}, "dbt_commands", "runs/repair"),
    Case("PARAM-NAME-CHARSET", {"parameters": [{"name": "a_.-1", "default": ""}]},
         {"parameters": [{"name": "a b", "default": ""}]}, "parameters[0].name"),
    Case("PARAM-NAME-UNIQUE", {"parameters": [{"name": "a", "default": ""}, {"name": "b", "default": ""}]},
         {"parameters": [{"name": "a", "default": ""}, {"name": "a", "default": ""}]}, "parameters[1].name",
         warns=True),
    Case("PARAM-NAME-DEFAULT", {"parameters": [{"name": "a", "default": ""}]}, {"parameters": [{"name": "a"}]},
         "parameters[0]"),
    # --- settings ---
    Case("RANGE-MAX-CONCURRENT", {"max_concurrent_runs": 0}, {"max_concurrent_runs": 1001}, "max_concurrent_runs"),
    Case("RANGE-MAX-RETRIES", {f"{T}.max_retries": -1}, {f"{T}.max_retries": -2}, f"{T}.max_retries"),
    Case("RANGE-MAX-RETRIES", {"max_retries": "-1"}, {"max_retries": "-2"}, "max_retries", "create", "2.0"),
    Case("RANGE-RETRY-INTERVAL", {f"{T}.min_retry_interval_millis": 0}, {f"{T}.min_retry_interval_millis": -1}, T,
         warns=True),
    Case("RANGE-TIMEOUT", {"timeout_seconds": 0}, {"timeout_seconds": -1}, "timeout_seconds", "runs/submit"),
    Case("RANGE-TIMEOUT", {f"{T}.timeout_seconds": 0}, {f"{T}.timeout_seconds": -1}, f"{T}.timeout_seconds"),
    Case("SCHED-QUARTZ", {"schedule": SCHEDULE}, {"schedule": {"timezone_id": "UTC"}},
         "schedule.quartz_cron_expression"),
    *(
        Case("SCHED-QUARTZ", {"schedule": {**SCHEDULE, "quartz_cron_expression": "0 0 8 ? * MON-FRI *"}},
             {"schedule": {**SCHEDULE, "quartz_cron_expression": cron}}, "schedule.quartz_cron_expression")
        for cron in ("0 8 * * *", "0 0 8 * * *", "0 0 8 ? * ?", "")
    ),
    Case("SCHED-TIMEZONE", {"schedule": SCHEDULE}, {"schedule": {**SCHEDULE, "timezone_id": ""}},
         "schedule.timezone_id"),
    Case("ENUM-PAUSE", {"schedule": {**SCHEDULE, "pause_status": "PAUSED"}},
         {"schedule": {**SCHEDULE, "pause_status": "paused"}}, "schedule.pause_status", "create", "2.0"),
    Case("ENUM-PAUSE", {"continuous": {}}, {"continuous": {"pause_status": "ON"}}, "continuous.pause_status"),
    Case("ENUM-PAUSE", {"trigger": TRIGGER}, {"trigger": {**TRIGGER, "pause_status": True}}, "trigger.pause_status"),
    Case("TRIGGER-EXCLUSIVE", {"schedule": SCHEDULE, "continuous": {}}, {"schedule": SCHEDULE, "trigger": TRIGGER}, ""),
    Case("TRIGGERS-EXCLUSIVE", {"triggers": [TRIGGER]}, {"triggers": [TRIGGER], "schedule": SCHEDULE}, "triggers"),
    Case("TRIGGERS-EXCLUSIVE", {"triggers": [{"schedule": SCHEDULE}]}, {"triggers": [{"pause_status": "PAUSED"}]},
         "triggers[0]"),
    Case("TRIGGER-ONE-KIND", {"trigger": {"file_arrival": FILE}}, {"trigger": {**TRIGGER, "file_arrival": FILE}},
         "trigger"),
    Case("TRIGGER-ONE-KIND", {"trigger": TRIGGER}, {"trigger": {"pause_status": "PAUSED"}}, "trigger"),
    *(
        Case("TRIGGER-MIN-SECONDS", {f"trigger.{kind}": {**base, field: 60}}, {f"trigger.{kind}": {**base, field: 59}},
             f"trigger.{kind}.{field}")
        for kind, base in (("file_arrival", FILE), ("table_update", TABLE))
        for field in ("min_time_between_triggers_seconds", "wait_after_last_change_seconds")
    ),
    Case("TRIGGER-FILE-URL", {"trigger.file_arrival": FILE}, {"trigger.file_arrival": {}}, "trigger.file_arrival.url"),
    Case("TRIGGER-TABLE-NAMES", {"trigger.table_update": TABLE}, {"trigger.table_update": {"table_names": ["a.b"]}},
         "trigger.table_update.table_names"),
    Case("TRIGGER-TABLE-NAMES", {"trigger.table_update.table_names": ["`a.b`.c.d"]},
         {"trigger.table_update.table_names": []}, "trigger.table_update.table_names"),
    Case("TRIGGER-TABLE-CONDITION", {"trigger.table_update": {**TABLE, "condition": "ALL_UPDATED"}},
         {"trigger.table_update": {**TABLE, "condition": "SOME"}}, "trigger.table_update.condition"),
    *(
        Case("TRIGGER-PERIODIC", {"trigger.periodic": {"interval": "2", "unit": "WEEKS"}}, {"trigger.periodic": bad},
             "trigger.periodic")
        for bad in ({"interval": 0, "unit": "DAYS"}, {"interval": 1, "unit": "YEARS"}, {"interval": 1})
    ),
    Case("CONTINUOUS-RETRY-MODE", {"continuous": {"task_retry_mode": "NEVER"}},
         {"continuous": {"task_retry_mode": "ALWAYS"}}, "continuous.task_retry_mode"),
    Case("MAINTENANCE-HOUR", {"continuous.maintenance_window": WINDOW},
         {"continuous.maintenance_window": {**WINDOW, "start_hour": 24}}, "continuous.maintenance_window"),
    Case("MAINTENANCE-HOUR", {"continuous.maintenance_window": {**WINDOW, "start_hour": 0}},
         {"continuous.maintenance_window": {"start_hour": 3}}, "continuous.maintenance_window"),
    Case("CONTINUOUS-CONCURRENCY", {"continuous": {"pause_status": "PAUSED"}, "max_concurrent_runs": 1},
         {"continuous": {"pause_status": "PAUSED"}, "max_concurrent_runs": 2}, "max_concurrent_runs", warns=True),
    Case("ENUM-PERF-TARGET", {"performance_target": "STANDARD"}, {"performance_target": "FAST"}, "performance_target",
         "run-now", warns=True),
    Case("DURATION-TARGET", {"duration_target": "4h", "performance_target": "COST_OPTIMIZED"},
         {"duration_target": "5h", "performance_target": "COST_OPTIMIZED"}, "duration_target"),
    Case("DURATION-TARGET", {}, {"duration_target": "4h"}, "duration_target", "runs/submit"),
    Case("FORMAT-READONLY", {"format": "MULTI_TASK"}, {"format": "MULTI"}, "format", warns=True),
    Case("RUNAS-ONE", {"run_as": {"user_name": "a"}}, {"run_as": {}}, "run_as"),
    Case("RUNAS-ONE", {"run_as": {"user_name": "a"}}, {"run_as": {"user_name": "a", "group_name": "b"}}, "run_as"),
    Case("QUEUE-OBJECT", {"queue": {"enabled": False}}, {"queue": {}}, "queue"),
    Case("QUEUE-OBJECT", {"queue": {"enabled": "true"}}, {"queue": {"enabled": "yes"}}, "queue", "run-now"),
    Case("TAGS-COUNT", {"tags": {str(n): "" for n in range(25)}}, {"tags": {str(n): "" for n in range(26)}}, "tags"),
    # --- notifications and health ---
    Case("WEBHOOK-COUNT", {"webhook_notifications.on_start": [{"id": "a"}] * 3},
         {"webhook_notifications.on_start": [{"id": "a"}] * 4}, "webhook_notifications.on_start"),
    Case("WEBHOOK-ID", {f"{T}.webhook_notifications.on_failure": [{"id": "a"}]},
         {f"{T}.webhook_notifications.on_failure": [{}]}, f"{T}.webhook_notifications.on_failure[0].id"),
    Case("WEBHOOK-EVENT-NAME", {"webhook_notifications.on_success": []}, {"webhook_notifications.on_done": []},
         "webhook_notifications.on_done", warns=True),
    Case("EMAIL-ASCII", {"email_notifications.on_start": ["a@example.com"]},
         {"email_notifications.on_start": ["ä@example.com"]}, "email_notifications.on_start"),
    Case("EMAIL-LIST", {f"{T}.email_notifications.on_failure": []},
         {f"{T}.email_notifications.on_failure": "a@example.com"}, f"{T}.email_notifications.on_failure"),
    Case("HEALTH-2_0", {"health.rules": [OLD_RULE]}, {"health.rules": [RULE]}, "health.rules[0]", "create", "2.0"),
    Case("HEALTH-2_1", {"health.rules": [RULE]}, {"health.rules": [OLD_RULE]}, "health.rules[0]"),
    *(
        Case("HEALTH-2_1", {f"{T}.health.rules": [RULE]}, {f"{T}.health.rules": [{**RULE, **bad}]},
             f"{T}.health.rules[0]")
        for bad in ({"metric": "COST"}, {"op": "LESS_THAN"}, {"value": "long"})
    ),
    Case("HEALTH-WARNING-RULE",
         {"email_notifications.on_duration_warning_threshold_exceeded": ["a"], "health.rules": [RULE]},
         {"email_notifications.on_duration_warning_threshold_exceeded": ["a"]},
         "email_notifications.on_duration_warning_threshold_exceeded", warns=True),
    # --- what is run ---
    Case("TASK-ONE-2_0", {}, {"spark_python_task": {"python_file": "a"}}, "", "create", "2.0"),
    Case("TASK-ONE-2_0", {}, {"notebook_task": GONE}, "", "runs/submit", "2.0"),
    Case("TASK-ONE-2_0", {}, {"notebook_task": GONE, "tasks": [TASK]}, "", "runs/submit", "2.0"),
    Case("TASK-NOTEBOOK-NOT-JAR", {}, {"spark_jar_task": {"main_class_name": "a"}}, "", "create", "2.0"),
    Case("TASK-ONE-2_1", {}, {f"{T}.notebook_task": GONE}, T),
    Case("TASK-ONE-2_1", _task("a_task_of_2031_task", {}), {f"{T}.sql_task": SQL}, T, "runs/submit"),
    Case("TASK-ONE-2_1", {}, _task("notebok_task", {"notebook_path": "/a"}), T, "runs/submit"),
    Case("TASK-ONE-2_1", {"tasks": GONE, **FLAT}, {"tasks": GONE, **FLAT, "dbt_task": {}}, "", "runs/submit"),
    Case("TASK-PRESENT-2_1", {}, {"tasks": []}, "tasks", "runs/submit"),
    Case("TASK-PRESENT-2_1", {"tasks": GONE, **FLAT}, {"tasks": GONE}, "", "runs/submit"),
    Case("TASK-PRESENT-2_1", {}, {"tasks": GONE}, "", "create", warns=True),
    Case("TASK-FLAT-XOR-LIST", {}, {"notebook_task": {"notebook_path": "/a"}}, "", "runs/submit"),
    Case("TASK-FLAT-XOR-LIST", {}, {"notebook_task": {"notebook_path": "/a"}}, "", "create", warns=True),
    Case("NB-PATH", {}, {f"{N}.notebook_path": GONE}, f"{N}.notebook_path"),
    Case("NB-PATH", {}, {"notebook_task.notebook_path": ""}, "notebook_task.notebook_path", "create", "2.0"),
    Case("NB-PATH-ABSOLUTE", {f"{N}.source": "WORKSPACE"}, {f"{N}.notebook_path": "a"}, f"{N}.notebook_path"),
    Case("NB-PATH-ABSOLUTE", {f"{N}.notebook_path": "a", "git_source": GIT},
         {f"{N}.notebook_path": "a", f"{N}.source": "WORKSPACE", "git_source": GIT}, f"{N}.notebook_path"),
    Case("NB-PATH-ABSOLUTE", {f"{N}.source": "GIT", f"{N}.notebook_path": "a", "git_source": GIT},
         {f"{N}.source": "GIT", "git_source": GIT}, f"{N}.notebook_path"),
    Case("NB-PATH-ABSOLUTE", {}, {"git_source": GIT}, f"{N}.notebook_path", warns=True),
    Case("SOURCE-ENUM", {f"{N}.source": "WORKSPACE"}, {f"{N}.source": "DISK"}, f"{N}.source"),
    Case("SOURCE-GIT-NEEDS-GIT",
         {**_task("spark_python_task", {"python_file": "a.py", "source": "GIT"}), "git_source": GIT},
         _task("spark_python_task", {"python_file": "a.py", "source": "GIT"}), f"{T}.spark_python_task.source"),
    Case("JAR-MAIN-CLASS", _task("spark_jar_task", {"main_class_name": "a"}, new_cluster=CLUSTER),
         _task("spark_jar_task", {}, new_cluster=CLUSTER), f"{T}.spark_jar_task.main_class_name", warns=True),
    Case("JAR-URI-DEPRECATED", _task("spark_jar_task", {"main_class_name": "a"}),
         _task("spark_jar_task", {"main_class_name": "a", "jar_uri": "b"}), f"{T}.spark_jar_task.jar_uri", warns=True),
    Case("PY-FILE", _task("spark_python_task", {"python_file": "dbfs:/a.py"}), _task("spark_python_task", {}),
         f"{T}.spark_python_task.python_file"),
    Case("SUBMIT-NEW-CLUSTER-ONLY", _task("spark_submit_task", {}, new_cluster=CLUSTER),
         _task("spark_submit_task", {}, existing_cluster_id="c"), f"{T}.spark_submit_task"),
    Case("SUBMIT-NO-LIBRARIES", _task("spark_submit_task", {}, new_cluster=CLUSTER, libraries=[]),
         _task("spark_submit_task", {}, new_cluster=CLUSTER, libraries=[{"jar": "a"}]), f"{T}.spark_submit_task"),
    Case("SUBMIT-NO-LIBRARIES", _task("spark_submit_task", {}, new_cluster=CLUSTER),
         _task("spark_submit_task", {}, new_cluster={**CLUSTER, "spark_conf": {"a": "b"}}), f"{T}.spark_submit_task",
         warns=True),
    Case("SUBMIT-FORBIDDEN-ARGS", _task("spark_submit_task", {"parameters": ["--conf"]}, new_cluster=CLUSTER),
         _task("spark_submit_task", {"parameters": ["--master=local"]}, new_cluster=CLUSTER),
         f"{T}.spark_submit_task.parameters[0]", warns=True),
    Case("PIPELINE-ID", _task("pipeline_task", {"pipeline_id": "p"}), _task("pipeline_task", {}),
         f"{T}.pipeline_task.pipeline_id"),
    Case("PIPELINE-PARAM-SIZE", _task("pipeline_task", {"pipeline_id": "p", "parameters": {"a": "x" * 9_999}}),
         _task("pipeline_task", {"pipeline_id": "p", "parameters": {"a": "x" * 10_000}}),
         f"{T}.pipeline_task.parameters"),
    Case("RUNJOB-ID", _task("run_job_task", {"job_id": 7}), _task("run_job_task", {"job_id": 0}),
         f"{T}.run_job_task.job_id"),
    Case("WHEEL-REQUIRED", _task("python_wheel_task", WHEEL), _task("python_wheel_task", {"package_name": "p"}),
         f"{T}.python_wheel_task"),
    Case("WHEEL-PARAM-XOR", _task("python_wheel_task", {**WHEEL, "parameters": [], "named_parameters": {"a": "b"}}),
         _task("python_wheel_task", {**WHEEL, "parameters": ["a"], "named_parameters": {"a": "b"}}),
         f"{T}.python_wheel_task"),
    *(
        Case("DBT-COMMANDS", _task("dbt_task", {"commands": ["dbt run"] * 10}), _task("dbt_task", bad),
             f"{T}.dbt_task.commands")
        for bad in ({}, {"commands": []}, {"commands": ["dbt run"] * 11}, {"commands": ["rm -r"]})
    ),
    Case("DBT-CATALOG-SCHEMA", _task("dbt_task", {**DBT, "catalog": "c", "warehouse_id": "w"}),
         _task("dbt_task", {**DBT, "catalog": "c"}), f"{T}.dbt_task"),
    Case("DBT-CATALOG-SCHEMA", _task("dbt_task", {**DBT, "schema": "s", "warehouse_id": "w"}),
         _task("dbt_task", {**DBT, "schema": "s"}), f"{T}.dbt_task.schema", warns=True),
    Case("DBT-PROFILES", _task("dbt_task", {**DBT, "profiles_directory": "", "warehouse_id": "w"}),
         _task("dbt_task", {**DBT, "profiles_directory": "p", "warehouse_id": "w"}), f"{T}.dbt_task"),
    Case("DBT-FLAT-GIT", {"tasks": GONE, "dbt_task": DBT, "git_source": GIT}, {"tasks": GONE, "dbt_task": DBT},
         "dbt_task", "runs/submit", warns=True),
    Case("SQL-WAREHOUSE", _task("sql_task", SQL), _task("sql_task", {"query": {"query_id": "q"}}),
         f"{T}.sql_task.warehouse_id"),
    Case("SQL-ONE-KIND", _task("sql_task", SQL), _task("sql_task", {"warehouse_id": "w"}), f"{T}.sql_task"),
    Case("SQL-ONE-KIND", _task("sql_task", SQL), _task("sql_task", {**SQL, "file": {"path": "/a"}}), f"{T}.sql_task"),
    Case("SQL-ALERT-PARAMS", _task("sql_task", {**SQL, "parameters": {"a": "b"}}),
         _task("sql_task", {"warehouse_id": "w", "alert": {"alert_id": "a"}, "parameters": {"a": "b"}}),
         f"{T}.sql_task.parameters"),
    Case("SQL-IDS", _task("sql_task", {"warehouse_id": "w", "file": {"path": "/a"}}),
         _task("sql_task", {"warehouse_id": "w", "dashboard": {}}), f"{T}.sql_task"),
    Case("COND-REQUIRED", {T: B}, _task("condition_task", {"op": "EQUAL_TO", "left": "1"}), f"{T}.condition_task"),
    Case("COND-REQUIRED", {T: B}, _task("condition_task", {"op": "=", "left": "1", "right": "1"}),
         f"{T}.condition_task"),
    Case("FOREACH-REQUIRED", _task("for_each_task", {"inputs": "[1]", "task": TASK}),
         _task("for_each_task", {"inputs": "[1]"}), f"{T}.for_each_task"),
    Case("FOREACH-NO-NESTING", _task("for_each_task", {"inputs": "[1]", "task": TASK}),
         _task("for_each_task", {"inputs": "[1]", "task": {"task_key": "b", "for_each_task": {"inputs": "[]",
               "task": TASK}}}), f"{T}.for_each_task.task.for_each_task", warns=True),
    Case("FOREACH-INPUT-SIZE", _task("for_each_task", {"inputs": "1" * 10_000, "task": TASK}),
         _task("for_each_task", {"inputs": "1" * 10_001, "task": TASK}), f"{T}.for_each_task.inputs", warns=True),
    Case("FOREACH-CONCURRENCY", _task("for_each_task", {"inputs": "[1]", "task": TASK, "concurrency": 100}),
         _task("for_each_task", {"inputs": "[1]", "task": TASK, "concurrency": 101}),
         f"{T}.for_each_task.concurrency", warns=True),
    Case("ALERT-ONE-ID", _task("alert_task", {"alert_id": "a"}), _task("alert_task", {}), f"{T}.alert_task"),
    Case("ALERT-ONE-ID", _task("alert_task", {"workspace_path": "/Workspace/a"}),
         _task("alert_task", {"workspace_path": "/a"}), f"{T}.alert_task"),
    Case("ALERT-SUBSCRIBERS", _task("alert_task", {"alert_id": "a", "subscribers": [{"user_name": "a"}] * 100}),
         _task("alert_task", {"alert_id": "a", "subscribers": [{"user_name": "a"}] * 101}),
         f"{T}.alert_task.subscribers"),
    Case("ALERT-PARAM-SIZE", _task("alert_task", {"alert_id": "a", "parameters": {"a": "é" * 9_000}}),
         _task("alert_task", {"alert_id": "a", "parameters": {"a": "x" * 10_000}}), f"{T}.alert_task.parameters"),
    Case("ALERT-PARAM-KEYS", _task("alert_task", {"alert_id": "a", "parameters": {"a.b-c_1": ""}}),
         _task("alert_task", {"alert_id": "a", "parameters": {"a b": ""}}), f"{T}.alert_task.parameters"),
    # --- the list of tasks ---
    Case("TASKKEY-REQUIRED", {}, {f"{T}.task_key": GONE}, f"{T}.task_key"),
    Case("TASKKEY-FORMAT", {f"{T}.task_key": "k" * 100}, {f"{T}.task_key": "k" * 101}, f"{T}.task_key"),
    Case("TASKKEY-FORMAT", {f"{T}.task_key": "a-B_1"}, {f"{T}.task_key": "é"}, f"{T}.task_key"),
    Case("TASKKEY-UNIQUE", {"tasks[1]": B}, {"tasks[1]": {**B, "task_key": "a"}}, "tasks[1].task_key"),
    Case("DEPENDS-EXISTS", {"tasks[1]": {**B, "depends_on": [{"task_key": "a"}]}},
         {"tasks[1]": {**B, "depends_on": [{"task_key": "c"}]}}, "tasks[1].depends_on[0].task_key"),
    Case("DEPENDS-ACYCLIC", {"tasks[1]": {**B, "depends_on": [{"task_key": "a"}]}},
         {"tasks[1]": {**B, "depends_on": [{"task_key": "a"}]}, f"{T}.depends_on": [{"task_key": "b"}]}, "tasks"),
    Case("DEPENDS-ACYCLIC", {f"{T}.depends_on": []}, {f"{T}.depends_on": [{"task_key": "a"}]}, "tasks"),
    Case("DEPENDS-OUTCOME", {"tasks[1]": B, f"{T}.depends_on": [{"task_key": "b", "outcome": "true"}]},
         {"tasks[1]": B, f"{T}.depends_on": [{"task_key": "b", "outcome": "maybe"}]}, f"{T}.depends_on[0].outcome"),
    Case("DEPENDS-OUTCOME", {"tasks[1]": {**B, "depends_on": [{"task_key": "a"}]}},
         {"tasks[1]": {**B, "depends_on": [{"task_key": "a", "outcome": "true"}]}}, "tasks[1].depends_on[0].outcome"),
    Case("RUNIF-ENUM", {f"{T}.run_if": "ALL_DONE"}, {f"{T}.run_if": "ALWAYS"}, f"{T}.run_if"),
    Case("TASKS-COUNT-2_1", {}, {"tasks": [{**TASK, "task_key": f"t{n}"} for n in range(101)]}, "tasks", "create",
         "2.1"),
    Case("TASKS-COUNT-2_2", {"tasks": [{**TASK, "task_key": f"t{n}"} for n in range(101)]}, {"tasks": [B] * 1001},
         "tasks"),
    Case("JOBCLUSTERS-COUNT", {},
         {"job_clusters": [{"job_cluster_key": f"c{n}", "new_cluster": CLUSTER} for n in range(101)]}, "job_clusters"),
    Case("JOBCLUSTER-KEY-FORMAT", {"job_clusters": [{"job_cluster_key": "c", "new_cluster": CLUSTER}]},
         {"job_clusters": [{"job_cluster_key": "c c", "new_cluster": CLUSTER}]}, "job_clusters[0].job_cluster_key"),
    Case("JOBCLUSTER-KEY-FORMAT", {}, {"job_clusters": [{"new_cluster": CLUSTER}]}, "job_clusters[0].job_cluster_key"),
    Case("JOBCLUSTER-KEY-UNIQUE", {"job_clusters": [{"job_cluster_key": "c"}, {"job_cluster_key": "d"}]},
         {"job_clusters": [{"job_cluster_key": "c"}, {"job_cluster_key": "c"}]}, "job_clusters[1].job_cluster_key"),
    Case("JOBCLUSTER-REF", {f"{T}.new_cluster": GONE, f"{T}.job_cluster_key": "c",
                            "job_clusters": [{"job_cluster_key": "c", "new_cluster": CLUSTER}]},
         {f"{T}.new_cluster": GONE, f"{T}.job_cluster_key": "c"}, f"{T}.job_cluster_key"),
    Case("JOBCLUSTER-NOT-ON-SUBMIT", {}, {"job_clusters": [{"job_cluster_key": "c"}]}, "job_clusters", "runs/submit"),
    Case("JOBCLUSTER-NOT-ON-SUBMIT", {}, {f"{T}.new_cluster": GONE, f"{T}.job_cluster_key": "c"},
         f"{T}.job_cluster_key", "runs/submit"),
    Case("JOBCLUSTER-NO-LIBS", {}, {"job_clusters": [{"job_cluster_key": "c", "libraries": [{"jar": "a"}]}]},
         "job_clusters[0].libraries"),
    # --- compute ---
    Case("COMPUTE-ONE-2_0", {}, {"existing_cluster_id": "c"}, "", "create", "2.0"),
    Case("COMPUTE-ONE-2_0", {"notebook_task": GONE, "new_cluster": GONE, "pipeline_task": {"pipeline_id": "p"}},
         {"new_cluster": GONE}, "", "runs/submit", "2.0"),
    Case("COMPUTE-ONE-2_1", {f"{T}.existing_cluster_id": ""}, {f"{T}.existing_cluster_id": "c"}, T),
    Case("COMPUTE-REQUIRED-2_1", _task("spark_jar_task", {"main_class_name": "a"}, existing_cluster_id="c"),
         _task("spark_jar_task", {"main_class_name": "a"}), T, warns=True),
    Case("CLUSTER-SPARK-VERSION", {f"{C}.spark_version": GONE, f"{C}.policy_id": "p"}, {f"{C}.spark_version": GONE},
         f"{C}.spark_version"),
    Case("CLUSTER-SIZE", {f"{C}.num_workers": GONE}, {f"{C}.autoscale": {"min_workers": 1, "max_workers": 2}}, C,
         warns=True),
    Case("CLUSTER-NUM-WORKERS", {f"{C}.num_workers": 0}, {f"{C}.num_workers": -1}, f"{C}.num_workers"),
    Case("CLUSTER-AUTOSCALE", {f"{C}.num_workers": GONE, f"{C}.autoscale": {"min_workers": 1, "max_workers": 2}},
         {f"{C}.num_workers": GONE, f"{C}.autoscale": {"min_workers": 2, "max_workers": 2}}, f"{C}.autoscale",
         warns=True),
    Case("CLUSTER-NODE-TYPE", {f"{C}.node_type_id": GONE, f"{C}.instance_pool_id": "p"}, {f"{C}.node_type_id": GONE},
         C, warns=True),
    Case("CLUSTER-DRIVER-POOL", {f"{C}.driver_instance_pool_id": "d", f"{C}.instance_pool_id": "p"},
         {f"{C}.driver_instance_pool_id": "d"}, f"{C}.driver_instance_pool_id"),
    Case("CLUSTER-TAG-COUNT", {f"{C}.custom_tags": {str(n): "" for n in range(45)}},
         {f"{C}.custom_tags": {str(n): "" for n in range(46)}}, f"{C}.custom_tags"),
    *(
        Case("TAG-KEY-AZURE", {f"{C}.azure_attributes": {"first_on_demand": 1}, f"{C}.custom_tags": {"k" * 512: "v"}},
             {f"{C}.azure_attributes": {"first_on_demand": 1}, f"{C}.custom_tags": {key: "v"}},
             f"{C}.custom_tags.{key}")
        for key in ("a%b", "Azure-a", "k" * 513)
    ),
    Case("TAG-KEY-AZURE", {"tags": {"a%b": ""}},
         {"tags": {"a%b": ""}, f"{C}.azure_attributes": {"first_on_demand": 1}}, "tags.a%b"),
    Case("TAG-VALUE-AZURE", {f"{C}.azure_attributes.first_on_demand": 1, "tags": {"a": "v" * 256}},
         {f"{C}.azure_attributes.first_on_demand": 1, "tags": {"a": "v" * 257}}, "tags.a"),
    Case("TAG-KEY-AWS", {f"{C}.aws_attributes.zone_id": "auto", "tags": {"a b:c": ""}},
         {f"{C}.aws_attributes.zone_id": "auto", "tags": {"a%": ""}}, "tags.a%", warns=True),
    Case("TAG-VALUE-AWS", {f"{C}.aws_attributes.zone_id": "auto", "tags": {"a": ""}},
         {f"{C}.aws_attributes.zone_id": "auto", "tags": {"a": "é"}}, "tags.a", warns=True),
    Case("TAG-GCP", {f"{C}.gcp_attributes.zone_id": "auto", "tags": {"a": ""}},
         {f"{C}.gcp_attributes.zone_id": "auto", "tags": {"-a": ""}}, "tags.-a", warns=True),
    Case("AZURE-FIRST-ON-DEMAND", {f"{C}.azure_attributes.first_on_demand": 1},
         {f"{C}.azure_attributes.first_on_demand": 0}, f"{C}.azure_attributes.first_on_demand"),
    Case("AZURE-AVAILABILITY", {f"{C}.azure_attributes.availability": "SPOT_AZURE"},
         {f"{C}.azure_attributes.availability": "SPOT"}, f"{C}.azure_attributes.availability"),
    Case("CLUSTER-LOG-ONE", {f"{C}.cluster_log_conf": {"dbfs": {"destination": "dbfs:/a"}}},
         {f"{C}.cluster_log_conf": {"dbfs": {"destination": "dbfs:/a"}, "s3": {"destination": "s3://a"}}},
         f"{C}.cluster_log_conf"),
    Case("INIT-SCRIPT-ONE", {f"{C}.init_scripts": [{"workspace": {"destination": "/a"}}]}, {f"{C}.init_scripts": [{}]},
         f"{C}.init_scripts[0]"),
    Case("SPARK-ENV-ASCII", {f"{C}.spark_env_vars": {"A": "b"}}, {f"{C}.spark_env_vars": {"A": "é"}},
         f"{C}.spark_env_vars"),
    # --- libraries, repositories, environments ---
    Case("LIB-ONE-KIND", {f"{T}.libraries": [{"jar": "a"}]}, {f"{T}.libraries": [{"jar": "a", "whl": "b"}]},
         f"{T}.libraries[0]"),
    Case("LIB-ONE-KIND", {f"{T}.libraries": [{"requirements": "/r.txt"}]}, {f"{T}.libraries": [{}]},
         f"{T}.libraries[0]"),
    Case("LIB-PYPI", {f"{T}.libraries": [{"pypi": {"package": "a"}}]}, {f"{T}.libraries": [{"pypi": {"repo": "b"}}]},
         f"{T}.libraries[0].pypi.package"),
    Case("LIB-MAVEN", {"libraries": [{"maven": {"coordinates": "a:b:1"}}]},
         {"libraries": [{"maven": {"exclusions": ["a"]}}]}, "libraries[0].maven.coordinates", "runs/submit", "2.0"),
    Case("LIB-CRAN", {"libraries": [{"cran": {"package": "a"}}]}, {"libraries": [{"cran": {"package": ""}}]},
         "libraries[0].cran.package", "create", "2.0"),
    Case("LIB-WHEELHOUSE", {f"{T}.libraries": [{"whl": "a.wheelhouse.zip"}]}, {f"{T}.libraries": [{"whl": "a.zip"}]},
         f"{T}.libraries[0].whl", warns=True),
    Case("GIT-URL", {"git_source": {**GIT, "git_url": "u" * 300}}, {"git_source": {**GIT, "git_url": "u" * 301}},
         "git_source.git_url"),
    Case("GIT-URL", {"git_source": GIT}, {"git_source": {"git_provider": "gitHub"}}, "git_source.git_url"),
    Case("GIT-PROVIDER", {"git_source": {**GIT, "git_provider": "GITHUB"}},
         {"git_source": {**GIT, "git_provider": "cvs"}}, "git_source.git_provider"),
    Case("GIT-ONE-REF", {"git_source": {**GIT, "git_branch": "b", "git_tag": ""}},
         {"git_source": {**GIT, "git_branch": "b", "git_tag": "t"}}, "git_source"),
    *(
        Case(rule, {"git_source": {**GIT, field: "x" * most}}, {"git_source": {**GIT, field: "x" * (most + 1)}},
             f"git_source.{field}")
        for rule, field, most in (("GIT-BRANCH-LEN", "git_branch", 255), ("GIT-TAG-LEN", "git_tag", 255),
                                  ("GIT-COMMIT-LEN", "git_commit", 64))
    ),
    Case("ENV-KEY-UNIQUE", {"environments": [{"environment_key": "e"}]},
         {"environments": [{"environment_key": "e"}, {"environment_key": "e"}]}, "environments[1].environment_key"),
    Case("ENV-KEY-UNIQUE", {}, {"environments": [{"spec": {}}]}, "environments[0].environment_key"),
    Case("ENV-KEY-REF", {"environments": [{"environment_key": "e"}], f"{T}.environment_key": "e"},
         {"environments": [{"environment_key": "e"}], f"{T}.environment_key": "f"}, f"{T}.environment_key"),
    Case("ENVVAR-ENTRIES", {"environment_variables": [{}] * 10}, {"environment_variables": [{}] * 11},
         "environment_variables"),
    Case("ENVVAR-COUNT", {"environment_variables": [{"spec": {"variables": {f"v{n}": "" for n in range(20)}}}]},
         {"environment_variables": [{"spec": {"variables": {f"v{n}": "" for n in range(21)}}}]},
         "environment_variables[0].spec.variables"),
    Case("ENVVAR-KEY", {"environment_variables": [{"spec": {"variables": {"_A1": ""}}}]},
         {"environment_variables": [{"spec": {"variables": {"1A": ""}}}]},
         "environment_variables[0].spec.variables.1A"),
    Case("ENVVAR-VALUE", {"environment_variables": [{"spec": {"variables": {"A": "x" * 512}}}]},
         {"environment_variables": [{"spec": {"variables": {"A": "x" * 513}}}]},
         "environment_variables[0].spec.variables.A"),
    Case("ENVVAR-FILES", {"environment_variables": [{"spec": {"files": ["/Volumes/a/.env"]}}]},
         {"environment_variables": [{"spec": {"files": ["/tmp/.env"]}}]}, "environment_variables[0].spec.files"),
    # --- permissions ---
    Case("ACL-ONE-PRINCIPAL", {"access_control_list": [ACL]},
         {"access_control_list": [{**ACL, "group_name": "g"}]}, "access_control_list[0]"),
    Case("ACL-ONE-PRINCIPAL", {}, {"access_control_list": [{"permission_level": "CAN_VIEW"}]},
         "access_control_list[0]", "permissions"),
    Case("ACL-LEVEL", {}, {"access_control_list": [{**ACL, "permission_level": "CAN_RUN"}]},
         "access_control_list[0].permission_level", "runs/submit"),
    Case("ACL-ONE-OWNER", {"access_control_list": [{**ACL, "permission_level": "IS_OWNER"}]},
         {"access_control_list": [{**ACL, "permission_level": "IS_OWNER"}] * 2}, "access_control_list[1]", warns=True),
    # --- lists, exports, updates, repairs ---
    Case("LIST-JOBS-LIMIT", {"limit": "100"}, {"limit": 101}, "limit", "list"),
    Case("LIST-JOBS-2_0", {}, {"limit": 20}, "limit", "list", "2.0", warns=True),
    Case("LIST-RUNS-LIMIT-2_0", {"limit": 999}, {"limit": 1000}, "limit", "runs/list", "2.0"),
    Case("LIST-RUNS-LIMIT-2_1", {"limit": 0}, {"limit": 26}, "limit", "runs/list", "2.1"),
    Case("LIST-RUNS-ACTIVE-XOR", {"active_only": "true", "completed_only": "false"},
         {"active_only": "true", "completed_only": True}, "", "runs/list"),
    Case("LIST-RUNS-TYPE", {"run_type": "JOB_RUN"}, {"run_type": "JOB"}, "run_type", "runs/list"),
    Case("LIST-RUNS-TIME", {"start_time_from": 1, "start_time_to": 1}, {"start_time_from": 2, "start_time_to": 1}, "",
         "runs/list", warns=True),
    Case("LIST-OFFSET", {"offset": 0}, {"offset": -1}, "offset", "runs/list", "2.0"),
    Case("LIST-OFFSET", {"page_token": "t"}, {"offset": 1, "page_token": "t"}, "offset", "runs/list"),
    Case("LIST-OFFSET-DEPRECATED", {}, {"offset": 20}, "offset", "list", warns=True),
    Case("EXPORT-VIEWS", {"views_to_export": "ALL"}, {"views_to_export": "SOME"}, "views_to_export", "runs/export"),
    Case("UPDATE-REMOVE-SYNTAX", {"fields_to_remove": ["schedule", "tasks/a b", "job_clusters/c"]},
         {"fields_to_remove": ["schedule", "schedule.pause_status"]}, "fields_to_remove[1]", "update"),
    Case("UPDATE-REMOVE-OVERLAP", {"fields_to_remove": ["schedule"]}, {"fields_to_remove": ["name"]}, "", "update",
         warns=True),
    Case("REPAIR-SELECTOR", {"rerun_all_failed_tasks": False}, {"rerun_all_failed_tasks": True}, "", "runs/repair"),
    Case("REPAIR-SELECTOR", {"rerun_tasks": [], "rerun_all_failed_tasks": True}, {"rerun_tasks": []}, "",
         "runs/repair"),
    Case("REPAIR-NO-DUPES", {"rerun_tasks": ["a", "b"]}, {"rerun_tasks": ["a", "a"]}, "rerun_tasks[1]", "runs/repair",
         warns=True),
    Case("REQ-ENDPOINT-VERSION", {}, {"run_id": 2}, "", "runs/repair", "2.0"),
]  # fmt: skip

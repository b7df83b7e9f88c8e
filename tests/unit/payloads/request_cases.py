"""Cases of the rules of requests, names, parameters of runs, settings and notifications."""

from __future__ import annotations

from .case import FLAT, GONE, C, Case, N, T

TRIGGER = {"periodic": {"interval": 1, "unit": "DAYS"}}
SCHEDULE = {"quartz_cron_expression": "0 15 22 * * ?", "timezone_id": "Europe/Berlin"}
FILE = {"url": "s3://in/"}
TABLE = {"table_names": ["a.b.c"]}
RULE = {"metric": "RUN_DURATION_SECONDS", "op": "GREATER_THAN", "value": 60}
OLD_RULE = {"metric": "RUN_DURATION_SECONDS", "operator": "GREATER_THAN", "value": 60}
WINDOW = {"start_hour": 3, "day_of_week": "SUNDAY", "timezone_id": "UTC"}
WRAPPED = len('{"jar_params":[""]}')

REQUEST_CASES = [
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
    Case("REQ-JOB-ID", {"job_id": 2**63 - 1}, {"job_id": 2**63}, "job_id", "run-now"),
    Case("REQ-RUN-ID", {}, {"run_id": 2**63}, "run_id", "runs/get"),
    # --- names and tokens ---
    Case("TOKEN-SUBMIT-LENGTH", {"idempotency_token": "é" * 64}, {"idempotency_token": "t" * 65}, "idempotency_token",
         "runs/submit"),
    Case("TOKEN-RUNNOW-LENGTH", {"idempotency_token": "t" * 64}, {"idempotency_token": "t" * 65}, "idempotency_token",
         "run-now"),
    Case("TOKEN-NONEMPTY", {"idempotency_token": "t"}, {"idempotency_token": ""}, "idempotency_token", "run-now",
         warns=True),
    Case("NAME-RUN", {"run_name": "é" * 2048}, {"run_name": "é" * 2049}, "run_name", "runs/submit"),
    Case("NAME-JOB", {"name": "n" * 4096}, {"name": "n" * 4097}, "name"),
    Case("DESC-JOB", {"description": "d" * 27_700}, {"description": "d" * 27_701}, "description"),
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
    Case("PARAM-JOB-XOR-TASK", {"job_parameters": {"a": "b"}, "python_params": []},
         {"job_parameters": {"a": "b"}, "python_params": ["a"]}, "", "run-now", warns=True),
    Case("PARAM-MAP-VALUES", {"notebook_params": {"b": None}}, {"notebook_params": {"a": 1}}, "notebook_params.a",
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
]  # fmt: skip

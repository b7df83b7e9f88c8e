"""Each rule: what keeps it passes, what breaks it is told by its id and at its place."""

from __future__ import annotations

from importlib import import_module

import pytest

from airflow_dbjobs.payloads.rules import MODULES_WITH_RULES, Rule
from airflow_dbjobs.payloads.rules.requests import ROOT_RULES
from airflow_dbjobs.payloads.validation import VERSIONS, Finding, findings, findings_of_any_version

from .case import CLUSTER, FLAT, GONE, TASK, C, Case, N, T, body_of, task_of
from .rule_cases import CASES


def all_rules() -> list[Rule]:
    tables = [import_module(f"airflow_dbjobs.payloads.rules.{module}").RULES for module in MODULES_WITH_RULES]
    return [*ROOT_RULES, *(rule for table in tables for rules in table.values() for rule in rules)]


def of(case: Case, found: list[Finding]) -> list[tuple[str, bool]]:
    return [(finding.path, finding.is_error) for finding in found if finding.rule == case.rule]


class TestValidPayload:
    @pytest.mark.parametrize("version", VERSIONS)
    @pytest.mark.parametrize("endpoint", ["create", "reset", "update", "runs/submit", "run-now", "runs/list", "list"])
    def test_has_no_findings_in_any_version(self, endpoint, version):
        assert findings(endpoint, body_of(endpoint, version, {}), version) == []

    @pytest.mark.parametrize(
        ("endpoint", "changes"),
        [
            ("create", {"tasks[0].new_field": {"a": [1]}, "new": None}),
            ("runs/submit", {"name": "n", "max_concurrent_runs": 1, "tasks[0].notebook_task.notebook_params": {}}),
            ("create", {"continuous": {}, "schedule": None, "email_notifications": {}, "webhook_notifications": {}}),
            ("create", {"tasks[0].depends_on": [], "tasks[0].new_cluster.init_scripts": []}),
            (
                "create",
                {"tasks[0].new_cluster.num_workers": "2", "timeout_seconds": "60", "queue": {"enabled": "false"}},
            ),
            ("run-now", {"job_id": "17", "notebook_params": {"a": "{{job.run_id}}"}, "jar_params": []}),
            ("update", {"new_settings": {"tasks": [{**TASK, "depends_on": [{"task_key": "stored"}]}]}}),
            ("update", {"new_settings": {"tasks": [{**TASK, "notebook_task": {"notebook_path": "a"}}]}}),
            (
                "update",
                {
                    "new_settings": {"tasks": [{"task_key": "a", "sql_task": {}, "job_cluster_key": "stored"}]},
                    "fields_to_remove": ["tasks/b"],
                },
            ),
        ],
    )
    def test_of_a_real_caller_has_no_errors(self, endpoint, changes):
        found = findings(endpoint, body_of(endpoint, "2.2", changes))
        assert [str(finding) for finding in found if finding.is_error and finding.rule[:3] != "SQL"] == []


class TestVersion:
    def test_that_is_too_old_for_a_payload_is_named(self):
        found = findings("runs/submit", {"tasks": [TASK], "queue": {"enabled": True}}, "2.0")
        assert [finding.path for finding in found if finding.rule == "FIELD-VERSION"] == ["tasks", "queue"]
        (error, _) = [finding for finding in found if finding.is_error]
        assert "has tasks, which need API 2.1 or later" in str(error)
        (newer,) = findings("run-now", {"job_id": 1, "only": "{{ tasks }}"}, "2.1")
        assert "needs API version 2.2 or later; the API ignores it in version 2.1, the connection's api_version" in str(
            newer
        )
        assert 'Set "api_version": "2.2"' in str(newer)

    def test_that_ignores_a_field_does_not_check_it(self):
        many = {**FLAT, "tags": {f"t{number}": "v" for number in range(26)}}
        assert [finding.rule for finding in findings("create", many, "2.0")] == ["FIELD-VERSION"]
        assert [finding.rule for finding in findings("create", many, "2.1")] == ["TAGS-COUNT"]

    def test_that_is_unknown_reports_what_is_wrong_in_all(self):
        old_health = {"health": {"rules": [{"metric": "RUN_DURATION_SECONDS", "operator": "GREATER_THAN", "value": 1}]}}
        assert findings("create", {**FLAT, **old_health}) != []
        assert findings_of_any_version("create", {**FLAT, **old_health}) == []
        both = {"job_id": 1, "duration_target": "4h"}
        assert [finding.rule for finding in findings_of_any_version("run-now", both)] == ["DURATION-TARGET"]
        assert findings_of_any_version("runs/submit", {**FLAT, "timeout_seconds": -1}) != []


class TestTaskKind:
    @pytest.mark.parametrize(
        ("changes", "place"),
        [
            ({"trigger": {"job_completion": {"job_id": 1}}}, "trigger.job_completion"),
            ({"triggers": [{"job_completion": {"job_id": 1}}]}, "triggers[0].job_completion"),
            ({"tasks[0].libraries": [{"npm": {"package": "a"}}]}, "tasks[0].libraries[0].npm"),
            (task_of("sql_task", {"warehouse_id": "w", "metric_view": {}}), "tasks[0].sql_task.metric_view"),
            ({"tasks[0].new_cluster.init_scripts": [{"oci": {}}]}, "tasks[0].new_cluster.init_scripts[0].oci"),
            (task_of("quantum_task", {}), "tasks[0].quantum_task"),
        ],
    )
    def test_that_is_unknown_passes_with_a_warning(self, changes, place):
        (told,) = findings("create", body_of("create", "2.2", changes))
        assert (told.path, told.rule, told.is_error) == (place, "FIELD-UNKNOWN", False)

    def test_that_is_misspelt_is_not_taken_for_an_unknown_one(self):
        found = findings("create", body_of("create", "2.2", {"trigger": {"file_arival": {"url": "/a"}}}))
        assert [(finding.rule, finding.is_error) for finding in found] == [
            ("TRIGGER-ONE-KIND", True), ("FIELD-NAME", False),
        ]  # fmt: skip


SECRET = "hunter2-é"


class TestFinding:
    def test_about_a_cycle_names_its_tasks_only(self):
        waits = {"y": "z", "z": "y", "a": "y", "b": "a"}
        tasks = [{**TASK, "task_key": key, "depends_on": [{"task_key": other}]} for key, other in waits.items()]
        (told,) = findings("create", {"name": "n", "tasks": tasks})
        assert told.given == "has a cycle in depends_on: 'y', 'z'"

    def test_has_path_value_allowed_values_and_remedy(self):
        tasks = [TASK, {**TASK, "task_key": "b", "new_cluster": {**CLUSTER, "num_workers": -3}}]
        (found,) = findings("runs/submit", {"tasks": tasks})
        assert str(found) == (
            "tasks[1].new_cluster.num_workers [CLUSTER-NUM-WORKERS]: is -3; 0 or more is allowed."
            " Use 0 for a cluster without workers."
        )

    @pytest.mark.parametrize(
        ("changes", "place", "meant"),
        [
            ({"tasks[0].timeout_second": 5}, "tasks[0].timeout_second", "timeout_seconds"),
            (
                {"tasks[0].new_cluster.node_typ_id": "m", "tasks[0].new_cluster.node_type_id": GONE},
                "tasks[0].new_cluster.node_typ_id",
                "node_type_id",
            ),
            (
                {"tasks[0].notebook_task": {"notebok_path": "/a"}},
                "tasks[0].notebook_task.notebok_path",
                "notebook_path",
            ),
            ({"tasks[0].notebook_task": GONE, "tasks[0].notbook_task": {}}, "tasks[0].notbook_task", "notebook_task"),
        ],
    )
    def test_about_a_misspelt_field_names_the_meant_one(self, changes, place, meant):
        found = findings("runs/submit", body_of("runs/submit", "2.2", changes))
        (slip,) = [finding for finding in found if finding.rule == "FIELD-NAME"]
        assert (slip.path, slip.is_error) == (place, False)
        assert f"Did you mean {meant}?" in str(slip)

    @pytest.mark.parametrize(
        ("endpoint", "changes", "place", "belongs"),
        [
            ("create", {f"{N}.notebook_params": {}}, f"{N}.notebook_params", "It is called base_parameters here."),
            ("create", {f"{C}.libraries": []}, f"{C}.libraries", f"It belongs in {T}, next to new_cluster."),
            ("create", {f"{T}.base_parameters": {}}, f"{T}.base_parameters", "It belongs in notebook_task."),
            ("create", {f"{T}.spark_version": "x"}, f"{T}.spark_version", "It belongs in new_cluster."),
            ("create", {f"{N}.schedule": {}}, f"{N}.schedule", "It belongs next to tasks."),
            ("create", {"run_if": "ALL_DONE"}, "run_if", "It belongs in each of tasks."),
            ("create", {"notebook_path": "/a"}, "notebook_path", "It belongs in notebook_task of each of tasks."),
            ("runs/submit", {"max_retries": 1}, "max_retries", "It belongs in each of tasks."),
            ("runs/submit", {"notebook_params": {}}, "notebook_params",
             "It belongs in notebook_task of each of tasks as base_parameters."),
            ("run-now", {"base_parameters": {}}, "base_parameters", "It is called notebook_params here."),
        ],
    )  # fmt: skip
    def test_about_a_misplaced_field_names_the_right_place(self, endpoint, changes, place, belongs):
        (told,) = findings(endpoint, body_of(endpoint, "2.2", changes))
        assert (told.path, told.rule, told.remedy, told.is_error) == (place, "FIELD-PLACE", belongs, False)

    @pytest.mark.parametrize(
        ("endpoint", "body"),
        [
            (
                "run-now",
                {"job_id": 1, "python_params": [SECRET], "jar_params": SECRET, "notebook_params": {"a": [SECRET]}},
            ),
            ("run-now", {"job_id": 1, "spark_submit_params": [f"--master={SECRET}"], "notebook_params": [SECRET]}),
            ("runs/submit", {"tasks": [{**TASK, "new_cluster": {**CLUSTER, "spark_env_vars": {"A": SECRET}}}]}),
            ("runs/submit", {"tasks": [{**TASK, "new_cluster": {**CLUSTER, "spark_conf": SECRET}}]}),
            ("runs/submit", {"tasks": [{**TASK, "dbt_task": {"commands": [SECRET]}}]}),
            (
                "runs/submit",
                {
                    "environment_variables": [{"spec": {"variables": {"A": SECRET * 100}}}],
                    "idempotency_token": SECRET * 9,
                },
            ),
            (
                "runs/submit",
                {
                    "libraries": [{"whl": f"https://u:{SECRET}@host/a.zip"}],
                    "notebook_task": {"notebook_path": f"https://u:{SECRET}@host/a"},
                },
            ),
        ],
    )
    def test_shows_no_value_that_may_be_secret(self, endpoint, body):
        found = findings(endpoint, body)
        assert found != []
        assert [str(finding) for finding in found if "hunter2" in str(finding)] == []


ODD = [None, True, 3.5, "", "é", [], {}, [[]], [None], [{}], {"a": []}, {"task_key": {}}, [{"task_key": []}], object()]


def paths_in(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(below for key, item in items for below in paths_in(item, (*path, key)))]


class TestRule:
    @pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.rule}-{case.where}")
    def test_passes_and_fails_its_cases_naming_id_and_place(self, case):
        # Of this one it is the version that keeps it.
        version = "2.1" if case.rule == "REQ-ENDPOINT-VERSION" else case.version
        good = findings(case.endpoint, body_of(case.endpoint, version, case.good), version)
        assert [str(finding) for finding in good if finding.is_error or finding.rule == case.rule] == []
        bad = of(case, findings(case.endpoint, body_of(case.endpoint, case.version, case.bad), case.version))
        assert bad != []
        assert {is_error for _, is_error in bad} == {not case.warns}
        assert [path for path, _ in bad if not path.startswith(case.where)] == []

    def test_has_cases_and_the_severity_of_its_cases(self):
        cases = {(case.rule, case.warns) for case in CASES}
        rules = {(rule.id, rule.warning) for rule in all_rules()}
        assert cases - rules == {("REQ-BODY-OBJECT", False), ("REQ-FIELD-TYPE", False)}, "these two need no table"
        assert rules - cases == set()

    def test_says_what_is_allowed_and_what_to_do(self):
        told = [rule for rule in all_rules() if not rule.allowed or rule.allowed.endswith(".")]
        assert told == []
        assert [rule.id for rule in all_rules() if not rule.remedy.endswith((".", "..."))] == []

    def test_never_states_what_is_allowed_as_a_fact(self):
        told = [rule.id for rule in all_rules() if rule.allowed.startswith(("it is one of", "it names", "it has"))]
        assert told == []

    def test_refusing_a_field_reports_it_once(self):
        (told,) = findings("runs/submit", body_of("runs/submit", "2.2", {"job_clusters": [{"job_cluster_key": "a"}]}))
        assert told.rule == "JOBCLUSTER-NOT-ON-SUBMIT"

    @pytest.mark.parametrize(("given", "told"), [("aws", "TAG-VALUE-AWS"), ("azure", "TAG-KEY-AZURE"), ("", None)])
    def test_for_tags_depends_on_the_cloud_of_the_workspace(self, given, told):
        found = findings("create", {"tasks": [TASK], "tags": {"windows": "é"}}, cloud=given)
        assert {finding.rule for finding in found} == ({told} if told else set())

    def test_never_fails_itself_whatever_the_value(self):
        seen = set()
        for case in CASES:
            body = body_of(case.endpoint, case.version, case.good)
            # The long ones have nothing more to stumble over.
            for path in paths_in(body)[1:] if len(repr(body)) < 1000 else ():
                if (case.endpoint, case.version, path) in seen:
                    continue
                seen.add((case.endpoint, case.version, path))
                holder = body
                for key in path[:-1]:
                    holder = holder[key]
                kept = holder[path[-1]]
                for odd in ODD:
                    holder[path[-1]] = odd
                    assert all(str(finding) for finding in findings(case.endpoint, body, case.version)), (path, odd)
                holder[path[-1]] = kept
        assert len(seen) > 500

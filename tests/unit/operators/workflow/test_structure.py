"""Workflow groups: what may be in one, and how its tasks and those around it are ordered."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow import DAG
from airflow.exceptions import SerializationError
from airflow.serialization import serialized_objects
from airflow_context import AIRFLOW_V_3_0_PLUS, parsed

from airflow_dbjobs.airflow_compat import BaseOperator, TaskGroup
from airflow_dbjobs.errors import ConfigurationError, PayloadError
from airflow_dbjobs.operators import (
    DatabricksNotebookOperator,
    DatabricksSubmitRunOperator,
    DatabricksTaskOperator,
    DatabricksWorkflowTaskGroup,
)

if AIRFLOW_V_3_0_PLUS:
    from airflow.sdk import task_group
else:
    from airflow.decorators import task_group

NOTEBOOK = {"notebook_path": "/load"}


def new_dag(**kwargs: Any) -> DAG:
    return DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **kwargs)


def group(**kwargs: Any) -> DatabricksWorkflowTaskGroup:
    return DatabricksWorkflowTaskGroup(**{"group_id": "etl", **kwargs})


def notebook(task_id: str, **kwargs: Any) -> DatabricksNotebookOperator:
    return DatabricksNotebookOperator(task_id=task_id, **{"notebook_path": f"/{task_id}", **kwargs})


def other(task_id: str) -> BaseOperator:
    return BaseOperator(task_id=task_id)


def upstream(dag: DAG, task_id: str) -> set[str]:
    return dag.get_task(task_id).upstream_task_ids


class Branch(BaseOperator):
    def skip_all_except(self) -> None: ...


class TestRefuses:
    def refused(self, match: str, kind: type[Exception] = ConfigurationError) -> Any:
        return pytest.raises(kind, match=f"(?s){match}")

    def test_a_group_without_tasks(self):
        with self.refused("Workflow group etl has no tasks.*Add an operator"), new_dag(), group():
            pass

    def test_another_operator(self):
        with (
            self.refused("etl.check is a BaseOperator: a workflow group may contain only.*Move it out"),
            new_dag(),
            group(),
        ):
            other("check")

    def test_a_branch(self):
        with self.refused("etl.choose is a Branch.*condition_task instead"), new_dag(), group():
            Branch(task_id="choose")

    def test_a_mapped_operator(self):
        with self.refused(r"etl.load is a mapped task.*Use a for_each_task instead of expand\(\)"), new_dag(), group():
            DatabricksNotebookOperator.partial(task_id="load").expand(notebook_path=["/a", "/b"])

    def test_a_mapped_group_in_it(self):
        @task_group
        def each(path: str) -> None:
            notebook("load", notebook_path=path)

        with self.refused("etl.each is a mapped task group in a workflow group.*for_each_task"), new_dag(), group():
            each.expand(path=["/a", "/b"])

    def test_to_be_in_a_mapped_group(self):
        @task_group
        def each(path: str) -> None:
            with group():
                notebook("load", notebook_path=path)

        with self.refused("Workflow group each.etl is inside the mapped task group each.*Move it out"), new_dag():
            each.expand(path=["/a", "/b"])

    def test_to_be_in_a_workflow_group(self):
        with (
            self.refused("Workflow group etl.inner is inside the workflow group etl.*ordinary TaskGroup"),
            new_dag(),
            group(),
            group(group_id="inner"),
        ):
            notebook("load")

    def test_to_be_in_a_part_of_a_workflow_group(self):
        with (
            self.refused("Workflow group etl.part.inner is inside the workflow group etl"),
            new_dag(),
            group(),
            TaskGroup("part"),
            group(group_id="inner"),
        ):
            notebook("load")

    def test_two_tasks_with_one_key(self):
        with (
            self.refused("etl.a__b has the task key 'a__b' of etl.a.b.*another databricks_task_key"),
            new_dag(),
            group(),
        ):
            with TaskGroup("a"):
                notebook("b")
            notebook("a__b")

    @pytest.mark.parametrize("key", ["a" * 101, "a b", "a.b"])
    def test_a_key_that_the_api_does_not_accept(self, key):
        with (
            self.refused(f"etl.load: databricks_task_key is '{key}'; it must have 1 to 100.*or omit it"),
            new_dag(),
            group(),
        ):
            notebook("load", databricks_task_key=key)

    @pytest.mark.parametrize("rule", ["one_done", "none_skipped", "always", "all_skipped"])
    def test_a_trigger_rule_without_counterpart(self, rule):
        with (
            self.refused(f"etl.load: trigger_rule '{rule}' has no counterpart.*Use one of all_success, all_done, "),
            new_dag(),
            group(),
        ):
            notebook("load", trigger_rule=rule)

    def test_a_run_if_that_contradicts_the_trigger_rule(self):
        with (
            self.refused("etl.load: run_if is 'ALL_DONE', but trigger_rule 'all_success' means ALL_SUCCESS.*Omit"),
            new_dag(),
            group(),
        ):
            DatabricksTaskOperator(task_id="load", task_config={"notebook_task": NOTEBOOK, "run_if": "ALL_DONE"})

    def test_the_output_of_another_member(self):
        with self.refused("etl.load uses the output of etl.extract.*tasks.<task key>.values"), new_dag(), group():
            extract = notebook("extract")
            notebook("load", notebook_params={"n": extract.output["n"]})

    @pytest.mark.parametrize(
        "template",
        [
            "{{ ti.xcom_pull('etl.extract') }}",
            "n={{ task_instance.xcom_pull( task_ids = \"etl.extract\", key='n')['n'] | upper }}",
            "{{ ti.xcom_pull(key='n', task_ids=['check', 'etl.extract'], default=f(1))[1] }}",
            "{% set (a, b) = ti.xcom_pull(('check', 'etl.extract')) %}{{ b }}",
            "{{ ti.xcom_pull('check') }}{{ ti.xcom_pull('etl.extract') }}",
        ],
    )
    def test_a_template_that_pulls_the_value_of_another_member(self, template):
        with self.refused("etl.load uses the output of etl.extract.*tasks.<task key>.values"), new_dag():
            other("check")
            with group():
                notebook("extract")
                notebook("load", notebook_params={"list": [{"n": template}]})

    def test_a_template_that_pulls_the_value_of_the_launch(self):
        with self.refused("etl.load uses the output of etl.launch.*job.run_id"), new_dag(), group():
            notebook("load", notebook_path="/{{ ti.xcom_pull('etl.launch')['run_id'] }}")

    def test_a_template_of_the_group_that_pulls_the_value_of_a_member(self):
        params = {"n": "{{ ti.xcom_pull('etl.extract') }}"}
        with (
            self.refused("Workflow group etl uses the output of etl.extract"),
            new_dag(),
            group(notebook_params=params),
        ):
            notebook("extract")

    def test_two_clusters(self):
        with self.refused(r"tasks\[etl.load\] \[COMPUTE-ONE-2_1\]: ", PayloadError), new_dag(), group():
            notebook("extract")
            notebook("load", new_cluster={"spark_version": "15.4.x-scala2.12"}, existing_cluster_id="1-2-3")

    def test_a_cluster_that_the_group_does_not_define(self):
        clusters = [{"job_cluster_key": "small", "new_cluster": {"spark_version": "15.4.x-scala2.12"}}]
        with (
            self.refused(r"tasks\[etl.load\].job_cluster_key \[.*is 'large'", PayloadError),
            new_dag(),
            group(job_clusters=clusters),
        ):
            notebook("extract", job_cluster_key="small")
            notebook("load", job_cluster_key="large")

    def test_more_tasks_than_a_job_may_have(self):
        with self.refused("at most 1000 entries are allowed", PayloadError), new_dag(), group():
            for number in range(1001):
                notebook(f"task_{number}")

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"extra_job_params": {"tasks": []}}, "extra_job_params has tasks.*Write an operator"),
            ({"extra_job_params": "{{ x }}"}, "extra_job_params must be a dict; its values may be templates"),
            ({"extra_job_params": {"parameters": {"a": 1}}}, "parameters in extra_job_params must be a list"),
            ({"notebook_params": "{{ x }}"}, "notebook_params must be a dict"),
            ({"notebook_packages": "{{ x }}"}, "notebook_packages must be a list"),
        ],
    )
    def test_a_parameter_that_it_cannot_use(self, parameters, message):
        with self.refused(f"Workflow group etl: {message}"), new_dag():
            group(**parameters)

    def test_parameters_of_a_notebook_that_cannot_be_combined_with_its_own(self):
        with (
            self.refused("etl.load: notebook_params must be a dict, because the workflow group has notebook_params"),
            new_dag(),
            group(notebook_params={"a": "1"}),
        ):
            notebook("load", notebook_params="{{ params.x }}")

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"tasks": [{"task_key": "a"}, {"task_key": "b"}]}, "must have exactly one task"),
            ({"tasks": "{{ x }}"}, "must have exactly one task"),
            ({"json": "{{ x }}"}, "json must be a mapping"),
            ({"notebook_task": NOTEBOOK, "run_name": "x"}, "run_name: not for a task in a workflow group"),
            ({"notebook_task": NOTEBOOK, "forward_dag_params": True}, "forward_dag_params: not for a task"),
            ({"notebook_task": NOTEBOOK, "environments": []}, "environments: not for a task.*extra_job_params"),
        ],
    )
    def test_what_belongs_to_a_run_of_its_own(self, parameters, message):
        with self.refused(f"etl.load: .*{message}"), new_dag(), group():
            DatabricksSubmitRunOperator(task_id="load", **parameters)

    def test_a_task_config_that_is_no_dict(self):
        with self.refused("load: task_config must be a dict"), new_dag():
            DatabricksTaskOperator(task_id="load", task_config="{{ x }}")

    def test_a_task_named_as_its_own(self):
        with self.refused("The DAG already has a task etl.launch.*Rename"), new_dag(), group():
            notebook("launch")

    def test_a_second_group_whose_launch_has_the_same_id(self):
        with self.refused("has a task launch, .*prefix_group_id=False to one group at most"), new_dag():
            for group_id in "ab":
                with group(group_id=group_id, prefix_group_id=False):
                    notebook(f"load_{group_id}")

    def test_a_detour_between_its_tasks(self):
        with self.refused("group etl waits for check, which itself waits for etl.extract.*Split the group"), new_dag():
            outside = other("check")
            with group():
                notebook("extract") >> outside >> notebook("load")

    def test_a_mistake_in_a_task(self):
        with self.refused(r"tasks\[etl.load\].notebook_task", PayloadError), new_dag(), group():
            notebook("extract")
            notebook("load", source="NOWHERE", notebook_path=None)


@pytest.mark.parametrize(
    "template",
    [
        "{{ ti.xcom_pull('check') }}",
        "{{ ti.xcom_pull('check', key='etl.extract') }}",
        "{{ ti.xcom_pull(key='etl.extract', task_ids='check') }}",
        "{{ ti.xcom_pull('etl.extract', include_prior_dates=True) }}",
        "{{ ti.xcom_pull(task_ids='etl.extract', dag_id='weekly') }}",
        "ti.xcom_pull(task_ids=x) 'etl.extract'",
    ],
)
def test_accepts_a_template_that_pulls_another_value(template):
    with new_dag() as dag:
        other("check")
        with group():
            notebook("extract")
            notebook("load", notebook_params={"n": template})
    assert dag.has_task("etl.launch")


class TestAfterAnError:
    def test_other_tasks_are_not_in_the_group(self):
        with new_dag():
            with pytest.raises(ZeroDivisionError), group():
                raise ZeroDivisionError
            assert other("check").task_id == "check"

    def test_of_the_group_itself_other_tasks_are_not_in_it(self):
        with new_dag():
            with pytest.raises(ConfigurationError), group():
                other("wrong")
            assert other("check").task_id == "check"

    def test_there_is_no_launch(self):
        with new_dag() as dag, pytest.raises(ZeroDivisionError), group():
            notebook("load" if 1 / 0 else "")
        assert dag.task_ids == []


class TestKey:
    @pytest.mark.parametrize(
        ("place", "task_id", "key"),
        [
            (nullcontext, "load", "load"),
            (lambda: TaskGroup("part"), "load", "part__load"),
            (lambda: TaskGroup("part", prefix_group_id=False), "load", "load"),
            (nullcontext, "Ladevorgang-ä", "Ladevorgang-_"),
        ],
    )
    def test_is_made_of_the_task_id_in_the_group(self, place, task_id, key):
        with new_dag(), TaskGroup("outer"), group(), place():
            assert notebook(task_id).databricks_task_key == key

    def test_of_a_long_task_id_is_cut_and_unique(self):
        with new_dag(), group():
            keys = [notebook(f"{'x' * 150}{end}").databricks_task_key for end in "ab"]
        assert {len(key) for key in keys} == {100}
        assert keys[0] != keys[1]

    @pytest.mark.parametrize("prefix", [True, False])
    def test_does_not_need_a_prefix(self, prefix):
        with new_dag() as dag, group(prefix_group_id=prefix) as etl:
            assert notebook("load").databricks_task_key == "load"
        assert dag.get_task(etl.launch_task_id).downstream_task_ids == {"etl.load" if prefix else "load"}

    def test_is_the_given_one(self):
        with new_dag(), group():
            assert notebook("load", databricks_task_key="mine").databricks_task_key == "mine"

    def test_is_that_in_the_settings(self):
        config = {"task_key": "mine", "notebook_task": NOTEBOOK}
        with new_dag(), group():
            assert DatabricksTaskOperator(task_id="a", task_config=config).databricks_task_key == "mine"
            mine = DatabricksSubmitRunOperator(task_id="b", tasks=[{**config, "task_key": "b2"}])
            assert mine.databricks_task_key == "b2"


class TestOrder:
    def test_launches_before_the_first_tasks(self):
        with new_dag() as dag, group() as etl:
            notebook("extract") >> [notebook("load"), notebook("report")]
            notebook("check")
        assert etl.launch_task_id == "etl.launch"
        assert dag.get_task("etl.launch").downstream_task_ids == {"etl.extract", "etl.check"}
        assert upstream(dag, "etl.load") == {"etl.extract"}

    def test_launches_after_all_that_the_group_waits_for(self):
        with new_dag() as dag:
            first, output = other("first"), other("output")
            with TaskGroup("before") as before:
                other("a") >> other("b")
            with group() as etl:
                notebook("extract", notebook_params={"n": output.output})
            [first, before] >> etl
        assert upstream(dag, "etl.launch") == {"first", "output", "before.b"}

    def test_launches_after_what_the_group_was_put_after_when_it_was_empty(self):
        with new_dag() as dag:
            with TaskGroup("before") as before:
                other("a") >> other("b")
            etl = group()
            [other("first"), before] >> etl
            with etl:
                notebook("extract")
        assert upstream(dag, "etl.launch") == {"first", "before.b"}

    def test_ends_before_what_was_put_after_the_group_when_it_was_empty(self):
        with new_dag() as dag:
            with TaskGroup("after") as after:
                other("a") >> other("b")
            etl = group()
            other("first") >> etl >> [other("last"), after]
            with etl:
                notebook("extract") >> notebook("load")
        # Airflow 3 adds what the empty group waits for.
        assert upstream(dag, "last") - {"first"} == upstream(dag, "after.a") - {"first"} == {"etl.load"}

    def test_launches_after_the_output_that_a_parameter_of_the_group_uses(self):
        with new_dag() as dag:
            output = other("output").output
            with group(notebook_params={"n": output}):
                notebook("load")
        assert upstream(dag, "etl.launch") == {"output"}

    def test_launches_after_what_a_later_task_waits_for(self):
        with new_dag() as dag:
            outside = other("check")
            with group():
                notebook("extract") >> notebook("load") << outside
        assert upstream(dag, "etl.launch") == {"check"}

    def test_follows_the_dependencies_in_the_settings(self):
        config = {"depends_on": [{"task_key": "check", "outcome": "true"}], "notebook_task": NOTEBOOK}
        condition = {"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}}
        with new_dag() as dag, group():
            DatabricksTaskOperator(task_id="load", task_config=config)
            DatabricksTaskOperator(task_id="check", task_config=condition)
        assert upstream(dag, "etl.load") == {"etl.check"}

    def test_waits_for_a_group_of_its_tasks(self):
        with new_dag() as dag, group():
            with TaskGroup("part") as part:
                notebook("a") >> notebook("b")
            part >> notebook("load")
        assert upstream(dag, "etl.part.a") == {"etl.launch"}
        assert upstream(dag, "etl.load") == {"etl.part.b"}

    def test_keeps_setup_and_teardown(self):
        with new_dag() as dag, group():
            notebook("start").as_setup() >> notebook("load") >> notebook("stop").as_teardown()
        assert dag.get_task("etl.launch").downstream_task_ids == {"etl.start"}


DAG_FILE = """
from datetime import datetime
from airflow_dbjobs.airflow_compat import BaseOperator
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup
from airflow import DAG

with DAG("nightly", schedule=None, start_date=datetime(2026, 1, 1)) as dag:
    with DatabricksWorkflowTaskGroup(group_id="etl", notebook_params={"day": "{{ ds }}"}) as etl:
        extract = DatabricksNotebookOperator(task_id="extract", notebook_path="/a")
        load = DatabricksNotebookOperator(task_id="load", notebook_path="/b", job_cluster_key=None)
    check = BaseOperator(task_id="check")
"""


def serializer() -> Any:
    return getattr(serialized_objects, "DagSerialization", None) or serialized_objects.SerializedDAG


class TestInADagFile:
    def bag(self, tmp_path: Any, rest: str) -> Any:
        file = tmp_path / "nightly.py"
        file.write_text(DAG_FILE + rest)
        return parsed(file)

    def test_launches_after_what_was_put_before_a_member_after_the_group(self, tmp_path):
        bag = self.bag(tmp_path, "    extract >> load\n    check >> load\n")
        assert bag.import_errors == {}
        dag = bag.dags["nightly"]
        assert upstream(dag, "etl.launch") == {"check"}
        assert upstream(dag, "etl.load") == {"etl.extract", "etl.launch", "check"}

    def test_refuses_a_detour_that_was_put_in_after_the_group(self, tmp_path):
        bag = self.bag(tmp_path, "    extract >> check >> load\n")
        (error,) = bag.import_errors.values()
        assert "Workflow group etl waits for check, which itself waits for etl.extract" in error

    @pytest.mark.parametrize(
        ("edges", "rule"),
        [
            ("", "one_failed"),
            ("", "all_failed"),
            ("[extract, check] >> load", "all_failed"),
            ("check >> load", "one_failed"),
        ],
    )
    def test_refuses_a_rule_that_never_holds(self, tmp_path, edges, rule):
        bag = self.bag(tmp_path, f"    load.trigger_rule = {rule!r}\n    {edges}\n")
        (error,) = bag.import_errors.values()
        assert f"etl.load: trigger_rule '{rule}' never holds" in error

    def test_accepts_a_rule_that_holds_after_a_failure(self, tmp_path):
        bag = self.bag(tmp_path, "    load.trigger_rule = 'one_failed'\n    [extract, check] >> load\n")
        assert bag.import_errors == {}

    @pytest.mark.parametrize(
        "task", ["", "DatabricksNotebookOperator(task_id='extract', notebook_path='/a', task_group=late)"]
    )
    def test_is_not_stored_unless_it_is_entered(self, tmp_path, task):
        bag = self.bag(tmp_path, f"    late = DatabricksWorkflowTaskGroup(group_id='late')\n    {task}\n")
        with pytest.raises((ConfigurationError, SerializationError)) as refused:
            serializer().to_dict(bag.dags["nightly"])
        texts = f"{refused.value} {refused.value.__cause__}"
        assert "Workflow group late has no task late.launch: the DAG file never entered it" in texts

    def test_is_stored_and_copied(self, tmp_path):
        dag = self.bag(tmp_path, "    check >> etl\n    extract >> load\n").dags["nightly"]
        stored = serializer().from_dict(serializer().to_dict(dag))
        assert stored.get_task("etl.launch").upstream_task_ids == {"check"}
        assert stored.get_task("etl.load").upstream_task_ids == {"etl.extract", "etl.launch"}
        assert stored.task_group.get_task_group_dict()["etl"].children.keys() == {
            "etl.extract",
            "etl.load",
            "etl.launch",
        }
        part = dag.partial_subset(["etl.load"], include_upstream=True, include_downstream=False)
        # In Airflow 2, task groups do not survive a deep copy.
        for copied in (copy.deepcopy(dag) if AIRFLOW_V_3_0_PLUS else dag, part):
            assert copied.get_task("etl.load").workflow_group.launch_task_id == "etl.launch"
            assert copied.get_task("etl.load").databricks_task_key == "load"
            copied.get_task("etl.launch").prepare_template()

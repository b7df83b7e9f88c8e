"""What docs/workflow-groups.md says, against the groups: the tables, the example, and what is refused."""

from __future__ import annotations

import inspect
import re
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from airflow import DAG
from airflow_context import parsed
from documentation import example, table

from airflow_dbjobs import operators
from airflow_dbjobs.airflow_compat import BaseOperator, TaskGroup
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators import DatabricksNotebookOperator, DatabricksWorkflowTaskGroup
from airflow_dbjobs.operators.workflow.structure import RUN_IF
from airflow_dbjobs.payloads.job_parameters import _FIELDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PAGE = "workflow-groups"


def quoted(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def member(task_id: str = "a", **kwargs: Any) -> DatabricksNotebookOperator:
    return DatabricksNotebookOperator(task_id=task_id, notebook_path="/a", **kwargs)


@contextmanager
def group(**kwargs: Any) -> Iterator[DatabricksWorkflowTaskGroup]:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with DAG("shop", schedule=None, start_date=start), DatabricksWorkflowTaskGroup(group_id="sales", **kwargs) as made:
        yield made


class TestExample:
    def test_is_mapped_as_the_page_says(self, tmp_path: Path) -> None:
        file = tmp_path / "shop.py"
        file.write_text(example("python", "def shop()"))
        bag = parsed(file)
        assert bag.import_errors == {}
        dag = bag.dags["shop"]
        keys = {name: dag.get_task(f"sales.{name}").databricks_task_key for name in ("extract", "emea", "apac")}
        assert keys == {"extract": "extract", "emea": "emea", "apac": "apac"}
        assert dag.get_task("sales.extract").upstream_task_ids == {"sales.launch"}
        assert dag.get_task("report").upstream_task_ids == {"sales.load"}

    def test_of_a_group_in_the_group_has_the_key_that_the_page_names(self) -> None:
        ((_, key),) = [row for row in table(PAGE, "Airflow | Databricks") if "`sales.inner.a`" in row[0]]
        with group(), TaskGroup("inner"):
            task = member()
        assert task.task_id == "sales.inner.a"
        assert quoted(key) == [task.databricks_task_key]


class TestTables:
    def test_of_trigger_rules_is_complete(self) -> None:
        rows = table(PAGE, "`trigger_rule` | `run_if`")
        assert {rule: quoted(condition)[0] for rules, condition in rows for rule in quoted(rules)} == RUN_IF

    def test_of_templates_is_complete(self) -> None:
        rows = table(PAGE, "Task | Fields whose templates")
        assert {kind: tuple(quoted(fields)) for kinds, fields in rows for kind in quoted(kinds)} == _FIELDS

    def test_of_the_groups_parameters_is_complete(self) -> None:
        taken = set(inspect.signature(DatabricksWorkflowTaskGroup).parameters) - {"group_id", "kwargs"}
        assert {name for first, _ in table(PAGE, "Parameter | Meaning") for name in quoted(first)} == taken

    def test_of_members_names_their_parameters(self) -> None:
        for (operator,), parameters in [(quoted(first), quoted(second)) for first, second in table(PAGE, "Operator |")]:
            taken = inspect.signature(getattr(operators, operator)).parameters
            assert {name for name in parameters if name != "..._task"} <= set(taken)


def refused_expand() -> None:
    with group():
        DatabricksNotebookOperator.partial(task_id="a", notebook_path="/a").expand(notebook_params=[{}])


def refused_nesting() -> None:
    with group(), DatabricksWorkflowTaskGroup(group_id="inner"):
        member()


def refused_empty() -> None:
    with group():
        pass


def refused_operator() -> None:
    with group():
        BaseOperator(task_id="a")


def refused_rule() -> None:
    with group():
        member(trigger_rule="always")


def refused_key() -> None:
    with group():
        member("a", databricks_task_key="one")
        member("b", databricks_task_key="one")


def refused_detour() -> None:
    with DAG("shop", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC)):
        outside = BaseOperator(task_id="outside")
        with DatabricksWorkflowTaskGroup(group_id="sales"):
            member("a") >> outside >> member("b")


def refused_output() -> None:
    with group():
        member("b", notebook_params={"rows": member("a").output})


def refused_tasks() -> None:
    with group(extra_job_params={"tasks": []}):
        member()


# What makes each row of the table, and what its error says.
REFUSED: dict[str, tuple[Callable[[], None], str]] = {
    "other operators": (refused_operator, r"sales\.a is a BaseOperator: .* Move it out"),
    "`expand()`": (refused_expand, r"sales\.a is a mapped task .* for_each_task"),
    "the group inside": (
        refused_nesting,
        "inner is inside the workflow group sales.* ordinary TaskGroup .*run_job_task",
    ),
    "a group without": (refused_empty, "sales has no tasks.* Add an operator"),
    "other trigger rules": (refused_rule, r"sales\.a: trigger_rule 'always' .* Use one of all_success, "),
    "two members": (refused_key, r"sales\.b has the task key 'one' of sales\.a.* another databricks_task_key"),
    "a member that waits": (
        refused_detour,
        r"sales waits for outside, .* waits for sales\.a .* Split the group in two",
    ),
    "the `output`": (refused_output, r"sales\.b uses the output of sales\.a.*\{\{tasks\..*\{\{job\.run_id\}\}"),
    "`tasks` in": (refused_tasks, "sales: extra_job_params has tasks.* operator in the group for each"),
}


class TestRefusals:
    def test_are_all_in_the_table(self) -> None:
        rows = [first for first, _ in table(PAGE, "Refused | Instead")]
        assert [next(start for start in REFUSED if row.startswith(start)) for row in rows] == list(REFUSED)

    @pytest.mark.parametrize("row", REFUSED)
    def test_are_errors_when_the_dag_is_parsed_that_say_what_to_do(self, row: str) -> None:
        make, message = REFUSED[row]
        with pytest.raises(ConfigurationError, match=message):
            make()

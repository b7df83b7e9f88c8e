"""Subclasses of the operators that override methods of the official ones."""

from __future__ import annotations

import pytest

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators import DatabricksCreateJobsOperator, DatabricksRunNowOperator, DatabricksSubmitRunOperator
from airflow_dbjobs.operators.overrides import REFUSED

OPERATORS = [DatabricksSubmitRunOperator, DatabricksRunNowOperator, DatabricksCreateJobsOperator]


class WithHook:
    @property
    def _hook(self):
        raise AssertionError("The operators do not use it.")


class TestSubclass:
    @pytest.mark.parametrize("operator", OPERATORS)
    @pytest.mark.parametrize("name", REFUSED)
    def test_with_a_method_without_counterpart_is_refused_where_it_is_defined(self, operator, name):
        with pytest.raises(ConfigurationError) as caught:
            type("Mine", (operator,), {name: lambda self: None})
        assert str(caught.value).startswith(f"Mine overrides {name} of the official provider's operators")
        assert REFUSED[name] in str(caught.value)

    def test_that_inherits_such_a_method_is_refused(self):
        with pytest.raises(ConfigurationError, match=r"Mine overrides _hook .* Set time limits and retries"):
            type("Mine", (WithHook, DatabricksSubmitRunOperator), {})

    def test_of_a_subclass_is_refused(self):
        base = type("Base", (DatabricksSubmitRunOperator,), {})
        with pytest.raises(ConfigurationError, match="Mine overrides submit_job "):
            type("Mine", (base,), {"submit_job": None})

    def test_may_override_what_both_providers_call(self, scene):
        class Mine(DatabricksSubmitRunOperator):
            template_fields = (*DatabricksSubmitRunOperator.template_fields, "code")

            def __init__(self, *, code="", **kwargs):
                super().__init__(**kwargs)
                self.code = code

            def execute(self, context):
                self.json = {"tasks": [{"task_key": "only", "notebook_task": scene.notebook(self.code, gated=False)}]}
                return super().execute(context), self.run_id

        result, run_id = Mine(task_id="mine", code="dbutils.notebook.exit('done')").execute(scene.context)
        assert (result, run_id) == ("done", scene.ti.xcom["run_id"])

    @pytest.mark.parametrize("operator", OPERATORS)
    @pytest.mark.parametrize("name", ["_hook", "_get_hook", "get_hook"])
    def test_that_calls_the_official_hook_is_shown_the_client(self, operator, name):
        class Mine(operator):
            def execute(self, context):
                return getattr(self, name)

        mine = Mine(task_id="mine", json={"name": "nightly"}, validate=False)
        with pytest.raises(AttributeError, match=rf"Mine has no {name}, .*DatabricksJobsHook\(self.databricks_conn_id"):
            mine.execute({})
        assert not hasattr(mine, name)

    def test_keeps_the_usual_errors_of_other_attributes(self):
        class Mine(DatabricksRunNowOperator):
            @property
            def table(self):
                return self.job_id.name

        mine = Mine(task_id="mine", job_id=7)
        with pytest.raises(AttributeError, match="'int' object has no attribute 'name'"):
            mine.table  # noqa: B018
        with pytest.raises(AttributeError, match="'Mine' object has no attribute 'tables'"):
            mine.tables  # noqa: B018

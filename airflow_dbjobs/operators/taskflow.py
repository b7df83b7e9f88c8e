"""TaskFlow decorators: ``@task.databricks_submit``."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat import DecoratedOperator, determine_kwargs, task_decorator_factory
from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.airflow_compat import Context, TaskDecorator
    from airflow_dbjobs.client.jobs_client import JobsClient


class _SubmitDecorated(DecoratedOperator, DatabricksSubmitRunOperator):
    """Base of the operators that the decorators make, which differ in what they do with the function."""

    template_fields = (*DecoratedOperator.template_fields, *DatabricksSubmitRunOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012 (as Airflow declares it)
        **DecoratedOperator.template_fields_renderers,
        **DatabricksSubmitRunOperator.template_fields_renderers,
    }


class DatabricksSubmitDecoratedOperator(_SubmitDecorated):
    """Launches the one-time run that a function describes; made by ``@task.databricks_submit``."""

    custom_operator_name = "@task.databricks_submit"

    @property
    def _is_subclassed(self) -> bool:
        """The rest of the payload is known when the function has been called."""
        return True

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        """Call the function, also for the second launch of a try, and add what it returns to the parameters."""
        from airflow_dbjobs.payloads import merge

        given = self.json
        try:
            self.json = {**merge(given, {}), **merge(self._call_function(context), {})}
            return super()._build_launch_payload(client, context)
        finally:
            self.json = given

    def _call_function(self, context: Context) -> Mapping[str, Any]:
        """Return what the function returns, with its templates rendered."""
        # Not a dict: Airflow 2 computes the values of a context when they are read, and warns of some of them.
        known: Any = ChainMap(dict(self.op_kwargs), context)  # type: ignore[arg-type]
        kwargs = determine_kwargs(self.python_callable, self.op_args, known)
        returned = self.python_callable(*self.op_args, **kwargs)
        if isinstance(returned, Mapping):
            rendered: Mapping[str, Any] = self.render_template(dict(returned), context)
            return rendered
        from airflow_dbjobs.errors import ConfigurationError

        raise ConfigurationError(
            f"{self.python_callable.__name__} returned a value of type {type(returned).__name__}. It must return the"
            " payload of jobs/runs/submit, or some of its fields, as a mapping."
        )


def databricks_submit_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool = False, **kwargs: Any
) -> TaskDecorator:
    """Launch a one-time run (``jobs/runs/submit``) whose payload a function returns: ``@task.databricks_submit``.

    The function is called on the worker, right before each launch. It returns the payload, or some of its fields, as a
    mapping; strings in it may be templates. Parameters of the decorator are those of ``DatabricksSubmitRunOperator``;
    they override the fields of the same name, and the result is the operator's, too.

    :param multiple_outputs: whether to store each field of the run's result, which must be a dict, as an XCom of its
        own. The annotation of the function's return value describes the payload, so nothing is inferred from it.
    """
    return task_decorator_factory(
        python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=DatabricksSubmitDecoratedOperator,
        **kwargs,
    )

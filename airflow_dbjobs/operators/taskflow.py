"""TaskFlow decorators: ``@task.databricks_submit`` and ``@task.databricks_python``."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from airflow_dbjobs.airflow_compat import DecoratedOperator, determine_kwargs, task_decorator_factory
from airflow_dbjobs.operators.submit_run import DatabricksSubmitRunOperator

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.airflow_compat import Context, TaskDecorator
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.operators.python_source import FunctionSource
    from airflow_dbjobs.payloads import Environment
    from airflow_dbjobs.payloads.field_types import One


class _SubmitDecorated(DecoratedOperator, DatabricksSubmitRunOperator):
    """Base of the operators that the decorators make, which differ in what they do with the function."""

    custom_operator_name: str
    template_fields = (*DecoratedOperator.template_fields, *DatabricksSubmitRunOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012 (as Airflow declares it)
        **DecoratedOperator.template_fields_renderers,
        **DatabricksSubmitRunOperator.template_fields_renderers,
    }

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.workflow_group is not None or self._is_in_other_run:
            from airflow_dbjobs.errors import ConfigurationError

            raise ConfigurationError(
                f"{self.task_id}: a task of {self.custom_operator_name} launches a run of its own, so it cannot be in a"
                " workflow group. Move it out of the group."
            )

    def execute(self, context: Context) -> Any:
        """Launch the run, without what Airflow's decorators do at this place.

        They look for assets among the arguments and results. On Airflow 3.0 that fails for an operator of the Task SDK.
        """
        return DatabricksSubmitRunOperator.execute(self, context)


class DatabricksSubmitDecoratedOperator(_SubmitDecorated):
    """Launches the one-time run that a function describes; made by ``@task.databricks_submit``."""

    custom_operator_name = "@task.databricks_submit"

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


# The rest of the payload is known when the function has been called.
DatabricksSubmitDecoratedOperator._is_subclassed = True  # noqa: SLF001


class DatabricksPythonDecoratedOperator(_SubmitDecorated):
    """Runs a function as a notebook of a one-time run; made by ``@task.databricks_python``."""

    custom_operator_name = "@task.databricks_python"
    template_fields = (*_SubmitDecorated.template_fields, "environment", "folder")

    def __init__(self, *, environment: One[Environment] = None, folder: str | None = None, **kwargs: Any) -> None:
        from airflow_dbjobs.errors import ConfigurationError
        from airflow_dbjobs.operators.python_source import check_arguments

        self.environment = environment
        self.folder = folder
        # The path and the arguments are known when the task runs.
        self._notebook_task: dict[str, Any] = {"notebook_path": "/"}
        own = [name for name, value in kwargs.items() if value and (name == "tasks" or name.endswith("_task"))]
        if own:
            raise ConfigurationError(f"{own[0]}: @task.databricks_python makes the task of the run. Remove it.")
        super().__init__(**kwargs)
        clusters = [name for name in ("new_cluster", "existing_cluster_id", "libraries") if getattr(self, name)]
        if clusters and environment is not None:
            raise ConfigurationError(
                f"{clusters[0]} and environment: an environment is for serverless compute. Remove one of them."
            )
        check_arguments(self.python_callable, self.op_args, self.op_kwargs)

    def _payload_parameters(self) -> dict[str, Any]:
        if self.environment is None:
            return {**super()._payload_parameters(), "notebook_task": self._notebook_task}
        key = "default"
        task = {"task_key": self.python_callable.__name__, "notebook_task": self._notebook_task, "environment_key": key}
        environments = [{"environment_key": key, "spec": self.environment}]
        return {**super()._payload_parameters(), "tasks": [task], "environments": environments}

    def _build_launch_payload(self, client: JobsClient, context: Context) -> dict[str, Any]:
        """Store the function in the workspace, also for the second launch of a try, and build the call of it."""
        from airflow_dbjobs.operators.python_source import CALL_PARAMETER, bind, call_as_json, read_function

        source = read_function(self.python_callable)
        bound = bind(self.python_callable, self.op_args, self.op_kwargs, context)
        parameters = {CALL_PARAMETER: call_as_json(source, self.python_callable, bound)}
        self._notebook_task = {"notebook_path": self._store(client, source), "base_parameters": parameters}
        return super()._build_launch_payload(client, context)

    def _store(self, client: JobsClient, source: FunctionSource) -> str:
        """Store the notebook and return its path, which differs from those of other sources."""
        from airflow_dbjobs.client.workspace_files import home_folder, import_notebook
        from airflow_dbjobs.errors import BadRequest, ConfigurationError, Conflict, NotFound, PermissionDenied

        folder = self.folder
        try:
            folder = folder or f"{home_folder(client)}/airflow_dbjobs"
            path = f"{folder.rstrip('/')}/{source.notebook_name}"
            import_notebook(client, path, source.notebook)
        except (BadRequest, Conflict, NotFound, PermissionDenied) as error:
            raise ConfigurationError(
                f"{source.name} could not be stored in {folder or 'the home folder'} of the workspace, so nothing was"
                f" launched: {error.summary}: {error.message.rstrip('.')}. Check the token of the connection; its user"
                " or service principal needs Can Edit on the folder. Set `folder` to use another one."
            ) from error
        return path


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


def databricks_python_task(
    python_callable: Callable[..., Any] | None = None, *, multiple_outputs: bool | None = None, **kwargs: Any
) -> TaskDecorator:
    """Run a function's own body as a notebook on Databricks: ``@task.databricks_python``.

    Arguments and return value travel as JSON. The function uses nothing of its DAG file: modules are imported inside
    it. Parameters are those of ``DatabricksSubmitRunOperator`` (``new_cluster``, ``existing_cluster_id``,
    ``libraries``, ...; without a cluster it runs on serverless compute), and:

    :param environment: a serverless environment with ``dependencies``, as ``payloads.Environment`` describes it.
    :param folder: the folder of the workspace in which the notebook is stored; by default ``airflow_dbjobs`` in the
        home folder of the connection's user or service principal. Who may edit it can change what runs.
    :raises errors.ConfigurationError: when the DAG is parsed, if the function cannot run on Databricks.
    """
    if python_callable is None:
        return cast("TaskDecorator", partial(databricks_python_task, multiple_outputs=multiple_outputs, **kwargs))
    from airflow_dbjobs.operators.python_source import read_function

    read_function(python_callable)
    return task_decorator_factory(
        python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=DatabricksPythonDecoratedOperator,
        **kwargs,
    )

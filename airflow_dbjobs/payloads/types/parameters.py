"""Parameters that a job declares, and parameters of a run."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Map, One, Text, Texts, sdk, v20, v21


class JobParameterDefinition(TypedDict, total=False):
    """A parameter that a job declares."""

    name: Annotated[Text, v21("Its name: letters, digits, _, - and '.'. Required.")]
    default: Annotated[Text, v21("Value for runs that set none. Required.")]


class JobParameter(TypedDict, total=False):
    """A job parameter, in the response about a run."""

    name: Annotated[Text, v21("Its name.")]
    default: Annotated[Text, v21("Value for runs that set none.")]
    value: Annotated[Text, v21("Value in this run.")]


class PipelineParams(TypedDict, total=False):
    """Options for pipeline updates."""

    full_refresh: Annotated[Bool, v21("Whether to recompute all tables. Default: false.")]
    full_refresh_selection: Annotated[Texts, sdk("Tables to recompute.")]
    refresh_selection: Annotated[Texts, sdk("Tables to update.")]
    refresh_flow_selection: Annotated[Texts, sdk("Flows to update.")]
    reset_checkpoint_selection: Annotated[Texts, sdk("Flows whose checkpoints to reset.")]


class RunParameters(TypedDict, total=False):
    """Parameters of a run; each field has at most 10,000 bytes as JSON, including its name."""

    jar_params: Annotated[Texts, v20("Arguments of JAR tasks; not with notebook_params. Default: none.")]
    notebook_params: Annotated[Map, v20("Parameters of notebooks, over base_parameters; not with jar_params.")]
    python_params: Annotated[Texts, v20("Arguments of Python tasks, instead of the task's own. ASCII only.")]
    spark_submit_params: Annotated[Texts, v20("Arguments of spark-submit, instead of the task's own. ASCII only.")]
    python_named_params: Annotated[Map, v21("Named arguments of wheel tasks.")]
    sql_params: Annotated[Map, v21("Parameters of SQL tasks other than alerts.")]
    dbt_commands: Annotated[Texts, v21("Commands of dbt tasks, instead of the task's own.")]
    pipeline_params: Annotated[One["PipelineParams"], v21("Options for pipeline updates.")]

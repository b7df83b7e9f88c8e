"""Parameters: those a job declares, and those a run is given."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Map, One, Text, Texts, sdk, v20, v21


class JobParameterDefinition(TypedDict, total=False):
    """A parameter that a job declares."""

    name: Annotated[Text, v21("Its name: letters, digits, _, - and '.'. Required.")]
    default: Annotated[Text, v21("Its value where a run gives none. Required.")]


class JobParameter(TypedDict, total=False):
    """A parameter of a job, as a run tells it."""

    name: Annotated[Text, v21("Its name.")]
    default: Annotated[Text, v21("Its value where the run gave none.")]
    value: Annotated[Text, v21("The value that the run gave.")]


class PipelineParams(TypedDict, total=False):
    """How pipelines are updated."""

    full_refresh: Annotated[Bool, v21("Whether to compute everything again. Default: false.")]
    full_refresh_selection: Annotated[Texts, sdk("Tables to compute again.")]
    refresh_selection: Annotated[Texts, sdk("Tables that are updated.")]
    refresh_flow_selection: Annotated[Texts, sdk("Flows that are updated.")]
    reset_checkpoint_selection: Annotated[Texts, sdk("Flows whose checkpoints are reset.")]


class RunParameters(TypedDict, total=False):
    """Parameters of one run; each has at most 10,000 bytes as JSON, the field's name included."""

    jar_params: Annotated[Texts, v20("Arguments of JAR tasks; not with notebook_params. Default: none.")]
    notebook_params: Annotated[Map, v20("Parameters of notebooks, merged over base_parameters; not with jar_params.")]
    python_params: Annotated[Texts, v20("Arguments of Python tasks, instead of the task's own. ASCII only.")]
    spark_submit_params: Annotated[Texts, v20("Arguments of spark-submit, instead of the task's own. ASCII only.")]
    python_named_params: Annotated[Map, v21("Named arguments of wheel tasks.")]
    sql_params: Annotated[Map, v21("Parameters of SQL tasks other than alerts.")]
    dbt_commands: Annotated[Texts, v21("Commands of dbt tasks, instead of the task's own.")]
    pipeline_params: Annotated[One["PipelineParams"], v21("How pipelines are updated.")]

"""Parameters: those a job declares, and those a run is given."""

from airflow_dbjobs.payloads.kinds import Bool, Map, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, seed, v21


class JobParameterDefinition(Structure):
    """A parameter that a job declares."""

    name: Text = v21("Its name: letters, digits, _, - and '.'. Required.")
    default: Text = v21("Its value where a run gives none. Required.", secret=True)


class JobParameter(Structure):
    """A parameter of a job, as a run tells it."""

    name: Text = v21("Its name.")
    default: Text = v21("Its value where the run gave none.", secret=True)
    value: Text = v21("The value that the run gave.", secret=True)


class PipelineParams(Structure):
    """How pipelines are updated."""

    full_refresh: Bool = v21("Whether everything is computed anew.", default="false")
    full_refresh_selection: Texts = sdk("Tables that are computed anew.")
    refresh_selection: Texts = sdk("Tables that are updated.")
    refresh_flow_selection: Texts = sdk("Flows that are updated.")
    reset_checkpoint_selection: Texts = sdk("Flows whose checkpoints are reset.")


class RunParameters(Structure):
    """Parameters of one run; each has at most 10,000 bytes as JSON, the field's name included."""

    jar_params: Texts = seed("Arguments of JAR tasks; not with notebook_params.", default="none", secret=True)
    notebook_params: Map = seed(
        "Parameters of notebook tasks, merged over base_parameters; not with jar_params.", secret=True
    )
    python_params: Texts = seed("Arguments of Python tasks, instead of the task's own. ASCII only.", secret=True)
    spark_submit_params: Texts = seed("Arguments of spark-submit, instead of the task's own. ASCII only.", secret=True)
    python_named_params: Map = v21("Named arguments of wheel tasks.", secret=True)
    sql_params: Map = v21("Parameters of SQL tasks other than alerts.", secret=True)
    dbt_commands: Texts = v21("Commands of dbt tasks, instead of the task's own.", secret=True)
    pipeline_params: One["PipelineParams"] = v21("How pipelines are updated.")

"""Tasks that run code: notebooks, JARs, Python, Spark, pipelines, dbt, and other jobs."""

import warnings
from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_dbjobs.payloads.kinds import Bool, Int, Many, Map, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, seed, v21

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.parameters import PipelineParams

# An entry of a map of parameters, which the reference lists as a structure of its own: a name and its value.
ParamPair: TypeAlias = dict[str, Any]


class NotebookTask(Structure):
    """Runs a notebook. A cell whose output exceeds 8 MB fails the run."""

    notebook_path: Text = seed("The notebook: absolute in the workspace, relative in a git source. Required.")
    revision_timestamp: Int = seed("Revision of the notebook (2.0 only).", unit="ms since 1970")
    base_parameters: Map = seed(
        "Parameters by name; those of run-now win. ASCII in 2.0, at most 1 MB from 2.1 on.", secret=True
    )
    source: Text = v21("Where the notebook lies: WORKSPACE or GIT.", default="GIT where the job has a git_source")
    warehouse_id: Text = sdk("SQL warehouse (pro or serverless) that runs a SQL notebook.")


class SparkJarTask(Structure):
    """Runs the main method of a class in a JAR, which is one of the libraries."""

    main_class_name: Text = seed("The class, in full. Required.")
    parameters: Texts = seed("Arguments of its main method.", default="none", secret=True)
    jar_uri: Text = seed("The JAR (deprecated since April 2016: libraries).")
    run_as_repl: Bool = sdk("Deprecated; only true is supported.")


class SparkPythonTask(Structure):
    """Runs a Python file."""

    python_file: Text = seed("The file: cloud address, workspace path, or path in the git source. Required.")
    parameters: Texts = seed("Command line arguments.", default="none", secret=True)
    source: Text = v21("Where the file lies: WORKSPACE or GIT.", default="GIT where the job has a git_source")


class SparkSubmitTask(Structure):
    """Calls spark-submit, on a new cluster only; libraries and settings are arguments of it."""

    parameters: Texts = seed(
        "Arguments of spark-submit; master, deploy-mode and executor-cores are set already.", secret=True
    )


class PythonWheelTask(Structure):
    """Runs an entry point of a Python wheel."""

    package_name: Text = v21("The package. Required.")
    entry_point: Text = v21("Name of its entry point, or of a function in it. Required.")
    parameters: Texts = v21("Command line arguments. Or give named_parameters.", secret=True)
    named_parameters: Map = v21("Command line arguments by name. Or give parameters.", secret=True)


class PipelineTask(Structure):
    """Updates a pipeline."""

    pipeline_id: Text = seed("The pipeline. Required.")
    full_refresh: Bool = v21("Whether everything is computed anew.", default="false")
    full_refresh_selection: Texts = sdk("Tables that are computed anew.")
    refresh_selection: Texts = sdk("Tables that are updated.")
    refresh_flow_selection: Texts = sdk("Flows that are updated.")
    reset_checkpoint_selection: Texts = sdk("Flows whose checkpoints are reset.")
    parameters: Map = sdk("Parameters by name, at most 10,000 characters in all.", secret=True)


class RunJobTask(Structure):
    """Runs another job."""

    job_id: Int = seed("The job. Required.")
    job_parameters: Map = v21("Parameters of the job, by name.", secret=True)
    notebook_params: Map = v21("Parameters of its notebooks (deprecated: job_parameters).", secret=True)
    jar_params: Texts = v21("Arguments of its JARs (deprecated: job_parameters).", secret=True)
    python_params: Texts = v21("Arguments of its Python files (deprecated: job_parameters).", secret=True)
    python_named_params: Map = v21("Named arguments of its wheels (deprecated: job_parameters).", secret=True)
    spark_submit_params: Texts = v21("Arguments of spark-submit (deprecated: job_parameters).", secret=True)
    sql_params: Map = v21("Parameters of its SQL tasks (deprecated: job_parameters).", secret=True)
    dbt_commands: Texts = v21("Commands of its dbt tasks (deprecated: job_parameters).", secret=True)
    pipeline_params: One["PipelineParams"] = v21("How its pipelines are updated.")


with warnings.catch_warnings():
    # A deprecated method of pydantic's base class has the name of the field `schema`.
    warnings.filterwarnings("ignore", 'Field name "schema"', UserWarning)

    class DbtTask(Structure):
        """Runs dbt."""

        commands: Texts = v21("One to ten commands, each starting with dbt. Required.", secret=True)
        project_directory: Text = v21("Folder of the project.", default="the root")
        profiles_directory: Text = v21("Folder of profiles.yml; only without warehouse_id.")
        warehouse_id: Text = v21("SQL warehouse to run against.")
        catalog: Text = v21("Catalog to write to; only with warehouse_id.")
        schema: Text = v21("Schema to write to; used with warehouse_id.")  # type: ignore[assignment]  # see above
        source: Text = v21("Where the project lies: WORKSPACE or GIT.", default="GIT where the job has a git_source")


class DbtPlatformTask(Structure):
    """Runs a job of dbt's own platform."""

    connection_resource_name: Text = sdk("Connection to the platform.")
    dbt_platform_job_id: Text = sdk("The job there.")


class DbtCloudTask(Structure):
    """Runs a job of dbt Cloud (older form of DbtPlatformTask)."""

    connection_resource_name: Text = sdk("Connection to dbt Cloud.")
    dbt_cloud_job_id: Int = sdk("The job there.")


class PythonOperatorTaskParameter(Structure):
    """A parameter of a PythonOperatorTask."""

    name: Text = sdk("Name of the parameter.")
    value: Text = sdk("Its value.", secret=True)


class PythonOperatorTask(Structure):
    """Runs a Python function."""

    main: Text = sdk("The function, as in package.module.function.")
    parameters: Many["PythonOperatorTaskParameter"] = sdk("Its arguments.", secret=True)


class CleanRoomsNotebookTask(Structure):
    """Runs a notebook of a clean room."""

    clean_room_name: Text = sdk("The clean room. Required.")
    notebook_name: Text = sdk("The notebook. Required.")
    etag: Text = sdk("Version of the notebook that must be the current one.")
    notebook_base_parameters: Map = sdk("Parameters by name.", secret=True)

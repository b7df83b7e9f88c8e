"""Tasks that run code: notebooks, JARs, Python, Spark, pipelines, dbt, and other jobs."""

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Map, One, Text, Texts, sdk, v20, v21

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.parameters import PipelineParams

# The reference lists this entry of a mapping of parameters, a name and a value, as a structure.
ParamPair: TypeAlias = dict[str, Any]


class NotebookTask(TypedDict, total=False):
    """Runs a notebook. A cell whose output exceeds 8 MB fails the run."""

    notebook_path: Annotated[Text, v20("Its path: absolute in the workspace, relative in a Git repository. Required.")]
    revision_timestamp: Annotated[Int, v20("Revision of the notebook (2.0 only). Unit: ms since 1970.")]
    base_parameters: Annotated[Map, v20("Parameters by name, up to 1 MB; run-now overrides them. 2.0: ASCII.")]
    source: Annotated[Text, v21("WORKSPACE or GIT. Default: GIT if the job has a git_source, else WORKSPACE.")]
    warehouse_id: Annotated[Text, sdk("SQL warehouse (pro or serverless) that runs a SQL notebook.")]


class SparkJarTask(TypedDict, total=False):
    """Runs the main method of a class in a JAR, which is one of the libraries."""

    main_class_name: Annotated[Text, v20("Full name of the class. Required.")]
    parameters: Annotated[Texts, v20("Arguments of its main method. Default: none.")]
    jar_uri: Annotated[Text, v20("The JAR (deprecated since April 2016: libraries).")]
    run_as_repl: Annotated[Bool, sdk("Deprecated; only true is supported.")]


class SparkPythonTask(TypedDict, total=False):
    """Runs a Python file."""

    python_file: Annotated[Text, v20("The file: a cloud URL, workspace path, or path in the Git repository. Required.")]
    parameters: Annotated[Texts, v20("Command line arguments. Default: none.")]
    source: Annotated[Text, v21("WORKSPACE or GIT. Default: GIT if the job has a git_source, else WORKSPACE.")]


class SparkSubmitTask(TypedDict, total=False):
    """Runs spark-submit on a new cluster; libraries and settings are arguments."""

    parameters: Annotated[Texts, v20("Arguments of spark-submit, except --master, --deploy-mode and --executor-cores.")]


class PythonWheelTask(TypedDict, total=False):
    """Runs an entry point of a Python wheel."""

    package_name: Annotated[Text, v21("The package. Required.")]
    entry_point: Annotated[Text, v21("Name of its entry point, or of a function in it. Required.")]
    parameters: Annotated[Texts, v21("Command line arguments. Alternative: named_parameters.")]
    named_parameters: Annotated[Map, v21("Command line arguments by name. Alternative: parameters.")]


class PipelineTask(TypedDict, total=False):
    """Updates a pipeline."""

    pipeline_id: Annotated[Text, v20("The pipeline. Required.")]
    full_refresh: Annotated[Bool, v21("Whether to recompute all tables. Default: false.")]
    full_refresh_selection: Annotated[Texts, sdk("Tables to recompute.")]
    refresh_selection: Annotated[Texts, sdk("Tables to update.")]
    refresh_flow_selection: Annotated[Texts, sdk("Flows to update.")]
    reset_checkpoint_selection: Annotated[Texts, sdk("Flows whose checkpoints to reset.")]
    parameters: Annotated[Map, sdk("Parameters by name, at most 10,000 characters in all.")]


class RunJobTask(TypedDict, total=False):
    """Runs another job."""

    job_id: Annotated[Int, v20("The job. Required.")]
    job_parameters: Annotated[Map, v21("Parameters of the job, by name.")]
    notebook_params: Annotated[Map, v21("Parameters of its notebooks (deprecated: job_parameters).")]
    jar_params: Annotated[Texts, v21("Arguments of its JARs (deprecated: job_parameters).")]
    python_params: Annotated[Texts, v21("Arguments of its Python files (deprecated: job_parameters).")]
    python_named_params: Annotated[Map, v21("Named arguments of its wheels (deprecated: job_parameters).")]
    spark_submit_params: Annotated[Texts, v21("Arguments of spark-submit (deprecated: job_parameters).")]
    sql_params: Annotated[Map, v21("Parameters of its SQL tasks (deprecated: job_parameters).")]
    dbt_commands: Annotated[Texts, v21("Commands of its dbt tasks (deprecated: job_parameters).")]
    pipeline_params: Annotated[One["PipelineParams"], v21("How its pipelines are updated.")]


class DbtTask(TypedDict, total=False):
    """Runs dbt."""

    commands: Annotated[Texts, v21("One to ten commands, each starting with dbt. Required.")]
    project_directory: Annotated[Text, v21("Folder of the dbt project. Default: the root of the repository.")]
    profiles_directory: Annotated[Text, v21("Folder of profiles.yml; only without warehouse_id.")]
    warehouse_id: Annotated[Text, v21("SQL warehouse to run against.")]
    catalog: Annotated[Text, v21("Catalog to write to; only with warehouse_id.")]
    schema: Annotated[Text, v21("Schema to write to; used with warehouse_id.")]
    source: Annotated[Text, v21("WORKSPACE or GIT. Default: GIT if the job has a git_source, else WORKSPACE.")]


class DbtPlatformTask(TypedDict, total=False):
    """Runs a job of dbt's own platform."""

    connection_resource_name: Annotated[Text, sdk("Connection to the platform.")]
    dbt_platform_job_id: Annotated[Text, sdk("The job there.")]


class DbtCloudTask(TypedDict, total=False):
    """Runs a job of dbt Cloud (older form of DbtPlatformTask)."""

    connection_resource_name: Annotated[Text, sdk("Connection to dbt Cloud.")]
    dbt_cloud_job_id: Annotated[Int, sdk("The job there.")]


class PythonOperatorTaskParameter(TypedDict, total=False):
    """A parameter of a PythonOperatorTask."""

    name: Annotated[Text, sdk("Name of the parameter.")]
    value: Annotated[Text, sdk("Its value.")]


class PythonOperatorTask(TypedDict, total=False):
    """Runs a Python function."""

    main: Annotated[Text, sdk("The function, such as package.module.function.")]
    parameters: Annotated[Many["PythonOperatorTaskParameter"], sdk("Its arguments.")]


class CleanRoomsNotebookTask(TypedDict, total=False):
    """Runs a notebook of a clean room."""

    clean_room_name: Annotated[Text, sdk("The clean room. Required.")]
    notebook_name: Annotated[Text, sdk("The notebook. Required.")]
    etag: Annotated[Text, sdk("Expected version of the notebook.")]
    notebook_base_parameters: Annotated[Map, sdk("Parameters by name.")]

"""Git repositories, environments and environment variables of tasks."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Map, One, Text, Texts, sdk, v21, v22


class GitSnapshot(TypedDict, total=False):
    """The commit that a run checked out; in responses only."""

    used_commit: Annotated[Text, v21("The commit.")]


class JobSource(TypedDict, total=False):
    """The file in the repository that contains the settings of the job."""

    job_config_path: Annotated[Text, sdk("File with the settings. Required.")]
    import_from_git_branch: Annotated[Text, sdk("Branch of the file. Required.")]
    dirty_state: Annotated[Text, sdk("How the job differs from the file: NOT_SYNCED or DISCONNECTED.")]


class SparseCheckout(TypedDict, total=False):
    """The part of the repository to check out."""

    patterns: Annotated[Texts, sdk("Folders to check out.")]


class GitSource(TypedDict, total=False):
    """The repository for tasks with source GIT; at most one of branch, tag and commit."""

    git_url: Annotated[Text, v21("URL of the repository, at most 300 characters. Required.")]
    git_provider: Annotated[Text, v21("A GitProvider, ignoring case. Required.")]
    git_branch: Annotated[Text, v21("The branch, at most 255 characters.")]
    git_tag: Annotated[Text, v21("The tag, at most 255 characters.")]
    git_commit: Annotated[Text, v21("The commit, at most 64 characters.")]
    git_snapshot: Annotated[One["GitSnapshot"], v21("The commit that a run checked out; in responses only.")]
    job_source: Annotated[One["JobSource"], sdk("File with the settings of the job.")]
    sparse_checkout: Annotated[One["SparseCheckout"], sdk("Part to check out.")]


class Environment(TypedDict, total=False):
    """Contents of a serverless environment."""

    environment_version: Annotated[Text, v21("Version of the environment, such as 3.")]
    client: Annotated[Text, v21("Older name of environment_version.")]
    dependencies: Annotated[Texts, v21("Python dependencies, as lines of a requirements file.")]
    java_dependencies: Annotated[Texts, sdk("JARs.")]
    base_environment: Annotated[Text, sdk("File or id of an environment that this one extends.")]
    project_environment: Annotated[Text, sdk("Project file that defines the environment.")]


class JobEnvironment(TypedDict, total=False):
    """A serverless environment that tasks refer to by its key."""

    environment_key: Annotated[Text, v21("Key that tasks refer to; unique. Required.")]
    spec: Annotated[One["Environment"], v21("Contents of the environment.")]


class JobEnvironmentVariablesSpec(TypedDict, total=False):
    """Environment variables of tasks."""

    variables: Annotated[Map, v22("The variables by name, at most 20; values have at most 512 characters.")]
    files: Annotated[Texts, v22("Up to five .env files under /Workspace or /Volumes, of 32 KiB each.")]


class JobEnvironmentVariables(TypedDict, total=False):
    """A set of environment variables that tasks refer to by its key."""

    environment_variables_key: Annotated[Text, v22("Key that tasks refer to. Required.")]
    spec: Annotated[One["JobEnvironmentVariablesSpec"], v22("The variables.")]

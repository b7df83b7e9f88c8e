"""Where tasks take their code and their environment from."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Map, One, Text, Texts, sdk, v21, v22


class GitSnapshot(TypedDict, total=False):
    """What was checked out; told by a run, never sent."""

    used_commit: Annotated[Text, v21("The commit.")]


class JobSource(TypedDict, total=False):
    """Where in the repository the job's own settings lie."""

    job_config_path: Annotated[Text, sdk("File with the settings. Required.")]
    import_from_git_branch: Annotated[Text, sdk("Branch that it is read from. Required.")]
    dirty_state: Annotated[Text, sdk("How the job differs from it: NOT_SYNCED or DISCONNECTED.")]


class SparseCheckout(TypedDict, total=False):
    """Which part of the repository is checked out."""

    patterns: Annotated[Texts, sdk("Folders to check out.")]


class GitSource(TypedDict, total=False):
    """A repository that tasks with source GIT take their files from; at most one of branch, tag and commit."""

    git_url: Annotated[Text, v21("Address of the repository, at most 300 characters. Required.")]
    git_provider: Annotated[Text, v21("Who hosts it, in any letter case: a GitProvider. Required.")]
    git_branch: Annotated[Text, v21("The branch, at most 255 characters.")]
    git_tag: Annotated[Text, v21("The tag, at most 255 characters.")]
    git_commit: Annotated[Text, v21("The commit, at most 64 characters.")]
    git_snapshot: Annotated[One["GitSnapshot"], v21("What a run checked out; not to be sent.")]
    job_source: Annotated[One["JobSource"], sdk("Where the job's own settings lie.")]
    sparse_checkout: Annotated[One["SparseCheckout"], sdk("Which part is checked out.")]


class Environment(TypedDict, total=False):
    """What a serverless environment holds."""

    environment_version: Annotated[Text, v21("Version of the environment, as in 3.")]
    client: Annotated[Text, v21("Older name of environment_version.")]
    dependencies: Annotated[Texts, v21("Python dependencies, as lines of a requirements file.")]
    java_dependencies: Annotated[Texts, sdk("JARs.")]
    base_environment: Annotated[Text, sdk("File or id of an environment that this one extends.")]
    project_environment: Annotated[Text, sdk("Project file whose environment is taken.")]


class JobEnvironment(TypedDict, total=False):
    """A serverless environment that tasks name."""

    environment_key: Annotated[Text, v21("Name by which tasks choose it; unique. Required.")]
    spec: Annotated[One["Environment"], v21("What it holds.")]


class JobEnvironmentVariablesSpec(TypedDict, total=False):
    """Environment variables of tasks."""

    variables: Annotated[Map, v22("The variables by name, at most 20; values have at most 512 characters.")]
    files: Annotated[Texts, v22("Up to five .env files under /Workspace or /Volumes, of 32 KiB each.")]


class JobEnvironmentVariables(TypedDict, total=False):
    """A set of environment variables that tasks name."""

    environment_variables_key: Annotated[Text, v22("Name by which tasks choose it. Required.")]
    spec: Annotated[One["JobEnvironmentVariablesSpec"], v22("The variables.")]

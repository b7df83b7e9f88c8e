"""Where tasks take their code and their environment from."""

from airflow_dbjobs.payloads.kinds import Map, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, v21, v22


class GitSnapshot(Structure):
    """What was checked out; told by a run, never sent."""

    used_commit: Text = v21("The commit.")


class JobSource(Structure):
    """Where in the repository the job's own settings lie."""

    job_config_path: Text = sdk("File with the settings. Required.")
    import_from_git_branch: Text = sdk("Branch that it is read from. Required.")
    dirty_state: Text = sdk("How the job differs from it: NOT_SYNCED or DISCONNECTED.")


class SparseCheckout(Structure):
    """Which part of the repository is checked out."""

    patterns: Texts = sdk("Folders to check out.")


class GitSource(Structure):
    """A repository that tasks with source GIT take their files from; at most one of branch, tag and commit."""

    git_url: Text = v21("Address of the repository, at most 300 characters. Required.", secret=True)
    git_provider: Text = v21("Who hosts it, in any letter case: a GitProvider. Required.")
    git_branch: Text = v21("The branch, at most 255 characters.")
    git_tag: Text = v21("The tag, at most 255 characters.")
    git_commit: Text = v21("The commit, at most 64 characters.")
    git_snapshot: One["GitSnapshot"] = v21("What a run checked out; not to be sent.")
    job_source: One["JobSource"] = sdk("Where the job's own settings lie.")
    sparse_checkout: One["SparseCheckout"] = sdk("Which part is checked out.")


class Environment(Structure):
    """What a serverless environment holds."""

    environment_version: Text = v21("Version of the environment, as in 3.")
    client: Text = v21("Older name of environment_version.")
    dependencies: Texts = v21("Python dependencies, as lines of a requirements file.", secret=True)
    java_dependencies: Texts = sdk("JARs.")
    base_environment: Text = sdk("File or id of an environment that this one extends.")
    project_environment: Text = sdk("Project file whose environment is taken.")


class JobEnvironment(Structure):
    """A serverless environment that tasks name."""

    environment_key: Text = v21("Name by which tasks choose it; unique. Required.")
    spec: One["Environment"] = v21("What it holds.")


class JobEnvironmentVariablesSpec(Structure):
    """Environment variables of tasks."""

    variables: Map = v22("The variables by name, at most 20; values have at most 512 characters.", secret=True)
    files: Texts = v22("Up to five .env files under /Workspace or /Volumes, of 32 KiB each.")


class JobEnvironmentVariables(Structure):
    """A set of environment variables that tasks name."""

    environment_variables_key: Text = v22("Name by which tasks choose it. Required.")
    spec: One["JobEnvironmentVariablesSpec"] = v22("The variables.")

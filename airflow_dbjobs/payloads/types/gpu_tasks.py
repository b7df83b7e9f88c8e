"""Tasks on accelerated compute."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Int, Many, One, Text, sdk


class Compute(TypedDict, total=False):
    """Serverless compute of a task."""

    hardware_accelerator: Annotated[Text, sdk("Accelerator, as in GPU_1xA10.")]


class ComputeSpec(TypedDict, total=False):
    """Compute of one deployment of an AiRuntimeTask."""

    accelerator_type: Annotated[Text, sdk("Accelerator, as in GPU_8xH100.")]
    accelerator_count: Annotated[Int, sdk("How many of them.")]
    provisioned_capacity_id: Annotated[Text, sdk("Reserved capacity to take them from.")]


class DeploymentSpec(TypedDict, total=False):
    """One deployment of an AiRuntimeTask."""

    name: Annotated[Text, sdk("Its name.")]
    command_path: Annotated[Text, sdk("Script that it runs.")]
    compute: Annotated[One["ComputeSpec"], sdk("What it runs on.")]


class AiRuntimeTask(TypedDict, total=False):
    """Trains on GPUs."""

    experiment: Annotated[Text, sdk("MLflow experiment that the run is logged to.")]
    deployments: Annotated[Many["DeploymentSpec"], sdk("What runs, and on what.")]
    code_source_path: Annotated[Text, sdk("Archive of the code.")]
    docker_image_url: Annotated[Text, sdk("Container image.")]
    unity_catalog_image_path: Annotated[Text, sdk("Container image in Unity Catalog.")]
    mlflow_artifact_location: Annotated[Text, sdk("Where artifacts are kept.")]
    mlflow_experiment_directory: Annotated[Text, sdk("Workspace folder of the experiment.")]
    mlflow_run: Annotated[Text, sdk("Name of the MLflow run.")]
    priority_class: Annotated[Text, sdk("CRITICAL, NORMAL or BEST_EFFORT.")]


class ComputeConfig(TypedDict, total=False):
    """Compute of a GenAiComputeTask."""

    num_gpus: Annotated[Int, sdk("How many GPUs.")]
    gpu_node_pool_id: Annotated[Text, sdk("Pool to take them from.")]
    gpu_type: Annotated[Text, sdk("Kind of GPU.")]


class GenAiComputeTask(TypedDict, total=False):
    """Trains on GPUs (deprecated: AiRuntimeTask)."""

    dl_runtime_image: Annotated[Text, sdk("Runtime image. Required.")]
    command: Annotated[Text, sdk("Command that starts the training.")]
    compute: Annotated[One["ComputeConfig"], sdk("What it runs on.")]
    mlflow_experiment_name: Annotated[Text, sdk("MLflow experiment.")]
    source: Annotated[Text, sdk("Where the script lies: WORKSPACE or GIT.")]
    training_script_path: Annotated[Text, sdk("The script.")]
    yaml_parameters: Annotated[Text, sdk("Parameters, as YAML.")]
    yaml_parameters_file_path: Annotated[Text, sdk("File with parameters, as YAML.")]

"""Tasks on accelerated compute."""

from airflow_dbjobs.payloads.kinds import Int, Many, One, Text
from airflow_dbjobs.payloads.structure import Structure, sdk


class Compute(Structure):
    """Serverless compute of a task."""

    hardware_accelerator: Text = sdk("Accelerator, as in GPU_1xA10.")


class ComputeSpec(Structure):
    """Compute of one deployment of an AiRuntimeTask."""

    accelerator_type: Text = sdk("Accelerator, as in GPU_8xH100.")
    accelerator_count: Int = sdk("How many of them.")
    provisioned_capacity_id: Text = sdk("Reserved capacity to take them from.")


class DeploymentSpec(Structure):
    """One deployment of an AiRuntimeTask."""

    name: Text = sdk("Its name.")
    command_path: Text = sdk("Script that it runs.")
    compute: One["ComputeSpec"] = sdk("What it runs on.")


class AiRuntimeTask(Structure):
    """Trains on GPUs."""

    experiment: Text = sdk("MLflow experiment that the run is logged to.")
    deployments: Many["DeploymentSpec"] = sdk("What runs, and on what.")
    code_source_path: Text = sdk("Archive of the code.")
    docker_image_url: Text = sdk("Container image.")
    unity_catalog_image_path: Text = sdk("Container image in Unity Catalog.")
    mlflow_artifact_location: Text = sdk("Where artifacts are kept.")
    mlflow_experiment_directory: Text = sdk("Workspace folder of the experiment.")
    mlflow_run: Text = sdk("Name of the MLflow run.")
    priority_class: Text = sdk("CRITICAL, NORMAL or BEST_EFFORT.")


class ComputeConfig(Structure):
    """Compute of a GenAiComputeTask."""

    num_gpus: Int = sdk("How many GPUs.")
    gpu_node_pool_id: Text = sdk("Pool to take them from.")
    gpu_type: Text = sdk("Kind of GPU.")


class GenAiComputeTask(Structure):
    """Trains on GPUs (deprecated: AiRuntimeTask)."""

    dl_runtime_image: Text = sdk("Runtime image. Required.")
    command: Text = sdk("Command that starts the training.")
    compute: One["ComputeConfig"] = sdk("What it runs on.")
    mlflow_experiment_name: Text = sdk("MLflow experiment.")
    source: Text = sdk("Where the script lies: WORKSPACE or GIT.")
    training_script_path: Text = sdk("The script.")
    yaml_parameters: Text = sdk("Parameters, as YAML.")
    yaml_parameters_file_path: Text = sdk("File with parameters, as YAML.")

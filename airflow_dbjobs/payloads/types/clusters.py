"""The cluster that a run is given: its size, machines, Spark settings and cloud."""

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Map, Number, One, Text, Texts, sdk, v20

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.libraries import Library
    from airflow_dbjobs.payloads.types.storage import ClusterLogConf, InitScriptInfo

# Entries of maps, which the reference lists as structures of their own: a key and its value.
ClusterTag: TypeAlias = dict[str, Any]
SparkConfPair: TypeAlias = dict[str, Any]
SparkEnvPair: TypeAlias = dict[str, Any]


class AutoScale(TypedDict, total=False):
    """Bounds between which a cluster grows and shrinks with its load."""

    min_workers: Annotated[Int, v20("Workers it starts with and never goes below. Required.")]
    max_workers: Annotated[Int, v20("Workers it never exceeds; more than min_workers. Required.")]


class LogAnalyticsInfo(TypedDict, total=False):
    """Azure Log Analytics, to which a cluster reports."""

    log_analytics_workspace_id: Annotated[Text, sdk("The Log Analytics workspace.")]
    log_analytics_primary_key: Annotated[Text, sdk("Its key: a secret.")]


class AzureAttributes(TypedDict, total=False):
    """How a cluster on Azure gets its machines."""

    first_on_demand: Annotated[Int, v20("So many nodes, the driver first, are on-demand instances; more than 0.")]
    availability: Annotated[Text, v20("The nodes after those: an AzureAvailability. Default: ON_DEMAND_AZURE.")]
    spot_bid_max_price: Annotated[Number, v20("Highest spot bid; -1: never evicted for its price. Default: -1.")]
    log_analytics_info: Annotated[One["LogAnalyticsInfo"], sdk("Where the cluster reports its metrics.")]
    capacity_reservation_group: Annotated[Text, sdk("Resource id of a capacity reservation group to use.")]


class AwsAttributes(TypedDict, total=False):
    """How a cluster on AWS gets its machines."""

    first_on_demand: Annotated[Int, sdk("So many nodes, the driver first, are on-demand instances. Default: 0.")]
    availability: Annotated[Text, sdk("What the nodes after those are: SPOT, ON_DEMAND or SPOT_WITH_FALLBACK.")]
    zone_id: Annotated[Text, sdk("Availability zone, as in us-west-2a; auto lets the platform choose.")]
    instance_profile_arn: Annotated[Text, sdk("Instance profile of the nodes, registered with the workspace.")]
    spot_bid_price_percent: Annotated[Int, sdk("Highest bid, of the on-demand price. Unit: percent. Default: 100.")]
    ebs_volume_type: Annotated[Text, sdk("GENERAL_PURPOSE_SSD or THROUGHPUT_OPTIMIZED_HDD.")]
    ebs_volume_count: Annotated[Int, sdk("Volumes attached to each node, 0 to 10.")]
    ebs_volume_size: Annotated[Int, sdk("Size of each volume. Unit: GiB.")]
    ebs_volume_iops: Annotated[Int, sdk("I/O operations per second of each gp3 volume.")]
    ebs_volume_throughput: Annotated[Int, sdk("Throughput of each gp3 volume. Unit: MiB per second.")]


class GcpAttributes(TypedDict, total=False):
    """How a cluster on Google Cloud gets its machines."""

    first_on_demand: Annotated[Int, sdk("So many nodes, the driver first, are on-demand instances.")]
    availability: Annotated[Text, sdk("PREEMPTIBLE_GCP, ON_DEMAND_GCP or PREEMPTIBLE_WITH_FALLBACK_GCP.")]
    zone_id: Annotated[Text, sdk("Availability zone; HA balances over zones, AUTO lets the platform choose.")]
    google_service_account: Annotated[Text, sdk("Service account that the nodes act as.")]
    boot_disk_size: Annotated[Int, sdk("Boot disk of each node. Unit: GB.")]
    local_ssd_count: Annotated[Int, sdk("Local SSDs of each node, 0 to 8.")]
    use_preemptible_executors: Annotated[Bool, sdk("Whether workers are preemptible (deprecated: availability).")]
    confidential_compute_type: Annotated[Text, sdk("SEV_SNP, or CONFIDENTIAL_COMPUTE_TYPE_NONE.")]


class DockerBasicAuth(TypedDict, total=False):
    """Credentials for a container registry."""

    username: Annotated[Text, sdk("Name of the user.")]
    password: Annotated[Text, sdk("Password of the user: a secret.")]


class DockerImage(TypedDict, total=False):
    """The container image of a cluster of Databricks Container Services."""

    url: Annotated[Text, sdk("Address of the image.")]
    basic_auth: Annotated[One["DockerBasicAuth"], sdk("Credentials for its registry.")]


class ClientsTypes(TypedDict, total=False):
    """Which kinds of workload a cluster takes."""

    jobs: Annotated[Bool, sdk("Whether it runs jobs.")]
    notebooks: Annotated[Bool, sdk("Whether notebooks may be attached.")]


class WorkloadType(TypedDict, total=False):
    """What a cluster may be used for."""

    clients: Annotated[One["ClientsTypes"], sdk("Which kinds of workload it takes. Required.")]


class NodeTypeFlexibility(TypedDict, total=False):
    """Other node types to take where the wanted one is not to be had."""

    alternate_node_type_ids: Annotated[Texts, sdk("Node types, the preferred one first.")]
    aws_context_id: Annotated[Text, sdk("Fleet context on AWS that the choice belongs to.")]


class NewCluster(TypedDict, total=False):
    """A cluster that is made for one run and ends with it. Required: spark_version, and a node type or pool."""

    num_workers: Annotated[Int, v20("Workers beside the driver; 0 is the driver alone. Or give autoscale.")]
    autoscale: Annotated[One["AutoScale"], v20("Bounds of its size. Or give num_workers.")]
    spark_version: Annotated[Text, v20("Runtime of the cluster, as in 15.4.x-scala2.12. Required.")]
    spark_conf: Annotated[Map, v20("Spark settings, by name.")]
    node_type_id: Annotated[Text, v20("Machine type of the nodes; a pool or a policy may give it instead.")]
    driver_node_type_id: Annotated[Text, v20("Machine type of the driver. Default: node_type_id.")]
    custom_tags: Annotated[Map, v20("Tags of the cloud resources, at most 45, beside the platform's own.")]
    cluster_log_conf: Annotated[One["ClusterLogConf"], v20("Where Spark's logs are delivered.")]
    init_scripts: Annotated[Many["InitScriptInfo"], v20("Scripts that run on each node at start, in this order.")]
    spark_env_vars: Annotated[Map, v20("Environment variables of driver and workers, by name. ASCII only.")]
    enable_elastic_disk: Annotated[Bool, v20("Whether nodes get more disk when theirs fills up.")]
    instance_pool_id: Annotated[Text, v20("Pool from which nodes are taken.")]
    driver_instance_pool_id: Annotated[Text, v20("Pool of the driver. Default: instance_pool_id, which it needs.")]
    azure_attributes: Annotated[One["AzureAttributes"], v20("How machines are got on Azure.")]
    aws_attributes: Annotated[One["AwsAttributes"], sdk("How machines are got on AWS.")]
    gcp_attributes: Annotated[One["GcpAttributes"], sdk("How machines are got on Google Cloud.")]
    policy_id: Annotated[Text, sdk("Cluster policy that the cluster must keep to.")]
    apply_policy_default_values: Annotated[Bool, sdk("Whether the policy's defaults fill what is left out.")]
    cluster_name: Annotated[Text, sdk("Name of the cluster; a job's clusters are named by the platform.")]
    data_security_mode: Annotated[Text, sdk("Access mode, as in SINGLE_USER or USER_ISOLATION.")]
    single_user_name: Annotated[Text, sdk("The one user, where the access mode is for one.")]
    runtime_engine: Annotated[Text, sdk("STANDARD or PHOTON.")]
    docker_image: Annotated[One["DockerImage"], sdk("Container image of the nodes.")]
    ssh_public_keys: Annotated[Texts, sdk("Keys that may log in to the nodes, at most 10.")]
    enable_local_disk_encryption: Annotated[Bool, sdk("Whether local disks are encrypted.")]
    workload_type: Annotated[One["WorkloadType"], sdk("What the cluster may be used for.")]
    autotermination_minutes: Annotated[Int, sdk("Idle time before it ends; a job's ends with the run. Unit: min.")]
    kind: Annotated[Text, sdk("CLASSIC_PREVIEW, where the simple form (is_single_node, use_ml_runtime) is used.")]
    is_single_node: Annotated[Bool, sdk("Whether driver and worker are one node; only with kind.")]
    use_ml_runtime: Annotated[Bool, sdk("Whether the runtime for machine learning is taken; only with kind.")]
    dependency_mode: Annotated[Text, sdk("How libraries are isolated: a DEPENDENCY_MODE_... value.")]
    driver_node_type_flexibility: Annotated[One["NodeTypeFlexibility"], sdk("Other machine types for the driver.")]
    worker_node_type_flexibility: Annotated[One["NodeTypeFlexibility"], sdk("Other machine types for the workers.")]
    remote_disk_throughput: Annotated[Int, sdk("Throughput of remote disks. Unit: Mb per second.")]
    total_initial_remote_disk_size: Annotated[Int, sdk("Remote disk of the whole cluster at start. Unit: GB.")]


class ClusterSpec(TypedDict, total=False):
    """The cluster of a 2.0 run, as a run tells it: one of the two, and its libraries."""

    existing_cluster_id: Annotated[Text, v20("The all-purpose cluster that the run used.")]
    new_cluster: Annotated[One["NewCluster"], v20("The cluster that was made for the run.")]
    libraries: Annotated[Many["Library"], v20("Libraries that were installed. Default: none.")]


class ClusterInstance(TypedDict, total=False):
    """Which cluster and Spark context a run used; together they name an execution context for good."""

    cluster_id: Annotated[Text, v20("The cluster; absent until there is one.")]
    spark_context_id: Annotated[Text, v20("The Spark context; absent until the run executes.")]

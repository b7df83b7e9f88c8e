"""Clusters for runs: size, node types, Spark settings and cloud attributes."""

from typing import TYPE_CHECKING, Annotated, Any, TypeAlias, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, Int, Many, Map, Number, One, Text, Texts, sdk, v20

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.libraries import Library
    from airflow_dbjobs.payloads.types.storage import ClusterLogConf, InitScriptInfo

# The reference lists these entries of mappings, a key and a value, as structures.
ClusterTag: TypeAlias = dict[str, Any]
SparkConfPair: TypeAlias = dict[str, Any]
SparkEnvPair: TypeAlias = dict[str, Any]


class AutoScale(TypedDict, total=False):
    """Range of workers within which a cluster scales with its load."""

    min_workers: Annotated[Int, v20("Initial and minimum number of workers. Required.")]
    max_workers: Annotated[Int, v20("Maximum number of workers; more than min_workers. Required.")]


class LogAnalyticsInfo(TypedDict, total=False):
    """Azure Log Analytics, to which a cluster reports."""

    log_analytics_workspace_id: Annotated[Text, sdk("The Log Analytics workspace.")]
    log_analytics_primary_key: Annotated[Text, sdk("Its key: a secret.")]


class AzureAttributes(TypedDict, total=False):
    """Attributes of a cluster on Azure."""

    first_on_demand: Annotated[Int, v20("Number of on-demand nodes, beginning with the driver; more than 0.")]
    availability: Annotated[Text, v20("Of the other nodes: an AzureAvailability. Default: ON_DEMAND_AZURE.")]
    spot_bid_max_price: Annotated[Number, v20("Maximum spot price; -1: no eviction because of the price. Default: -1.")]
    log_analytics_info: Annotated[One["LogAnalyticsInfo"], sdk("Where the cluster reports its metrics.")]
    capacity_reservation_group: Annotated[Text, sdk("Resource id of a capacity reservation group to use.")]


class AwsAttributes(TypedDict, total=False):
    """Attributes of a cluster on AWS."""

    first_on_demand: Annotated[Int, sdk("Number of on-demand nodes, beginning with the driver. Default: 0.")]
    availability: Annotated[Text, sdk("Availability of the other nodes: SPOT, ON_DEMAND or SPOT_WITH_FALLBACK.")]
    zone_id: Annotated[Text, sdk("Availability zone, such as us-west-2a; auto lets Databricks choose.")]
    instance_profile_arn: Annotated[Text, sdk("Instance profile of the nodes, registered with the workspace.")]
    spot_bid_price_percent: Annotated[Int, sdk("Maximum bid. Unit: percent of the on-demand price. Default: 100.")]
    ebs_volume_type: Annotated[Text, sdk("GENERAL_PURPOSE_SSD or THROUGHPUT_OPTIMIZED_HDD.")]
    ebs_volume_count: Annotated[Int, sdk("Volumes attached to each node, 0 to 10.")]
    ebs_volume_size: Annotated[Int, sdk("Size of each volume. Unit: GiB.")]
    ebs_volume_iops: Annotated[Int, sdk("I/O operations per second of each gp3 volume.")]
    ebs_volume_throughput: Annotated[Int, sdk("Throughput of each gp3 volume. Unit: MiB per second.")]


class GcpAttributes(TypedDict, total=False):
    """Attributes of a cluster on Google Cloud."""

    first_on_demand: Annotated[Int, sdk("Number of on-demand nodes, beginning with the driver.")]
    availability: Annotated[Text, sdk("PREEMPTIBLE_GCP, ON_DEMAND_GCP or PREEMPTIBLE_WITH_FALLBACK_GCP.")]
    zone_id: Annotated[Text, sdk("Availability zone; HA distributes nodes over zones, AUTO lets Databricks choose.")]
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
    """The workloads that a cluster accepts."""

    jobs: Annotated[Bool, sdk("Whether it runs jobs.")]
    notebooks: Annotated[Bool, sdk("Whether notebooks may be attached.")]


class WorkloadType(TypedDict, total=False):
    """What a cluster may be used for."""

    clients: Annotated[One["ClientsTypes"], sdk("The workloads that it accepts. Required.")]


class NodeTypeFlexibility(TypedDict, total=False):
    """Alternative node types, if the preferred one is unavailable."""

    alternate_node_type_ids: Annotated[Texts, sdk("Node types, the preferred one first.")]
    aws_context_id: Annotated[Text, sdk("Fleet context on AWS that the choice belongs to.")]


class NewCluster(TypedDict, total=False):
    """A cluster that is created for a run and ends with it. Required: spark_version, and a node type or a pool."""

    num_workers: Annotated[Int, v20("Number of workers; 0 for a driver without workers. Alternative: autoscale.")]
    autoscale: Annotated[One["AutoScale"], v20("Range of its size. Alternative: num_workers.")]
    spark_version: Annotated[Text, v20("Databricks Runtime version, such as 15.4.x-scala2.12. Required.")]
    spark_conf: Annotated[Map, v20("Spark settings, by name.")]
    node_type_id: Annotated[Text, v20("Node type of the workers; a pool or a policy may set it instead.")]
    driver_node_type_id: Annotated[Text, v20("Node type of the driver. Default: node_type_id.")]
    custom_tags: Annotated[Map, v20("Tags of the cloud resources, at most 45, in addition to Databricks' own.")]
    cluster_log_conf: Annotated[One["ClusterLogConf"], v20("Where Spark's logs are delivered.")]
    init_scripts: Annotated[Many["InitScriptInfo"], v20("Scripts that run on each node when it starts, in this order.")]
    spark_env_vars: Annotated[Map, v20("Environment variables of driver and workers, by name. ASCII only.")]
    enable_elastic_disk: Annotated[Bool, v20("Whether nodes get more disk space when their disks fill up.")]
    instance_pool_id: Annotated[Text, v20("Pool of the nodes.")]
    driver_instance_pool_id: Annotated[Text, v20("Pool of the driver; requires instance_pool_id, its default.")]
    azure_attributes: Annotated[One["AzureAttributes"], v20("Attributes on Azure.")]
    aws_attributes: Annotated[One["AwsAttributes"], sdk("Attributes on AWS.")]
    gcp_attributes: Annotated[One["GcpAttributes"], sdk("Attributes on Google Cloud.")]
    policy_id: Annotated[Text, sdk("Cluster policy that applies to the cluster.")]
    apply_policy_default_values: Annotated[Bool, sdk("Whether missing fields get the defaults of the policy.")]
    cluster_name: Annotated[Text, sdk("Name of the cluster; Databricks names the clusters of jobs.")]
    data_security_mode: Annotated[Text, sdk("Access mode, such as SINGLE_USER or USER_ISOLATION.")]
    single_user_name: Annotated[Text, sdk("The user, if the access mode is SINGLE_USER.")]
    runtime_engine: Annotated[Text, sdk("STANDARD or PHOTON.")]
    docker_image: Annotated[One["DockerImage"], sdk("Container image of the nodes.")]
    ssh_public_keys: Annotated[Texts, sdk("Keys that may log in to the nodes, at most 10.")]
    enable_local_disk_encryption: Annotated[Bool, sdk("Whether local disks are encrypted.")]
    workload_type: Annotated[One["WorkloadType"], sdk("What the cluster may be used for.")]
    autotermination_minutes: Annotated[Int, sdk("Idle time after which it ends. Unit: min.")]
    kind: Annotated[Text, sdk("CLASSIC_PREVIEW, required by is_single_node and use_ml_runtime.")]
    is_single_node: Annotated[Bool, sdk("Whether the cluster has a single node; only with kind.")]
    use_ml_runtime: Annotated[Bool, sdk("Whether to use the runtime for machine learning; only with kind.")]
    dependency_mode: Annotated[Text, sdk("How libraries are isolated: a DEPENDENCY_MODE_... value.")]
    driver_node_type_flexibility: Annotated[One["NodeTypeFlexibility"], sdk("Alternative node types for the driver.")]
    worker_node_type_flexibility: Annotated[One["NodeTypeFlexibility"], sdk("Alternative node types for the workers.")]
    remote_disk_throughput: Annotated[Int, sdk("Throughput of remote disks. Unit: Mb per second.")]
    total_initial_remote_disk_size: Annotated[Int, sdk("Remote disk of the whole cluster at start. Unit: GB.")]


class ClusterSpec(TypedDict, total=False):
    """The cluster that a run of API 2.0 was configured to use: one of the two clusters, and libraries."""

    existing_cluster_id: Annotated[Text, v20("The all-purpose cluster that the run used.")]
    new_cluster: Annotated[One["NewCluster"], v20("The cluster that was created for the run.")]
    libraries: Annotated[Many["Library"], v20("Libraries that were installed. Default: none.")]


class ClusterInstance(TypedDict, total=False):
    """The cluster and Spark context of a run, which together identify its execution context."""

    cluster_id: Annotated[Text, v20("Id of the cluster; absent until it exists.")]
    spark_context_id: Annotated[Text, v20("Id of the Spark context; absent until the run executes.")]

"""The cluster that a run is given: its size, machines, Spark settings and cloud."""

from typing import TYPE_CHECKING, Any, TypeAlias

from airflow_dbjobs.payloads.kinds import Bool, Int, Many, Map, Number, One, Text, Texts
from airflow_dbjobs.payloads.structure import Structure, sdk, seed

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.libraries import Library
    from airflow_dbjobs.payloads.storage import ClusterLogConf, InitScriptInfo

# Entries of maps, which the reference lists as structures of their own: a key and its value.
ClusterTag: TypeAlias = dict[str, Any]
SparkConfPair: TypeAlias = dict[str, Any]
SparkEnvPair: TypeAlias = dict[str, Any]


class AutoScale(Structure):
    """Bounds between which a cluster grows and shrinks with its load."""

    min_workers: Int = seed("Workers it starts with and never goes below. Required.")
    max_workers: Int = seed("Workers it never exceeds; more than min_workers. Required.")


class LogAnalyticsInfo(Structure):
    """Azure Log Analytics, to which a cluster reports."""

    log_analytics_workspace_id: Text = sdk("The Log Analytics workspace.")
    log_analytics_primary_key: Text = sdk("Its key: a secret.", secret=True)


class AzureAttributes(Structure):
    """How a cluster on Azure gets its machines."""

    first_on_demand: Int = seed("So many nodes, the driver first, are on-demand instances; more than 0.")
    availability: Text = seed("What the nodes after those are: an AzureAvailability.", default="ON_DEMAND_AZURE")
    spot_bid_max_price: Number = seed("Highest bid for a spot instance; -1: never evicted for its price.", default="-1")
    log_analytics_info: One["LogAnalyticsInfo"] = sdk("Where the cluster reports its metrics.")
    capacity_reservation_group: Text = sdk("Resource id of a capacity reservation group to take machines from.")


class AwsAttributes(Structure):
    """How a cluster on AWS gets its machines."""

    first_on_demand: Int = sdk("So many nodes, the driver first, are on-demand instances.", default="0")
    availability: Text = sdk("What the nodes after those are: SPOT, ON_DEMAND or SPOT_WITH_FALLBACK.")
    zone_id: Text = sdk("Availability zone, as in us-west-2a; auto lets the platform choose.")
    instance_profile_arn: Text = sdk("Instance profile of the nodes, registered with the workspace.")
    spot_bid_price_percent: Int = sdk("Highest bid, relative to the on-demand price.", default="100", unit="percent")
    ebs_volume_type: Text = sdk("GENERAL_PURPOSE_SSD or THROUGHPUT_OPTIMIZED_HDD.")
    ebs_volume_count: Int = sdk("Volumes attached to each node, 0 to 10.")
    ebs_volume_size: Int = sdk("Size of each volume.", unit="GiB")
    ebs_volume_iops: Int = sdk("I/O operations per second of each gp3 volume.")
    ebs_volume_throughput: Int = sdk("Throughput of each gp3 volume.", unit="MiB per second")


class GcpAttributes(Structure):
    """How a cluster on Google Cloud gets its machines."""

    first_on_demand: Int = sdk("So many nodes, the driver first, are on-demand instances.")
    availability: Text = sdk("PREEMPTIBLE_GCP, ON_DEMAND_GCP or PREEMPTIBLE_WITH_FALLBACK_GCP.")
    zone_id: Text = sdk("Availability zone; HA balances over zones, AUTO lets the platform choose.")
    google_service_account: Text = sdk("Service account that the nodes act as.")
    boot_disk_size: Int = sdk("Boot disk of each node.", unit="GB")
    local_ssd_count: Int = sdk("Local SSDs of each node, 0 to 8.")
    use_preemptible_executors: Bool = sdk("Whether workers are preemptible (deprecated: availability).")
    confidential_compute_type: Text = sdk("SEV_SNP, or CONFIDENTIAL_COMPUTE_TYPE_NONE.")


class DockerBasicAuth(Structure):
    """Credentials for a container registry."""

    username: Text = sdk("Name of the user.")
    password: Text = sdk("Password of the user: a secret.", secret=True)


class DockerImage(Structure):
    """The container image of a cluster of Databricks Container Services."""

    url: Text = sdk("Address of the image.")
    basic_auth: One["DockerBasicAuth"] = sdk("Credentials for its registry.", secret=True)


class ClientsTypes(Structure):
    """Which kinds of workload a cluster takes."""

    jobs: Bool = sdk("Whether it runs jobs.")
    notebooks: Bool = sdk("Whether notebooks may be attached.")


class WorkloadType(Structure):
    """What a cluster may be used for."""

    clients: One["ClientsTypes"] = sdk("Which kinds of workload it takes. Required.")


class NodeTypeFlexibility(Structure):
    """Other node types to take where the wanted one is not to be had."""

    alternate_node_type_ids: Texts = sdk("Node types, the preferred one first.")
    aws_context_id: Text = sdk("Fleet context on AWS that the choice belongs to.")


class NewCluster(Structure):
    """A cluster that is made for one run and ends with it. Required: spark_version, and a node type or pool."""

    num_workers: Int = seed("Workers beside the driver; 0 is the driver alone. Or give autoscale.")
    autoscale: One["AutoScale"] = seed("Bounds of its size. Or give num_workers.")
    spark_version: Text = seed("Runtime of the cluster, as in 15.4.x-scala2.12. Required.")
    spark_conf: Map = seed("Spark settings, by name.", secret=True)
    node_type_id: Text = seed("Machine type of the nodes; a pool or a policy may give it instead.")
    driver_node_type_id: Text = seed("Machine type of the driver.", default="node_type_id")
    custom_tags: Map = seed("Tags of the cloud resources, at most 45, beside the platform's own.")
    cluster_log_conf: One["ClusterLogConf"] = seed("Where Spark's logs are delivered.")
    init_scripts: Many["InitScriptInfo"] = seed("Scripts that run on each node at start, in this order.")
    spark_env_vars: Map = seed("Environment variables of driver and workers, by name. ASCII only.", secret=True)
    enable_elastic_disk: Bool = seed("Whether nodes get more disk when theirs fills up.")
    instance_pool_id: Text = seed("Pool from which nodes are taken.")
    driver_instance_pool_id: Text = seed("Pool of the driver; needs instance_pool_id.", default="instance_pool_id")
    azure_attributes: One["AzureAttributes"] = seed("How machines are got on Azure.")
    aws_attributes: One["AwsAttributes"] = sdk("How machines are got on AWS.")
    gcp_attributes: One["GcpAttributes"] = sdk("How machines are got on Google Cloud.")
    policy_id: Text = sdk("Cluster policy that the cluster must keep to.")
    apply_policy_default_values: Bool = sdk("Whether the policy's defaults fill what is left out.")
    cluster_name: Text = sdk("Name of the cluster; a job's clusters are named by the platform.")
    data_security_mode: Text = sdk("Access mode, as in SINGLE_USER or USER_ISOLATION.")
    single_user_name: Text = sdk("The one user, where the access mode is for one.")
    runtime_engine: Text = sdk("STANDARD or PHOTON.")
    docker_image: One["DockerImage"] = sdk("Container image of the nodes.")
    ssh_public_keys: Texts = sdk("Keys that may log in to the nodes, at most 10.")
    enable_local_disk_encryption: Bool = sdk("Whether local disks are encrypted.")
    workload_type: One["WorkloadType"] = sdk("What the cluster may be used for.")
    autotermination_minutes: Int = sdk("Idle time after which it ends; a job's cluster ends with the run.", unit="min")
    kind: Text = sdk("CLASSIC_PREVIEW, where the simple form (is_single_node, use_ml_runtime) is used.")
    is_single_node: Bool = sdk("Whether driver and worker are one node; only with kind.")
    use_ml_runtime: Bool = sdk("Whether the runtime for machine learning is taken; only with kind.")
    dependency_mode: Text = sdk("How libraries are isolated: a DEPENDENCY_MODE_... value.")
    driver_node_type_flexibility: One["NodeTypeFlexibility"] = sdk("Other machine types for the driver.")
    worker_node_type_flexibility: One["NodeTypeFlexibility"] = sdk("Other machine types for the workers.")
    remote_disk_throughput: Int = sdk("Throughput of remote disks.", unit="Mb per second")
    total_initial_remote_disk_size: Int = sdk("Remote disk of the whole cluster at start.", unit="GB")


class ClusterSpec(Structure):
    """The cluster of a 2.0 run, as a run tells it: one of the two, and its libraries."""

    existing_cluster_id: Text = seed("The all-purpose cluster that the run used.")
    new_cluster: One["NewCluster"] = seed("The cluster that was made for the run.")
    libraries: Many["Library"] = seed("Libraries that were installed.", default="none")


class ClusterInstance(Structure):
    """Which cluster and Spark context a run used; together they name an execution context for good."""

    cluster_id: Text = seed("The cluster; absent until there is one.")
    spark_context_id: Text = seed("The Spark context; absent until the run executes.")

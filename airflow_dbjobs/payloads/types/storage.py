"""Destinations of cluster logs and locations of init scripts."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, One, Text, sdk, v20


class ABFSSStorageInfo(TypedDict, total=False):
    """A file in Azure Data Lake Storage."""

    destination: Annotated[Text, v20("Address, such as abfss://container@account.dfs.core.windows.net/init.sh.")]


class DbfsStorageInfo(TypedDict, total=False):
    """A path in the Databricks file system."""

    destination: Annotated[Text, v20("The path, such as dbfs:/logs/nightly. Required.")]


class FileStorageInfo(TypedDict, total=False):
    """A file inside the container image; only for clusters of Databricks Container Services."""

    destination: Annotated[Text, v20("The file, such as file:/opt/init.sh.")]


class WorkspaceStorageInfo(TypedDict, total=False):
    """A file in the workspace."""

    destination: Annotated[Text, v20("Path of the file, such as /Users/someone@example.com/init.sh. Required.")]


class VolumesStorageInfo(TypedDict, total=False):
    """A path in a Unity Catalog volume."""

    destination: Annotated[Text, sdk("The path, such as /Volumes/main/default/scripts/init.sh. Required.")]


class GcsStorageInfo(TypedDict, total=False):
    """A file in Google Cloud Storage."""

    destination: Annotated[Text, sdk("Address of the file, such as gs://bucket/init.sh. Required.")]


class S3StorageInfo(TypedDict, total=False):
    """A path in Amazon S3, and how it is written."""

    destination: Annotated[Text, sdk("Address of the path, such as s3://bucket/logs. Required.")]
    region: Annotated[Text, sdk("Region of the bucket. Alternative: endpoint.")]
    endpoint: Annotated[Text, sdk("URL of the S3 service. Alternative: region.")]
    enable_encryption: Annotated[Bool, sdk("Whether to use server-side encryption. Default: false.")]
    encryption_type: Annotated[Text, sdk("Type of encryption: sse-s3 or sse-kms. Default: sse-s3.")]
    kms_key: Annotated[Text, sdk("The key, for encryption_type sse-kms.")]
    canned_acl: Annotated[Text, sdk("Canned ACL for the written objects, such as bucket-owner-full-control.")]


class ClusterLogConf(TypedDict, total=False):
    """Destination of Spark logs, which are delivered every five minutes; exactly one of the fields."""

    dbfs: Annotated[One["DbfsStorageInfo"], v20("A path in the Databricks file system.")]
    s3: Annotated[One["S3StorageInfo"], sdk("A path in Amazon S3, which the cluster's instance profile may write.")]
    volumes: Annotated[One["VolumesStorageInfo"], sdk("A path in a Unity Catalog volume.")]


class InitScriptInfo(TypedDict, total=False):
    """Location of an init script; exactly one of the fields."""

    workspace: Annotated[One["WorkspaceStorageInfo"], v20("A file in the workspace.")]
    abfss: Annotated[One["ABFSSStorageInfo"], v20("A file in Azure Data Lake Storage.")]
    dbfs: Annotated[One["DbfsStorageInfo"], v20("A file in the Databricks file system (deprecated).")]
    file: Annotated[One["FileStorageInfo"], v20("A file in the container image, with Databricks Container Services.")]
    gcs: Annotated[One["GcsStorageInfo"], sdk("A file in Google Cloud Storage.")]
    s3: Annotated[One["S3StorageInfo"], sdk("A file in Amazon S3.")]
    volumes: Annotated[One["VolumesStorageInfo"], sdk("A file in a Unity Catalog volume.")]

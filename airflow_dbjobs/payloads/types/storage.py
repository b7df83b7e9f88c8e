"""Where a cluster's logs go and where its init scripts come from."""

from typing import Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Bool, One, Text, sdk, v20


class ABFSSStorageInfo(TypedDict, total=False):
    """A file in Azure Data Lake Storage."""

    destination: Annotated[Text, v20("Address, as in abfss://container@account.dfs.core.windows.net/init.sh.")]


class DbfsStorageInfo(TypedDict, total=False):
    """A path in the Databricks file system."""

    destination: Annotated[Text, v20("The path, as in dbfs:/logs/nightly. Required.")]


class FileStorageInfo(TypedDict, total=False):
    """A file inside the container image; only for clusters of Databricks Container Services."""

    destination: Annotated[Text, v20("The file, as in file:/opt/init.sh.")]


class WorkspaceStorageInfo(TypedDict, total=False):
    """A file in the workspace."""

    destination: Annotated[Text, v20("Path of the file, as in /Users/someone@example.com/init.sh. Required.")]


class VolumesStorageInfo(TypedDict, total=False):
    """A path in a Unity Catalog volume."""

    destination: Annotated[Text, sdk("The path, as in /Volumes/main/default/scripts/init.sh. Required.")]


class GcsStorageInfo(TypedDict, total=False):
    """A file in Google Cloud Storage."""

    destination: Annotated[Text, sdk("Address of the file, as in gs://bucket/init.sh. Required.")]


class S3StorageInfo(TypedDict, total=False):
    """A path in Amazon S3, and how it is written."""

    destination: Annotated[Text, sdk("Address of the path, as in s3://bucket/logs. Required.")]
    region: Annotated[Text, sdk("Region of the bucket, where no endpoint is given.")]
    endpoint: Annotated[Text, sdk("Address of the S3 service, where no region is given.")]
    enable_encryption: Annotated[Bool, sdk("Whether what is written is encrypted by the server. Default: false.")]
    encryption_type: Annotated[Text, sdk("How it is encrypted: sse-s3 or sse-kms. Default: sse-s3.")]
    kms_key: Annotated[Text, sdk("The key, where encryption_type is sse-kms.")]
    canned_acl: Annotated[Text, sdk("Access list that is put on what is written, as in bucket-owner-full-control.")]


class ClusterLogConf(TypedDict, total=False):
    """Where Spark's logs are delivered, every five minutes; one destination only."""

    dbfs: Annotated[One["DbfsStorageInfo"], v20("A path in the Databricks file system.")]
    s3: Annotated[One["S3StorageInfo"], sdk("A path in Amazon S3, which the cluster's instance profile may write.")]
    volumes: Annotated[One["VolumesStorageInfo"], sdk("A path in a Unity Catalog volume.")]


class InitScriptInfo(TypedDict, total=False):
    """Where one init script lies; exactly one location."""

    workspace: Annotated[One["WorkspaceStorageInfo"], v20("A file in the workspace.")]
    abfss: Annotated[One["ABFSSStorageInfo"], v20("A file in Azure Data Lake Storage.")]
    dbfs: Annotated[One["DbfsStorageInfo"], v20("A file in the Databricks file system (deprecated).")]
    file: Annotated[One["FileStorageInfo"], v20("A file in the container image, with Databricks Container Services.")]
    gcs: Annotated[One["GcsStorageInfo"], sdk("A file in Google Cloud Storage.")]
    s3: Annotated[One["S3StorageInfo"], sdk("A file in Amazon S3.")]
    volumes: Annotated[One["VolumesStorageInfo"], sdk("A file in a Unity Catalog volume.")]

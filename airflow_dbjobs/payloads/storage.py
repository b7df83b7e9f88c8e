"""Where a cluster's logs go and where its init scripts come from."""

from airflow_dbjobs.payloads.kinds import Bool, One, Text
from airflow_dbjobs.payloads.structure import Structure, sdk, seed


class ABFSSStorageInfo(Structure):
    """A file in Azure Data Lake Storage."""

    destination: Text = seed("Address of the file, as in abfss://container@account.dfs.core.windows.net/init.sh.")


class DbfsStorageInfo(Structure):
    """A path in the Databricks file system."""

    destination: Text = seed("The path, as in dbfs:/logs/nightly. Required.")


class FileStorageInfo(Structure):
    """A file inside the container image; only for clusters of Databricks Container Services."""

    destination: Text = seed("The file, as in file:/opt/init.sh.")


class WorkspaceStorageInfo(Structure):
    """A file in the workspace."""

    destination: Text = seed("Path of the file, as in /Users/someone@example.com/init.sh. Required.")


class VolumesStorageInfo(Structure):
    """A path in a Unity Catalog volume."""

    destination: Text = sdk("The path, as in /Volumes/main/default/scripts/init.sh. Required.")


class GcsStorageInfo(Structure):
    """A file in Google Cloud Storage."""

    destination: Text = sdk("Address of the file, as in gs://bucket/init.sh. Required.")


class S3StorageInfo(Structure):
    """A path in Amazon S3, and how it is written."""

    destination: Text = sdk("Address of the path, as in s3://bucket/logs. Required.")
    region: Text = sdk("Region of the bucket, where no endpoint is given.")
    endpoint: Text = sdk("Address of the S3 service, where no region is given.")
    enable_encryption: Bool = sdk("Whether what is written is encrypted by the server.", default="false")
    encryption_type: Text = sdk("How it is encrypted: sse-s3 or sse-kms.", default="sse-s3")
    kms_key: Text = sdk("The key, where encryption_type is sse-kms.")
    canned_acl: Text = sdk("Access list that is put on what is written, as in bucket-owner-full-control.")


class ClusterLogConf(Structure):
    """Where Spark's logs are delivered, every five minutes; one destination only."""

    dbfs: One["DbfsStorageInfo"] = seed("A path in the Databricks file system.")
    s3: One["S3StorageInfo"] = sdk("A path in Amazon S3, which the cluster's instance profile may write.")
    volumes: One["VolumesStorageInfo"] = sdk("A path in a Unity Catalog volume.")


class InitScriptInfo(Structure):
    """Where one init script lies; exactly one location."""

    workspace: One["WorkspaceStorageInfo"] = seed("A file in the workspace.")
    abfss: One["ABFSSStorageInfo"] = seed("A file in Azure Data Lake Storage.")
    dbfs: One["DbfsStorageInfo"] = seed("A file in the Databricks file system (deprecated).")
    file: One["FileStorageInfo"] = seed("A file in the container image, with Databricks Container Services.")
    gcs: One["GcsStorageInfo"] = sdk("A file in Google Cloud Storage.")
    s3: One["S3StorageInfo"] = sdk("A file in Amazon S3.")
    volumes: One["VolumesStorageInfo"] = sdk("A file in a Unity Catalog volume.")

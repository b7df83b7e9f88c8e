"""The vendor's SDK, over HTTPS, with a server process: it uploads and runs what is here, and shows what is not."""

from __future__ import annotations

import base64
import io
import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from databricks.sdk import WorkspaceClient
from databricks.sdk.config import Config
from databricks.sdk.errors import (
    AlreadyExists,
    BadRequest,
    InvalidParameterValue,
    NotFound,
    OperationFailed,
    ResourceAlreadyExists,
    ResourceDoesNotExist,
)
from databricks.sdk.service import compute, jobs
from databricks.sdk.service.workspace import ExportFormat, ImportFormat, Language, ObjectType

from .support import TOKEN

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Start

BYTES = bytes(range(256)) * 10_000


@pytest.fixture
def sdk(start: Start, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[WorkspaceClient]:
    """Return a client that knows the server's certificate by the variable that the server prints."""
    _, client = start("--tls", announced=["Other clients trust it with REQUESTS_CA_BUNDLE="])
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(root / ".airflow_dbjobs" / "tls-certificate.pem"))
    config = Config(host=client.base_url, token=TOKEN, auth_type="pat", retry_timeout_seconds=20)
    client = WorkspaceClient(config=config)
    yield client
    client.api_client._api_client._session.close()


def test_notebooks_and_files(sdk: WorkspaceClient) -> None:
    workspace = sdk.workspace
    workspace.mkdirs("/etl/deep")
    workspace.upload("/etl/load", io.BytesIO(b"dbutils.notebook.exit('loaded')"), language=Language.PYTHON)
    workspace.upload("/etl/by_suffix.py", b"1")
    workspace.upload("/etl/query", b"select 1", language=Language.SQL)
    workspace.upload("/etl/data.bin", BYTES, format=ImportFormat.AUTO)
    cells = base64.b64encode(b'{"cells": []}').decode()
    workspace.import_("/etl/deep/book", format=ImportFormat.JUPYTER, content=cells)
    with pytest.raises(ResourceAlreadyExists, match="/etl/load already exists"):
        workspace.upload("/etl/load", b"1", language=Language.PYTHON)

    shown = {item.path: (item.object_type, item.language) for item in workspace.list("/", recursive=True)}
    assert shown == {
        "/etl/load": (ObjectType.NOTEBOOK, Language.PYTHON),
        "/etl/by_suffix": (ObjectType.NOTEBOOK, Language.PYTHON),
        "/etl/query": (ObjectType.NOTEBOOK, Language.SQL),
        "/etl/data.bin": (ObjectType.FILE, None),
        "/etl/deep/book": (ObjectType.NOTEBOOK, Language.PYTHON),
    }
    assert workspace.get_status("/etl").object_type is ObjectType.DIRECTORY
    assert workspace.download("/etl/data.bin").read() == BYTES
    assert workspace.download("/etl/load").read().startswith(b"# Databricks notebook source\n")
    assert workspace.export("/etl/deep/book", format=ExportFormat.JUPYTER).content == cells

    task = jobs.NotebookTask(notebook_path="/etl/load")
    run = sdk.jobs.submit(tasks=[jobs.SubmitTask(task_key="a", notebook_task=task, existing_cluster_id="c")]).result()
    assert sdk.jobs.get_run_output(run.tasks[0].run_id).notebook_output.result == "loaded"
    assert run.tasks[0].cluster_instance.cluster_id == "c"

    with pytest.raises(BadRequest, match="not empty"):
        workspace.delete("/etl")
    workspace.delete("/etl", recursive=True)
    with pytest.raises(ResourceDoesNotExist):
        workspace.get_status("/etl/load")


def test_for_each(sdk: WorkspaceClient) -> None:
    condition = jobs.ConditionTask(left="{{input}}", op=jobs.ConditionTaskOp.GREATER_THAN, right="50")
    each = jobs.ForEachTask(
        inputs=json.dumps([*range(100), "x"]), concurrency=20, task=jobs.Task(task_key="one", condition_task=condition)
    )
    with pytest.raises(OperationFailed):
        sdk.jobs.submit(run_name="loop", tasks=[jobs.SubmitTask(task_key="each", for_each_task=each)]).result()
    (run,) = (run for run in sdk.jobs.list_runs(expand_tasks=True) if run.run_name == "loop")
    (task,) = run.tasks
    stats = task.for_each_task.stats
    counts = stats.task_run_stats
    assert (counts.total_iterations, counts.succeeded_iterations, counts.failed_iterations) == (101, 100, 1)
    assert [(item.count, item.termination_category) for item in stats.error_message_stats] == [
        (1, "RUN_EXECUTION_ERROR")
    ]
    loop = sdk.jobs.get_run(task.run_id)
    assert [item.task_key for item in loop.tasks] == ["each"]
    assert [item.condition_task.outcome for item in loop.iterations] == ["false"] * 51 + ["true"] * 49 + [None]
    assert "could not convert" in sdk.jobs.get_run_output(loop.iterations[100].run_id).error


def test_dbfs(sdk: WorkspaceClient, root: Path) -> None:
    with sdk.dbfs.open("dbfs:/tmp/deep/data.bin", write=True) as file:
        file.write(BYTES)
    assert (root / "dbfs" / "tmp" / "deep" / "data.bin").read_bytes() == BYTES
    with sdk.dbfs.open("/tmp/deep/data.bin", read=True) as file:
        assert file.read() + file.read() + file.read() == BYTES
    with pytest.raises(ResourceAlreadyExists):
        sdk.dbfs.upload("/tmp/deep/data.bin", io.BytesIO(b"1"))
    sdk.dbutils.fs.put("dbfs:/tmp/text", "hello", overwrite=True)
    assert sdk.dbutils.fs.head("dbfs:/tmp/text") == "hello"
    sdk.dbfs.move("/tmp/text", "/moved")
    assert [(item.path, item.is_dir, item.file_size) for item in sdk.dbfs.list("/")] == [
        ("/moved", False, 5),
        ("/tmp", True, 0),
    ]
    sdk.dbfs.delete("/tmp", recursive=True)
    assert not sdk.dbfs.exists("/tmp")
    with pytest.raises(InvalidParameterValue, match="outside the root folder"):
        sdk.dbfs.get_status("/../.airflow_dbjobs/token")


def test_volumes(sdk: WorkspaceClient, root: Path, tmp_path: Path) -> None:
    path = "/Volumes/main/default/raw/a folder/ü?#%25.bin"
    sdk.files.upload(path, io.BytesIO(BYTES))
    assert (root / path[1:]).read_bytes() == BYTES
    assert sdk.files.download(path).contents.read() == BYTES
    sdk.files.download_to(path, str(tmp_path / "copy"))
    assert (tmp_path / "copy").read_bytes() == BYTES
    assert sdk.files.get_metadata(path).content_length == len(BYTES)
    with pytest.raises(AlreadyExists):
        sdk.files.upload(path, io.BytesIO(b"1"), overwrite=False)
    sdk.files.create_directory("/Volumes/main/default/raw/empty")
    shown = sdk.files.list_directory_contents("/Volumes/main/default/raw")
    assert [(item.name, item.is_directory) for item in shown] == [("a folder", True), ("empty", True)]
    with pytest.raises(BadRequest, match="not empty"):
        sdk.files.delete_directory("/Volumes/main/default/raw")
    sdk.files.delete(path)
    sdk.files.delete_directory("/Volumes/main/default/raw/a folder")
    for call in (sdk.files.get_metadata, sdk.files.get_directory_metadata, sdk.files.download):
        with pytest.raises(NotFound):
            call(path)


def test_clusters_libraries_and_what_is_not_here(sdk: WorkspaceClient) -> None:
    clusters = sdk.clusters
    assert [cluster.cluster_id for cluster in clusters.list()] == ["local-cluster"]
    assert "Made up by the local workspace" in clusters.get("any").state_message
    assert clusters.select_spark_version(long_term_support=True)
    assert clusters.select_node_type(local_disk=True) == "local"
    assert clusters.list_zones().default_zone == "local"
    assert clusters.create(spark_version="x", num_workers=1).result().state is compute.State.RUNNING
    assert clusters.delete("any").result().state is compute.State.TERMINATED
    clusters.ensure_cluster_is_running("any")
    assert clusters.get("any").state is compute.State.RUNNING
    assert list(clusters.events("any")) == []
    sdk.libraries.install("any", [compute.Library(pypi=compute.PythonPyPiLibrary("numpy"))])
    assert list(sdk.libraries.cluster_status("any")) == list(sdk.libraries.all_cluster_statuses()) == []
    assert sdk.current_user.me().user_name
    with pytest.raises(NotFound, match=r"does not serve GET /api/2.0/sql/warehouses\. It serves jobs/\*"):
        list(sdk.warehouses.list())


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_uploads_forms(start: Start, root: Path, tmp_path: Path) -> None:
    _, client = start("--tls")
    (tmp_path / "data").write_bytes(BYTES)
    curl = ["curl", "-sS", "--fail-with-body", "--cacert", str(root / ".airflow_dbjobs" / "tls-certificate.pem")]
    curl += ["-H", f"Authorization: Bearer {TOKEN}"]
    form = ["-F", "path=/big", "-F", f"contents=@{tmp_path / 'data'}", "-F", "overwrite=true"]
    url = f"{client.base_url.replace('127.0.0.1', 'localhost')}/api/2.0/dbfs/put"
    subprocess.run([*curl, url, *form], check=True, timeout=20)
    assert (root / "dbfs" / "big").read_bytes() == BYTES
    untrusted = subprocess.run(["curl", "-sS", url], check=False, timeout=20, capture_output=True, text=True)
    assert "self-signed certificate" in untrusted.stderr

"""client.workspace_files: notebooks that are stored in a workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from injected_clock import Clock

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.workspace_files import home_folder, import_notebook
from airflow_dbjobs.errors import NotFound, PermissionDenied, UnreadableReply
from airflow_dbjobs.local_workspace import Fault

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

IMPORT, MKDIRS = "/api/2.0/workspace/import", "/api/2.0/workspace/mkdirs"
EXISTS = {"error_code": "RESOURCE_ALREADY_EXISTS", "message": "Node named 'hello' already exists"}
DENIED = {"error_code": "PERMISSION_DENIED", "message": "You may not edit /Shared."}


class TestImportNotebook:
    def test_makes_the_folders_above_it_once(
        self, workspace: LocalWorkspace, client: JobsClient, tmp_path: Path
    ) -> None:
        for source in ("1", "2"):
            import_notebook(client, "/Users/me/dags/hello", source)
            assert (tmp_path / "workspace/Users/me/dags/hello.py").read_text().splitlines()[1:] == [source]
        assert (workspace.requests[IMPORT], workspace.requests[MKDIRS]) == (3, 1)

    def test_is_repeated_after_a_lost_reply_or_a_rate_limit(
        self, workspace: LocalWorkspace, client: JobsClient, tmp_path: Path
    ) -> None:
        workspace.faults += [Fault(IMPORT, cut="after"), Fault(IMPORT, status=429, headers={"Retry-After": "1"})]
        Clock().rule(client)
        import_notebook(client, "/hello", "1")
        assert workspace.requests[IMPORT] == 3
        assert (tmp_path / "workspace/hello.py").is_file()

    def test_is_content_with_what_another_task_has_just_stored(
        self, workspace: LocalWorkspace, client: JobsClient
    ) -> None:
        workspace.faults.append(Fault(IMPORT, status=400, body=EXISTS))
        import_notebook(client, "/hello", "1")
        assert workspace.requests[IMPORT] == 1

    def test_passes_refusals_on(self, workspace: LocalWorkspace, client: JobsClient) -> None:
        workspace.faults.append(Fault(IMPORT, status=403, body=DENIED))
        with pytest.raises(PermissionDenied, match="You may not edit"):
            import_notebook(client, "/Shared/hello", "1")
        workspace.faults.append(Fault(IMPORT, status=404, body={"error_code": "RESOURCE_DOES_NOT_EXIST"}, times=2))
        with pytest.raises(NotFound):
            import_notebook(client, "/Shared/hello", "1")


class TestHomeFolder:
    def test_is_that_of_the_caller(self, client: JobsClient) -> None:
        me = client.transport.send("GET", "2.0/preview/scim/v2/Me")["userName"]
        assert home_folder(client) == f"/Users/{me}"

    def test_needs_a_name(self, workspace: LocalWorkspace, client: JobsClient) -> None:
        workspace.faults.append(Fault("*/Me", status=200, body={"id": "1"}))
        with pytest.raises(UnreadableReply, match="no userName"):
            home_folder(client.with_policy(RetryPolicy(retry_budget=0)))

"""Notebooks and folders of a workspace, by the Workspace API 2.0.

Source: https://docs.databricks.com/api/workspace/workspace.
"""

from __future__ import annotations

import base64
from contextlib import suppress
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import Conflict, NotFound, UnreadableReply

if TYPE_CHECKING:
    from airflow_dbjobs.client.workspace import Workspace


def home_folder(client: Workspace) -> str:
    """Return the folder of the client's user or service principal, which only that identity and admins can read."""
    name = client.transport.call("GET", "2.0/preview/scim/v2/Me", repeatable=True).get("userName")
    if not isinstance(name, str) or not name:
        raise UnreadableReply("GET 2.0/preview/scim/v2/Me returned no userName")
    return f"/Users/{name}"


def import_notebook(client: Workspace, path: str, source: str) -> None:
    """Store a Python notebook at `path`, with the folders above it, in place of what is there."""
    try:
        _import(client, path, source)
    except NotFound:
        # One of the folders is missing.
        folder = path.rpartition("/")[0]
        client.transport.call("POST", "2.0/workspace/mkdirs", body={"path": folder}, repeatable=True, void=True)
        _import(client, path, source)


def _import(client: Workspace, path: str, source: str) -> None:
    content = base64.b64encode(source.encode()).decode()
    body = {"path": path, "format": "SOURCE", "language": "PYTHON", "content": content, "overwrite": True}
    # In spite of `overwrite`, the API may refuse one of two simultaneous imports: the other has stored the notebook.
    with suppress(Conflict):
        client.transport.call("POST", "2.0/workspace/import", body=body, repeatable=True, void=True)

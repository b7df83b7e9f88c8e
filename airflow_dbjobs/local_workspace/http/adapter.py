"""A transport for `requests` that reaches a workspace in the same process: no socket, no waiting."""

from __future__ import annotations

import http.client
import io
import urllib.parse
from typing import TYPE_CHECKING

import requests
from requests.adapters import BaseAdapter
from requests.structures import CaseInsensitiveDict

from airflow_dbjobs.local_workspace.messages import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.local_workspace.workspace import LocalWorkspace


class WorkspaceAdapter(BaseAdapter):
    """Mount it on a session for the workspace's `base_url`.

    A cut connection raises `requests.exceptions.ConnectionError`. A reply that is later than the timeout raises
    `ReadTimeout` at once, and one that is less late comes at once: time does not pass here.
    """

    def __init__(self, workspace: LocalWorkspace) -> None:
        super().__init__()
        self._workspace = workspace

    def send(  # noqa: PLR0917 - the signature of the base class
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - nothing to apply it to, as below
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,  # noqa: ARG002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> requests.Response:
        """Return the workspace's reply."""
        url = urllib.parse.urlsplit(request.url or "")
        body = request.body or b""
        reply = self._workspace.handle(
            Request(
                method=request.method or "GET",
                path=urllib.parse.unquote(str(url.path)),
                query=dict(urllib.parse.parse_qsl(str(url.query), keep_blank_values=True)),
                headers={name.lower(): str(value) for name, value in request.headers.items()},
                body=body if isinstance(body, bytes) else str(body).encode(),
            )
        )
        patience = timeout[1] if isinstance(timeout, tuple) else timeout
        if patience is not None and reply.delay > patience:
            raise requests.exceptions.ReadTimeout(f"no reply within {patience} s (fault)", request=request)
        if reply.cut:
            raise requests.exceptions.ConnectionError("connection dropped (fault)", request=request)
        response = requests.Response()
        response.status_code = reply.status
        response.reason = http.client.responses.get(reply.status, "")
        response.headers = CaseInsensitiveDict(reply.headers)
        response.encoding = requests.utils.get_encoding_from_headers(response.headers)
        response.raw = io.BytesIO(reply.body)
        response.url = request.url or ""
        response.request = request
        return response

    def close(self) -> None:
        """Do nothing: the workspace is closed by whoever opened it."""

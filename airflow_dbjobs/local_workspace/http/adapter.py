"""A transport for `requests` that calls a workspace in the same process: no socket, and no real delays."""

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

    from airflow_dbjobs.local_workspace.messages import Handler


class WorkspaceAdapter(BaseAdapter):
    """Mount it on a session for the workspace's `base_url`.

    A cut connection raises `requests.exceptions.ConnectionError`. Delays take no time: a reply that is later than the
    request's timeout raises `ReadTimeout` immediately, and any other reply is returned immediately.

    :param handler: The workspace.
    """

    def __init__(self, handler: Handler) -> None:
        super().__init__()
        self._handler = handler

    def send(  # noqa: PLR0917 - the signature of the base class
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: ARG002 - has no meaning here, nor have the others
        timeout: float | tuple[float, float] | tuple[float, None] | None = None,
        verify: bool | str = True,  # noqa: ARG002
        cert: bytes | str | tuple[bytes | str, bytes | str] | None = None,  # noqa: ARG002
        proxies: Mapping[str, str] | None = None,  # noqa: ARG002
    ) -> requests.Response:
        """Return the workspace's reply."""
        url = urllib.parse.urlsplit(request.url or "")
        body = request.body or b""
        reply = self._handler.handle(
            Request(
                method=request.method or "GET",
                path=urllib.parse.unquote(str(url.path)),
                query=dict(urllib.parse.parse_qsl(str(url.query), keep_blank_values=True)),
                headers={name.lower(): str(value) for name, value in request.headers.items()},
                body=body if isinstance(body, bytes) else str(body).encode(),
            )
        )
        read_timeout = timeout[1] if isinstance(timeout, tuple) else timeout
        if read_timeout is not None and reply.delay > read_timeout:
            raise requests.exceptions.ReadTimeout(f"no reply within {read_timeout} s (fault)", request=request)
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
        """Do nothing: closing a session does not close the workspace."""

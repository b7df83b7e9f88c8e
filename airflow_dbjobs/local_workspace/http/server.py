"""Serves a workspace on a loopback socket, with Starlette and uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from typing import TYPE_CHECKING, Any

import starlette.requests
import uvicorn
from starlette.concurrency import run_in_threadpool
from starlette.responses import PlainTextResponse, Response
from uvicorn.protocols.http.h11_impl import H11Protocol

from airflow_dbjobs.local_workspace.messages import ApiError, Reply, Request
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError

from .routes import body_limit

if TYPE_CHECKING:
    from pathlib import Path

    from starlette.types import Receive, Scope, Send

    from airflow_dbjobs.local_workspace.messages import Handler

#: The addresses that the server can listen on. Not all of 127.0.0.0/8, as requests must use one of the names below.
_HOSTS = {
    "127.0.0.1": (socket.AF_INET, "127.0.0.1"),
    "localhost": (socket.AF_INET, "127.0.0.1"),
    "::1": (socket.AF_INET6, "::1"),
}
#: The host names that requests may use.
_LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})


def bind(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 means any free one.

    :raises WorkspaceError: The host is not a loopback address, or the port cannot be used.
    """
    if host not in _HOSTS:
        names = ", ".join(_HOSTS)
        raise WorkspaceError(
            f"{host} is not one of {names}. The workspace runs code, so only this machine may connect to it."
        )
    family, numeric = _HOSTS[host]
    with contextlib.ExitStack() as on_failure:
        try:
            # asyncio disables Nagle's algorithm, which delays replies by 40 ms, only for sockets with an explicit
            # protocol.
            listener = on_failure.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
            # A restarted server must not wait for the old one's connections to leave TIME_WAIT.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((numeric, port))
            listener.listen(512)
        except (OSError, OverflowError) as error:
            reason = error.strerror if isinstance(error, OSError) else "not between 0 and 65535"
            raise WorkspaceError(f"Port {port} of {host} cannot be used ({reason}); try --port 0.") from None
        on_failure.pop_all()
    return listener


def address(listener: socket.socket) -> tuple[str, int]:
    """Return the host (in brackets if it is IPv6, as in URLs) and the port of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"[{host}]" if ":" in host else host, port


def url(listener: socket.socket, *, tls: bool = False) -> str:
    """Return the URL of a listening socket."""
    host, port = address(listener)
    return f"{'https' if tls else 'http'}://{host}:{port}"


def serve(handler: Handler, listener: socket.socket, certificate: tuple[Path, Path] | None = None) -> None:
    """Serve requests on `listener` until SIGTERM or SIGINT, by TLS if there are a certificate and its key."""
    # uvicorn raises the signal again after its shutdown; these handlers let it return instead.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: None)
    config = uvicorn.Config(
        _App(handler),
        http=_Connection,
        ws="none",
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        ssl_certfile=certificate[0] if certificate else None,
        ssl_keyfile=certificate[1] if certificate else None,
        # The workspace sets the Date header, from its own clock.
        date_header=False,
        # A reply that a fault delays must not delay the shutdown.
        timeout_graceful_shutdown=1,
        # As load balancers do, so that clients that poll every ten seconds can reuse their connection.
        timeout_keep_alive=60,
    )
    uvicorn.Server(config).run(sockets=[listener])


class _Connection(H11Protocol):
    """A connection that the app can look up by its client's address, in order to drop it."""

    open_transports: dict[tuple[str, int], asyncio.Transport] = {}  # noqa: RUF012 - shared by all connections

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
        super().connection_made(transport)
        if self.client:
            self.open_transports[self.client] = transport

    def connection_lost(self, exc: Exception | None) -> None:
        if self.client:
            self.open_transports.pop(self.client, None)
        super().connection_lost(exc)

    def shutdown(self) -> None:
        super().shutdown()
        # TLS ends when both sides have said so, and clients that are idle do not.
        if self.transport.is_closing() and self.transport.get_extra_info("ssl_object"):
            self.transport.abort()


class _App:
    """The ASGI application."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or drop its connection."""
        request = starlette.requests.Request(scope, receive)
        # A web page could point its own host name at this machine (DNS rebinding); its requests carry that name.
        host = request.headers.get("host", "")
        if host.rpartition(":")[0] not in _LOOPBACK_NAMES and host not in _LOOPBACK_NAMES:
            await PlainTextResponse(f"This server is not {host!r}.\n", 403)(scope, receive, send)
            return
        try:
            reply = await self._reply(request)
        except starlette.requests.ClientDisconnect:
            return
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.cut:
            # There is none if the client has already disconnected.
            if transport := _Connection.open_transports.get(scope["client"]):
                transport.abort()
            await _disconnected(receive)
            return
        response = Response(reply.body, reply.status, dict(reply.headers))
        await response(scope, receive, send)

    async def _reply(self, request: starlette.requests.Request) -> Reply:
        body = bytearray()
        # Not `request.url.path`, which ends at a question mark in the name of a file.
        path: str = request.scope["path"]
        limit = body_limit(path)
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                message = f"The body is larger than {limit} bytes."
                return ApiError(message, code="MALFORMED_REQUEST").reply()
        return await run_in_threadpool(
            self._handler.handle,
            Request(
                method=request.method,
                path=path,
                query=dict(request.query_params),
                headers=dict(request.headers),
                body=bytes(body),
            ),
        )


async def _disconnected(receive: Receive) -> None:
    """Wait until uvicorn has noticed that the connection is closed, so that it does not try to reply."""
    message: Any = {"type": "http.request"}
    while message["type"] != "http.disconnect":
        message = await receive()

"""Connections that keep to the time of a whole call, and know whether its request has left.

A socket's timeout is that of one read, so that a server which sends a byte now and then, or one interim response after
the other, holds a caller for ever. Here each read and write gets what is left of the call's time.
"""

from __future__ import annotations

import http.client
import io
import socket
import time
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536


class Wire:
    """What a connection knows of the call that it is used for: until when it may take, and whether the request left.

    With `tells` False nobody takes note of the latter, and it counts as sent.
    """

    _leaving: Callable[[], object]

    def __init__(self, *, tells: bool = True) -> None:
        self._tells = tells
        self._until = self._read_seconds = 0.0
        self.sent = False

    def begin(self, read_seconds: float, total_seconds: float, leaving: Callable[[], object] = lambda: None) -> None:
        """Begin a call. `leaving` is called just before its request leaves, which what it raises prevents."""
        self.sent = False
        self._leaving = leaving
        # Real time, whatever the caller's clock is: that is what a socket waits in.
        self._until = time.monotonic() + total_seconds
        self._read_seconds = read_seconds
        if not self._tells:
            self.leave()

    def leave(self) -> None:
        """Take note that the request leaves."""
        self._leaving()
        self.sent = True
        self._until = min(self._until, time.monotonic() + self._read_seconds)

    @property
    def left(self) -> float:
        """The seconds that are left. Raises TimeoutError where there are none."""
        if (left := self._until - time.monotonic()) <= 0:
            raise TimeoutError
        return left


class TimedAdapter(HTTPAdapter):
    """Sends requests, one at a time, over connections that keep to the time of the whole call."""

    def __init__(self) -> None:
        self.wire = Wire()
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return a pool, directly or by a proxy, whose connections are timed."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _TimedConnection):
            pool.ConnectionCls = type("TimedConnection", (_TimedConnection, pool.ConnectionCls), {"wire": self.wire})
        return pool


class _TimedConnection:
    """What is different in a connection of urllib3's, of whatever class."""

    wire: Wire
    sock: Any

    def _new_conn(self: Any) -> Any:
        """Connect; all addresses of a name have together the time that urllib3 gives each of them."""
        if hasattr(self, "_socks_options"):
            return super()._new_conn()  # type: ignore[misc] # of urllib3's class
        until = time.monotonic() + min(self.timeout, self.wire.left)
        try:
            found = dict.fromkeys(
                address[0] for *_, address in socket.getaddrinfo(self._dns_host, self.port, type=socket.SOCK_STREAM)
            )
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        failure: Exception = OSError("its name has no address")
        for tried, address in enumerate(found):
            share = max(until - time.monotonic(), 0.01) / (len(found) - tried)
            try:
                sock = create_connection((str(address), self.port), share, self.source_address, self.socket_options)
            except TimeoutError:
                failure = ConnectTimeoutError(self, "not in time")
            except OSError as error:
                failure = NewConnectionError(self, str(error))
            else:
                # That is what a TLS handshake may take.
                sock.settimeout(max(until - time.monotonic(), 0.01))
                return sock
        raise failure

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Connect where that is still to be done, by way of a proxy too, and then send the request."""
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined] # of urllib3's class
        self.wire.leave()
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send in pieces: each TLS record would have the whole timeout."""
        if self.sock is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
            return
        for start in range(0, len(data), _CHUNK):
            self.sock.settimeout(self.wire.left)
            super().send(data[start : start + _CHUNK])  # type: ignore[misc]

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _TimedResponse:
        """Return a response that reads from a socket; of a proxy's answer to CONNECT, too."""
        timed: Any = _TimedSocket(sock, self.wire)
        return _TimedResponse(timed, *args, **kwargs)


class _TimedResponse(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the status and the headers; interim responses, Early Hints among them, are passed over."""
        super().begin()
        while self.status in range(100, 200) and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment] # as before the first
            super().begin()
        # urllib3 would log what it finds wrong in them, and quote it.
        self.headers.defects.clear()
        self.headers.set_payload("")


class _TimedSocket:
    """What http.client wants of a socket to read from."""

    def __init__(self, sock: Any, wire: Wire) -> None:
        self._sock = sock
        self._wire = wire

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(_TimedReader(self._sock, self._wire))


class _TimedReader(io.RawIOBase):
    def __init__(self, sock: Any, wire: Wire) -> None:
        self._sock = sock
        self._wire = wire
        self._raw = sock.makefile("rb", buffering=0)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._wire.left)
        count: int | None = self._raw.readinto(buffer)
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()

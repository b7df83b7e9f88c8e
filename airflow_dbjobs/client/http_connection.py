"""HTTP connections with a time limit for the whole call, which record whether the request was sent.

A socket's timeout limits a single read. A server that sends a byte now and then, or one interim response after another,
could therefore block the caller forever. Here the timeout of each read and write is the time left for the call.
"""

from __future__ import annotations

import http.client
import io
import socket
import threading
import time
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.exceptions import ConnectTimeoutError, NameResolutionError, NewConnectionError
from urllib3.util.connection import create_connection

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK = 65536


class CallTimer:
    """The time limit of the call that uses a connection, and whether its request was sent."""

    _on_send: Callable[[], object]

    def __init__(self) -> None:
        self.deadline = self._read_seconds = 0.0
        self.sent = False

    def begin(self, read_seconds: float, total_seconds: float, on_send: Callable[[], object] = lambda: None) -> None:
        """Begin a call. `on_send` is called immediately before its request is sent, and prevents that by raising."""
        self.sent = False
        self._on_send = on_send
        # Real time even if the caller has a test clock: sockets wait in real time.
        self.deadline = time.monotonic() + total_seconds
        self._read_seconds = read_seconds

    def mark_sent(self) -> None:
        """Record that the request is about to be sent, and start the time limit of the reply."""
        self._on_send()
        self.sent = True
        self.deadline = min(self.deadline, time.monotonic() + self._read_seconds)

    @property
    def left(self) -> float:
        """The seconds that are left. Raises TimeoutError if there are none."""
        if (left := self.deadline - time.monotonic()) <= 0:
            raise TimeoutError
        return left


class TimedAdapter(HTTPAdapter):
    """Sends requests, one at a time, over connections with a time limit for the whole call."""

    def __init__(self) -> None:
        self.timer = CallTimer()
        super().__init__(pool_connections=1, pool_maxsize=1)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        """Return a pool of timed connections, to the server or to a proxy."""
        pool: Any = super().get_connection_with_tls_context(*args, **kwargs)
        if not issubclass(pool.ConnectionCls, _TimedConnection):
            pool.ConnectionCls = type("TimedConnection", (_TimedConnection, pool.ConnectionCls), {"timer": self.timer})
        return pool


def connect(host: str, port: int, deadline: float, source_address: Any = None, options: Any = None) -> socket.socket:
    """Connect to a server before `deadline` (monotonic seconds); return the socket, its timeout the time left.

    Raises OSError for the last address tried, TimeoutError at the deadline, or gaierror if there is no address.
    """

    def left() -> float:
        return max(deadline - time.monotonic(), 0.01)

    found = _addresses(host, port, left())
    failure = OSError("its name has no address")
    for tried, address in enumerate(found):
        try:
            sock = create_connection((address, port), left() / (len(found) - tried), source_address, options)
        except OSError as error:
            failure = error
        else:
            sock.settimeout(left())
            return sock
    raise failure


def _addresses(host: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a host. Raises TimeoutError if the lookup takes longer than `seconds`.

    The lookup runs in a thread of its own: if no name server responds, it takes minutes and delays all signals.
    """
    answer: Future[list[Any]] = Future()

    def look_up() -> None:
        try:
            answer.set_result(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 (the waiting thread raises it)
            answer.set_exception(error)

    try:
        threading.Thread(target=look_up, name="airflow_dbjobs-name", daemon=True).start()
    except RuntimeError:
        raise OSError("cannot start a thread to look up its name (system limit reached)") from None
    return list(dict.fromkeys(str(address[0]) for *_, address in answer.result(seconds)))


class _TimedConnection:
    """A mixin for any connection class of urllib3, which adds the time limits."""

    timer: CallTimer
    sock: Any

    def _new_conn(self: Any) -> Any:
        """Connect within one timeout for all addresses of a name; urllib3 allows each address the whole timeout."""
        if hasattr(self, "_socks_options"):
            return super()._new_conn()  # type: ignore[misc] # of urllib3's class
        deadline = time.monotonic() + min(self.timeout, self.timer.left)
        try:
            return connect(self._dns_host, self.port, deadline, self.source_address, self.socket_options)
        except socket.gaierror as error:
            raise NameResolutionError(self.host, self, error) from error
        except TimeoutError:
            raise ConnectTimeoutError(self, "timed out") from None
        except OSError as error:
            raise NewConnectionError(self, str(error)) from None

    def endheaders(self, *args: Any, **kwargs: Any) -> None:
        """Connect unless connected, possibly through a proxy, and then send the request."""
        if self.sock is None:
            self.connect()  # type: ignore[attr-defined] # of urllib3's class
        self.timer.mark_sent()
        super().endheaders(*args, **kwargs)  # type: ignore[misc]

    def send(self, data: Any) -> None:
        """Send in chunks, each with the time left: within one call, each TLS record would get the whole timeout."""
        if self.sock is None or not isinstance(data, bytes):
            super().send(data)  # type: ignore[misc]
            return
        for start in range(0, len(data), _CHUNK):
            self.sock.settimeout(self.timer.left)
            super().send(data[start : start + _CHUNK])  # type: ignore[misc]

    def response_class(self, sock: Any, *args: Any, **kwargs: Any) -> _TimedResponse:
        """Return a response that reads from a socket; also used for a proxy's reply to CONNECT."""
        response = _TimedResponse(sock, *args, **kwargs)
        response.fp = io.BufferedReader(_TimedReader(sock, response.fp.detach(), self.timer))
        return response


class _TimedResponse(http.client.HTTPResponse):
    def begin(self) -> None:
        """Read the status and the headers; skip interim responses such as Early Hints."""
        super().begin()
        while self.status in range(100, 200) and self.status != http.client.SWITCHING_PROTOCOLS:
            self.headers = self.msg = None  # type: ignore[assignment] # as at the start
            super().begin()
        # urllib3 would log defective headers and quote them.
        self.headers.defects.clear()
        self.headers.set_payload("")


class _TimedReader(io.RawIOBase):
    """Reads from a file of a socket, each time with the time left."""

    def __init__(self, sock: Any, raw: io.RawIOBase, timer: CallTimer) -> None:
        self._sock = sock
        self._raw = raw
        self._timer = timer

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._sock.settimeout(self._timer.left)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        self._raw.close()
        super().close()

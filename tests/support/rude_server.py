"""A server on the loopback interface that answers each request with bytes of a test's own, however wrong they are."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    # The pieces of an answer to a request, which may never end.
    Answer = Callable[[str], Iterable[bytes]]


def reply(
    body: object = None, *, status: str = "200 OK", headers: Iterable[str] = (), raw: bytes | None = None
) -> bytes:
    """Return a whole HTTP reply."""
    content = json.dumps({} if body is None else body).encode() if raw is None else raw
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(content)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + content


class RudeServer:
    """Answers by `answer`; `requests` are the heads and bodies that came, `connections` how many were accepted.

    One that does not listen refuses connections.
    """

    def __init__(self, answer: Answer, *, listens: bool = True) -> None:
        self.answer = answer
        self.requests: list[str] = []
        self.connections = 0
        self.ended = threading.Event()
        self._listener = _bound(0)
        self._open: list[socket.socket] = []
        self._serving: list[threading.Thread] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        if listens:
            self.listen()

    def listen(self) -> None:
        self._listener.listen()
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def refuse(self) -> None:
        """Accept no connection until `listen` is called."""
        port = self._listener.getsockname()[1]
        # Which ends the accepting.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._listener = _bound(port)

    def is_left(self, seconds: float = 10.0) -> bool:
        """Whether the other side has closed all its connections, or does within so many seconds."""
        until = time.monotonic() + seconds
        for thread in self._serving:
            thread.join(max(until - time.monotonic(), 0.0))
        return not any(thread.is_alive() for thread in self._serving)

    def drip(self, pieces: bytes, seconds: float = 0.02) -> Iterator[bytes]:
        """Yield a byte at a time, and then the last one for ever."""
        yield from (pieces[at : at + 1] for at in range(len(pieces)))
        while not self.ended.wait(seconds):
            yield pieces[-1:]

    def close(self) -> None:
        self.ended.set()
        self._listener.close()
        for connection in self._open:
            connection.close()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                self.connections += 1
                self._open.append(connection)
                self._serving.append(threading.Thread(target=self._serve, args=(connection,), daemon=True))
                self._serving[-1].start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection, connection.makefile("rb") as incoming:
            while (request := _request(incoming)) and not self.ended.is_set():
                self.requests.append(request)
                for piece in self.answer(request):
                    connection.sendall(piece)


@contextmanager
def serving(answer: Answer | bytes) -> Iterator[RudeServer]:
    """Serve for the time of a test; bytes are the answer to each request."""
    server = RudeServer((lambda _: [answer]) if isinstance(answer, bytes) else answer)
    try:
        yield server
    finally:
        server.close()


def _bound(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    return listener


def _request(incoming: BinaryIO) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = incoming.readline()
        if not line:
            return ""
        head += line
    length = re.search(rb"(?i)content-length: (\d+)", head)
    return (head + incoming.read(int(length[1]) if length else 0)).decode("latin-1")

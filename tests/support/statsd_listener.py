"""A StatsD server for a test: it keeps what Airflow's processes send."""

from __future__ import annotations

import socket
import threading
from collections import defaultdict
from contextlib import suppress
from typing import Self


class StatsdListener:
    """Receives StatsD packets on loopback, in a thread, between `with` and the end of its block."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._values: defaultdict[str, list[str]] = defaultdict(list)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # An empty packet ends the thread.
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as farewell:
            farewell.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    @property
    def settings(self) -> dict[str, str]:
        """Airflow's settings for sending its metrics here."""
        host, port = self._socket.getsockname()
        return {"metrics.statsd_on": "True", "metrics.statsd_host": host, "metrics.statsd_port": str(port)}

    def values(self, name: str) -> list[str]:
        """Return what was sent under a name so far, such as ``3|g``."""
        return list(self._values.get(name, ()))

    def _receive(self) -> None:
        while packet := self._socket.recv(65536):
            for line in packet.decode().splitlines():
                with suppress(ValueError):
                    name, value = line.split(":", 1)
                    self._values[name].append(value)

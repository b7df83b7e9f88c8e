"""What a poller measures of itself; docs/scaling.md lists the names and units under "Metrics"."""

from __future__ import annotations

import logging
from typing import Literal, Protocol

log = logging.getLogger(__name__)

Kind = Literal["count", "gauge", "timing"]


class Metrics(Protocol):
    """Receives measurements."""

    def __call__(self, kind: Kind, name: str, value: float, workspace: str) -> object:
        """Receive a value; a timing is in seconds, `workspace` is the URL of the workspace."""


class Meter:
    """Passes the measurements of one workspace on, until that fails."""

    def __init__(self, metrics: Metrics, workspace: str) -> None:
        self._metrics = metrics
        self._workspace = workspace

    def __call__(self, kind: Kind, name: str, value: float) -> None:
        """Pass a value on. Never raises."""
        try:
            self._metrics(kind, name, value, self._workspace)
        except Exception as error:  # noqa: BLE001 (an error of the metrics must not fail any run)
            log.warning("Reporting a metric failed; the poller reports no further metrics: %r", error)
            self._metrics = lambda *_: None

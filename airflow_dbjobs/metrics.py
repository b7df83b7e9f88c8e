"""The poller's measurements as Airflow's own metrics, and so as StatsD or OpenTelemetry, as Airflow is configured."""

from __future__ import annotations

import functools
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Literal

PREFIX = "dbjobs.poller."


def to_airflow(kind: Literal["count", "gauge", "timing"], name: str, value: float, workspace: str) -> None:
    """Hand a measurement of `poller.RunPoller` on, named ``dbjobs.poller.<name>`` and tagged with the workspace."""
    stats, tags = _stats(), {"workspace": urlsplit(workspace).hostname or ""}
    if kind == "count":
        stats.incr(PREFIX + name, int(value), tags=tags)
    elif kind == "gauge":
        stats.gauge(PREFIX + name, value, tags=tags)
    else:
        stats.timing(PREFIX + name, timedelta(seconds=value), tags=tags)


@functools.cache
def _stats() -> Any:
    # What the triggerer itself counts with: the SDK's copy, is set up for tasks only.
    try:
        module = import_module("airflow.observability.stats")
    except ModuleNotFoundError:  # before Airflow 3.2
        module = import_module("airflow.stats")
    # The class gives way to functions of the module.
    return module if hasattr(module, "incr") else module.Stats

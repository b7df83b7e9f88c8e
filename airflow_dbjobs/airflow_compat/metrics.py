"""Airflow's metrics."""

from __future__ import annotations

import functools
from datetime import timedelta
from importlib import import_module
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from typing import Literal

PREFIX = "dbjobs.poller."


def emit_metric(kind: Literal["count", "gauge", "timing"], name: str, value: float, workspace: str) -> None:
    """Send a measurement of ``RunPoller`` to Airflow as ``dbjobs.poller.<name>``, tagged with the workspace's host."""
    metrics, tags = stats(), {"workspace": urlsplit(workspace).hostname or ""}
    if kind == "count":
        metrics.incr(PREFIX + name, int(value), tags=tags)
    elif kind == "gauge":
        metrics.gauge(PREFIX + name, value, tags=tags)
    else:
        metrics.timing(PREFIX + name, timedelta(seconds=value), tags=tags)


@functools.cache
def stats() -> Any:
    """Return Airflow's metrics."""
    # The same module as the triggerer uses; the SDK has a copy, but that is only set up in tasks.
    try:
        module = import_module("airflow.observability.stats")
    except ModuleNotFoundError:  # before Airflow 3.2
        module = import_module("airflow.stats")
    # Newer versions have functions instead of a class.
    return module if hasattr(module, "incr") else module.Stats

"""Connects every client of this process to a workspace in it, without a socket."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.runs.polling.rate_limit import TokenBucket

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest
    import requests
    from requests.adapters import BaseAdapter


def connect_clients(monkeypatch: pytest.MonkeyPatch, adapter: Callable[[], BaseAdapter]) -> None:
    """Let the sessions of all transports send their requests through adapters that `adapter` makes."""
    new_session = Transport._new_session

    def connected(transport: Transport) -> requests.Session:
        session = new_session(transport)
        session.mount(transport.base_url, adapter())
        return session

    monkeypatch.setattr(Transport, "_new_session", connected)
    # The workspaces of other tests have the same address. What slowed their pollers down would last for ten minutes.
    monkeypatch.setattr(TokenBucket, "_shared", WeakValueDictionary())

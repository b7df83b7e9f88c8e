"""Launching: one run for each call of `launch`, however often its requests are lost, repeated or answered late.

Every launch carries an idempotency token, for which the API starts exactly one run; a POST whose reply was lost is
sent again. This is the seam for joining the run of an earlier try: whatever decides which token to send, and whether
the run that answers it is the one to wait for, stands behind `launch`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_dbjobs.client import JobsClient

Endpoint = Literal["run-now", "runs/submit"]


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """One run to launch: the endpoint, and the payload with its ``idempotency_token``."""

    endpoint: Endpoint
    payload: Mapping[str, Any]

    @classmethod
    def new(cls, endpoint: Endpoint, payload: Mapping[str, Any]) -> LaunchRequest:
        """Make a request with a token of its own, unless the payload has one, which is kept as it is."""
        if payload.get("idempotency_token"):
            return cls(endpoint, payload)
        return cls(endpoint, {**payload, "idempotency_token": f"airflow-{uuid.uuid4().hex}"})


def launch(client: JobsClient, request: LaunchRequest) -> int:
    """Launch the run and return its run_id.

    Called again with the same request, by this process or another, it returns the same run: so a task that is killed
    while the first reply is on its way learns which run to cancel. Raises ``errors.CallError``.
    """
    if request.endpoint == "run-now":
        return client.run_now(request.payload)
    return client.submit_run(request.payload)

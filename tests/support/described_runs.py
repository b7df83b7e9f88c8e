"""Runs in states that take too long, or cannot, be brought about in a local workspace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow_dbjobs.client.models import Run

Write = Callable[..., dict[str, Any]]


def described(life: str, result: str | None = None, message: str = "", **fields: Any) -> Run:
    """Return run 7 of job 3 in a state that takes too long, or cannot, be brought about here."""
    run = {"run_id": 7, "job_id": 3, "run_page_url": "https://x/7", **state(life, result, message), **fields}
    return Run.from_json(run)


def state(life: str, result: str | None = None, message: str = "") -> dict[str, Any]:
    return {"state": {"life_cycle_state": life, "result_state": result, "state_message": message}}


def status(code: str) -> dict[str, Any]:
    return {"status": {"state": "TERMINATED", "termination_details": {"code": code}}}


def failed_task(key: str, run_id: int) -> dict[str, Any]:
    url = f"https://x/{run_id}"
    return {"task_key": key, "run_id": run_id, "run_page_url": url, **state("TERMINATED", "FAILED", "its state")}

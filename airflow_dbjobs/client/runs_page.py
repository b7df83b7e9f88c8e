"""A page of ``runs/list``, of which only the ids and states of its runs are kept.

A page may have a megabyte, and several times as much once it is parsed. So all other fields are dropped while it is
parsed, which also lets other threads run in between.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import RunState
from airflow_dbjobs.client.response_fields import identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

# The fields that RunsPage and RunState read, at any level.
_FIELDS = frozenset(
    {"runs", "has_more", "next_page_token", "run_id", "state", "status"}
    | {"life_cycle_state", "result_state", "state_message", "user_cancelled_or_timedout"}
    | {"termination_details", "code", "message", "type"}
)


@dataclass(frozen=True, slots=True)
class RunsPage:
    """The states of the runs on a page of ``runs/list``, by run id. ``next_page_token`` is "" in 2.0."""

    states: Mapping[int, RunState]
    has_more: bool
    next_page_token: str

    @classmethod
    def from_json(cls, page: Mapping[str, Any]) -> RunsPage:
        """Read what `parse_runs_page` returned. Raises KeyError, TypeError or ValueError if it is not a page."""
        token = page.get("next_page_token") or ""
        if "run_id" in page or not isinstance(token, str):
            raise ValueError("it may describe a single run, and so answer another request")
        # Most runs of a page are in the same state.
        known: dict[str, RunState] = {}
        states = {identifier(run["run_id"]): _state(run, known) for run in page.get("runs") or ()}
        return cls(states, bool(page.get("has_more")) or bool(token), token)


def parse_runs_page(body: bytes) -> Any:
    """Return the fields of a page of ``runs/list`` that RunsPage reads. Raises ValueError."""
    return json.loads(body, object_pairs_hook=_kept)


def _kept(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    return {name: value for name, value in fields if name in _FIELDS}


def _state(run: Mapping[str, Any], known: dict[str, RunState]) -> RunState:
    key = repr((run.get("state"), run.get("status")))
    if key not in known:
        known[key] = RunState.from_json(run)
    return known[key]

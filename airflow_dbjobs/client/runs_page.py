"""A page of ``runs/list``, of which only the ids and states of its runs are kept.

A page may have a megabyte, and several times as much once it is parsed as a whole. So its runs are parsed one by one,
which also lets other threads run in between.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.models import RunState
from airflow_dbjobs.client.response_fields import identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

_decode = json.JSONDecoder().raw_decode
_SPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class RunsPage:
    """The states of the runs on a page of ``runs/list``, by run id. ``next_page_token`` is "" in 2.0."""

    states: Mapping[int, RunState]
    has_more: bool
    next_page_token: str

    @classmethod
    def from_json(cls, page: Mapping[str, Any]) -> RunsPage:
        """Read what `parse_runs_page` returned."""
        token = page.get("next_page_token") or ""
        # Most runs of a page are in the same state.
        known: dict[str, RunState] = {}
        states = {identifier(run["run_id"]): _state(run, known) for run in page.get("runs") or ()}
        return cls(states, bool(page.get("has_more")) or bool(token), token)


def parse_runs_page(body: bytes) -> dict[str, Any]:
    """Return the fields of a page of ``runs/list`` that RunsPage reads. Raises ValueError."""
    text = body.decode()
    page: dict[str, Any] = {}
    at = _after(text, 0, "{")
    while not text.startswith("}", at):
        name, at = _decode(text, at)
        at = _after(text, at, ":")
        if name == "runs" and text.startswith("[", at):
            page["runs"], at = _runs(text, _after(text, at, "["))
        else:
            page[str(name)], at = _decode(text, at)
        at = _next(text, at, "}")
    if "run_id" in page or not isinstance(page.get("next_page_token"), str | None):
        raise ValueError("it is no page, but may describe a single run and so answer another request")
    return page


def _runs(text: str, at: int) -> tuple[list[dict[str, Any]], int]:
    """Return the runs of an array that begins at an index, and the index after it."""
    runs = []
    while not text.startswith("]", at):
        run, at = _decode(text, at)
        if not isinstance(run, dict):
            raise ValueError("an element of runs is not an object")  # noqa: TRY004 (the caller expects what JSON raises)
        runs.append({name: run[name] for name in ("run_id", "state", "status") if name in run})
        at = _next(text, at, "]")
    return runs, at + 1


def _next(text: str, at: int, end: str) -> int:
    """Return the index of the next element, or of the `end` of an array or object."""
    at = _skip_space(text, at)
    return at if text.startswith(end, at) else _after(text, at, ",")


def _after(text: str, at: int, sign: str) -> int:
    """Return the index of what follows a sign. Raises ValueError."""
    at = _skip_space(text, at)
    if not text.startswith(sign, at):
        raise ValueError(f"expected {sign} at {at}")
    return _skip_space(text, at + 1)


def _skip_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at


def _state(run: Mapping[str, Any], known: dict[str, RunState]) -> RunState:
    key = repr((run.get("state"), run.get("status")))
    if key not in known:
        known[key] = RunState.from_json(run)
    return known[key]

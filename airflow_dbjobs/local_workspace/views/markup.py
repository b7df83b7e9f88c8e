"""Parts of HTML pages: escaped text, states, times and tables."""

from __future__ import annotations

import html
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.state.records import Job, Run, State, TaskRun

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from airflow_dbjobs.local_workspace.messages import Json


@dataclass(frozen=True)
class Mark:
    """How states look: a class of the style sheet (`pages.css` shows the same sign), a sign, and a word for counts."""

    css: str
    sign: str
    word: str


_GOOD: Final = Mark("good", "✓", "succeeded")
_WARN: Final = Mark("warn", "!", "succeeded with failures")
_BAD: Final = Mark("bad", "✕", "failed")
_STOPPED: Final = Mark("stopped", "■", "cancelled")
_SKIPPED: Final = Mark("skipped", "\u2013", "did not run")
_BUSY: Final = Mark("busy", "●", "running")
WAITING: Final = Mark("waiting", "○", "waiting")
#: In the order in which counts are shown.
_MARKS: Final = (_GOOD, _WARN, _BAD, _STOPPED, _SKIPPED, _BUSY, WAITING)
_BY_RESULT: Final = {
    "SUCCESS": _GOOD,
    "SUCCESS_WITH_FAILURES": _WARN,
    "CANCELED": _STOPPED,
    "UPSTREAM_FAILED": _SKIPPED,
    "UPSTREAM_CANCELED": _SKIPPED,
    "EXCLUDED": _SKIPPED,
    "DISABLED": _SKIPPED,
    "MAXIMUM_CONCURRENT_RUNS_REACHED": _SKIPPED,
}


def mark(state: State) -> Mark:
    """Return how a state looks."""
    if state.terminal:
        return _BY_RESULT.get(state.result or "", _BAD)
    return _BUSY if state.life in ("RUNNING", "TERMINATING") else WAITING


def text(value: object) -> str:
    """Return a value as escaped text, also for attributes."""
    return html.escape(str(value))


def name_text(value: object) -> str:
    """Return a name as escaped text that does not reorder the text around it, in whatever direction it is written."""
    return f"<bdi>{text(value)}</bdi>"


def job_name(job: Job) -> str:
    """Return the name of a job."""
    return str(job.settings.get("name", "Untitled"))


def state_name(state: State) -> str:
    """Return the word for a state."""
    return state.result or state.life


def state_label(state: State) -> str:
    """Return a state as text with its colour and sign."""
    return f'<span class="state {mark(state).css}">{text(state_name(state))}</span>'


def counts(states: Iterable[State]) -> str:
    """Return how many states look how."""
    marks = [mark(state) for state in states]
    parts = [(item, marks.count(item)) for item in _MARKS]
    return " ".join(f'<span class="state {item.css}">{count} {item.word}</span>' for item, count in parts if count)


def json_block(value: Json) -> str:
    """Return JSON as a block of text; nothing for an empty object."""
    return f"<pre>{text(json.dumps(value, indent=2, ensure_ascii=False))}</pre>" if value else ""


def folded(summary: str, content: str) -> str:
    """Return content that opens with a click; nothing if there is none."""
    return f"<details><summary>{text(summary)}</summary>{content}</details>" if content else ""


def facts(rows: Iterable[tuple[str, str]]) -> str:
    """Return a table of names and values (HTML), without empty ones."""
    body = "".join(f'<tr><th scope="row">{name}</th><td>{value}</td></tr>' for name, value in rows if value)
    return f'<table class="facts"><tbody>{body}</tbody></table>'


def table(names: Sequence[str], rows: Iterable[tuple[object, Sequence[str]]], *, wide: str = "") -> str:
    """Return a table of rows with ids, which let an updated page recognize them; the column `wide` takes what is left.

    Names and cells are HTML.
    """
    head = "".join(f'<th scope="col">{name}</th>' for name in names)
    tags = ['<td class="wide">' if name == wide else "<td>" for name in names]
    body = "".join(
        f'<tr id="r{row_id}">{"".join(f"{tag}{cell}</td>" for tag, cell in zip(tags, cells, strict=True))}</tr>'
        for row_id, cells in rows
    )
    return f'<table class="list"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def time_text(ms: int) -> str:
    """Return an epoch time in milliseconds as text."""
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def duration_text(ms: int) -> str:
    """Return a duration as text, in its two largest units."""
    minutes, seconds = divmod(max(ms, 0) // 1000, 60)
    if not minutes:
        return f"{max(ms, 0) / 1000:.1f} s"
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {seconds:02} s"


def duration_of(item: Run | TaskRun, now_ms: int) -> str:
    """Return how long a run or task run took, or has taken so far; "" if it has not started."""
    if isinstance(item, TaskRun) and not item.started:
        return ""
    return duration_text((item.end_ms or now_ms) - item.start_ms)

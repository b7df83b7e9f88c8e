"""When the tasks of a run ran: a row for each task, a bar for each attempt, on an axis that leaves out idle times."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from .markup import duration_of, mark, state_label, state_name, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun

_SECOND: Final = 1000
_MINUTE: Final = 60 * _SECOND
_HOUR: Final = 60 * _MINUTE
_DAY: Final = 24 * _HOUR
#: The distances between ticks.
_STEPS: Final = (
    *(100, 200, 500),
    *(_SECOND * count for count in (1, 2, 5, 10, 15, 30)),
    *(_MINUTE * count for count in (1, 2, 5, 10, 15, 30)),
    *(_HOUR * count for count in (1, 2, 3, 6, 12)),
    *(_DAY * count for count in (1, 2, 7, 30, 90, 365)),
)
#: How many ticks fit on the axis on a phone.
_MAX_TICKS: Final = 5
#: The width of what is left out between a run and its repair, and the least width of either, in percent.
_BREAK: Final = 3.0
_LEAST: Final = 16.0
#: Half the width of a tick's label on a phone, in percent.
_EDGE: Final = 8.0
#: The width of a character of a label on a phone, in percent.
_CHARACTER: Final = 2.1


@dataclass(frozen=True)
class Span:
    """A part of the axis, from `left` for `width` percent of it."""

    start_ms: int
    end_ms: int
    left: float
    width: float

    def place(self, ms: int) -> float:
        """Return where a time is, in percent of the axis; times outside are at the span's ends."""
        share = (ms - self.start_ms) / (self.end_ms - self.start_ms)
        return self.left + self.width * min(max(share, 0), 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Return round times in this span: their places and labels."""
        most = max(1, int(_MAX_TICKS * self.width / 100))
        step = next((step for step in _STEPS if (self.end_ms - self.start_ms) / step <= most), _STEPS[-1])
        first = -(-self.start_ms // step) * step
        return [(self.place(ms), _tick_text(ms, step)) for ms in range(first, self.end_ms + 1, step)]


def spans(periods: Sequence[tuple[int, int]]) -> list[Span]:
    """Return the parts of an axis that shows periods, in their order, and leaves out the times between them.

    Each gets its share of the axis by its duration, but enough to be seen.
    """
    durations = [max(end - start, 1) for start, end in periods]
    gap = min(_BREAK, 30 / len(periods))
    room = 100 - gap * (len(periods) - 1)
    least = min(_LEAST, room / len(periods) / 2)
    spare = room - least * len(periods)
    found: list[Span] = []
    left = 0.0
    for (start, _), duration in zip(periods, durations, strict=True):
        width = least + spare * duration / sum(durations)
        found.append(Span(start, start + duration, left, width))
        left += width + gap
    return found


def timeline(run: Run, attempts: Sequence[TaskRun], now_ms: int, href: Callable[[TaskRun], str]) -> str:
    """Return the timeline of a run as HTML. `href` returns the link to an attempt."""
    axis = spans([(item.start_ms, item.end_ms or now_ms) for item in run.episodes])
    rows: dict[str, list[TaskRun]] = {}
    for task in attempts:
        rows.setdefault(task.task_key, []).append(task)
    # In the order of their first start; tasks that have not started are last.
    in_order = sorted(rows.values(), key=lambda row: min((item.start_ms for item in row if item.started), default=1e15))
    place = {task_id: span for item, span in zip(run.episodes, axis, strict=True) for task_id in item.task_run_ids}
    body = "".join(_row(row, place, now_ms, href) for row in in_order)
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="Timeline">'
        f'<table class="timeline" style="--grid:{_grid(axis)}"><thead><tr><th scope="col">Task</th>'
        f'<th scope="col"><div class="axis">{_axis(axis)}</div></th></tr></thead><tbody>{body}</tbody></table></div>'
    )


def _axis(axis: Sequence[Span]) -> str:
    if len(axis) == 1:
        return "".join(_tick(place, label) for place, label in axis[0].ticks() if _EDGE <= place <= 100 - _EDGE)
    return "".join(_part(span, f"Repair {number}" if number else "Run") for number, span in enumerate(axis))


def _tick(place: float, label: str) -> str:
    return f'<span class="tick" style="left:{place:.2f}%">{label}</span>'


def _part(span: Span, name: str) -> str:
    """Return the heading of the run or a repair, with the time at which it began, and its other ticks."""
    right = span.left + span.width - _EDGE
    ticks = "".join(_tick(place, label) for place, label in span.ticks() if span.left + 3 * _EDGE <= place <= right)
    start = _tick_text(span.start_ms, _SECOND)
    return f'<div class="part" style="left:{span.left:.2f}%;width:{span.width:.2f}%">{name}<br>{start}</div>{ticks}'


def _tick_text(ms: int, step: int) -> str:
    time = datetime.fromtimestamp(ms / 1000, UTC)
    if step >= _DAY:
        return f"{time:%Y-%m-%d}"
    if step >= _MINUTE:
        return f"{time:%H:%M}"
    return f"{time:%H:%M:%S}" + (f".{ms // 100 % 10}" if step < _SECOND else "")


def _grid(axis: Sequence[Span]) -> str:
    """Return the lines at ticks, and what separates repairs, as one background of all rows."""
    lines = [_vertical(place, place, "var(--line)") for span in axis for place, _ in span.ticks()]
    breaks = [_vertical(left.left + left.width, right.left, "var(--soft)") for left, right in pairwise(axis)]
    return ",".join(lines + breaks) or "none"


def _vertical(left: float, right: float, color: str) -> str:
    return f"linear-gradient(90deg,#0000 {left:.2f}%,{color} 0 calc({right:.2f}% + 1px),#0000 0)"


def _row(row: Sequence[TaskRun], place: dict[int, Span], now_ms: int, href: Callable[[TaskRun], str]) -> str:
    newest = row[-1]
    started = [task for task in row if task.started]
    bars = [_extent(task, place[task.run_id], now_ms) for task in started]
    # From where the bar before ends to where the next one begins.
    rooms = zip([0.0, *(end for _, end in bars)], [*(start for start, _ in bars[1:]), 100.0], strict=False)
    drawn = [_bar(task, bar, room, now_ms, href(task)) for task, bar, room in zip(started, bars, rooms, strict=False)]
    if not started:
        drawn.append(state_label(newest.state))
    return (
        f'<tr id="t-{text(newest.task_key)}"><th scope="row">'
        f'<a href="{text(href(newest))}" title="{text(newest.task_key)}">{text(newest.task_key)}</a></th>'
        f'<td><div class="track">{"".join(drawn)}</div></td></tr>'
    )


def _extent(task: TaskRun, span: Span, now_ms: int) -> tuple[float, float]:
    return span.place(task.start_ms), span.place(task.end_ms or now_ms)


def _bar(task: TaskRun, bar: tuple[float, float], room: tuple[float, float], now_ms: int, href: str) -> str:
    start, end = bar
    look, duration = mark(task.state), duration_of(task, now_ms)
    attempt = f", attempt {task.attempt + 1}" if task.attempt else ""
    title = f"{task.task_key}{attempt}: {state_name(task.state)}, {duration}, {_clock(task, now_ms)}"
    label = f"{look.sign} {duration}"
    needed = len(label) * _CHARACTER
    before, after = room
    if end - start >= needed:
        side = "in"
    elif after - end >= needed:
        side = "after"
    elif start - before >= needed:
        side = "before"
    else:
        # On a wide screen it may fit.
        side = "in narrow"
    return (
        f'<a class="bar {look.css}" style="left:{start:.2f}%;width:{end - start:.2f}%" href="{text(href)}" '
        f'title="{text(title)}" aria-label="{text(title)}"><span class="{side}">{label}</span></a>'
    )


def _clock(task: TaskRun, now_ms: int) -> str:
    start, end = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (task.start_ms, task.end_ms or now_ms))
    return f"{start:%H:%M:%S} to {end:%H:%M:%S} UTC" if task.end_ms else f"since {start:%H:%M:%S} UTC"

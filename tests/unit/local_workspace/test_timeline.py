"""The timeline of a run: its axis, and a bar for each attempt."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from airflow_dbjobs.local_workspace.state.records import Episode, Run, State, TaskRun
from airflow_dbjobs.local_workspace.views.timeline import Span, spans, timeline

from .markup import Element, parse

#: 2027-01-15 08:00:00 UTC, in milliseconds.
START = 1_800_000_000_000
HOUR = 3_600_000


def labels(span: Span) -> list[str]:
    return [label for _, label in span.ticks()]


class TestAxis:
    def test_of_one_period_is_all_of_it(self) -> None:
        (span,) = spans([(START, START + 4000)])
        assert [span.place(START + ms) for ms in (0, 1000, 4000)] == [0, 25, 100]

    def test_leaves_out_the_time_before_a_repair(self) -> None:
        first, repair = spans([(START, START + 4000), (START + 24 * HOUR, START + 24 * HOUR + 4000)])
        assert first.width == pytest.approx(repair.width)
        assert first.left + first.width < repair.left
        assert repair.left + repair.width == pytest.approx(100)

    def test_shows_a_short_repair_of_a_long_run(self) -> None:
        first, repair = spans([(START, START + HOUR), (START + HOUR, START + HOUR + 100)])
        assert repair.width > 10
        assert first.width > 2 * repair.width

    @pytest.mark.parametrize("count", [1, 2, 20, 200])
    def test_fits_however_many_repairs_there_are(self, count: int) -> None:
        found = spans([(START + HOUR * number, START + HOUR * number + number) for number in range(count)])
        assert found[0].left == 0
        assert found[-1].left + found[-1].width == pytest.approx(100)
        assert all(span.width > 0 for span in found)
        assert all(left.left + left.width <= right.left for left, right in pairwise(found))

    def test_times_outside_are_at_its_ends(self) -> None:
        (span,) = spans([(START, START + 4000)])
        assert [span.place(START - 1), span.place(START + 4001)] == [0, 100]

    @pytest.mark.parametrize(
        ("seconds", "expected"),
        [
            (0.35, ["08:00:00.0", "08:00:00.1", "08:00:00.2", "08:00:00.3"]),
            (4, ["08:00:00", "08:00:01", "08:00:02", "08:00:03", "08:00:04"]),
            (100, ["08:00:00", "08:00:30", "08:01:00", "08:01:30"]),
            (3600 * 2, ["08:00", "08:30", "09:00", "09:30", "10:00"]),
            (86400 * 3, ["2027-01-16", "2027-01-17", "2027-01-18"]),
        ],
    )
    def test_has_round_times(self, seconds: float, expected: list[str]) -> None:
        (span,) = spans([(START, START + round(seconds * 1000))])
        assert labels(span) == expected

    def test_has_ticks_where_they_belong(self) -> None:
        (span,) = spans([(START + 500, START + 4500)])
        assert span.ticks() == [
            (12.5, "08:00:01"),
            (37.5, "08:00:02"),
            (62.5, "08:00:03"),
            (87.5, "08:00:04"),
        ]


def attempt(number: int, key: str, start: int, end: int | None, result: str | None = "SUCCESS") -> TaskRun:
    """Return an attempt that ran between these milliseconds after START; `end` None: it is active."""
    state = State("RUNNING") if end is None else State("TERMINATED", result)
    return TaskRun(number, 1, key, {}, START + start, state, START + end if end is not None else 0, started=True)


def drawn(attempts: list[TaskRun], *periods: tuple[int, int], now: int = 10_000) -> Element:
    """Return the table for a run whose parts began and ended at these milliseconds, an end of 0 meaning not yet."""
    run = Run(1, 2, 1, "SUBMIT_RUN", "", "", "", {}, flat=False, start_ms=START, clock_ms=START)
    for start, end in periods:
        ids = [
            task.run_id
            for task in attempts
            if start <= task.start_ms - START and (not end or task.start_ms - START <= end)
        ]
        run.episodes.append(Episode(None, START + start, ids, end_ms=START + end if end else 0))
    return parse(timeline(run, attempts, START + now, lambda task: f"/{task.run_id}?a=1&b=2"))


def places(bars: list[Element]) -> list[tuple[float, float]]:
    found = [re.fullmatch(r"left:([\d.]+)%;width:([\d.]+)%", bar.attributes["style"]) for bar in bars]
    return [(float(style[1]), float(style[2])) for style in found if style]


class TestTimeline:
    def test_has_a_bar_for_each_attempt_with_its_duration_and_link(self) -> None:
        failed, again = attempt(5, "a", 0, 2500, "FAILED"), attempt(6, "a", 5000, 10_000)
        again.attempt = 1
        table = drawn([failed, again], (0, 10_000))
        (row,) = table.one("tbody").all("tr")
        bars = row.all(css="bar")
        assert places(bars) == [(0, 25), (50, 50)]
        assert [bar.text for bar in bars] == ["✕ 2.5 s", "✓ 5.0 s"]
        assert [bar.attributes["href"] for bar in bars] == ["/5?a=1&b=2", "/6?a=1&b=2"]
        assert bars[1].attributes["title"] == "a, attempt 2: SUCCESS, 5.0 s, 08:00:05 to 08:00:10 UTC"
        assert row.one("th").one("a").attributes["href"] == "/6?a=1&b=2", "the newest attempt"

    def test_ends_now_while_the_run_is_active(self) -> None:
        table = drawn([attempt(5, "a", 0, 4000), attempt(6, "b", 4000, None)], (0, 0), now=8000)
        assert places(table.all(css="bar")) == [(0, 50), (50, 50)]
        bar = table.all(css="bar")[1]
        assert bar.text == "● 4.0 s"
        assert bar.attributes["title"] == "b: RUNNING, 4.0 s, since 08:00:04 UTC"

    def test_is_in_the_order_of_starts(self) -> None:
        waiting = TaskRun(4, 1, "late", {}, START)
        table = drawn([waiting, attempt(5, "second", 2000, 3000), attempt(6, "first", 0, 2000)], (0, 3000))
        rows = table.one("tbody").all("tr")
        assert [row.one("th").text for row in rows] == ["first", "second", "late"]
        assert rows[2].one("td").text == "BLOCKED"
        assert rows[2].all(css="bar") == []

    def test_has_a_part_for_each_repair(self) -> None:
        table = drawn(
            [attempt(5, "a", 0, 4000, "FAILED"), attempt(6, "a", HOUR, HOUR + 4000)],
            (0, 4000),
            (HOUR, HOUR + 4000),
        )
        (first, second), parts = places(table.all(css="bar")), table.all(css="part")
        assert [part.text for part in parts] == ["Run08:00:00", "Repair 109:00:00"]
        assert places(parts) == [first, second]
        assert sum(second) == pytest.approx(100)

    @pytest.mark.parametrize("seed", range(5))
    def test_bars_are_within_the_axis(self, seed: int) -> None:
        attempts = [attempt(5 + n, f"t{n}", n * seed * 100, n * seed * 100 + n * n) for n in range(50)]
        bars = places(drawn(attempts, (0, 0), now=50 * seed * 100).all(css="bar"))
        assert len(bars) == 50
        assert all(left >= 0 and width >= 0 and left + width <= 100.01 for left, width in bars)

    def test_labels_do_not_cover_the_next_bar(self) -> None:
        table = drawn([attempt(number, "a", number * 1000, number * 1000 + 10) for number in range(1, 9)], (0, 10_000))
        spans_of_labels = [bar.one("span").classes for bar in table.all(css="bar")]
        # Only the last one has room, to its right; the others show theirs where a wide screen has room for it.
        assert spans_of_labels == [["in", "narrow"]] * 7 + [["after"]]

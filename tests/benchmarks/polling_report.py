"""What polling.py has measured as Markdown: a table for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from polling_measure import ENDING, ENDING_SECONDS, PERIODS_OF_A_RUN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

# Fewer runs take less memory than two processes of the same kind differ by.
LEAST_RUNS_FOR_MEMORY = 1000
# Where the server is as busy as this, it is what slows its client down.
SATURATED = 0.9
# Where other work takes so much of the machine, what was measured in seconds is worth little.
DISTURBED = 0.25

NO_VALUE = "-"


class Metric(NamedTuple):
    """A column of the measurements, and how it is shown."""

    title: str
    key: str
    factor: float = 1
    digits: int = 1


METRICS = (
    Metric("requests per interval", "requests"),
    Metric("CPU per interval, ms", "cpu_seconds", 1e3),
    Metric("CPU per run and interval, us", "cpu_us_per_run"),
    Metric("the same with the run's end, us", "cpu_us_per_run_and_end"),
    Metric("resident memory per run, kB", "rss_kb_per_run"),
    Metric("the same at its peak, kB", "peak_rss_kb_per_run"),
    Metric("TCP connections at the same time", "connections", digits=0),
    Metric("the same, runs ending", "end_connections", digits=0),
    Metric("end of a run to its event, median, s", "delay_median", digits=2),
    Metric("end of a run to its event, p95, s", "delay_p95", digits=2),
    Metric("end of a run to its event, max, s", "delay_max", digits=2),
    Metric("requests from the first end to the last event", "end_requests", digits=0),
    Metric("first use: event loop late, worst, ms", "first_late_worst", 1e3),
    Metric("first use: event loop late but for garbage collections, worst, ms", "first_late_beyond_collections", 1e3),
    Metric("first use: longest garbage collection, ms", "first_longest_collection", 1e3),
    Metric("event loop late, worst, ms", "late_worst", 1e3),
    Metric("event loop late but for garbage collections, worst, ms", "late_beyond_collections", 1e3),
    Metric("event loop late, p99, ms", "late_p99", 1e3),
    Metric("longest garbage collection, ms", "longest_collection", 1e3),
    Metric("runs ending: event loop late, worst, ms", "end_late_worst", 1e3),
    Metric("runs ending: event loop late but for garbage collections, worst, ms", "end_late_beyond_collections", 1e3),
    Metric("runs ending: event loop late, p99, ms", "end_late_p99", 1e3),
    Metric("runs ending: longest garbage collection, ms", "end_longest_collection", 1e3),
    Metric("the workspace's own CPU, % of a processor", "server_busy", 100, 0),
    Metric("the same, runs ending", "end_server_busy", 100, 0),
    Metric("other work on the machine, % of its processors", "others_busy", 100, 0),
)


def add_memory_per_run(cases: Iterable[dict[str, Any]]) -> None:
    """Work out what each run adds to the process that watches one run."""
    cases = list(cases)
    # With one run, listings have one page: the size of pages makes no difference.
    one = {case["provider"]: case for case in cases if case["runs"] == 1}
    for case in cases:
        baseline = one.get(case["provider"])
        if baseline and case["triggerers"] == 1 and case["runs"] >= LEAST_RUNS_FOR_MEMORY:
            for key in ("rss_kb", "peak_rss_kb"):
                # In a steady window the process that watches one run has no peak worth the name.
                case[f"{key}_per_run"] = (case[key] - baseline["rss_kb"]) / (case["runs"] - 1)


def report(about: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all cases."""
    columns = [("official", 1000), ("ours", 1000), ("ours", 25)]
    keys = ("provider", "page_size", "triggerers", "runs", "period")
    by_key = {tuple(case[key] for key in keys): case for case in cases}
    groups = sorted({key[2:] for key in by_key})
    heads = ["measured", "runs", "interval, s", f"official {about['official']}", "ours, pages of 1000"]
    rows = [[*heads, "ours, pages of 25", "official / ours"]]
    for metric in METRICS:
        for group in groups:
            triggerers, runs, period = group
            values = [by_key.get((*column, *group), {}).get(metric.key) for column in columns]
            if any(value is not None for value in values):
                shared = f" over {triggerers} triggerers" if triggerers > 1 else ""
                cells = [_shown(value, metric) for value in values]
                rows.append([metric.title, f"{runs:,}{shared}", f"{period}", *cells, _ratio(values[0], values[1])])
    return "\n".join([_about(about), "", table(rows), "", *_saturated(cases), *_disturbed(cases)])


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the first of which is the head, as a Markdown table whose columns line up."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def _about(about: Mapping[str, Any]) -> str:
    return f"""\
Airflow {about["airflow"]}, Python {about["python"]}, {about["processors"]} processors, {about["date"]}.
Each case: a process that runs N triggers in one event loop, or several that share N, and a local workspace with N runs
that runs nothing. An interval is the polling period. The triggers start evenly spread over one interval; when they have
settled, all is counted over some intervals. Then all runs, or {ENDING:,} of them, end within {ENDING_SECONDS} s, at a
random phase; how long an event takes is measured from its own run's end. CPU is the watching processes' own; that of an
end is divided among the {PERIODS_OF_A_RUN} intervals of a run. Memory is by what its resident size exceeds that of a
process with one run. Connections are looked at once a second. How late the loop is: a coroutine sleeps 5 ms, again and
again; the first use begins before the process imports the first trigger. A garbage collection stops the process, and
looks at all that Airflow has imported."""


def _saturated(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    """Say where the workspace was what slowed its client down."""
    return [
        f"The workspace's server was busy for {case[key]:.0%} of the time with {case['provider']},"
        f" {case['runs']:,} runs, pages of {case['page_size']}{when}: a faster one would be asked more often.\n"
        for case in cases
        for key, when in (("server_busy", ""), ("end_server_busy", ", runs ending"))
        if case.get(key, 0.0) >= SATURATED
    ]


def _disturbed(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    most = max(case["others_busy"] for case in cases)
    if most < DISTURBED:
        return []
    return [f"Other work took up to {most:.0%} of the machine: believe counts, not seconds.\n"]


def _shown(value: float | None, metric: Metric) -> str:
    return NO_VALUE if value is None else f"{value * metric.factor:,.{metric.digits}f}"


def _ratio(official: float | None, ours: float | None) -> str:
    # Of nothing, or of less than nothing (memory that was given back), there is no ratio.
    if official is None or ours is None or min(official, ours) <= 0:
        return NO_VALUE
    ratio = official / ours
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"

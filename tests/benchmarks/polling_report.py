"""What polling.py has measured as Markdown: a table for people, and the budgets that ours has to keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from polling_measure import ENDING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

# Fewer runs take less memory than two processes of the same kind differ by.
LEAST_RUNS_FOR_MEMORY = 1000
BUDGET_RUNS = 1000
# A page of the list takes megabytes to read, however many runs are watched: a budget per run is one of many runs.
MEMORY_BUDGET_RUNS = 10_000
# Where the server is as busy as this, it is what slows its client down.
SATURATED = 0.9

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
    Metric("resident memory per run, kB", "rss_kb_per_run"),
    Metric("the same at its peak, kB", "peak_rss_kb_per_run"),
    Metric("TCP connections at the same time", "connections", digits=0),
    Metric("the same, runs ending", "end_connections", digits=0),
    Metric("end of a run to its event, median, s", "delay_median", digits=2),
    Metric("end of a run to its event, p95, s", "delay_p95", digits=2),
    Metric("end of a run to its event, max, s", "delay_max", digits=2),
    Metric("event loop late, worst, ms", "late_worst", 1e3),
    Metric("event loop late, p99, ms", "late_p99", 1e3),
    Metric("longest garbage collection, ms", "longest_collection", 1e3),
    Metric("runs ending: event loop late, worst, ms", "end_late_worst", 1e3),
    Metric("runs ending: event loop late, p99, ms", "end_late_p99", 1e3),
    Metric("runs ending: longest garbage collection, ms", "end_longest_collection", 1e3),
)


class Budget(NamedTuple):
    """What ours may cost at most with so many `runs`. `limit` may depend on the polling period."""

    title: str
    page_size: int
    value: Callable[[Mapping[str, Any]], float | None]
    limit: Callable[[int], float]
    runs: int = BUDGET_RUNS


BUDGETS = (
    Budget("requests per interval, pages of 1000", 1000, lambda case: case["requests"], lambda _: 2),
    Budget("requests per interval, pages of 25", 25, lambda case: case["requests"], lambda _: 42),
    Budget("CPU per run and interval, us", 1000, lambda case: case["cpu_us_per_run"], lambda _: 30),
    Budget(
        f"resident memory per run, of {MEMORY_BUDGET_RUNS:,}, kB",
        1000,
        lambda case: case.get("rss_kb_per_run"),
        lambda _: 8,
        MEMORY_BUDGET_RUNS,
    ),
    Budget(
        "TCP connections at the same time",
        1000,
        lambda case: max(case["connections"], case["end_connections"]),
        lambda _: 8,
    ),
    Budget("event loop late, worst, ms", 1000, lambda case: case["late_worst"] * 1e3, lambda _: 50),
    Budget(
        "event loop late, worst while all runs end, ms", 1000, lambda case: case["end_late_worst"] * 1e3, lambda _: 50
    ),
    Budget(
        "all runs end: the last event after, s (period + runs/100 + 3)",
        1000,
        lambda case: case["delay_max"],
        lambda period: period + BUDGET_RUNS / 100 + 3,
    ),
)


def add_memory_per_run(cases: Iterable[dict[str, Any]]) -> None:
    """Work out what each run adds to the process that watches one run."""
    cases = list(cases)
    # With one run, listings have one page: the size of pages makes no difference.
    one = {case["provider"]: case for case in cases if case["runs"] == 1}
    for case in cases:
        baseline = one.get(case["provider"])
        if baseline and case["runs"] >= LEAST_RUNS_FOR_MEMORY:
            for key in ("rss_kb", "peak_rss_kb"):
                # In a steady window the process that watches one run has no peak worth the name.
                case[f"{key}_per_run"] = (case[key] - baseline["rss_kb"]) / (case["runs"] - 1)


def report(about: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> str:
    """Return the table of all cases."""
    columns = [("official", 1000), ("ours", 1000), ("ours", 25)]
    by_key = {(case["provider"], case["page_size"], case["runs"]): case for case in cases}
    heads = ["measured", "runs", f"official {about['official']}", "ours, pages of 1000", "ours, pages of 25"]
    rows = [[*heads, "official / ours"]]
    for metric in METRICS:
        for runs in sorted({case["runs"] for case in cases}):
            values = [by_key.get((*column, runs), {}).get(metric.key) for column in columns]
            if any(value is not None for value in values):
                cells = [_shown(value, metric) for value in values]
                rows.append([metric.title, f"{runs:,}", *cells, _ratio(values[0], values[1])])
    return "\n".join([_about(about), "", table(rows), "", *_saturated(cases)])


def budgets(about: Mapping[str, Any], cases: Sequence[Mapping[str, Any]]) -> tuple[str, bool]:
    """Return the table of the budgets, and whether ours keeps them all, as far as they were measured."""
    rows = [[f"budget of ours, with {BUDGET_RUNS:,} runs", "at most", "measured", ""]]
    kept = True
    for budget in BUDGETS:
        of_budget = ("ours", budget.page_size, budget.runs)
        found = [case for case in cases if (case["provider"], case["page_size"], case["runs"]) == of_budget]
        value, limit = budget.value(found[0]) if found else None, budget.limit(about["period"])
        if value is None:
            rows.append([budget.title, f"{limit:g}", NO_VALUE, "not measured"])
        else:
            rows.append([budget.title, f"{limit:g}", f"{value:,.1f}", "ok" if value <= limit else "**over**"])
            kept = kept and value <= limit
    return table(rows), kept


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
Each case: a process that runs N triggers in one event loop, and a local workspace with N runs that runs nothing. An
interval is the polling period, {about["period"]} s for both. The triggers start evenly spread over one interval; when
they have settled, all is counted over {about["steady_intervals"]} intervals. Then all runs, or {ENDING:,} of them, end
at the same moment, at a random phase. CPU is the watching process' own. Memory is by what its resident size exceeds
that of a process with one run. Connections are looked at once a second. How late the loop is: a coroutine sleeps 5 ms,
again and again. A garbage collection stops the process, and looks at all that Airflow has imported."""


def _saturated(cases: Iterable[Mapping[str, Any]]) -> list[str]:
    return [
        f"The workspace's server was busy for {case['server_busy']:.0%} of the time with {case['provider']},"
        f" {case['runs']:,} runs, pages of {case['page_size']}: a faster one would be asked more often.\n"
        for case in cases
        if case["server_busy"] >= SATURATED
    ]


def _shown(value: float | None, metric: Metric) -> str:
    return NO_VALUE if value is None else f"{value * metric.factor:,.{metric.digits}f}"


def _ratio(official: float | None, ours: float | None) -> str:
    # Of nothing, or of less than nothing (memory that was given back), there is no ratio.
    if official is None or ours is None or min(official, ours) <= 0:
        return NO_VALUE
    ratio = official / ours
    return f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"

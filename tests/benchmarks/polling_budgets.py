"""What ours may cost at most, as polling.py has measured it, in addition to what the official provider costs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from polling_measure import ENDING_SECONDS, PERIODS_OF_A_RUN
from polling_report import NO_VALUE, table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    Case = Mapping[str, Any]


class Budget(NamedTuple):
    """What ours may cost at most in the case of so many `runs` and triggerers with this page size."""

    title: str
    limit: float
    value: Callable[[Case], float | None]
    page_size: int = 1000
    runs: int = 1000
    triggerers: int = 1


class Row(NamedTuple):
    """A budget and what was measured; None stands for what was not."""

    title: str
    limit: float
    official: float | None
    ours: float | None

    @property
    def kept(self) -> bool:
        """Whether the budget is not exceeded, as far as it was measured."""
        return self.ours is None or self.ours <= self.limit


def _late(case: Case) -> float:
    """Return how late the loop was at worst. The size of Airflow's heap decides how long a collection stops it."""
    return max(case[f"{stage}late_beyond_collections"] for stage in ("first_", "", "end_")) * 1e3


_WATCHED = "1000 watched, period 2 s"
_ENDING = f"1000 runs end within {ENDING_SECONDS} s, period 2 s"
_SHARED = "2000 runs over 4 triggerers, period 5 s"

BUDGETS = (
    Budget(f"{_WATCHED}: requests per period", 2.1, lambda case: case["requests"]),
    Budget(f"{_WATCHED}, pages of 25: requests per period", 42, lambda case: case["requests"], 25),
    Budget(
        f"{_WATCHED}: CPU per run and period, the end of a run after {PERIODS_OF_A_RUN} periods counted, us",
        60,
        lambda case: case["cpu_us_per_run_and_end"],
    ),
    Budget(f"{_WATCHED}: resident memory per run, kB", 8, lambda case: case.get("rss_kb_per_run")),
    Budget(
        f"{_WATCHED}: TCP connections at the same time",
        8,
        lambda case: max(case["connections"], case["end_connections"]),
    ),
    Budget(f"{_WATCHED}: event loop late, worst, first use and ends included, collections not, ms", 20, _late),
    Budget(f"{_ENDING}: the last event after, s", 4, lambda case: case["delay_max"]),
    Budget(f"{_ENDING}: requests until then", 20, lambda case: case["end_requests"]),
    Budget(f"{_ENDING}, pages of 25: the last event after, s", 7, lambda case: case["delay_max"], 25),
    Budget(f"{_SHARED}: requests per period", 6, lambda case: case["requests"], 1000, 2000, 4),
    Budget(f"{_SHARED}, pages of 25: requests per period", 100, lambda case: case["requests"], 25, 2000, 4),
)


def budgets(cases: Sequence[Case]) -> Iterator[Row]:
    """Yield each budget with what both providers cost; the official one reads no lists, and so has no page size."""
    for budget in BUDGETS:
        values = [
            next((budget.value(case) for case in cases if _is_of(case, budget, *column)), None)
            for column in (("official", 1000), ("ours", budget.page_size))
        ]
        yield Row(budget.title, budget.limit, *values)


def budgets_table(cases: Sequence[Case]) -> str:
    """Return the budgets as a Markdown table."""
    rows = [["what", "official", "ours", "at most", ""]]
    for row in budgets(cases):
        verdict = "not measured" if row.ours is None else "ok" if row.kept else "**over**"
        rows.append([row.title, _shown(row.official), _shown(row.ours), f"{row.limit:g}", verdict])
    return table(rows)


def _is_of(case: Case, budget: Budget, provider: str, page_size: int) -> bool:
    wanted = provider, page_size, budget.runs, budget.triggerers
    return (case["provider"], case["page_size"], case["runs"], case["triggerers"]) == wanted


def _shown(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:,.1f}"

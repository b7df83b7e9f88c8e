"""What polling.py has measured as a picture: costs against the number of runs, and the budgets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from polling_budgets import budgets

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from polling_budgets import Row

SERIES = (
    ("official", 1000, "official provider", {"color": "#c0392b", "marker": "o"}),
    ("ours", 25, "airflow_dbjobs, pages of 25", {"color": "#7fb3d5", "marker": "s", "linestyle": "--"}),
    ("ours", 1000, "airflow_dbjobs, pages of 1000", {"color": "#1f618d", "marker": "s"}),
)


def plot(cases: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the panels into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(9.6, 8), layout="constrained")
    # Each has a layout of its own: the names of the budgets are long.
    top, bottom = figure.subfigures(2, 1)
    requests, cpu = top.subplots(1, 2)
    alone = [case for case in cases if case["triggerers"] == 1]
    _panel(requests, alone, "requests", "Requests per polling period")
    _panel(cpu, alone, "cpu_seconds", "CPU seconds per polling period")
    requests.legend(frameon=False, fontsize=9)
    _budgets(bottom.subplots(), [row for row in budgets(cases) if row.ours is not None])
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _budgets(axes: Any, rows: Sequence[Row]) -> None:
    """Draw what each provider takes as a multiple of the budget, from the top down."""
    axes.axvline(1, color="#27ae60", linewidth=1.6, label="at most")
    for provider, _, label, style in (SERIES[0], SERIES[2]):
        points = [(getattr(row, provider) / row.limit, i) for i, row in enumerate(rows) if getattr(row, provider)]
        if points:
            axes.plot(*zip(*points, strict=True), label=label.split(",")[0], linestyle="", markersize=6, **style)
    axes.set(xscale="log", title="Multiples of the budget", yticks=range(len(rows)))
    axes.set_yticklabels([row.title for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.legend(frameon=False, fontsize=9)
    _decorate(axes)


def _panel(axes: Any, cases: Sequence[Mapping[str, Any]], key: str, title: str) -> None:
    for provider, page_size, label, style in SERIES:
        found = [case for case in cases if (case["provider"], case["page_size"]) == (provider, page_size)]
        points = sorted((case["runs"], case[key]) for case in found)
        if points:
            axes.plot(*zip(*points, strict=True), label=label, markersize=4, linewidth=1.6, **style)
    axes.set(xscale="log", yscale="log", title=title, xlabel="watched runs")
    _decorate(axes)


def _decorate(axes: Any) -> None:
    axes.title.set_fontsize(11)
    axes.grid(visible=True, which="major", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

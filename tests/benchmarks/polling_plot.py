"""What polling.py has measured as a picture: requests and processor time against the number of runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

SERIES = (
    ("official", 1000, "official provider", {"color": "#c0392b", "marker": "o"}),
    ("ours", 25, "airflow_dbjobs, pages of 25", {"color": "#7fb3d5", "marker": "s", "linestyle": "--"}),
    ("ours", 1000, "airflow_dbjobs, pages of 1000", {"color": "#1f618d", "marker": "s"}),
)


def plot(about: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the two panels into a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, (requests, cpu) = plt.subplots(1, 2, figsize=(9.6, 4), layout="constrained")
    every = f"per interval of {about['period']} s"
    _panel(requests, cases, "requests", f"Requests {every}")
    _panel(cpu, cases, "cpu_seconds", f"CPU seconds {every}")
    requests.legend(frameon=False, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Any, cases: Sequence[Mapping[str, Any]], key: str, title: str) -> None:
    for provider, page_size, label, style in SERIES:
        found = [case for case in cases if (case["provider"], case["page_size"]) == (provider, page_size)]
        points = sorted((case["runs"], case[key]) for case in found)
        if points:
            axes.plot(*zip(*points, strict=True), label=label, markersize=4, linewidth=1.6, **style)
    axes.set(xscale="log", yscale="log", title=title, xlabel="watched runs")
    axes.title.set_fontsize(11)
    axes.grid(visible=True, which="major", color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)

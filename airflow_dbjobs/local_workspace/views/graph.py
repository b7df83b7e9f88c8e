"""Where the tasks of a run stand in the picture of their graph: a layered layout, from left to right."""

from __future__ import annotations

import graphlib
from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

BOX_HEIGHT: Final = 46
#: The horizontal space between boxes, in which lines bend and carry the outcomes of conditions.
COLUMN_GAP: Final = 64
_ROW_GAP: Final = 16
#: The height that a line takes where it passes a column of boxes.
_LANE_HEIGHT: Final = 6
_MARGIN: Final = 8
#: With more boxes, or more boxes and lanes, a picture is not readable.
MAX_BOXES: Final = 100
_MAX_ITEMS: Final = 400
_SWEEPS: Final = 8

#: The tasks that each task depends on, with the outcome that a condition task must have, or "".
Graph = dict[str, dict[str, str]]
#: A task, or a lane in which the lines from a task (of one outcome) pass a column.
_Item = str | tuple[str, str, int]


@dataclass(frozen=True)
class Box:
    """The place of a task; `x` and `y` are its upper left corner."""

    x: float
    y: float
    width: float


@dataclass(frozen=True)
class Line:
    """A part of the line from one task to others, from column to column. Lines of the same origin share their parts.

    :param source: The task that it begins at, maybe some columns further to the left.
    :param target: The task that it ends at; None if it passes a column there, from `end` to `through`.
    :param label: The outcome of the condition, at the beginning of the line only.
    """

    source: str
    target: str | None
    outcome: str
    label: str
    start: tuple[float, float]
    end: tuple[float, float]
    through: float


@dataclass(frozen=True)
class Layout:
    """A picture's size, boxes and lines."""

    width: float
    height: float
    boxes: dict[str, Box]
    lines: list[Line]


def stages(graph: Graph) -> list[list[str]]:
    """Return the tasks by stage: a stage depends only on those before it. Dependencies on unknown tasks are ignored."""
    upstream = _acyclic(graph)
    stage: dict[str, int] = {}
    for key in graphlib.TopologicalSorter(upstream).static_order():
        stage[key] = max((stage[source] + 1 for source in upstream[key]), default=0)
    columns: list[list[str]] = [[] for _ in range(max(stage.values(), default=-1) + 1)]
    for key in graph:
        columns[stage[key]].append(key)
    return columns


def _acyclic(graph: Graph) -> dict[str, list[str]]:
    """Return the known dependencies. A repair with changed settings can mix old and new ones, which form a cycle."""
    upstream = {key: [source for source in sources if source in graph] for key, sources in graph.items()}
    while True:
        try:
            graphlib.TopologicalSorter(upstream).prepare()
        except graphlib.CycleError as error:
            source, key = error.args[1][:2]
            upstream[key].remove(source)
        else:
            return upstream


def layout(graph: Graph, widths: Mapping[str, float]) -> Layout | None:
    """Return the layout of a graph whose boxes have these widths; None if it is too large to be readable."""
    if len(graph) > MAX_BOXES:
        return None
    columns: list[list[_Item]] = [[*stage] for stage in stages(graph)]
    parts = _parts(graph, columns)
    if sum(map(len, columns)) > _MAX_ITEMS:
        return None
    before, after = defaultdict(list), defaultdict(list)
    for left, right in parts:
        before[right].append(left)
        after[left].append(right)
    _order(columns, before, after)
    y = _rows(columns, before, after)
    return _placed(graph, widths, columns, parts, y)


def _parts(graph: Graph, columns: list[list[_Item]]) -> dict[tuple[_Item, _Item], str]:
    """Return pairs of items in adjacent columns that a line connects, with its outcome; add the lanes to `columns`."""
    upstream = _acyclic(graph)
    stage = {key: index for index, column in enumerate(columns) for key in column}
    parts: dict[tuple[_Item, _Item], str] = {}
    for key in graph:
        for source in upstream[key]:
            outcome = graph[key][source]
            lanes = [(source, outcome, index) for index in range(stage[source] + 1, stage[key])]
            for lane in lanes:
                if lane not in stage:
                    stage[lane] = lane[2]
                    columns[lane[2]].append(lane)
            parts |= dict.fromkeys(pairwise([source, *lanes, key]), outcome)
    return parts


def _order(columns: list[list[_Item]], before: Mapping[_Item, list[_Item]], after: Mapping[_Item, list[_Item]]) -> None:
    """Order each column by the mean position of its neighbours, alternately from both sides: fewer lines cross."""
    position = {item: float(index) for column in columns for index, item in enumerate(column)}
    for column, neighbours in _sweeps(columns, before, after):
        wanted = {item: _mean((position[other] for other in neighbours[item]), position[item]) for item in column}
        column.sort(key=wanted.__getitem__)
        position |= {item: float(index) for index, item in enumerate(column)}


def _sweeps(
    columns: list[list[_Item]], before: Mapping[_Item, list[_Item]], after: Mapping[_Item, list[_Item]]
) -> Iterator[tuple[list[_Item], Mapping[_Item, list[_Item]]]]:
    """Yield all columns some times, alternately from both sides, each with the neighbours on the side it comes from."""
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for column in columns if forward else reversed(columns):
            yield column, before if forward else after


def _rows(
    columns: list[list[_Item]], before: Mapping[_Item, list[_Item]], after: Mapping[_Item, list[_Item]]
) -> dict[_Item, float]:
    """Return the vertical centre of each item: near those of its neighbours, without overlaps in a column."""
    y: dict[_Item, float] = {}
    for column in columns:
        y |= zip(column, _spread([0.0] * len(column), [_height(item) for item in column]), strict=True)
    for column, neighbours in _sweeps(columns, before, after):
        wanted = [_mean((y[other] for other in neighbours[item]), y[item]) for item in column]
        y |= zip(column, _spread(wanted, [_height(item) for item in column]), strict=True)
    top = min((y[item] - _height(item) / 2 for item in y), default=0)
    return {item: value - top + _MARGIN for item, value in y.items()}


def _height(item: _Item) -> float:
    return BOX_HEIGHT if isinstance(item, str) else _LANE_HEIGHT


def _spread(wanted: Sequence[float], heights: Sequence[float]) -> list[float]:
    """Return the centres, as close as possible to the wanted ones, at which things in this order do not overlap.

    Measured from where each would be if all touched, the centres must not decrease: an isotonic regression, by pooling
    adjacent violators.
    """
    touching = [0.0] if wanted else []
    for upper, lower in pairwise(heights):
        touching.append(touching[-1] + (upper + lower) / 2 + _ROW_GAP)
    pools: list[tuple[float, int]] = []
    for centre, least in zip(wanted, touching, strict=True):
        mean, count = centre - least, 1
        while pools and pools[-1][0] > mean:
            other, others = pools.pop()
            mean, count = (mean * count + other * others) / (count + others), count + others
        pools.append((mean, count))
    shifts = [mean for mean, count in pools for _ in range(count)]
    return [shift + least for shift, least in zip(shifts, touching, strict=True)]


def _mean(values: Iterable[float], default: float) -> float:
    given = list(values)
    return sum(given) / len(given) if given else default


def _placed(
    graph: Graph,
    widths: Mapping[str, float],
    columns: list[list[_Item]],
    parts: Mapping[tuple[_Item, _Item], str],
    y: Mapping[_Item, float],
) -> Layout:
    left: dict[_Item, float] = {}
    right: dict[_Item, float] = {}
    x: float = _MARGIN
    for column in columns:
        width = max(widths[item] for item in column if isinstance(item, str))
        left |= dict.fromkeys(column, x)
        right |= dict.fromkeys(column, x + width)
        x += width + COLUMN_GAP
    boxes = {key: Box(left[key], y[key] - BOX_HEIGHT / 2, right[key] - left[key]) for key in graph}
    lines = [
        Line(
            source=start if isinstance(start, str) else start[0],
            target=end if isinstance(end, str) else None,
            outcome=outcome,
            label=outcome if isinstance(start, str) else "",
            start=(right[start], y[start]),
            end=(left[end], y[end]),
            through=right[end],
        )
        for (start, end), outcome in parts.items()
    ]
    height = max((y[item] + _height(item) / 2 for item in y), default=0) + _MARGIN
    return Layout(max(x - COLUMN_GAP, 0) + _MARGIN, height, boxes, lines)

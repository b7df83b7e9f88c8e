"""The picture of a graph of tasks: boxes and lines as SVG, or marks by stage if it is too large for that."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.state.settings import payload_fields

from .graph import BOX_HEIGHT, COLUMN_GAP, Graph, Layout, Line, layout, stages
from .markup import WAITING, Mark, duration_of, mark, state_name, text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import TaskRun

#: The advance of a character of the monospaced font, in which the width of a key is known without measuring it.
_CHARACTER: Final = 7.9
_MAX_CHARACTERS: Final = 26
#: The state and duration below the key need this.
_MIN_WIDTH: Final = 196
_PADDING: Final = 14


@dataclass(frozen=True)
class Node:
    """A task in the picture.

    :param caption: What is below the key; with `mark` None there is no sign before it.
    :param upstream: The tasks it depends on, with the outcome that a condition must have, or "".
    :param outcome: The outcome of this condition, once it is known.
    """

    key: str
    caption: str
    upstream: Mapping[str, str]
    mark: Mark | None = None
    href: str = ""
    outcome: str | None = None

    @property
    def title(self) -> str:
        """What a pointer and a screen reader get: all that the box may cut."""
        return f"{self.key}: {self.caption}"


def job_node(task: Json) -> Node:
    """Return the node of a task of a job."""
    kind = payload_fields(task)[0].removesuffix("_task").replace("_", " ")
    return Node(task["task_key"], kind, _upstream(task))


def run_node(task: TaskRun, href: str, now_ms: int) -> Node:
    """Return the node of a task of a run."""
    caption = " · ".join(filter(None, (state_name(task.state), task.outcome, duration_of(task, now_ms))))
    return Node(task.task_key, caption, _upstream(task.spec), mark(task.state), href, task.outcome)


def _upstream(task: Json) -> dict[str, str]:
    outcomes: dict[str, list[str]] = {}
    for item in task.get("depends_on", []):
        outcomes.setdefault(item["task_key"], []).append(str(item.get("outcome") or "").lower())
    return {key: ", ".join(filter(None, found)) for key, found in outcomes.items()}


def picture(nodes: Sequence[Node]) -> str:
    """Return the picture of a graph of tasks as HTML."""
    graph: Graph = {node.key: dict(node.upstream) for node in nodes}
    found = layout(graph, {node.key: _width(node.key) for node in nodes})
    return _boxes(nodes, found) if found else _marks(nodes, stages(graph))


def _boxes(nodes: Sequence[Node], found: Layout) -> str:
    by_key = {node.key: node for node in nodes}
    lines = "".join(_line(line, by_key[line.source]) for line in found.lines)
    boxes = "".join(_box(node, found) for node in nodes)
    size = f'width="{found.width:.0f}" height="{found.height:.0f}" viewBox="0 0 {found.width:.0f} {found.height:.0f}"'
    return (
        f'<div class="graph scroll" tabindex="0" role="region" aria-label="Task graph">'
        f'<svg {size} role="group" aria-label="{len(nodes)} tasks and their dependencies">'
        f"{lines}{boxes}</svg></div>"
    )


def _box(node: Node, found: Layout) -> str:
    box = found.boxes[node.key]
    css = node.mark.css if node.mark else "plain"
    sign = f'<tspan class="sign">{node.mark.sign}</tspan> ' if node.mark else ""
    drawn = (
        f'<title>{text(node.title)}</title><rect width="{box.width:.1f}" height="{BOX_HEIGHT}" rx="6"/>'
        f'<text class="key" x="{_PADDING}" y="19">{text(_cut(node.key))}</text>'
        f'<text x="{_PADDING}" y="36">{sign}{text(node.caption)}</text>'
    )
    if node.href:
        drawn = f'<a href="{text(node.href)}" aria-label="{text(node.title)}">{drawn}</a>'
    return f'<g id="g-{text(node.key)}" class="box {css}" transform="translate({box.x:.1f} {box.y:.1f})">{drawn}</g>'


def _line(line: Line, source: Node) -> str:
    (x1, y1), (x2, y2) = line.start, line.end
    bend = COLUMN_GAP / 2
    path = f"M{x1:.1f} {y1:.1f}C{x1 + bend:.1f} {y1:.1f} {x2 - bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    head = "" if line.target else f"H{line.through:.1f}"
    if line.target:
        head = f"M{x2 - 6:.1f} {y2 - 4:.1f}L{x2:.1f} {y2:.1f}L{x2 - 6:.1f} {y2 + 4:.1f}"
    # The branch that a condition did not take.
    off = " off" if line.outcome and source.outcome and source.outcome not in line.outcome.split(", ") else ""
    label = ""
    if line.label:
        middle = f'x="{(x1 + x2) / 2:.1f}" y="{(y1 + y2) / 2 + 4:.1f}"'
        label = f'<text class="outcome" {middle}>{text(line.label)}</text>'
    return f'<g class="line{off}"><path d="{path}{head}"/>{label}</g>'


def _marks(nodes: Sequence[Node], found: list[list[str]]) -> str:
    by_key = {node.key: node for node in nodes}
    rows = "".join(
        f'<li><span class="dim">{number}</span><div>{"".join(_mark(by_key[key]) for key in stage)}</div></li>'
        for number, stage in enumerate(found, 1)
    )
    return (
        f'<p class="dim">{len(nodes)} tasks in {len(found)} stages. A task depends on tasks of earlier stages only; '
        f'the names are in the list below.</p><ol class="stages scroll" tabindex="0" aria-label="Stages">{rows}</ol>'
    )


def _mark(node: Node) -> str:
    return mark_link(node.href, node.mark or WAITING, node.title)


def mark_link(href: str, look: Mark, title: str) -> str:
    """Return a small square with a sign; a link if there is something to link to."""
    attributes = f'class="mark {look.css}" title="{text(title)}"'
    return f'<a href="{text(href)}" {attributes}>{look.sign}</a>' if href else f"<span {attributes}>{look.sign}</span>"


def _width(key: str) -> float:
    return max(_MIN_WIDTH, _characters(_cut(key)) * _CHARACTER + 2 * _PADDING)


def _cut(key: str) -> str:
    """Return a key without its middle, if it is long: keys often differ at their end."""
    if _characters(key) <= _MAX_CHARACTERS:
        return key
    kept = _MAX_CHARACTERS // 2 if _characters(key) == len(key) else _MAX_CHARACTERS // 4
    return f"{key[:kept]}…{key[1 - kept :]}"


def _characters(key: str) -> int:
    """Return the width of a key in characters; those of East Asia are twice as wide as others."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in key)

"""Where tasks stand in the picture of a graph."""

from __future__ import annotations

import random
from itertools import combinations

import pytest

from airflow_dbjobs.local_workspace.views.graph import BOX_HEIGHT, MAX_BOXES, Graph, Layout, layout, stages

WIDTH = 100.0


def graph(edges: dict[str, str]) -> Graph:
    """Return a graph: `{"c": "a b"}` means that c depends on a and b."""
    return {key: dict.fromkeys(upstream.split(), "") for key, upstream in edges.items()}


def tangled(seed: int, size: int) -> Graph:
    rng = random.Random(seed)
    keys = [f"t{index}" for index in range(size)]
    return {
        key: dict.fromkeys(rng.sample(keys[:index], min(index, rng.randrange(3))), "") for index, key in enumerate(keys)
    }


def fan(size: int) -> Graph:
    parts = [f"part{index}" for index in range(size)]
    return graph({"start": "", **dict.fromkeys(parts, "start"), "end": " ".join(parts)})


SHAPES = {
    "one": graph({"a": ""}),
    "apart": graph({"a": "", "b": "", "c": ""}),
    "chain": graph({"a": "", **{f"b{index}": f"b{index - 1}" if index else "a" for index in range(30)}}),
    "diamond": graph({"a": "", "b": "a", "c": "a", "d": "b c"}),
    "shortcut": graph({"a": "", "b": "a", "c": "b", "d": "a c"}),
    "fan": fan(40),
    "sixty": tangled(1, 60),
    "hundred": tangled(2, MAX_BOXES),
}


def laid_out(of: Graph) -> Layout:
    found = layout(of, {key: WIDTH + len(key) for key in of})
    assert found is not None
    return found


@pytest.mark.parametrize("of", SHAPES.values(), ids=SHAPES)
class TestLayout:
    def test_boxes_do_not_overlap(self, of: Graph) -> None:
        boxes = laid_out(of).boxes
        assert boxes.keys() == of.keys()
        for one, other in combinations(boxes.values(), 2):
            apart_x = one.x + one.width < other.x or other.x + other.width < one.x
            assert apart_x or abs(one.y - other.y) > BOX_HEIGHT

    def test_everything_is_inside(self, of: Graph) -> None:
        found = laid_out(of)
        for box in found.boxes.values():
            assert box.x >= 0
            assert box.y >= 0
            assert box.x + box.width <= found.width
            assert box.y + BOX_HEIGHT <= found.height
        for line in found.lines:
            assert all(0 <= y <= found.height for _, y in (line.start, line.end))

    def test_lines_lead_forward_from_each_task_to_those_that_depend_on_it(self, of: Graph) -> None:
        found = laid_out(of)
        reached = set()
        for line in found.lines:
            assert line.start[0] < line.end[0]
            if line.target:
                reached.add((line.source, line.target))
                assert line.end == (found.boxes[line.target].x, found.boxes[line.target].y + BOX_HEIGHT / 2)
        assert reached == {(source, key) for key, sources in of.items() for source in sources}
        starts = {(box.x + box.width, box.y + BOX_HEIGHT / 2): key for key, box in found.boxes.items()}
        passed = {(line.source, line.through, line.end[1]) for line in found.lines if line.target is None}
        for line in found.lines:
            assert starts.get(line.start) == line.source or (line.source, *line.start) in passed

    def test_lines_pass_no_box(self, of: Graph) -> None:
        found = laid_out(of)
        for line in found.lines:
            if line.target is None:
                column = [box for box in found.boxes.values() if box.x == line.end[0]]
                assert column
                assert not any(box.y <= line.end[1] <= box.y + BOX_HEIGHT for box in column)


class TestShape:
    def test_a_chain_is_straight(self) -> None:
        assert len({box.y for box in laid_out(SHAPES["chain"]).boxes.values()}) == 1

    def test_a_task_is_at_the_centre_of_those_that_depend_on_it(self) -> None:
        boxes = laid_out(SHAPES["fan"]).boxes
        ends = [boxes["part0"].y, boxes["part39"].y]
        assert boxes["start"].y == pytest.approx(sum(ends) / 2)
        assert boxes["end"].y == pytest.approx(sum(ends) / 2)

    def test_lines_do_not_cross_where_they_need_not(self) -> None:
        boxes = laid_out(graph({"a": "", "b": "", "c": "", "x": "c", "y": "b", "z": "a"})).boxes
        assert [boxes[key].y for key in "abc"] == [boxes[key].y for key in "zyx"]

    def test_outcomes_label_the_first_part_of_a_line_each_once(self) -> None:
        lines = laid_out(
            {"if": {}, "yes": {"if": "true"}, "no": {"if": "false"}, "end": {"if": "true", "no": ""}}
        ).lines
        assert sorted(line.label for line in lines if line.label) == ["false", "true", "true"]


class TestStages:
    def test_a_stage_depends_on_earlier_ones(self) -> None:
        assert stages(SHAPES["shortcut"]) == [["a"], ["b"], ["c"], ["d"]]
        assert stages({}) == []

    def test_dependencies_on_tasks_that_do_not_run_are_ignored(self) -> None:
        assert stages(graph({"b": "a"})) == [["b"]]
        assert laid_out(graph({"b": "a"})).lines == []

    def test_a_cycle_is_cut(self) -> None:
        # A repair after a change of the job: "a" has its old dependencies, "b" has new ones.
        of = graph({"a": "b", "b": "a"})
        assert sorted(map(len, stages(of))) == [1, 1]
        assert len(laid_out(of).lines) == 1

    @pytest.mark.parametrize("of", [tangled(3, MAX_BOXES + 1), tangled(3, 1000)], ids=["many", "a thousand"])
    def test_large_graphs_have_stages_but_no_layout(self, of: Graph) -> None:
        assert layout(of, dict.fromkeys(of, WIDTH)) is None
        found = stages(of)
        assert sorted(key for stage in found for key in stage) == sorted(of)
        number = {key: index for index, stage in enumerate(found) for key in stage}
        assert all(number[source] < number[key] for key, sources in of.items() for source in sources)

    def test_so_have_graphs_whose_lines_pass_too_many_columns(self) -> None:
        keys = [f"t{index}" for index in range(60)]
        of = {key: dict.fromkeys(keys[:index], "") for index, key in enumerate(keys)}
        assert layout(of, dict.fromkeys(of, WIDTH)) is None

"""What `display` prints of things that are no DataFrames of Spark."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from airflow_dbjobs.local_workspace.engine.runtime.display import display, displayHTML


class Item(NamedTuple):
    name: str
    size: int | None


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]):
    def show(*things: object) -> str:
        display(*things)
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize(
    "rows", [[Item("a", 1), Item("b\n", None)], [{"name": "a", "size": 1}, {"name": "b\n", "size": None}]]
)
def test_rows_are_a_table(printed, rows: list[object]) -> None:
    assert printed(rows) == (
        "+------+------+\n| name | size |\n+------+------+\n| a    | 1    |\n| b\\n  | null |\n+------+------+\n"
    )


def test_long_tables_and_cells_are_cut(printed) -> None:
    text = printed([{"n": "x" * 70}] * 101)
    assert text.count("x" * 57 + "...") == 100
    assert text.endswith("(the first 100 rows)\n")


def test_other_things_are_printed(printed) -> None:
    assert printed("text", [1, 2], None) == "text\n[1, 2]\nNone\n"


def test_html_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    displayHTML("<style>p {color: red}</style><h1>Title</h1>\n\n  <p>some <b>text</b></p><script>1 < 2</script>")
    assert " ".join(capsys.readouterr().out.split()) == "[HTML, as text] Title some text"

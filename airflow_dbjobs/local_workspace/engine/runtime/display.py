"""`display` and `displayHTML`: tables as text, for a log."""

from __future__ import annotations

import re
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

#: What a table in the log shows at most.
_MAX_ROWS = 100
_MAX_WIDTH = 60
_MAX_HTML = 2_000


def display(*things: Any, **_: object) -> None:
    """Print DataFrames and lists of rows as tables, and other things as they print themselves."""
    for thing in things:
        print(_shown(thing))


def displayHTML(html: object) -> None:
    """Print the text of HTML, which a log cannot show."""
    text = re.sub(r"(?is)<(script|style)\b.*?</\1\s*>|<[^>]*>", " ", str(html))
    text = re.sub(r"\s*\n\s*", "\n", re.sub(r"[ \t]+", " ", text)).strip()
    print(f"[HTML, as text] {text[:_MAX_HTML]}")


def _shown(thing: Any) -> str:
    module = type(thing).__module__
    package = module.partition(".")[0]
    if package == "pyspark" and hasattr(thing, "toPandas"):
        # A stream has no rows to collect.
        return repr(thing) if thing.isStreaming else _table(thing.columns, thing.limit(_MAX_ROWS + 1).collect())
    if package == "pandas":
        frame = thing.to_frame() if hasattr(thing, "to_frame") else thing
        if hasattr(frame, "itertuples"):
            return _table([str(name) for name in frame.columns], frame.itertuples(index=False))
    if module.startswith("matplotlib.figure"):
        return f"[{thing}: the log shows no pictures]"
    if isinstance(thing, list) and thing and (columns := _columns(thing[0])):
        return _table(columns, (row.values() if isinstance(row, dict) else row for row in thing))
    return str(thing)


def _columns(row: Any) -> list[str]:
    """Return the names of the fields of a dict, a named tuple or Spark's Row; none if it is something else."""
    if isinstance(row, dict):
        return [str(name) for name in row]
    return list(getattr(row, "_fields", ()) or getattr(row, "__fields__", ()))


def _table(columns: Sequence[str], rows: Iterable[Iterable[Any]]) -> str:
    first = list(islice(rows, _MAX_ROWS + 1))
    lines = [[_cell(value) for value in row] for row in [columns, *first[:_MAX_ROWS]]]
    widths = [max(map(len, column)) for column in zip(*lines, strict=False)]
    rule = "+" + "".join("-" * (width + 2) + "+" for width in widths)
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    more = [f"(the first {_MAX_ROWS} rows)"] if len(first) > _MAX_ROWS else []
    return "\n".join([rule, text[0], rule, *text[1:], rule, *more])


def _cell(value: Any) -> str:
    text = "null" if value is None else str(value).replace("\n", "\\n")
    return text if len(text) <= _MAX_WIDTH else text[: _MAX_WIDTH - 3] + "..."


def summarize(df: Any, precise: bool = False) -> None:
    """Print statistics of a DataFrame's columns."""
    display(df.describe().reset_index() if type(df).__module__.startswith("pandas") else df.summary())

"""The SQL of cells and files: its statements, and the values of parameters in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .widgets import Widgets

#: Strings, quoted names and comments, in which nothing counts; and what does.
_TOKENS = re.compile(
    r"""
    (?P<skipped> '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | `[^`]*` | --[^\n]* | /\*.*?\*/ )
    | (?P<end> ; )
    | (?<![:\w]) : (?P<marker> [A-Za-z_]\w* )
    """,
    re.VERBOSE | re.DOTALL,
)
_WIDGET = re.compile(
    r"""\s* (?: CREATE \s+ WIDGET \s+ \w+ \s+ (?P<name>\w+) \s+ DEFAULT \s+ (?P<quote>['"]) (?P<default>.*?) (?P=quote)
    | REMOVE \s+ WIDGET \s+ (?P<removed>\w+) )""",
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)
_COMMENT = re.compile(r"--[^\n]*|/\*.*?\*/", re.DOTALL)
_VARIABLE = re.compile(r"\$(?:\{([\w.-]+)\}|(\w+))")


def split_statements(text: str) -> list[str]:
    """Return the statements of a text: semicolons separate them, except in strings and comments."""
    statements = []
    start = 0
    for token in _TOKENS.finditer(text):
        if token["end"]:
            statements.append(text[start : token.start()])
            start = token.end()
    statements.append(text[start:])
    return [statement.strip() for statement in statements if _COMMENT.sub("", statement).strip()]


def fill_in(statement: str, values: Mapping[str, str]) -> str:
    """Replace the markers of parameters, such as `:name`, by literals: Sail takes parameters in queries only."""
    return _TOKENS.sub(
        lambda token: literal(values[token["marker"]]) if token["marker"] in values else token[0], statement
    )


def literal(text: str) -> str:
    """Return a text as a literal of SQL."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Replace `${name}` and `$name` by values. Others stay: they may be variables of Spark's configuration."""
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], found[0]), text)


def changes_widgets(statement: str, widgets: Widgets) -> bool:
    """Do what a statement such as `CREATE WIDGET TEXT name DEFAULT ''` says; return whether it was one."""
    found = _WIDGET.match(_COMMENT.sub("", statement))
    if found and found["name"]:
        widgets.text(found["name"], found["default"])
    elif found:
        widgets.remove(found["removed"])
    return found is not None

"""What `%sql` cells need: statements, and the values of parameters in them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Strings, quoted names and comments, in which nothing counts; and what does.
_TOKENS = re.compile(
    r"""
    (?P<skipped> '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | `[^`]*` | --[^\n]* | /\*.*?\*/ )
    | (?P<end> ; )
    | (?<![:\w]) : (?P<marker> [A-Za-z_]\w* )
    """,
    re.VERBOSE | re.DOTALL,
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


def used_parameters(statement: str, values: Mapping[str, str]) -> dict[str, str]:
    """Return those of the values that a statement has a marker for, such as `:name`."""
    names = {token["marker"] for token in _TOKENS.finditer(statement)}
    return {name: value for name, value in values.items() if name in names}


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Replace `${name}` and `$name` by values. Others stay: they may be variables of Spark's configuration."""
    return _VARIABLE.sub(lambda found: values.get(found[1] or found[2], found[0]), text)

"""Reads the cells of notebooks: Databricks source (.py, .sql) and Jupyter (.ipynb).

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

import json
import re

# The part of ast that is in C: the rest is not needed, and slow to import.
from _ast import PyCF_ONLY_AST
from typing import TYPE_CHECKING, NamedTuple

from .notebooks import COMMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MAGIC = re.compile(r"%{1,2}([A-Za-z][\w-]*)\s*(.*)|!")
#: Magics that change the Python environment or Jupyter. The environment is the user's own here, so they are skipped,
#: with a note in the log.
_SKIPPED = frozenset({"pip", "conda", "restart_python", "matplotlib", "load_ext", "autoreload", "config"})
#: Magics whose cell is Python.
_PYTHON = frozenset({"python", "time", "timeit", "capture"})
#: Magics to which the rest of the cell belongs.
_WHOLE = frozenset({"sql", "sh", "fs"})


class Cell(NamedTuple):
    """One step of a notebook.

    `kind` is "python", "sql" or "sh" (`text` is the code), "fs" (`text` is commands), "run" (`text` is the path of
    another notebook and its arguments), "note" (`text` is logged) or "unsupported" (`text` is the magic). Tracebacks
    use `filename` and `first_line`, which counts from 1.
    """

    kind: str
    text: str
    filename: str
    first_line: int = 1


def read_cells(file: Path) -> list[Cell]:
    """Return the cells of a notebook file, without markdown."""
    text = file.read_text(encoding="utf-8-sig")
    return _jupyter_cells(file, text) if file.suffix == ".ipynb" else _source_cells(file, text)


def _source_cells(file: Path, text: str) -> list[Cell]:
    comment = COMMENTS[file.suffix]
    separator, magic, title = (f"{comment} {word}" for word in ("COMMAND ----------", "MAGIC", "DBTITLE"))
    language = "sql" if file.suffix == ".sql" else "python"
    cells: list[Cell] = []
    lines: list[str] = []
    first_line = 2
    # `splitlines` would also split at characters that Python allows within a string, such as U+2028.
    for number, line in enumerate([*text.rstrip("\n").split("\n")[1:], separator], start=2):
        if line.strip() != separator:
            lines.append("" if line.startswith(title) else line)
            continue
        code = [item.removeprefix(magic).removeprefix(" ") if item.startswith(magic) else item for item in lines]
        if code != lines:
            cells += _cells(code, language, str(file), first_line)
        elif any(item.strip() for item in lines):
            cells.append(Cell(language, "\n".join(lines), str(file), first_line))
        lines, first_line = [], number + 1
    return cells


def _jupyter_cells(file: Path, text: str) -> list[Cell]:
    content = json.loads(text)
    databricks = content.get("metadata", {}).get("application/vnd.databricks.v1+notebook", {})
    language = "sql" if databricks.get("language") == "sql" else "python"
    cells: list[Cell] = []
    for number, item in enumerate(content.get("cells", []), start=1):
        if item.get("cell_type") == "code":
            source = item.get("source", "")
            code = source if isinstance(source, str) else "".join(source)
            cells += _cells(code.split("\n"), language, f"{file} cell {number}", 1)
    return cells


def _cells(lines: list[str], language: str, filename: str, first_line: int) -> list[Cell]:
    """Split a cell at its magics. A cell that is valid Python has none, as `% b` may continue an expression."""
    text = "\n".join(lines)
    is_sql = language == "sql" and not text.lstrip().startswith("%")
    if is_sql or _is_python(text):
        return [Cell("sql" if is_sql else "python", text, filename, first_line)] if text.strip() else []
    return list(_split(lines, filename, first_line))


def _split(lines: list[str], filename: str, first_line: int) -> Iterator[Cell]:
    code: list[str] = []
    code_line = first_line
    numbered = iter(enumerate(lines, start=first_line))
    for number, line in numbered:
        magic = _MAGIC.match(line)
        word = (magic[1] or "!") if magic else ""
        if word.startswith("md"):
            break
        if not magic or word in _PYTHON:
            code_line = code_line if code else number
            # The rest of the cell is code; the line of the magic is kept, so that line numbers stay right.
            code.append(line if not magic else "" if line.startswith("%%") else magic[2])
            continue
        yield from _python(code, filename, code_line)
        code = []
        if word in {"!", "run", *_SKIPPED}:
            command = line
            while command.endswith("\\"):
                command = command[:-1] + next(numbered, (0, ""))[1]
            yield _line_magic(word, command, Cell("", "", filename, number))
        else:
            text = "\n".join([magic[2], *(rest for _, rest in numbered)])
            yield (
                Cell(word, text, filename, number)
                if word in _WHOLE
                else Cell("unsupported", f"%{word}", filename, number)
            )
    yield from _python(code, filename, code_line)


def _line_magic(word: str, line: str, at: Cell) -> Cell:
    command = line[1:].strip() if word == "!" else line.partition(word)[2].strip()
    if word == "run":
        return at._replace(kind="run", text=command)
    if word == "!" and command.split(maxsplit=1)[:1] not in (["pip"], ["conda"]):
        return at._replace(kind="sh", text=command)
    return at._replace(kind="note", text=f"The local workspace skips '{line}'.")


def _python(code: list[str], filename: str, first_line: int) -> Iterator[Cell]:
    if any(line.strip() for line in code):
        yield Cell("python", "\n".join(code), filename, first_line)


def _is_python(code: str) -> bool:
    try:
        compile(code, "cell", "exec", PyCF_ONLY_AST, dont_inherit=True)
    except SyntaxError:
        return False
    return True

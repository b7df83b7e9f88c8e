"""Finds files in the workspace, and reads notebooks: Databricks source (.py) and Jupyter (.ipynb).

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

import ast
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.state.paths import OutsideRootError, PlaceError, place_of

if TYPE_CHECKING:
    from pathlib import Path

#: The first line of a notebook in source format.
HEADER = "# Databricks notebook source"
_SEPARATOR = "# COMMAND ----------"
_MAGIC = re.compile(r"# MAGIC ?")
#: Magics that change the Python environment. Here that is the user's own, so they are skipped, with a note in the log.
_SKIPPED = frozenset({"pip", "conda", "restart_python", "matplotlib", "load_ext", "autoreload"})


class WorkspaceFileError(Exception):
    """A path that names no file or notebook of the workspace, or one outside its root."""


@dataclass(frozen=True)
class Cell:
    """One step of a notebook.

    `kind` is "python" (`text` is the code), "run" (`text` is the path of another notebook), "note" (`text` is logged)
    or "unsupported" (`text` is the magic). Tracebacks use `filename` and `first_line`, which counts from 1.
    """

    kind: str
    text: str
    filename: str
    first_line: int = 1


def find_file(root: Path, path: str, *, folder: Path | None = None, suffixes: tuple[str, ...] = ("",)) -> Path:
    """Return the file of the workspace that `path` names.

    Relative paths start at `folder` or the root, and `place_of` says where others are. What `dbfs:/x` names may also be
    `x` below the root. `suffixes` are tried in order.

    :raises WorkspaceFileError: There is no such file, or it is outside the root after following symbolic links.
    """
    for name in dict.fromkeys((path, path.removeprefix("dbfs:"))):
        for suffix in suffixes:
            try:
                file = place_of(root, name + suffix, folder=folder)
                found = file.is_file()
            except OutsideRootError as error:
                raise WorkspaceFileError(f"{str(error)[:-1]}; it was not run.") from None
            except (PlaceError, OSError):
                continue
            if found:
                return file
    raise WorkspaceFileError(f"{path!r} was not found under the root folder of the local workspace.")


def find_notebook(root: Path, path: str, *, folder: Path | None = None) -> Path:
    """Return the notebook file that `path` names, with or without its extension.

    :raises WorkspaceFileError: As in `find_file`, or the file is not a notebook.
    """
    file = find_file(root, path, folder=folder, suffixes=("", ".py", ".ipynb"))
    if file.suffix == ".ipynb":
        return file
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline().strip().removeprefix("\ufeff")
    except OSError as error:
        raise WorkspaceFileError(f"{path!r} cannot be read: {error.strerror}.") from None
    if first != HEADER:
        raise WorkspaceFileError(f"{path!r} is not a notebook: its first line is not {HEADER!r}.")
    return file


def read_cells(file: Path) -> list[Cell]:
    """Return the cells of a notebook file, without markdown."""
    text = file.read_text(encoding="utf-8-sig")
    return _jupyter_cells(file, text) if file.suffix == ".ipynb" else _source_cells(file, text)


def _source_cells(file: Path, text: str) -> list[Cell]:
    cells: list[Cell] = []
    lines: list[str] = []
    first_line = 2
    for number, line in enumerate([*text.splitlines()[1:], _SEPARATOR], start=2):
        if line.strip() != _SEPARATOR:
            lines.append(line)
            continue
        if any(_MAGIC.match(item) for item in lines):
            lines = [_MAGIC.sub("", item) for item in lines]
            cells += _magic_cells(lines, str(file), first_line)
        else:
            cells.append(Cell("python", "\n".join(lines), str(file), first_line))
        lines, first_line = [], number + 1
    return cells


def _jupyter_cells(file: Path, text: str) -> list[Cell]:
    cells: list[Cell] = []
    for number, item in enumerate(json.loads(text).get("cells", []), start=1):
        if item.get("cell_type") == "code":
            source = item.get("source", "")
            code = source if isinstance(source, str) else "".join(source)
            cells += _magic_cells(code.splitlines(), f"{file} cell {number}", 1)
    return cells


def _magic_cells(lines: list[str], filename: str, first_line: int) -> list[Cell]:
    """Split a cell at its magics. A cell that is valid Python has none, as `% b` may continue an expression."""
    cells: list[Cell] = []
    code: list[str] = []
    code_line = first_line

    def flush() -> None:
        if any(line.strip() for line in code):
            cells.append(Cell("python", "\n".join(code), filename, code_line))

    if _is_python("\n".join(lines)):
        code = lines
    else:
        for offset, line in enumerate(lines):
            word, _, rest = line.lstrip("%").partition(" ")
            if line.startswith("%python"):
                # The rest of the cell is code; the line is kept, so that line numbers stay right.
                code.append(rest.strip())
            elif line.startswith("%md"):
                break
            elif re.match(r"%{1,2}[A-Za-z]", line) or line.startswith("!"):
                flush()
                code, code_line = [], first_line + offset + 1
                cells.append(_magic(word, rest.strip(), line, Cell("", "", filename, first_line + offset)))
                if cells[-1].kind == "unsupported":
                    return cells
            else:
                code.append(line)
    flush()
    return cells


def _magic(word: str, rest: str, line: str, at: Cell) -> Cell:
    if word == "run":
        return Cell("run", rest, at.filename, at.first_line)
    if word in _SKIPPED:
        return Cell("note", f"The local workspace skips '{line}'.", at.filename, at.first_line)
    return Cell("unsupported", "!" if line.startswith("!") else f"%{word}", at.filename, at.first_line)


def _is_python(code: str) -> bool:
    try:
        ast.parse(code)
    except SyntaxError:
        return False
    return True

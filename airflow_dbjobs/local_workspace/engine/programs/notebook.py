"""The program of a `notebook_task`."""

from __future__ import annotations

import linecache
import os
import shlex

# As in cells.py.
from _ast import Expr, Expression, PyCF_ONLY_AST
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.engine.cells import Cell, read_cells
from airflow_dbjobs.local_workspace.engine.notebooks import find_notebook
from airflow_dbjobs.local_workspace.engine.runtime.display import display
from airflow_dbjobs.local_workspace.engine.runtime.errors import NotSupportedError
from airflow_dbjobs.local_workspace.engine.runtime.modules import provide
from airflow_dbjobs.local_workspace.engine.runtime.names import provided_names

from .python import main_namespace

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.engine.runtime.dbutils import DBUtils


def run(program: dict[str, Any], folder: Path) -> None:
    """Run a notebook in the namespace of `__main__`."""
    dbutils = provide(program, folder)
    # Figures must not open windows, which would wait for somebody to close them.
    os.environ.setdefault("MPLBACKEND", "Agg")
    Notebook(Path(program["root"]), dbutils, main_namespace(program)).run(Path(program["file"]))


class Notebook:
    """Runs notebooks in one namespace, which gets the names that Databricks provides."""

    def __init__(self, root: Path, dbutils: DBUtils, namespace: dict[str, Any]) -> None:
        self._root = root
        self._dbutils = dbutils
        self._namespace = namespace
        self._running: list[Path] = []
        namespace.update(provided_names(dbutils))

    def run(self, file: Path) -> None:
        """Run a notebook, cell by cell."""
        self._running.append(file)
        for cell in read_cells(file):
            match cell.kind:
                case "python":
                    self._python(cell)
                case "sql":
                    self._sql(cell)
                case "sh":
                    _shell(cell.text)
                case "fs":
                    self._fs(cell.text)
                case "run":
                    self._inline(cell.text, file)
                case "note":
                    print(cell.text)
                case _:
                    raise NotSupportedError(
                        f"{cell.filename}, line {cell.first_line}: the local workspace cannot run {cell.text} cells"
                    )
        self._running.pop()

    def _python(self, cell: Cell) -> None:
        name = cell.filename
        # Leading blank lines keep the line numbers of the file, so that tracebacks point to the right place.
        code = "\n" * (cell.first_line - 1) + cell.text
        if not Path(name).is_file():
            linecache.cache[name] = (len(code), None, [f"{line}\n" for line in code.split("\n")], name)
        # The user's code must not inherit the __future__ imports of this module.
        tree: Any = compile(code, name, "exec", PyCF_ONLY_AST, dont_inherit=True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], Expr) else None
        exec(compile(tree, name, "exec", dont_inherit=True), self._namespace)
        if last:
            value = eval(compile(Expression(last.value), name, "eval", dont_inherit=True), self._namespace)
            if value is not None and not cell.text.rstrip().endswith(";"):
                print(repr(value))

    def _sql(self, cell: Cell) -> None:
        # Imported here, as few notebooks need it, and every task should start fast.
        from airflow_dbjobs.local_workspace.engine.runtime import sql

        text = ""
        frame = None
        try:
            for statement in sql.split_statements(cell.text):
                if sql.changes_widgets(statement, self._dbutils.widgets):
                    continue
                values = self._dbutils.widgets.getAll()
                text = sql.fill_in(sql.substitute(statement, values), values)
                frame = self._namespace["spark"].sql(text)
            self._namespace["_sqldf"] = frame
            if frame is not None and frame.columns:
                display(frame)
        except Exception as error:
            error.add_note(f"In the SQL cell at {cell.filename}, line {cell.first_line}: {text}")
            raise

    def _fs(self, text: str) -> None:
        for line in text.splitlines():
            if line.strip():
                command, *arguments = shlex.split(line)
                options = dict(item[2:].split("=", 1) for item in arguments if item.startswith("--"))
                named = {name: int(value) if value.isdigit() else value == "true" for name, value in options.items()}
                if "-r" in arguments:
                    named["recurse"] = True
                display(getattr(self._dbutils.fs, command)(*(item for item in arguments if item[0] != "-"), **named))

    def _inline(self, line: str, file: Path) -> None:
        path, *assignments = shlex.split(line)
        arguments = dict(item.removeprefix("$").partition("=")[::2] for item in assignments)
        with self._dbutils.widgets.overridden(arguments):
            found = find_notebook(self._root, path, folder=file.parent)
            if found in self._running:
                raise RecursionError(f"%run {path} in {file.name}: that notebook is already running")
            self.run(found)


def _shell(script: str) -> None:
    # As above.
    import subprocess

    with subprocess.Popen(["/bin/bash", "-c", script], stdin=subprocess.DEVNULL) as shell:
        code = shell.wait()
    if code:
        # On Databricks this does not fail the notebook either.
        print(f"The shell ended with code {code}.")

"""Runs a task's file or notebook inside its subprocess, with the names that Databricks provides."""

from __future__ import annotations

import importlib
import json
import linecache
import os
import shlex
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from .notebooks import Cell, WorkspaceFileError, find_notebook, read_cells
from .task_files import read_json, write_json, write_program

#: The API returns the first 5 MB of a notebook's exit value.
_MAX_RESULT_BYTES = 5 * 1024 * 1024
#: The longest error and traceback that are kept, in characters.
_MAX_ERROR = 10_000
_MAX_TRACE = 1_000_000
_HERE = Path(__file__).resolve().parent


class NotebookExit(BaseException):
    """`dbutils.notebook.exit` was called. Not an Exception, so that the user's `except Exception` does not catch it."""


class NotSupportedError(NotImplementedError):
    """The local workspace does not have this feature of Databricks."""

    # Tracebacks show the module of a class; users do not know this one.
    __module__ = "dbutils"


class InputWidgetNotDefinedError(KeyError):
    """A notebook read a widget that is not defined and has no parameter."""

    __module__ = "dbutils"

    def __str__(self) -> str:
        return str(self.args[0])


class NotebookRunError(RuntimeError):
    """A notebook started by `dbutils.notebook.run` failed or timed out."""

    __module__ = "dbutils"


def run(folder: Path) -> int:
    """Run the program that `folder/program.json` describes; return its exit code.

    It writes results to `folder/result.json`: `exit_value` and `truncated` of a notebook, `error` and `error_trace` of
    a failure.
    """
    program = json.loads((folder / "program.json").read_text())
    try:
        _execute(program, folder)
    except NotebookExit as exit_:
        value = str(exit_.args[0]).encode(errors="replace")
        result = value[:_MAX_RESULT_BYTES].decode(errors="ignore")
        write_json(folder / "result.json", {"exit_value": result, "truncated": len(value) > _MAX_RESULT_BYTES})
    except SystemExit as exit_:
        return _exit_code(exit_, folder)
    except BaseException as error:  # noqa: BLE001 - any exception of the program is its error
        _report(error, folder)
        return 1
    return 0


def _execute(program: dict[str, Any], folder: Path) -> None:
    kind = program["kind"]
    if kind not in ("notebook", "python"):
        os.chdir(program["root"])
        importlib.import_module(f"{__package__}.programs.{kind}").run(program, folder)
        return
    file = Path(program["file"])
    os.chdir(file.parent)
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file), *program["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = str(file)
    if kind == "notebook":
        _Notebook(Path(program["root"]), program["widgets"], folder, main.__dict__).execute(file)
    else:
        exec(_compile(file.read_bytes(), str(file)), main.__dict__)  # noqa: S102 - running the user's code


def _compile(code: str | bytes, filename: str) -> types.CodeType:
    # The user's code must not inherit the __future__ imports of this module.
    return compile(code, filename, "exec", dont_inherit=True)


def _exit_code(exit_: SystemExit, folder: Path) -> int:
    if exit_.code is None or exit_.code == 0:
        return 0
    if isinstance(exit_.code, int):
        write_json(folder / "result.json", {"error": f"SystemExit: the program exited with code {exit_.code}"})
        return exit_.code
    print(exit_.code, file=sys.stderr)  # noqa: T201 - what Python does at exit
    write_json(folder / "result.json", {"error": _cut(f"SystemExit: {exit_.code}", _MAX_ERROR)})
    return 1


def _report(error: BaseException, folder: Path) -> None:
    """Print the traceback without the frames of this package, as Python would, and save it for the API."""
    summary = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = summary
    while link is not None:
        kept = [frame for frame in link.stack if _HERE not in Path(frame.filename).parents]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or link.__context__
    trace = "".join(summary.format())
    sys.stderr.write(trace)
    write_json(folder / "result.json", {"error": _one_line(error), "error_trace": _cut(trace, _MAX_TRACE)})


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return _cut(f"{type(error).__name__}: {text[0]}", _MAX_ERROR) if text else type(error).__name__


def _cut(text: str, limit: int) -> str:
    """Return `text` without its middle if it is too long."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} [{len(text) - 2 * half} characters omitted] {text[-half:]}"


class _Notebook:
    """Executes notebooks in one namespace that has `dbutils` and `display`."""

    def __init__(self, root: Path, widgets: dict[str, str], folder: Path, namespace: dict[str, Any]) -> None:
        self._root = root
        self._folder = folder
        self._namespace = namespace
        self._widgets = Widgets(widgets)
        namespace["dbutils"] = types.SimpleNamespace(
            widgets=self._widgets,
            notebook=types.SimpleNamespace(exit=_exit, run=self._run),
            jobs=_Unsupported("dbutils.jobs"),
            fs=_Unsupported("dbutils.fs"),
            secrets=_Unsupported("dbutils.secrets"),
            library=_Unsupported("dbutils.library"),
        )
        namespace["getArgument"] = self._widgets.getArgument
        namespace["display"] = print

    def execute(self, file: Path) -> None:
        for cell in read_cells(file):
            match cell.kind:
                case "python":
                    self._python(cell)
                case "run":
                    self._inline(cell.text, file)
                case "note":
                    print(cell.text)  # noqa: T201 - what the program prints is its log
                case _:
                    raise NotSupportedError(
                        f"{cell.filename}, line {cell.first_line}: the local workspace cannot run {cell.text} cells"
                    )

    def _python(self, cell: Cell) -> None:
        name = cell.filename
        # Leading blank lines keep the line numbers of the file, so that tracebacks point to the right place.
        code = "\n" * (cell.first_line - 1) + cell.text
        if not Path(name).is_file():
            linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        exec(_compile(code, name), self._namespace)  # noqa: S102 - running the user's code

    def _inline(self, line: str, file: Path) -> None:
        path, *widgets = shlex.split(line)
        if widgets:
            raise NotSupportedError(f"%run {line}: the local workspace does not support arguments of %run")
        self.execute(find_notebook(self._root, path, folder=file.parent))

    def _run(self, path: str, timeout_seconds: int = 0, arguments: dict[str, Any] | None = None) -> str:
        """Run another notebook in its own process; return its exit value ("" if it set none)."""
        # Imported here, as few notebooks need them, and every task should start fast.
        import subprocess
        import tempfile

        try:
            file = find_notebook(self._root, path, folder=Path.cwd())
        except WorkspaceFileError as error:
            raise NotebookRunError(str(error)) from None
        widgets = {name: str(value) for name, value in (arguments or {}).items()}
        with tempfile.TemporaryDirectory(prefix="notebook-", dir=self._folder) as scratch:
            folder = Path(scratch)
            write_program(folder, kind="notebook", file=file, root=self._root, widgets=widgets)
            command = [sys.executable, "-P", str(_HERE / "task_process.py"), scratch]
            try:
                code = subprocess.run(command, check=False, timeout=timeout_seconds or None).returncode
            except subprocess.TimeoutExpired:
                raise NotebookRunError(f"{path} did not end within {timeout_seconds} s") from None
            result = read_json(folder / "result.json")
        if code:
            raise NotebookRunError(f"{path} failed: {result.get('error', f'exit code {code}')}")
        return str(result.get("exit_value", ""))


def _exit(value: object = "") -> None:
    raise NotebookExit(value)


class Widgets:
    """`dbutils.widgets`: the notebook's parameters, which override the defaults that the notebook defines."""

    def __init__(self, parameters: dict[str, str]) -> None:
        self._values = dict(parameters)

    def text(self, name: str, defaultValue: str, label: str = "") -> None:  # noqa: ARG002, N803 - Databricks' names
        """Define a widget."""
        self._values.setdefault(name, str(defaultValue))

    def dropdown(self, name: str, defaultValue: str, choices: list[str], label: str = "") -> None:  # noqa: ARG002, N803 - as above
        """Define a widget whose value is one of `choices`."""
        self._values.setdefault(name, str(defaultValue))

    combobox = multiselect = dropdown

    def get(self, name: str) -> str:
        """Return the value of a widget; raise InputWidgetNotDefinedError if it is not defined."""
        if name not in self._values:
            raise InputWidgetNotDefinedError(f"there is no widget {name!r}, and no parameter of that name")
        return self._values[name]

    def getArgument(self, name: str, default: str | None = None) -> str:  # noqa: N802 - Databricks' name
        """Return the value of a widget, or `default`."""
        return self.get(name) if default is None else self._values.get(name, default)

    def getAll(self) -> dict[str, str]:  # noqa: N802 - Databricks' name
        """Return all values, by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Remove a widget."""
        self._values.pop(name, None)

    def removeAll(self) -> None:  # noqa: N802 - Databricks' name
        """Remove all widgets."""
        self._values.clear()


class _Unsupported:
    """A part of `dbutils` that needs the cloud: any use raises NotSupportedError."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise NotSupportedError(f"the local workspace has no {self._name}.{name}")

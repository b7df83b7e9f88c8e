"""What runs inside the subprocess of a task: the user's file or notebook, with the names Databricks gives it."""

from __future__ import annotations

import json
import linecache
import os
import shlex
import sys
import traceback
import types
from pathlib import Path
from typing import Any

from airflow_dbjobs.local_workspace.engine.notebooks import Cell, WorkspaceFileError, find_notebook, read_cells
from airflow_dbjobs.local_workspace.engine.supervisor import write_json

#: Of a notebook's exit value, in bytes; the API returns the first 5 MB.
_MAX_RESULT_BYTES = 5 * 1024 * 1024
#: Of an error and of its traceback, in characters: what the program printed is limited too.
_MAX_ERROR = 10_000
_MAX_TRACE = 1_000_000
_HERE = str(Path(__file__).resolve().parent)


class NotebookExit(BaseException):
    """`dbutils.notebook.exit` was called. Not an Exception: the user's `except Exception` must not hold it up."""


class NotSupportedError(NotImplementedError):
    """The local workspace has no such thing."""

    # Tracebacks name classes by module, and the user knows none of ours.
    __module__ = "dbutils"


class InputWidgetNotDefinedError(KeyError):
    """A widget was asked for that nobody defined and no parameter gave a value."""

    __module__ = "dbutils"

    def __str__(self) -> str:
        return str(self.args[0])


class NotebookRunError(RuntimeError):
    """A notebook started by `dbutils.notebook.run` failed, or took too long."""

    __module__ = "dbutils"


def run(folder: Path) -> int:
    """Run the program that `folder/program.json` describes; return its exit code.

    What is worth more than an exit code goes to `folder/result.json`: `exit_value` and `truncated` of a notebook,
    `error` and `error_trace` of a failure.
    """
    program = json.loads((folder / "program.json").read_text())
    file = Path(program["file"])
    os.chdir(file.parent)
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file), *program["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = str(file)
    try:
        if program["kind"] == "notebook":
            _Notebook(Path(program["root"]), program["widgets"], folder, main.__dict__).execute(file)
        else:
            exec(_compile(file.read_bytes(), str(file)), main.__dict__)  # noqa: S102 - that is our job
    except NotebookExit as exit_:
        value = str(exit_.args[0]).encode(errors="replace")
        result = value[:_MAX_RESULT_BYTES].decode(errors="ignore")
        write_json(folder / "result.json", {"exit_value": result, "truncated": len(value) > _MAX_RESULT_BYTES})
    except SystemExit as exit_:
        return _exit_code(exit_, folder)
    except BaseException as error:  # noqa: BLE001 - whatever ends the program is its error
        _report(error, folder)
        return 1
    return 0


def _compile(code: str | bytes, filename: str) -> types.CodeType:
    # The user's code does not inherit the __future__ imports of this module.
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
    """Log the traceback as Python would, without our own frames, and keep it for the API."""
    summary = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = summary
    while link is not None:
        kept = [frame for frame in link.stack if str(Path(frame.filename).parent) != _HERE]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or link.__context__
    trace = "".join(summary.format())
    sys.stderr.write(trace)
    write_json(folder / "result.json", {"error": _one_line(error), "error_trace": _cut(trace, _MAX_TRACE)})


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return _cut(f"{type(error).__name__}: {text[0]}", _MAX_ERROR) if text else type(error).__name__


def _cut(text: str, limit: int) -> str:
    """Return a text that is too long without its middle."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} [{len(text) - 2 * half} characters left out] {text[-half:]}"


class _Notebook:
    """Executes notebooks in one namespace, which has `dbutils` and `display`."""

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
                    print(cell.text)  # noqa: T201 - the log is the program's output
                case _:
                    raise NotSupportedError(
                        f"{cell.filename}, line {cell.first_line}: the local workspace cannot run {cell.text} cells"
                    )

    def _python(self, cell: Cell) -> None:
        name = cell.filename
        # Blank lines in front put the cell where it stands in its file, so that tracebacks point there.
        code = "\n" * (cell.first_line - 1) + cell.text
        if not Path(name).is_file():
            linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        exec(_compile(code, name), self._namespace)  # noqa: S102 - that is our job

    def _inline(self, line: str, file: Path) -> None:
        path, *widgets = shlex.split(line)
        if widgets:
            raise NotSupportedError(f"%run {line}: the local workspace passes no arguments with %run")
        self.execute(find_notebook(self._root, path, folder=file.parent))

    def _run(self, path: str, timeout_seconds: int = 0, arguments: dict[str, Any] | None = None) -> str:
        """Run another notebook in a process of its own; return its exit value ("" if it set none)."""
        # Few notebooks do this, and every task would wait for these to load.
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
            command = [sys.executable, "-P", str(Path(_HERE) / "supervisor.py"), scratch]
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
    """`dbutils.widgets`: the parameters of the notebook. A widget is made with a default; a parameter overrides it."""

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
        """Return the value of a widget; one that was not defined raises InputWidgetNotDefinedError."""
        if name not in self._values:
            raise InputWidgetNotDefinedError(f"no widget is named {name!r}, and no parameter of this run is")
        return self._values[name]

    def getArgument(self, name: str, default: str | None = None) -> str:  # noqa: N802 - Databricks' name
        """Return the value of a widget, or `default`."""
        return self.get(name) if default is None else self._values.get(name, default)

    def getAll(self) -> dict[str, str]:  # noqa: N802 - Databricks' name
        """Return all values by name."""
        return dict(self._values)

    def remove(self, name: str) -> None:
        """Remove a widget."""
        self._values.pop(name, None)

    def removeAll(self) -> None:  # noqa: N802 - Databricks' name
        """Remove all widgets."""
        self._values.clear()


class _Unsupported:
    """Part of `dbutils` that needs the cloud: any use of it says so."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        raise NotSupportedError(f"the local workspace has no {self._name}.{name}")


def write_program(
    folder: Path,
    *,
    kind: str,
    file: Path,
    root: Path,
    arguments: list[str] | None = None,
    widgets: dict[str, str] | None = None,
) -> None:
    """Describe the program of a task: `kind` is "python" or "notebook"."""
    program = {
        "kind": kind,
        "file": str(file),
        "root": str(root),
        "arguments": arguments or [],
        "widgets": widgets or {},
    }
    write_json(folder / "program.json", program)


def read_json(file: Path) -> dict[str, Any]:
    """Return the object that a file of `write_json` holds; nothing if it is not there, or a power cut has spoilt it."""
    try:
        content = json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}

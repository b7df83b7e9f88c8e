"""Runs a task's program inside its subprocess, and reports how it ended."""

from __future__ import annotations

import json
import os
import sys
import traceback
import types
from pathlib import Path
from typing import TYPE_CHECKING

from .runtime.dbutils import DBUtils
from .runtime.errors import NotebookExit
from .runtime.names import offer_modules
from .task_files import write_json

if TYPE_CHECKING:
    from collections.abc import Callable

#: The API returns the first 5 MB of a notebook's exit value.
_MAX_RESULT_BYTES = 5 * 1024 * 1024
#: The longest error and traceback that are kept, in characters.
_MAX_ERROR = 10_000
_MAX_TRACE = 1_000_000
_HERE = Path(__file__).resolve().parent


def run(folder: Path, hide: Callable[[str], str] = str) -> int:
    """Run the program that `folder/program.json` describes; return its exit code.

    It writes results to `folder/result.json`: `exit_value` and `truncated` of a notebook, `error` and `error_trace` of
    a failure. `hide` takes secrets out of them.
    """
    program = json.loads((folder / "program.json").read_text())
    file = Path(program["file"])
    os.chdir(file.parent)
    sys.path.insert(0, str(file.parent))
    sys.argv = [str(file), *program["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    main.__file__ = str(file)
    dbutils = DBUtils(folder, program)
    offer_modules(dbutils)
    result: dict[str, object] = {}
    code = 0
    try:
        if program["kind"] == "notebook":
            # Imported here, as Python files do not need it, and every task should start fast.
            from .runtime.notebook import Notebook

            Notebook(Path(program["root"]), dbutils, main.__dict__).run(file)
        else:
            # The user's code must not inherit the __future__ imports of this module.
            exec(compile(file.read_bytes(), str(file), "exec", dont_inherit=True), main.__dict__)  # noqa: S102 - running the user's code
    except NotebookExit as exit_:
        value = hide(str(exit_.args[0])).encode(errors="replace")
        text = value[:_MAX_RESULT_BYTES].decode(errors="ignore")
        result = {"exit_value": text, "truncated": len(value) > _MAX_RESULT_BYTES}
    except SystemExit as exit_:
        code, error = _exit_code(exit_)
        result = {"error": _cut(hide(error), _MAX_ERROR)} if code else {}
    except BaseException as error:  # noqa: BLE001 - any exception of the program is its error
        trace = _traceback(error)
        sys.stderr.write(trace)
        code = 1
        result = {"error": _cut(hide(_one_line(error)), _MAX_ERROR), "error_trace": _cut(hide(trace), _MAX_TRACE)}
    if result:
        write_json(folder / "result.json", result)
    return code


def _exit_code(exit_: SystemExit) -> tuple[int, str]:
    """Return the exit code that Python would end with, and the error if it is one."""
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0, f"SystemExit: the program exited with code {exit_.code}"
    print(exit_.code, file=sys.stderr)  # noqa: T201 - what Python does at exit
    return 1, f"SystemExit: {exit_.code}"


def _traceback(error: BaseException) -> str:
    """Return the traceback without the frames of this package."""
    summary = traceback.TracebackException.from_exception(error)
    link: traceback.TracebackException | None = summary
    while link is not None:
        kept = [frame for frame in link.stack if _HERE not in Path(frame.filename).parents]
        link.stack = traceback.StackSummary.from_list(kept)
        link = link.__cause__ or link.__context__
    return "".join(summary.format())


def _one_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _cut(text: str, limit: int) -> str:
    """Return `text` without its middle if it is too long."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} [{len(text) - 2 * half} characters omitted] {text[-half:]}"

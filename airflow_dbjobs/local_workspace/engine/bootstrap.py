"""Runs a task's program inside its subprocess, and reports how it ended."""

from __future__ import annotations

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

from .runtime.errors import NotebookExit
from .secrets_file import redactor
from .task_files import write_json

#: The API returns the first 5 MB of a notebook's exit value.
_MAX_RESULT_BYTES = 5 * 1024 * 1024
#: The longest error and traceback that are kept, in characters.
_MAX_ERROR = 10_000
_MAX_TRACE = 1_000_000
#: In an error of gRPC, and so of Spark Connect, this precedes the message, which is not in the first line.
_GRPC = "\tdetails = "
_HERE = Path(__file__).resolve().parent


def run(folder: Path) -> int:
    """Run the program that `folder/program.json` describes; return its exit code.

    It writes results to `folder/result.json`: `exit_value` and `truncated` of a notebook, `error` and `error_trace` of
    a failure.
    """
    program = json.loads((folder / "program.json").read_text())
    os.chdir(program["root"])
    code, exit_value, error, trace = 0, None, "", ""
    try:
        importlib.import_module(f"{__package__}.programs.{program['kind']}").run(program, folder)
    except NotebookExit as exit_:
        exit_value = str(exit_.args[0])
    except SystemExit as exit_:
        code, error = _exit_code(exit_)
    except BaseException as raised:  # noqa: BLE001 - any exception of the program is its error
        code, error, trace = 1, _one_line(raised), _traceback(raised)
        sys.stderr.write(trace)
    # A notebook that runs another one gets its result as it is.
    hide = str if program.get("nested") else redactor(Path(program["root"])).text
    if exit_value is not None:
        value = hide(exit_value).encode(errors="replace")
        text = value[:_MAX_RESULT_BYTES].decode(errors="ignore")
        write_json(folder / "result.json", {"exit_value": text, "truncated": len(value) > _MAX_RESULT_BYTES})
    elif code:
        result = {"error": _cut(hide(error), _MAX_ERROR)}
        traced = {"error_trace": _cut(hide(trace), _MAX_TRACE)} if trace else {}
        write_json(folder / "result.json", result | traced)
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
    lines = str(error).strip().splitlines()
    if details := [line for line in lines if line.startswith(_GRPC)]:
        lines = [details[0].removeprefix(_GRPC).strip('"')]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _cut(text: str, limit: int) -> str:
    """Return `text` without its middle if it is too long."""
    half = limit // 2
    return text if len(text) <= limit else f"{text[:half]} [{len(text) - 2 * half} characters omitted] {text[-half:]}"

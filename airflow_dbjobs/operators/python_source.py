"""A function of a DAG file as a notebook: what it may use, its source, and the call that travels to it as JSON."""

from __future__ import annotations

import ast
import builtins
import hashlib
import inspect
import json
import symtable
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

CALL_PARAMETER = "airflow_call"
# The limit of a task's base_parameters.
MAX_CALL_BYTES = 1024 * 1024
# dbutils.notebook.exit takes 5 MB.
MAX_RESULT_BYTES = 5_000_000
# What Databricks defines in a notebook.
_DEFINED = frozenset({"dbutils", "display", "displayHTML", "getArgument", "spark", "sc", "sqlContext", "__name__"})
_SEPARATORS = ("# COMMAND ----------", "# MAGIC")

_HEADER = """# Databricks notebook source
# Airflow stores this notebook at each launch, so changes are lost: change the function in the DAG file.
from __future__ import annotations

"""
# It works with Python 3.8, because the user chooses the cluster. The function has its lines of the DAG file, after an
# offset, so that an error can name them.
_CALL = """

# COMMAND ----------

def _airflow_call(function):
    import json
    import traceback
    # The function may have the name of one of them.
    from builtins import Exception, RecursionError, SystemExit, TypeError, ValueError, len, str, type

    call = json.loads(dbutils.widgets.get("{parameter}"))
    code = function.__code__
    try:
        returned = function(*call["args"], **call["kwargs"])
    except (Exception, SystemExit) as error:
        line, name = code.co_firstlineno, code.co_name
        for frame, number in traceback.walk_tb(error.__traceback__.tb_next):
            if frame.f_code.co_filename == code.co_filename:
                line, name = number, frame.f_code.co_name
        try:
            first, newline, rest = str(error).partition("\\n")
        except Exception:
            first, newline, rest = "its message cannot be shown", "", ""
        place = "%s, line %d, in %s" % (call["file"], line - code.co_firstlineno + call["line"], name)
        # A class of the same name: the API shows it, with the message.
        kind = type(type(error).__name__, (Exception,), {{"__module__": type(error).__module__}})
        raise kind("%s (%s)%s%s" % (first, place, newline, rest)) from error
    try:
        text = json.dumps({{"{result}": returned}}, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError("%s returned what JSON cannot hold: %s. Return text, numbers, lists and dicts."
                        % (code.co_name, error)) from None
    if len(text) > {max_bytes}:
        raise ValueError("%s returned %d bytes, and a notebook can return {max_bytes}. Write large results to a table"
                         " or a file, and return its name." % (code.co_name, len(text)))
    return text

dbutils.notebook.exit(_airflow_call({name}))
"""


class FunctionSource(NamedTuple):
    """A function without its decorators: its name, its lines, and the place of its ``def``."""

    name: str
    lines: str
    file: str
    line: int

    @property
    def notebook(self) -> str:
        """The source of a notebook that defines the function and calls it."""
        from airflow_dbjobs.runs.result import RETURN_VALUE_KEY

        call = _CALL.format(
            parameter=CALL_PARAMETER, result=RETURN_VALUE_KEY, max_bytes=MAX_RESULT_BYTES, name=self.name
        )
        return f"{_HEADER}{self.lines.rstrip()}\n{call}"

    @property
    def notebook_name(self) -> str:
        """A name for the notebook that no other source has."""
        return f"{self.name}_{hashlib.sha256(self.notebook.encode()).hexdigest()[:16]}"


def read_function(function: Callable[..., Any]) -> FunctionSource:
    """Return the source of a function. Raises ConfigurationError if it cannot run as a notebook."""
    _check_kind(function)
    try:
        lines, first_line = inspect.getsourcelines(function)
        # Indented lines stay as they are, because they may be parts of multi-line strings.
        opening = ["if True:\n"] if lines[0][:1].isspace() else []
        tree = ast.parse("".join([*opening, *lines]))
        node = next(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    except (OSError, SyntaxError, StopIteration):
        raise _error(function, "its source cannot be read. Define it in a file") from None
    if node.name in _DEFINED | {"_airflow_call"}:
        raise _error(function, "its name is that of something else in the notebook. Rename it")
    offset = node.lineno - 1 - len(opening)
    lines = lines[offset:]
    for number, text in enumerate(lines):
        if text.strip().startswith(_SEPARATORS):
            raise _error(function, f"line {first_line + offset + number} would end a cell of the notebook. Change it")
    source = "".join([*opening, *lines])
    _check_names(function, source, node, first_line - 1 - len(opening))
    return FunctionSource(node.name, source, function.__code__.co_filename, first_line + offset)


def _check_kind(function: Callable[..., Any]) -> None:
    if not inspect.isfunction(function):
        raise ConfigurationError(f"@task.databricks_python: {function!r:.100} is no function. Define one with `def`.")
    if function.__name__ == "<lambda>":
        raise _error(function, "a lambda cannot be sent to Databricks. Define a function with `def`")
    if hasattr(function, "__wrapped__"):
        raise _error(function, "a decorator below @task.databricks_python would have no effect there. Remove it")
    if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
        raise _error(function, "it is asynchronous. Use `def`, and asyncio.run inside it")
    if inspect.isgeneratorfunction(function):
        raise _error(function, "it is a generator. Return a list")


def _check_names(function: Any, source: str, node: ast.FunctionDef, line_offset: int) -> None:
    """Raise an error for names that the function takes from its DAG file."""
    outer = set(function.__code__.co_freevars)
    # A `nonlocal` name, which is among these, is a syntax error here.
    with suppress(SyntaxError):
        outer |= set(_global_names(source))
    defaults = ast.Tuple([*node.args.defaults, *filter(None, node.args.kw_defaults)], ast.Load())
    # The notebook evaluates them outside the function, where a comprehension or a lambda has names of its own.
    outer |= set(_global_names(f"def defaults(): return {ast.unparse(defaults)}"))
    known = (vars(builtins).keys() - function.__globals__.keys()) | _DEFINED | {node.name}
    if missing := outer - known:
        uses = sorted((item.lineno, item.id) for item in ast.walk(node) if isinstance(item, ast.Name))
        lines = {name: number + line_offset for number, name in reversed(uses) if name in missing}
        raise _error(
            function,
            f"it uses {', '.join(_with_lines(missing, lines))}, which will not exist on Databricks, where only this"
            " function runs. Import modules and define helpers inside it, and pass values as arguments",
        )


def _with_lines(names: set[str], lines: Mapping[str, int]) -> list[str]:
    """Return the names, in the order of their first lines, with these."""
    ordered = sorted(names, key=lambda name: (lines.get(name, 0), name))
    return [f"{name} (line {lines[name]})" if name in lines else name for name in ordered]


def _global_names(source: str) -> Iterator[str]:
    """Yield the names that the function and the scopes in it do not define."""
    tables = [symtable.symtable(f"from __future__ import annotations\n{source}", "<function>", "exec")]
    # The scope of the module itself sees the function's defaults and annotations.
    tables = [table for outer in tables for table in outer.get_children()]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        yield from (symbol.get_name() for symbol in table.get_symbols() if symbol.is_global())


def _error(function: Any, problem: str) -> ConfigurationError:
    place = f"{function.__code__.co_filename}, line {function.__code__.co_firstlineno}"
    return ConfigurationError(f"@task.databricks_python cannot run {function.__name__} ({place}): {problem}.")


def bind(function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any], context: Any) -> Any:
    """Return the function's arguments: those given, Airflow's context for parameters of its names, and defaults."""
    signature = inspect.signature(function)
    bound = signature.bind_partial(*args, **kwargs)
    for name, parameter in signature.parameters.items():
        if name not in bound.arguments and name in context and parameter.kind is not parameter.VAR_KEYWORD:
            bound.arguments[name] = context[name]
    bound.apply_defaults()
    return bound


def check_arguments(function: Callable[..., Any], args: Collection[Any], kwargs: Mapping[str, Any]) -> None:
    """Raise ConfigurationError for an argument that JSON cannot hold; of templates the values are not known yet."""
    bound = inspect.signature(function).bind_partial(*args, **kwargs)
    bound.apply_defaults()
    for name, value in bound.arguments.items():
        _to_json(function, name, value, _known_or_plain)


def call_as_json(source: FunctionSource, function: Callable[..., Any], bound: inspect.BoundArguments) -> str:
    """Return the call of the function as JSON in ASCII. Raises ConfigurationError if it is none, or too large."""
    # Airflow's lazy lists are read once.
    bound.arguments = {name: _to_json(function, name, value, _plain) for name, value in bound.arguments.items()}
    call = {"args": bound.args, "kwargs": bound.kwargs, "file": source.file, "line": source.line}
    # Databricks would replace a reference such as {{job.id}} in the values.
    text = json.dumps(call, separators=(",", ":")).replace("{{", "{\\u007b")
    size = len(json.dumps({"base_parameters": {CALL_PARAMETER: text}}, separators=(",", ":")))
    if size > MAX_CALL_BYTES:
        raise ConfigurationError(
            f"The arguments of {source.name} have {size:,} bytes as JSON, and the API accepts {MAX_CALL_BYTES:,}."
            " Nothing was launched. Write large values to a table or a file, and pass its name."
        )
    return text


def _to_json(function: Callable[..., Any], name: str, value: object, default: Callable[[Any], Any]) -> Any:
    """Return an argument as it arrives after its travel as JSON."""
    try:
        return json.loads(json.dumps(value, default=default, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        # Python's message may end with the value, which may be a secret.
        reason = str(error).partition(":")[0]
        raise ConfigurationError(
            f"@task.databricks_python: {function.__name__} cannot get {name} as JSON: {reason}. Pass text, numbers,"
            " lists and dicts; a date as text, by isoformat()."
        ) from None


def _known_or_plain(value: Any) -> Any:
    return None if is_templated(value) else _plain(value)


def _plain(value: Any) -> Any:
    """Return a mapping or sequence as the type that JSON has, such as Airflow's lazy list of mapped results."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"it has a value of type {type(value).__name__}")

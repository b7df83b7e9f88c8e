"""operators.python_source: which functions can run as a notebook, and how their calls travel."""

# ruff: noqa: F821 (names that exist on Databricks, or on purpose nowhere)
from __future__ import annotations

import functools
import json
import math
from collections import UserDict, UserList
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow_context import parsed

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.operators.python_source import (
    CALL_PARAMETER,
    MAX_CALL_BYTES,
    bind,
    call_as_json,
    check_arguments,
    read_function,
)

LIMIT = 3
HERE = Path(__file__)


def line_of(text: str) -> int:
    """Return the first line of this file with the text and this mark."""
    return next(number for number, line in enumerate(HERE.read_text().splitlines(), 1) if f"{text}  # here" in line)


def refused(function: Any) -> str:
    with pytest.raises(ConfigurationError) as error:
        read_function(function)
    assert not error.value.worth_a_retry
    return str(error.value)


class TestNames:
    def test_of_a_function_may_be_its_own_builtins_and_those_of_databricks(self):
        def allowed(rows: list[date], factor: int = 2, *, name: str | None = None) -> datetime:
            import json as js
            from math import sqrt

            class Row:
                size = 1
                twice = size * 2

                def root(self, other: LIMITED) -> Any:
                    return sqrt(self.twice)

            def helper(value: datetime) -> int:
                nonlocal factor
                factor = value
                local: date = value
                return local

            total = sum(helper(row) for row in rows if (found := row))
            spark.table(name).collect()
            print(display, dbutils.widgets, js, Row, allowed, found, __name__, lambda x: x + total)
            return total

        read_function(allowed)

    def test_of_modules_and_values_of_the_dag_file_are_named_with_their_lines(self):
        def uses(rows: Any) -> Any:
            first = json.dumps(rows)  # here
            return [first, [row * LIMIT for row in rows], LIMIT]  # here

        first, second = line_of("json.dumps(rows)"), line_of("rows], LIMIT]")
        message = refused(uses)
        assert (
            f"cannot run uses ({HERE}, line {first - 1}): it uses json (line {first}), LIMIT (line {second})" in message
        )
        assert "Import modules and define helpers inside it, and pass values as arguments." in message

    def test_of_the_enclosing_function_are_refused(self):
        factor = 3

        def closes(rows: Any) -> Any:
            return rows * factor

        def rebinds() -> None:
            nonlocal factor
            factor = json

        assert "it uses factor (line " in refused(closes)
        assert "it uses factor (line " in refused(rebinds)

    def test_in_defaults_are_refused(self):
        def defaults(rows: Any, limit: int = LIMIT, *, day: Any = math.pi) -> Any:
            return rows

        assert "it uses LIMIT (line" in refused(defaults)
        assert "math (line" in refused(defaults)

    def test_in_defaults_may_be_their_own(self):
        def defaults(rows: Any = [row for row in range(3)], *, size: Any = (own := 3) + own) -> Any:  # noqa: B006, C416
            return rows, size

        read_function(defaults)

    def test_of_a_function_must_not_be_those_of_the_notebook(self):
        def dbutils() -> None: ...

        def _airflow_call() -> None: ...

        for function in (dbutils, _airflow_call):
            assert "its name is that of something else in the notebook. Rename it." in refused(function)

    def test_declared_global_are_refused(self):
        def counts() -> None:
            global COUNT  # noqa: PLW0603 (which is what is refused)
            COUNT = 1

        assert "it uses COUNT" in refused(counts)

    def test_of_builtins_that_the_dag_file_replaces_are_refused(self):
        namespace: dict[str, Any] = {}
        source = HERE.with_name("replaced.py")
        exec(compile("sum = max\ndef total(rows): return sum(rows)", str(source), "exec"), namespace)
        import linecache

        linecache.cache[str(source)] = (0, None, ["sum = max\n", "def total(rows): return sum(rows)\n"], str(source))
        assert "it uses sum (line 2)" in refused(namespace["total"])


class TestKind:
    def test_must_be_a_plain_function(self):
        async def waits() -> None: ...

        async def streams() -> Any:
            yield 1

        def generates() -> Any:
            yield 1

        @functools.cache
        def cached() -> None: ...

        @functools.wraps(generates)
        def wrapped() -> None: ...

        assert "it is asynchronous" in refused(waits)
        assert "it is asynchronous" in refused(streams)
        assert "it is a generator. Return a list." in refused(generates)
        assert "is no function" in refused(cached)
        assert "a decorator below" in refused(wrapped)
        assert "a lambda cannot be sent" in refused(lambda: 1)
        assert "is no function" in refused(len)
        assert "is no function" in refused(functools.partial(generates))

    def test_must_have_a_source(self):
        namespace: dict[str, Any] = {}
        exec("def made(): return 1", namespace)
        assert "its source cannot be read" in refused(namespace["made"])

    def test_must_not_end_a_cell(self):
        def splits() -> str:
            return """
# COMMAND ----------
            """

        assert f"line {splits.__code__.co_firstlineno + 2} would end a cell of the notebook" in refused(splits)


def test_mistakes_are_import_errors_of_the_dag_file(tmp_path):
    file = tmp_path / "mistake.py"
    file.write_text(
        "try:\n    from airflow.sdk import dag, task\n"
        "except ImportError:\n    from airflow.decorators import dag, task\n"
        "LIMIT = 3\n@dag(schedule=None)\ndef mistake():\n"
        "    @task.databricks_python(deferrable=True)\n    def load(day):\n        return LIMIT\n"
        "    load.expand(day=[1])\nmistake()\n"
    )
    (error,) = parsed(file).import_errors.values()
    assert f"cannot run load ({file}, line 8): it uses LIMIT (line 10)" in error


class TestSource:
    def test_has_the_lines_of_the_function_without_decorators(self):
        def load(  # here
            rows: list[int],
        ) -> str:
            # A comment.
            return """
not indented
            """

        source = read_function(load)
        lines = source.notebook.splitlines()
        (at,) = [number for number, line in enumerate(lines) if "def load" in line]
        start = source.line - 1
        assert lines[at : at + 7] == HERE.read_text().splitlines()[start : start + 7]
        assert (source.file, source.line, source.name) == (str(HERE), line_of("def load("), "load")
        assert lines[0] == "# Databricks notebook source"
        compile(source.notebook, "notebook", "exec")

    def test_has_no_decorators(self):
        from airflow_dbjobs.operators.taskflow import databricks_python_task as shipped

        @shipped(
            deferrable=True,
        )
        def load() -> int:
            return 1

        assert "deferrable" not in read_function(load.function).notebook

    def test_has_a_name_of_its_own(self):
        def make(code: str) -> str:
            namespace: dict[str, Any] = {}
            import linecache

            linecache.cache["made.py"] = (0, None, code.splitlines(keepends=True), "made.py")
            exec(compile(code, "made.py", "exec"), namespace)
            return read_function(namespace["load"]).notebook_name

        first = make("def load():\n    return 1\n")
        assert first.startswith("load_")
        assert first != make("def load():\n    return 2\n")
        assert first == make("\n\n\ndef load():\n    return 1\n"), "other lines of the file may change"


def call(function: Any, *args: Any, context: Any = (), **kwargs: Any) -> Any:
    """Return the call as it arrives."""
    text = call_as_json(read_function(function), function, bind(function, args, kwargs, context))
    return json.loads(text)


def takes(rows: Any, *more: Any, day: Any = "monday", ds: Any = None, **others: Any) -> None: ...


class TestArguments:
    def test_arrive_with_defaults_and_context(self):
        arrived = call(takes, 1, 2, context={"ds": "2026-01-01", "ti": object()}, extra=[None])
        assert arrived == {
            "args": [1, 2], "kwargs": {"day": "monday", "ds": "2026-01-01", "extra": [None]},
            "file": str(HERE), "line": takes.__code__.co_firstlineno,
        }  # fmt: skip

    def test_given_take_precedence_over_the_context(self):
        assert call(takes, 1, ds="given", context={"ds": "2026-01-01"})["kwargs"]["ds"] == "given"

    @pytest.mark.parametrize(
        ("value", "arrives"),
        [
            ((1, 2), [1, 2]), (UserList([1]), [1]), (UserDict(a=(1,)), {"a": [1]}), ("naïve {{job.id}} {{{", ...),
            ({"a": {"b": {"c": 1.5}}}, ...), (None, ...), (2**70, ...),
        ],
    )  # fmt: skip
    def test_arrive_as_json(self, value, arrives):
        assert call(takes, value)["args"] == [value if arrives is ... else arrives]

    def test_hold_nothing_that_databricks_would_replace(self):
        text = call_as_json(read_function(takes), takes, bind(takes, ["{{job.id}} {{{ {{{{"], {}, ()))
        assert "{{" not in text
        assert text.isascii()

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (datetime(2026, 1, 1, tzinfo=UTC), "a value of type datetime"), ({"a": [{1}]}, "a value of type set"),
            (b"hidden", "a value of type bytes"), (math.nan, "Out of range float values"), ({(1,): 2}, "keys must be"),
        ],
    )  # fmt: skip
    def test_that_json_cannot_hold_are_named_but_not_shown(self, value, reason):
        for check in (lambda: check_arguments(takes, [], {"rows": value}), lambda: call(takes, value)):
            with pytest.raises(ConfigurationError, match=f"takes cannot get rows as JSON: .*{reason}") as error:
                check()
            assert "hidden" not in str(error.value)
            assert error.value.__cause__ is None

    def test_that_are_defaults_are_checked_early(self):
        def waits(seconds: Any = frozenset({1})) -> None: ...

        with pytest.raises(ConfigurationError, match=r"waits cannot get seconds as JSON: .* a value of type frozenset"):
            check_arguments(waits, [], {})
        check_arguments(waits, [], {"seconds": 1})

    def test_that_contain_themselves_are_refused(self):
        rows: list[Any] = []
        rows.append(rows)
        with pytest.raises(ConfigurationError, match="Circular reference"):
            check_arguments(takes, [rows], {})

    def test_that_are_templates_are_checked_when_they_are_rendered(self):
        class Templated:
            def resolve(self) -> None: ...

        check_arguments(takes, [], {"rows": [Templated()], "day": "{{ ds }}"})

    def test_may_be_as_large_as_the_api_accepts(self):
        room = MAX_CALL_BYTES - len(json.dumps({"base_parameters": {CALL_PARAMETER: call_text("")}}).replace(" ", ""))
        call_text("x" * room)
        with pytest.raises(
            ConfigurationError, match=r"^The arguments of takes have 1,048,577 bytes as JSON, and the API"
        ):
            call_text("x" * (room + 1))


def call_text(value: Any) -> str:
    return call_as_json(read_function(takes), takes, bind(takes, [value], {}, ()))

"""What cells a notebook has, in each format."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

import pytest

from airflow_dbjobs.local_workspace.engine.cells import Cell, read_cells
from airflow_dbjobs.local_workspace.engine.notebooks import WorkspaceFileError, find_notebook

if TYPE_CHECKING:
    from pathlib import Path


def kinds(cells: list[Cell]) -> list[tuple[str, str]]:
    return [(cell.kind, cell.text.strip()) for cell in cells]


def jupyter(*sources: str, **metadata: Any) -> str:
    cells = [{"cell_type": "code", "source": source} for source in sources]
    return json.dumps({"cells": cells, "metadata": metadata})


@pytest.fixture
def python_cells(tmp_path: Path):
    """Return a function that reads the cells of a notebook in Databricks source format."""

    def read(code: str) -> list[Cell]:
        file = tmp_path / "notebook.py"
        file.write_text("# Databricks notebook source\n" + textwrap.dedent(code).lstrip("\n"))
        return read_cells(file)

    return read


class TestSource:
    def test_titles_and_markdown_are_left_out(self, python_cells) -> None:
        cells = python_cells("""
            # DBTITLE 1,A title
            # MAGIC %sql
            # MAGIC select 1
            # COMMAND ----------
            # MAGIC %md
            # MAGIC # Words
            # COMMAND ----------
            # MAGIC %md-sandbox <b>more</b>
            """)
        assert kinds(cells) == [("sql", "select 1")]

    @pytest.mark.parametrize("magic", ["sql", "sh", "fs"])
    def test_the_rest_of_a_cell_belongs_to_its_magic(self, python_cells, magic: str) -> None:
        cells = python_cells(f"# MAGIC %{magic} one\n# MAGIC %two\n# MAGIC\n# MAGIC three")
        assert kinds(cells) == [(magic, "one\n%two\n\nthree")]

    @pytest.mark.parametrize("character", ["\u2028", "\x85", "\x0b", "\x1c"])
    def test_lines_end_where_python_ends_them(self, python_cells, tmp_path: Path, character: str) -> None:
        code = f"a = '1{character}2'\nb"
        assert [cell.text for cell in python_cells(code)] == [code]
        (tmp_path / "book.ipynb").write_text(jupyter(f"{code}\n"))
        assert kinds(read_cells(tmp_path / "book.ipynb")) == [("python", code)]

    @pytest.mark.parametrize("magic", ["scala", "r"])
    def test_other_languages_are_unsupported(self, python_cells, magic: str) -> None:
        assert kinds(python_cells(f"# MAGIC %{magic}\n# MAGIC x")) == [("unsupported", f"%{magic}")]

    def test_a_command_may_have_several_lines(self, python_cells) -> None:
        (note, code) = python_cells("# MAGIC %pip install \\\n# MAGIC   one \\\n# MAGIC   two\n# MAGIC x = 1")
        assert note.kind == "note"
        assert " ".join(note.text.split()) == "The local workspace skips '%pip install one two'."
        assert (code.kind, code.text, code.first_line) == ("python", "x = 1", 5)

    def test_code_next_to_a_magic_stays(self, python_cells) -> None:
        cells = python_cells("# MAGIC %run ./lib\nx = 1")
        assert kinds(cells) == [("run", "./lib"), ("python", "x = 1")]

    def test_lines_are_those_of_the_file(self, python_cells) -> None:
        cells = python_cells("x = 1\n# COMMAND ----------\n\n# MAGIC %time\n# MAGIC y = 2")
        last_lines = [(cell.first_line + cell.text.count("\n"), cell.text.splitlines()[-1]) for cell in cells]
        assert last_lines == [(2, "x = 1"), (6, "y = 2")]


class TestSql:
    def test_notebook_has_sql_and_cells_of_other_languages(self, tmp_path: Path) -> None:
        file = tmp_path / "notebook.sql"
        cells = ["select 1;", "-- MAGIC %python\n-- MAGIC x = 2", "-- MAGIC %md text", "-- DBTITLE 1,t\nselect '%x'"]
        file.write_text("-- Databricks notebook source\n" + "\n-- COMMAND ----------\n".join(cells))
        assert find_notebook(tmp_path, "/notebook") == file
        assert kinds(read_cells(file)) == [("sql", "select 1;"), ("python", "x = 2"), ("sql", "select '%x'")]

    def test_other_sql_file_is_no_notebook(self, tmp_path: Path) -> None:
        (tmp_path / "query.sql").write_text("select 1")
        with pytest.raises(WorkspaceFileError, match="first line is not '-- Databricks notebook source'"):
            find_notebook(tmp_path, "/query.sql")

    @pytest.mark.parametrize(("name", "language"), [("x.scala", "Scala"), ("x.r", "R")])
    def test_notebook_in_another_language_is_refused_by_its_name(
        self, tmp_path: Path, name: str, language: str
    ) -> None:
        (tmp_path / name).touch()
        with pytest.raises(WorkspaceFileError, match=f"is in {language}; the local workspace runs Python and SQL"):
            find_notebook(tmp_path, "/x")


class TestJupyter:
    @pytest.fixture
    def cells(self, tmp_path: Path):
        """Return a function that reads the cells of a Jupyter notebook."""

        def read(*sources: str, **metadata: Any) -> list[tuple[str, str]]:
            file = tmp_path / "notebook.ipynb"
            file.write_text(jupyter(*sources, **metadata))
            return kinds(read_cells(file))

        return read

    def test_magics(self, cells) -> None:
        read = cells("%%sql\nselect 1", "%sql select 2", "%%time\nx = 1", "!echo x", "!pip install x", "%config A = 1")
        assert read == [
            ("sql", "select 1"),
            ("sql", "select 2"),
            ("python", "x = 1"),
            ("sh", "echo x"),
            ("note", "The local workspace skips '!pip install x'."),
            ("note", "The local workspace skips '%config A = 1'."),
        ]

    def test_default_language(self, cells) -> None:
        databricks = {"application/vnd.databricks.v1+notebook": {"language": "sql"}}
        assert cells("select 1", "%python\nx = 1", **databricks) == [("sql", "select 1"), ("python", "x = 1")]

    def test_expression_that_looks_like_a_magic_is_python(self, cells) -> None:
        assert cells("a = (7\n% 4)") == [("python", "a = (7\n% 4)")]

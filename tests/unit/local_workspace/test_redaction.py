"""Secrets do not reach logs, errors and results."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_dbjobs.local_workspace.engine.secrets_file import Redactor

from .test_notebooks import run_notebook

if TYPE_CHECKING:
    from pathlib import Path

    from .support import Client

SECRETS = ["abc", "abcd", "bcx", "xa"]
#: Texts that are made of the secrets' letters, so that secrets and their beginnings are frequent.
TEXTS = st.text("abcdx", max_size=30)


class TestRedactor:
    @given(TEXTS, st.lists(st.integers(1, 5), max_size=30))
    def test_pieces_are_shown_as_the_whole(self, text: str, sizes: list[int]) -> None:
        whole, pieces = Redactor(SECRETS), Redactor(SECRETS)
        shown, rest = b"", text.encode()
        for size in sizes:
            shown += pieces.add(rest[:size])
            rest = rest[size:]
        shown += pieces.add(rest) + pieces.close()
        assert shown.decode() == whole.text(text)
        assert not any(secret in shown.decode().replace("[REDACTED]", " ") for secret in SECRETS)

    def test_only_the_beginning_of_a_secret_waits(self) -> None:
        redactor = Redactor(["secret"])
        assert redactor.add(b"a line\nse") == b"a line\n"
        assert redactor.add(b"t") == b"set"
        assert redactor.close() == b""

    def test_without_secrets_all_is_shown(self) -> None:
        redactor = Redactor([""])
        assert redactor.add(b"se") == b"se"
        assert redactor.text("x") == "x"


class TestProgram:
    @pytest.fixture(autouse=True)
    def secrets(self, write) -> None:
        write("secrets.toml", '[db]\npassword = "hunter two"\n')

    def test_log_error_and_subprocess(self, client: Client, notebook, root: Path) -> None:
        notebook(
            "main",
            """
            password = dbutils.secrets.get("db", "password")
            print("print", password, len(password))
            # COMMAND ----------
            # MAGIC %sh echo shell "hunter two"
            # COMMAND ----------
            raise ValueError(f"error {password}")
            """,
        )
        output = run_notebook(client, "/main")
        assert output["error"] == "ValueError: error [REDACTED]"
        assert "hunter" not in output["error_trace"]
        (log,) = (root / ".airflow_dbjobs" / "runs").glob("*/log.txt")
        assert "print [REDACTED] 10\nshell [REDACTED]\n" in log.read_text()
        assert "hunter" not in log.read_text()

    def test_exit_value_but_not_that_of_a_child(self, client: Client, notebook) -> None:
        notebook("child", "dbutils.notebook.exit(dbutils.secrets.get('db', 'password'))")
        notebook("main", "s = dbutils.notebook.run('child', 60)\ndbutils.notebook.exit(f'{len(s)} {s}')")
        assert run_notebook(client, "/main")["notebook_output"]["result"] == "10 [REDACTED]"

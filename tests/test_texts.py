"""texts: what a run printed is fit for a log."""

from __future__ import annotations

import pytest

from airflow_dbjobs.texts import LONGEST_LINE, cleaned, tail

PAT = "dapi" + "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("plain\n  and indented\ttext", "plain\n  and indented\ttext"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("10%\r50%\r100%\nnext\r\n", "100%\nnext\n"),
        (
            "bell\x07, null\x00, next line\x85, separator\u2028, reversed\u202e",
            "bell, null, next line, separator, reversed",
        ),
        ("\x9b31mred", "31mred"),
    ],
)
def test_nothing_that_steers_a_terminal_stays(text: str, clean: str) -> None:
    assert cleaned(text) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        (f"with {PAT} here", "with *** here"),
        (f"{PAT}-2", "***"),
        ("Authorization: Bearer abcdefghijklmnopqrst", "Authorization: Bearer ***"),
        ("'Authorization': 'Basic dXNlcjpwYXNz'", "'Authorization': 'Basic ***'"),
        ("jwt eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0xx.c2lnbmF0dXJl!", "jwt ***!"),
        ("key AKIAABCDEFGHIJKLMNOP used", "key *** used"),
        ("https://a.blob/x?sv=1&sig=abc%2Fdef&se=2", "https://a.blob/x?sv=1&sig=***&se=2"),
        ("password=hunter22, user=me", "password=***, user=me"),
        ('{"client_secret": "hunter22"}', '{"client_secret": "***"}'),
        ("AccountKey=abcd1234==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
        ("jdbc://me:hunter22@host/db", "jdbc://me:***@host/db"),
    ],
)
def test_what_looks_like_a_secret_is_masked(text: str, clean: str) -> None:
    assert cleaned(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "Unexpected token: ELSE",
        "the idempotency_token stands for this run",
        "basic arithmetic failed",
        "ValueError: secret sauce",
        "https://adb-1.azuredatabricks.net/jobs/1/runs/2?o=0",
        "the bearer of bad news",
    ],
)
def test_other_words_stay(text: str) -> None:
    assert cleaned(text) == text


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", []),
        ("\n \n", []),
        ("a\nb\n", ["a", "b"]),
        ("a\nb\nc\nd", ["…", "b", "c", "d"]),
        ("x" * (LONGEST_LINE + 1), ["x" * LONGEST_LINE + "…"]),
        ("x" * 5_000_000 + "\nlast", ["…", "x" * LONGEST_LINE + "…", "last"]),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_of_a_long_text_the_end_is_kept(text: str, lines: list[str]) -> None:
    assert tail(text, 3) == lines

"""texts: what a run printed is fit for a log."""

from __future__ import annotations

import time

import pytest

from airflow_dbjobs.client.sanitize import LONGEST_LINE, cleaned, tail

PAT = "dapi" + "0123456789abcdef" * 2


class TestClean:
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
    def test_removes_terminal_control_sequences(self, text: str, clean: str) -> None:
        assert cleaned(text) == clean


class TestMask:
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
            ("password=swordfish", "password=***"),
            ("password: swordfish!", "password: ***"),
            ("connect(user=u, password=pw1234)", "connect(user=u, password=***)"),
            ("connect(password='hunter 2,2')", "connect(password='***')"),
            ('{"client_secret": "hunter22"}', '{"client_secret": "***"}'),
            (r"{\"client_secret\": \"ab~c.D\"}", r"{\"client_secret\": \"***\"}"),
            ("{'passphrase': 'a b'}", "{'passphrase': '***'}"),
            ("AccountKey=abcd1234==;EndpointSuffix=x", "AccountKey=***;EndpointSuffix=x"),
            ("fs.azure.account.key.a.dfs.core.windows.net=ab==", "fs.azure.account.key.a.dfs.core.windows.net=***"),
            ("aws_secret_access_key = wJal/K7MDENG", "aws_secret_access_key = ***"),
            ('"SecretAccessKey": "wJal/K7MDENG"', '"SecretAccessKey": "***"'),
            ("export AWS_SESSION_TOKEN=FwoGZXIv", "export AWS_SESSION_TOKEN=***"),
            ("fs.s3a.secret.key=abcdefg", "fs.s3a.secret.key=***"),
            ("PWD=hunter22;UID=me", "PWD=***;UID=me"),
            ("API key: sk-abc123", "API key: ***"),
            ("token=abcdef0123", "token=***"),
            ('"token": "abc-123-def"', '"token": "***"'),
            ("run --password hunter22 --verbose", "run --password *** --verbose"),
            ("['run', '--token', 'abcd1234']", "['run', '--token', '***']"),
            ("?sv=1&sig=abc%2F", "?sv=1&sig=***"),
            ("a SAS of sig=abcdefghijklmnop%3D", "a SAS of sig=***"),
            ("jdbc://me:hunter22@host/db", "jdbc://me:***@host/db"),
            ("redis://:p%40ss@host", "redis://:***@host"),
            ("https://me:p@ss@host/x", "https://me:***@host/x"),
            (
                "-----BEGIN PRIVATE KEY-----\nMII+/=\n" + "ab" * 9 + "\n-----END",
                "-----BEGIN PRIVATE KEY-----***-----END",
            ),
            ("dose" + "a1" * 16, "***"),
            ("TOKEN_dkea" + "a1" * 16, "TOKEN_***"),
            ("eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0xx.", "***"),
            ("https://ghp_" + "a1" * 18 + "@github.com/x", "https://***@github.com/x"),
            ("github_pat_11AB_" + "a1" * 18, "***"),
            # As Databricks' users write them.
            (
                'spark.conf.set("fs.azure.account.key.a.dfs.core.windows.net", "abcDEF123==")',
                'spark.conf.set("fs.azure.account.key.a.dfs.core.windows.net", "***")',
            ),
            ('.option("user","sa").option("password","Hunter2!")', '.option("user","sa").option("password","***")'),
            ('.set("fs.s3a.secret.key", "wJalr")', '.set("fs.s3a.secret.key", "***")'),
            (".option( 'sfPassword', r'a b' )", ".option( 'sfPassword', r'***' )"),
            ('os.environ["DB_PASSWORD"] = "hunter2"', 'os.environ["DB_PASSWORD"] = "***"'),
            ("conf['client_secret']='abc1'", "conf['client_secret']='***'"),
            ("fs.azure.account.key.a.dfs.core.windows.net abc123==", "fs.azure.account.key.a.dfs.core.windows.net ***"),
            ("spark.hadoop.fs.s3a.secret.key wJalr/1", "spark.hadoop.fs.s3a.secret.key ***"),
            (
                "fs.azure.account.oauth2.client.secret.a.dfs.net=abcQ~1",
                "fs.azure.account.oauth2.client.secret.a.dfs.net=***",
            ),
            ("password=b'hunter2', api_key = rf\"x-1\"", "password=b'***', api_key = rf\"***\""),
            # Base64 may begin as a path does.
            ("AccountKey=/ab/cd1+e==", "AccountKey=***"),
            ('password="password"', 'password="***"'),
        ],
    )
    def test_replaces_what_looks_like_a_secret(self, text: str, clean: str) -> None:
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
            "tokens: 512, max_tokens=4096, num_token: 12345678",
            "Unexpected token: 'SELECT'",
            "pad_token='[PAD]', eos_token=\"</s>\"",
            "tokenizer: bert-base-uncased1",
            "Access key missing; password: required",
            "KeyError: 'password'",
            "PWD=/databricks/driver",
            "password={{secrets/scope/key}}",
            "password=[REDACTED]",
            "the run of http://host:8080/path of user@host",
            '    password = dbutils.secrets.get(scope="jdbc", key="password")',
            "    token=os.environ['TOKEN_1'],",
            "    return connect(user=self.user, password=self.password)",
            "def connect(password: str = None, token: Optional[str] = None):",
            "    if password == expected:",
            '    print("password: " + word + " is wrong")',
            'f"password={password}"',
            '  File "/Workspace/secrets.py", line 3, in token',
            "    at org.apache.spark.token(Token.scala:12)",
            "connect(user=user, password=password, client_secret = client_secret)",
            "self.api_key = api_key",
            "storage_key: 2024/01/01/data.parquet",
            "private key=/etc/keys/key1.pem",
            "encryption-key: arn:aws:kms:us-east-1:123456789012:key/abcd",
            "Lost spark://10.0.0.1:7077@worker",
            "secret=${SECRET}, pwd=$(pwd)",
            "for fs.azure.account.key Invalid configuration value",
            "['id', 'password', 'email']",
            '.option("password", word)',
        ],
    )
    def test_keeps_other_words(self, text: str) -> None:
        assert cleaned(text) == text

    @pytest.mark.parametrize(
        "part",
        [
            "password:",
            'password="',
            "password   ",
            "eyJ-",
            "://a:b@@@",
            "-----BEGIN PRIVATE KEY-----",
            "token=a",
            "--",
            '("password',
            "account.key.",
            "secret.key ",
            "secret:" + "/" * 100,
            "ghp_",
        ],
    )
    def test_takes_time_proportional_to_the_text(self, part: str) -> None:
        text = part * (500_000 // len(part))
        began = time.process_time()
        cleaned(text)
        # It takes a second. If every place that might begin a secret were read on to the end, it would be minutes.
        assert time.process_time() - began < 15


class TestTail:
    @pytest.mark.parametrize(
        ("text", "lines"),
        [
            ("", []),
            ("\n \n", []),
            ("a\nb\n", ["a", "b"]),
            ("a\nb\nc\nd", ["…", "b", "c", "d"]),
            ("x" * (LONGEST_LINE + 1), ["x" * LONGEST_LINE + "…"]),
            ("x" * 5_000_000 + "\nlast", ["…", "last"]),
            ("x" * 5_000_000 + "\rlast", ["…", "last"]),
            ("x" * 5_000_000, ["…"]),
        ],
        ids=lambda value: repr(value)[:20],
    )
    def test_keeps_the_end_of_a_long_text(self, text: str, lines: list[str]) -> None:
        assert tail(text, 3) == lines

    def test_says_that_a_truncated_secret_was_removed(self) -> None:
        # What is looked at begins within it.
        text = f"password='{'a1' * 50}'" + " " * (4 * 3 * LONGEST_LINE - 50) + "\nlast"
        assert tail(text, 3) == ["…", "last"]

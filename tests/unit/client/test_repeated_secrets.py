"""Credentials that a server or a proxy repeats, control characters and links: nothing of them is shown."""

from __future__ import annotations

import base64
import html
import json
import logging
import re
import traceback
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

import pytest
from rude_server import reply, serving

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BasicAuth, BearerAuth
from airflow_dbjobs.client.auth.aws import AwsKeys, WebIdentity
from airflow_dbjobs.client.auth.databricks import ClientCredentials, Issuer
from airflow_dbjobs.client.auth.token_requests import TokenRequests
from airflow_dbjobs.client.auth.tokens import Token, TokenAuth, TokenCache
from airflow_dbjobs.client.clock import SYSTEM_CLOCK
from airflow_dbjobs.client.exchange import _MAX_TEXT_LENGTH
from airflow_dbjobs.client.models import Run
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.sanitize import one_line, scrubbed
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import CallError, ConfigurationError
from airflow_dbjobs.hooks.credentials import choose_auth

if TYPE_CHECKING:
    from collections.abc import Callable

    from requests.auth import AuthBase

SECRET = "p@ss/wörd+&<1 2>"
ONE_ATTEMPT = RetryPolicy(retry_budget=0.0, read_timeout=0.5)


def in_numbers(text: str) -> str:
    return "".join(f"&#{ord(character)};" for character in text)


SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "percent-encoded": lambda text: quote(text, safe=""),
    "in small letters": lambda text: quote(text, safe="").lower(),
    "each character": lambda text: "".join(f"%{byte:02X}" for byte in text.encode()),
    "twice": lambda text: quote(quote(text, safe=""), safe=""),
    "as a form": quote_plus,
    "as JSON": lambda text: json.dumps(text)[1:-1],
    "as JSON in JSON": lambda text: json.dumps(json.dumps(text))[3:-3],
    "as HTML": html.escape,
    "as HTML in numbers": in_numbers,
    "as HTML in hexadecimal numbers": lambda text: "".join(f"&#x{ord(character):x};" for character in text),
    "with escaped slashes": lambda text: json.dumps(text)[1:-1].replace("/", r"\/"),
}


def shown_of(error: BaseException) -> str:
    """Return whatever anybody might log of an error."""
    seen, texts = set(), []
    todo: list[BaseException | None] = [error]
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        todo += [one.__cause__, one.__context__]
        texts += [str(one), repr(one), repr(vars(one)), repr(one.args), *traceback.format_exception(one)]
    return "\n".join(texts)


class TestSecret:
    @pytest.mark.parametrize("name", SPELLINGS)
    def test_is_found_in_any_spelling(self, name: str) -> None:
        text = f"before {SPELLINGS[name](SECRET)} after"
        assert one_line(scrubbed(one_line(text), [SECRET])) == "before *** after"

    def test_is_found_despite_control_characters(self) -> None:
        with (
            serving(reply({"message": "dapi-\0a-token"}, status="400 No")) as server,
            pytest.raises(CallError) as caught,
        ):
            Transport(server.url, BearerAuth("dapi-a-token")).send("GET", "2.2/jobs/list")
        assert str(caught.value) == "GET jobs/list answered 400: ***"

    def test_is_masked_completely_where_the_text_is_cut(self) -> None:
        long = "x" * (_MAX_TEXT_LENGTH - 6)
        answer = reply({"message": f"{long}dapi-a-token"}, status="400 No")
        with serving(answer) as server, pytest.raises(CallError) as caught:
            Transport(server.url, BearerAuth("dapi-a-token")).send("GET", "2.2/jobs/list")
        assert str(caught.value).endswith("x***")

    def test_equal_to_a_field_name_is_masked(self) -> None:
        answer = reply({"error": {"dapi-a-token": "is wrong"}}, status="400 No")
        with serving(answer) as server, pytest.raises(CallError, match=r"{'\*\*\*': 'is wrong'}"):
            Transport(server.url, BearerAuth("dapi-a-token")).send("GET", "2.2/jobs/list")

    def test_mask_leaves_other_text_unchanged(self) -> None:
        text = r"100%25 of \u0061 &amp; &#98; a+b \n"
        assert scrubbed(text, [SECRET, "", "abc"]) == text
        assert scrubbed("a password and a password", ["password"]) == "a *** and a ***"

    def test_overlapping_another_is_masked_completely(self) -> None:
        assert scrubbed("my password-1 is it", ["password", "word-1"]) == "my *** is it"


HEADS = {
    "reason phrase": lambda secret: reply(raw=b"no", status=f"500 {secret}"),
    "X-Request-Id": lambda secret: reply({"message": "m"}, status="400 No", headers=[f"X-Request-Id: {secret}"]),
    "Content-Type": lambda secret: reply(raw=b"no", headers=[f"Content-Type: {secret}"]),
    "Retry-After": lambda secret: reply({"message": "m"}, status="429 No", headers=[f"Retry-After: {secret}"]),
    "a status line that is none": lambda secret: f"HTTP/1.1 {secret}\r\n\r\n".encode(),
    "a header that is none": lambda secret: f"HTTP/1.1 500 No\r\nContent-Length: 0\r\n{secret}\r\n\r\n".encode(),
    "a first header that is none": lambda secret: f"HTTP/1.1 500 No\r\n {secret}\r\nContent-Length: 0\r\n\r\n".encode(),
    "a length that is none": lambda secret: f"HTTP/1.1 200 OK\r\nContent-Length: 1, {secret}\r\n\r\n".encode(),
}
AUTHS: dict[str, AuthBase] = {
    "token": BearerAuth("dapi-a-token"),
    "password": BasicAuth("me", "a-password"),
    "management token": Token(
        {"Authorization": "Bearer aaaa", "X-Databricks-Azure-SP-Management-Token": "dapi-a-token"}, 9
    ),
}


class TestRepeatedCredentials:
    @pytest.mark.parametrize("pattern", ["Signature=([0-9a-f]+)", "X-Amz-Security-Token: (.*)\r"])
    def test_of_aws_are_masked(self, pattern: str, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("botocore")
        repeated = []

        def answer(request: str) -> list[bytes]:
            repeated.append(re.search(pattern, request)[1])
            body = f"<Error><Code>Denied</Code><Message>not {repeated[0]}</Message></Error>"
            return [reply(raw=body.encode(), status="403 No")]

        with serving(answer) as server:
            monkeypatch.setenv("AWS_ENDPOINT_URL_STS", server.url)
            keys = AwsKeys("AKID", "a-secret-key", "a-session-token")
            identity = WebIdentity(Network(), region="eu-central-1", keys=keys)
            with pytest.raises(CallError, match=r"Denied: not \*\*\*"):
                identity.read(TokenRequests(SYSTEM_CLOCK.monotonic() + 9, SYSTEM_CLOCK))
        assert repeated

    @pytest.mark.parametrize("name", SPELLINGS)
    @pytest.mark.parametrize("place", ["error", "page", "redirect"])
    def test_from_a_password_are_masked(self, name: str, place: str, caplog: pytest.LogCaptureFixture) -> None:
        repeated = SPELLINGS[name](SECRET)
        answers = {
            "error": reply(
                {"error_code": "E", "message": f"no {repeated}", "details": [{"request_id": repeated}]}, status="403 No"
            ),
            "page": reply(raw=f"<p>{repeated}".encode(), status="502 Bad"),
            "redirect": reply(status="302 Found", headers=[f"Location: /x?a={quote(repeated, safe='%')}"]),
        }
        caplog.set_level(logging.DEBUG, logger="airflow_dbjobs")
        with serving(answers[place]) as server:
            transport = Transport(server.url, BasicAuth("me", SECRET), policy=ONE_ATTEMPT)
            with pytest.raises(CallError) as caught:
                transport.call("GET", "2.2/jobs/list", repeatable=True)
        shown = shown_of(caught.value) + caplog.text
        assert SECRET not in shown
        assert repeated not in shown
        assert "***" in shown

    @pytest.mark.parametrize("head", HEADS)
    @pytest.mark.parametrize("auth", AUTHS)
    def test_in_a_header_are_masked(self, head: str, auth: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        both = base64.b64encode(b"me:a-password").decode()
        for secret in ("dapi-a-token",) if "token" in auth else ("a-password", both):
            with serving(HEADS[head](secret)) as server, pytest.raises(CallError) as caught:
                Transport(server.url, AUTHS[auth], policy=ONE_ATTEMPT).call("GET", "2.2/jobs/list", repeatable=True)
            # urllib3 logs the path and the status of each request at DEBUG.
            logged = "\n".join(record.getMessage() for record in caplog.records if record.levelno > logging.DEBUG)
            assert secret not in shown_of(caught.value) + logged

    @pytest.mark.parametrize("name", SPELLINGS)
    def test_of_a_token_server_are_masked(self, name: str) -> None:
        repeated = SPELLINGS[name]("a-client-secret/1")
        with serving(reply({"error": "no", "error_description": repeated}, status=f"401 {quote(repeated)}")) as server:
            source = ClientCredentials(Issuer(server.url, Network()), "me", "a-client-secret/1")
            with pytest.raises(CallError) as caught:
                TokenAuth(source, cache=TokenCache()).token()
            assert "a-client-secret" not in shown_of(caught.value)
            assert repeated not in shown_of(caught.value)

    @pytest.mark.parametrize("scheme", ["http", "https"])
    def test_of_a_proxy_are_masked(self, scheme: str) -> None:
        pair = base64.b64encode(b"me:a-proxy-password").decode()
        answer = reply({"message": f"not {pair} or a-proxy-password"}, status=f"407 not {pair} or a-proxy-password")
        with serving(answer) as proxy:
            url = proxy.url.replace("//", "//me:a-proxy-password@")
            network = Network(proxies=(("http", url), ("https", url)))
            transport = Transport(f"{scheme}://x.example", BearerAuth("t"), policy=ONE_ATTEMPT, network=network)
            with pytest.raises(CallError) as caught:
                transport.send("GET", "2.2/jobs/list")
            assert proxy.requests
        assert "407" in str(caught.value)
        assert "a-proxy-password" not in shown_of(caught.value)
        assert pair not in shown_of(caught.value)


RAW = "one\x1b[31m\r\ntwo\u202ethree\x07\ud800"


JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtZSJ9.c2lnbmF0dXJl"


class TestShownText:
    def test_of_names_and_states_is_one_line(self) -> None:
        state = {"life_cycle_state": RAW, "result_state": RAW, "state_message": RAW}
        task = {"task_key": RAW, "run_id": 6, "state": state, "run_page_url": f"https://x.example/{RAW}"}
        run = Run.from_json({"run_id": 5, "run_name": RAW, "state": state, "tasks": [task]})
        clean = "one twothree"
        assert (run.run_name, run.tasks[0].task_key, run.state.life_cycle_state) == (clean, clean, clean)
        assert run.state.result_state == clean
        assert run.state.message == "one\ntwothree"
        assert run.tasks[0].page_url == ""

    @pytest.mark.parametrize(
        ("url", "page"),
        [
            ("https://x.example/?o=1#job/2/run/7", "https://x.example/?o=1#job/2/run/7"),
            ("http://127.0.0.1:8765/runs/5", "http://127.0.0.1:8765/runs/5"),
            ("javascript:alert(1)", ""),
            ("JavaScript://x.example/%0aalert(1)", ""),
            ("data:text/html,<script>", ""),
            ("//x.example/", ""),
            ("file:///etc/passwd", ""),
            ("https:///nowhere", ""),
            ("https://x.example/ and more", ""),
            ("http://[", ""),
            ("https://x.example/" + "a" * 5000, ""),
        ],
    )
    def test_links_only_to_web_pages(self, url: str, page: str) -> None:
        assert Run.from_json({"run_id": 5, "run_page_url": url}).page_url == page

    def test_may_quote_a_path(self) -> None:
        auth = choose_auth(
            login=None, password=None, extra={"federated_token_file": "/no/such/file"}, workspace="https://x"
        )
        with pytest.raises(CallError, match=r"cannot read the file /no/such/file: No such file"):
            JobsClient("https://x", auth=auth).list_jobs().__next__()


class TestMisplacedToken:
    @pytest.mark.parametrize(
        ("field", "value"),
        [
            ("federated_token_file", JWT),
            ("federated_token_file", "a-token-that-somebody-pasted"),
            ("federated_token_env", JWT),
            ("federated_token_env", "dapi0123456789abcdef0123456789abcdef"),
            ("federated_token_provider", JWT),
            ("federated_token_provider", "dapi0123456789abcdef0123456789abcdef"),
        ],
    )
    def test_in_another_field_is_not_quoted(self, field: str, value: str, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG)
        auth = choose_auth(login=None, password=None, extra={field: value}, workspace="https://x.example")
        with pytest.raises(CallError, match=field) as caught:
            JobsClient("https://x.example", auth=auth).list_jobs().__next__()
        assert value not in shown_of(caught.value) + caplog.text + repr(auth)

    @pytest.mark.parametrize("written", ["dapi1", "Bearer dapi1", " bearer  dapi1 ", "Authorization: Bearer dapi1"])
    @pytest.mark.parametrize("field", ["password", "token"])
    def test_with_the_whole_header_is_accepted(self, written: str, field: str) -> None:
        given = (
            {"password": written, "extra": {}}
            if field == "password"
            else {"password": None, "extra": {"token": written}}
        )
        assert choose_auth(login=None, **given) == BearerAuth("dapi1")

    @pytest.mark.parametrize("written", ["Basic dapi1", "dapi1 dapi2", "token: dapi1"])
    def test_with_a_space_is_refused_and_not_quoted(self, written: str) -> None:
        with pytest.raises(ConfigurationError, match=r"the connection's password has a space in it") as caught:
            choose_auth(login=None, password=written, extra={})
        assert "dapi1" not in shown_of(caught.value)

"""transport: one request, and a request with its retries, against a real server on the loopback interface."""

from __future__ import annotations

import datetime
import json
import logging
import random
import socket
import ssl
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from email.utils import format_datetime, formatdate
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest
from certificates import self_signed
from injected_clock import Clock

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BasicAuth, BearerAuth
from airflow_dbjobs.client.http_connection import TimedAdapter
from airflow_dbjobs.client.retry import RetryPolicy, retry_after_seconds, retry_decision
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import MAX_REQUEST_BYTES, Transport
from airflow_dbjobs.errors import (
    ApiError,
    CallError,
    ConfigurationError,
    ServerError,
    TooManyRequests,
    Unreachable,
    UnreadableReply,
    UntrustedCertificate,
    WrongProtocol,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests
    from requests.auth import AuthBase

    Connect = Callable[..., Transport]
    Log = pytest.LogCaptureFixture

SECRET = "dapi-very-secret"


@dataclass
class Reply:
    """What the server does with a request: answer (`short`: with half a body), `cut` the connection, or `hang`."""

    status: int = 200
    body: object = field(default_factory=lambda: {"fine": True})
    headers: dict[str, str] = field(default_factory=dict)
    cut: bool = False
    hang: bool = False
    short: bool = False


FINE = Reply()


class Server(ThreadingHTTPServer):
    """Answers with each of `replies` in turn, the last one for ever, and remembers what it saw."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies: list[Reply] = [FINE]
        self.seen: list[tuple[str, str, dict[str, str], bytes]] = []
        self.connections: list[object] = []
        self.ended = threading.Event()
        self.thread = threading.Thread(target=partial(self.serve_forever, poll_interval=0.01), daemon=True)
        self.thread.start()

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients here hang up on purpose."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        self.ended.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, dict(self.headers), body))
        self.server.connections.append(self.client_address)
        reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        if reply.hang:
            self.server.ended.wait(10)
        if reply.hang or reply.cut:
            self.close_connection = True
            return
        content = reply.body.encode() if isinstance(reply.body, str) else json.dumps(reply.body).encode()
        # No Date but that of the reply.
        self.send_response_only(reply.status)
        kind = "text/html" if isinstance(reply.body, str) else "application/json"
        length = len(content) + 50 * reply.short
        for name, value in {"Content-Type": kind, "Content-Length": str(length), **reply.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = reply.short

    do_POST = do_GET  # noqa: N815 (the name that http.server looks for)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.stop()


@pytest.fixture
def connect(clock: Clock) -> Iterator[Connect]:
    """Return what makes transports in injected time, and close them all."""
    made: list[Transport] = []

    def make(url: str, auth: AuthBase | None = None, **options: Any) -> Transport:
        made.append(Transport(url, auth or BearerAuth(SECRET), clock=clock, **options))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def transport(server: Server, connect: Connect) -> Transport:
    return connect(server.url)


GET = ("GET", True)
POST = ("POST", True)
LAUNCH_WITHOUT_TOKEN = ("POST", False)
LOCKED = Reply(400, {"error_code": "COULD_NOT_ACQUIRE_LOCK"})
HTML = Reply(200, "<html>Sign in</html>")


@pytest.fixture
def refusing() -> Iterator[str]:
    """Return the URL of a port which nobody else can take and nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


HANG = Reply(hang=True)


class TestTimeouts:
    @pytest.mark.parametrize(
        ("replies", "policy"),
        [
            ([HANG], RetryPolicy(read_timeout=0.1, retry_budget=1)),
            # Who is killed then has no longer.
            ([HANG], RetryPolicy(retry_budget=0.3, ends_with_budget=True)),
            ([Reply(429, headers={"Retry-After": "60"}), HANG], RetryPolicy(retry_budget=60.3, ends_with_budget=True)),
        ],
        ids=["read_timeout", "budget", "rest of the budget"],
    )
    def test_end_the_wait_for_a_server_that_hangs(
        self,
        server: Server,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
        replies: list[Reply],
        policy: RetryPolicy,
    ) -> None:
        monkeypatch.setattr(random, "uniform", lambda least, _: least)
        server.replies = replies.copy()
        started = time.monotonic()
        with pytest.raises(Unreachable, match="did not answer within") as caught:
            connect(server.url, policy=policy).call("POST", "2.2/jobs/run-now", body={}, repeatable=False)
        assert time.monotonic() - started < 2
        assert caught.value.sent
        assert len(server.seen) == len(replies)

    @pytest.mark.parametrize(
        ("replies", "budget"),
        [([], 0), ([Reply(429, headers={"Retry-After": "60"})], 60)],
        ids=["first attempt", "last attempt"],
    )
    def test_of_an_attempt_may_exceed_the_remaining_budget(
        self, server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, replies: list[Reply], budget: float
    ) -> None:
        monkeypatch.setattr(random, "uniform", lambda least, _: least)
        server.replies = [*replies, FINE]
        timeouts = []
        answer = TimedAdapter.send

        def note(*args: Any, timeout: tuple[float, float], **options: Any) -> requests.Response:
            timeouts.append(timeout)
            return answer(*args, timeout=timeout, **options)

        monkeypatch.setattr(TimedAdapter, "send", note)
        transport = connect(server.url, policy=RetryPolicy(retry_budget=budget))
        assert transport.call("POST", "2.2/jobs/create", repeatable=False) == {"fine": True}
        assert timeouts == [(10, 60)] * (len(replies) + 1)
        transport.send("POST", "2.2/jobs/create", limit=5)
        assert max(timeouts[-1]) <= 5

    @pytest.mark.parametrize("limit", [0, 0.05, -1], ids=str)
    def test_prevent_a_request_that_has_no_time_for_a_reply(
        self, server: Server, transport: Transport, limit: float
    ) -> None:
        with pytest.raises(Unreachable, match="no time left to send the request") as caught:
            transport.send("POST", "2.2/jobs/runs/submit", body={}, limit=limit)
        assert (caught.value.sent, caught.value.unclear, server.seen) == (False, False, [])

    def test_prevent_a_wait_interrupted_before(self, transport: Transport, clock: Clock) -> None:
        def interrupt() -> None:
            raise InterruptedError

        transport.interrupt = interrupt
        with pytest.raises(InterruptedError):
            transport.pause(5)
        assert clock.waits == []

    def test_end_the_wait_for_a_connection(self, connect: Connect) -> None:
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for waiting in (first, second):
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            policy = RetryPolicy(connect_timeout=0.1, read_timeout=5)
            with pytest.raises(Unreachable, match="did not accept a connection in time") as caught:
                connect(f"http://127.0.0.1:{full.getsockname()[1]}", policy=policy).send("POST", "2.2/jobs/run-now")
        assert not caught.value.sent


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return self_signed(tmp_path / "certificate.pem")


class TestProxy:
    @pytest.mark.parametrize(
        ("exception", "seen"), [("elsewhere.example", "http://workspace.example"), (".example", None)]
    )
    def test_of_the_environment_is_used_but_for_exceptions(
        self, server: Server, connect: Connect, monkeypatch: pytest.MonkeyPatch, exception: str, seen: str | None
    ) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("http_proxy", server.url)
        monkeypatch.setenv("no_proxy", exception)
        transport = connect("http://workspace.example")
        if seen is None:
            with pytest.raises(Unreachable):
                transport.send("GET", "2.2/jobs/x")
            assert server.seen == []
        else:
            assert transport.send("GET", "2.2/jobs/x") == {"fine": True}
            assert [path for _, path, *_ in server.seen] == [f"{seen}/api/2.2/jobs/x"]


class TestRedirect:
    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    def test_is_not_followed(self, server: Server, transport: Transport, status: int) -> None:
        elsewhere = Server()
        server.replies = [Reply(status, headers={"Location": f"{elsewhere.url}/login"})]
        with pytest.raises(ApiError, match=rf"{status}: a redirect to .*/login\. Is the connection's host"):
            transport.call("GET", "2.2/jobs/x", repeatable=True)
        elsewhere.stop()
        assert (len(server.seen), elsewhere.seen) == (1, [])

    @pytest.mark.parametrize("status", [300, 302, 304, 399])
    def test_without_a_location_is_no_success(self, server: Server, transport: Transport, status: int) -> None:
        server.replies = [Reply(status, "")]
        for void in (False, True):
            with pytest.raises(ApiError, match=f"POST jobs/delete answered {status}: "):
                transport.call("POST", "2.2/jobs/delete", body={}, repeatable=True, void=void)
        assert len(server.seen) == 2


class TestSecrets:
    def test_are_neither_logged_nor_shown(self, server: Server, connect: Connect, refusing: str, caplog: Log) -> None:
        caplog.set_level(logging.DEBUG)
        failures = [
            Reply(403, {"message": "no"}),
            Reply(500),
            Reply(cut=True),
            HTML,
            Reply(302, headers={"Location": "/"}),
        ]
        shown = []
        for auth in (BearerAuth(SECRET), BasicAuth("someone", SECRET)):
            for url in (server.url, refusing, "http://127.0.0.1:x"):
                client = JobsClient(transport=connect(url, auth, policy=RetryPolicy(retry_budget=2)))
                shown.append(f"{client!r} {client.transport!r} {auth!r}")
                for failure in failures:
                    server.replies = [failure]
                    with pytest.raises((CallError, ConfigurationError)) as caught:
                        client.run_now({"job_id": 1, "idempotency_token": "t"})
                    shown.append(f"{caught.value} {caught.value!r}")
        sent = {headers["Authorization"] for _, _, headers, _ in server.seen}
        assert len(sent) == 2
        assert caplog.records
        for secret in (SECRET, *sent):
            assert secret not in caplog.text + "".join(shown)

    @pytest.mark.parametrize("secret", [SECRET, 'dapi/very+"secret"<'])
    def test_repeated_by_a_gateway_are_masked_anywhere(self, server: Server, connect: Connect, secret: str) -> None:
        def shown(reply: Reply) -> str:
            server.replies = [reply]
            with pytest.raises(ApiError) as caught:
                connect(server.url, BearerAuth(secret)).send("GET", "2.2/jobs/x")
            assert len(server.seen[-1][2]["Authorization"]) == len(f"Bearer {secret}")
            return str(caught.value)

        sent = {"code": 502, "headers": [{"Authorization": f"Bearer {secret}"}]}
        as_unicode = "".join(f"\\u{ord(character):04x}" for character in secret)
        replies = [
            Reply(400, {"error": {"request": sent}}),
            Reply(400, {"message": f"cannot read {sent['headers']}"}),
            Reply(400, json.dumps({"error": [sent]}).replace("/", "\\/")),
            Reply(400, f'{{"error": ["Bearer {as_unicode}"]}}'),
            Reply(302, headers={"Location": f"https://login.example/?orig=Bearer+{quote_plus(secret)}"}),
        ]
        for reply in replies:
            said = shown(reply)
            assert "***" in said
            assert [spelled for spelled in (secret, quote_plus(secret), as_unicode, "very") if spelled in said] == []


class TestReply:
    @pytest.mark.parametrize("status", [200, 400])
    def test_nested_too_deeply_is_quoted(self, server: Server, transport: Transport, status: int) -> None:
        server.replies = [Reply(status, "[" * 100_000)]
        with pytest.raises(ApiError if status == 400 else UnreadableReply, match=r": .*\[\[\[\["):
            transport.send("GET", "2.2/jobs/x")

    def test_without_a_body_succeeds_only_if_none_is_expected(self, server: Server, transport: Transport) -> None:
        server.replies = [Reply(200, "")]
        assert transport.send("POST", "2.2/jobs/delete", body={}, void=True) == {}
        with pytest.raises(UnreadableReply, match="an empty body"):
            transport.send("POST", "2.2/jobs/delete", body={})
        server.replies = [HTML]
        with pytest.raises(UnreadableReply, match="Sign in"):
            transport.send("POST", "2.2/jobs/delete", body={}, void=True)

    def test_from_a_gateway_is_quoted_on_one_short_line(self, server: Server, transport: Transport) -> None:
        server.replies = [Reply(404, "<html>\n<pre>No such\n host</pre>" + "x" * 1000)]
        with pytest.raises(ApiError) as caught:
            transport.send("GET", "2.2/jobs/get")
        assert "404: Not Found <html> <pre>No such host</pre>" in str(caught.value)
        assert len(str(caught.value)) < 300


def test_secrets_in_a_body_are_not_shown_by_a_transport_with_another_policy_either(
    server: Server, connect: Connect
) -> None:
    transport = connect(server.url)
    transport.secrets = ("key-in-the-body",)
    server.replies = [Reply(400, {"error_code": "INVALID_PARAMETER_VALUE", "message": "key-in-the-body is wrong"})]
    other = transport.with_policy(RetryPolicy())
    with pytest.raises(ApiError) as refusal:
        other.send("POST", "2.2/jobs/runs/submit", body={"spark_conf": "key-in-the-body"})
    other.close()
    assert refusal.value.message == "*** is wrong"
    assert "key-in-the-body" not in str(refusal.value)


class TestRequest:
    def test_names_its_caller_and_endpoint(self, server: Server, connect: Connect) -> None:
        transport = connect(server.url + "/", product="airflow/3.3")
        transport.send("GET", "2.2/jobs/runs/list", query={"active_only": True, "offset": 0, "job_id": None})
        server.replies = [Reply(body={"job_id": 5})]
        other = transport.with_policy(RetryPolicy())
        assert JobsClient(transport=other).create_job({"name": "ü", "schedule": None}) == 5
        other.close()
        (_, path, read, nothing), (_, _, wrote, body) = server.seen
        assert (path, nothing) == ("/api/2.2/jobs/runs/list?active_only=true&offset=0", b"")
        assert read["Authorization"] == f"Bearer {SECRET}"
        assert read["Accept"] == wrote["Content-Type"] == "application/json"
        assert read["User-Agent"].startswith("airflow-dbjobs/")
        assert read["User-Agent"].endswith(" airflow/3.3")
        assert wrote["User-Agent"] == read["User-Agent"]
        assert json.loads(body) == {"name": "ü"}

    def test_over_10_mb_is_never_sent(self, server: Server, transport: Transport) -> None:
        most = "x" * (MAX_REQUEST_BYTES - len('{"a":""}'))
        transport.send("POST", "2.2/jobs/create", body={"a": most})
        with pytest.raises(ConfigurationError, match="10485761 bytes, and the API accepts at most 10485760"):
            transport.call("POST", "2.2/jobs/create", body={"a": most + "x"}, repeatable=True)
        assert [len(body) for *_, body in server.seen] == [MAX_REQUEST_BYTES]

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, b"x"])
    def test_that_json_cannot_represent_is_never_sent(
        self, server: Server, transport: Transport, value: object
    ) -> None:
        with pytest.raises(ConfigurationError, match="POST jobs/create: the payload cannot be encoded as JSON"):
            transport.send("POST", "2.2/jobs/create", body={"a": value})
        assert server.seen == []


class TestRetries:
    @pytest.mark.parametrize(
        ("reply", "call", "wait"),
        [
            # 429: as it says, capped; else backoff. It was refused, so even a launch without token goes again.
            (Reply(429, headers={"Retry-After": "7"}), GET, 7),
            (Reply(429, headers={"Retry-After": "7"}), LAUNCH_WITHOUT_TOKEN, 7),
            (Reply(429, headers={"Retry-After": "86400"}), GET, 300),
            (Reply(429, headers={"Retry-After": "0"}), GET, 1),
            (Reply(429), POST, 1),
            (Reply(429, headers={"Retry-After": "soon"}), POST, 1),
            # 5xx: 30 s apart, but 1 s after the first failure of a GET; Retry-After counts with 503 only.
            (Reply(503, headers={"Retry-After": "7"}), POST, 7),
            (Reply(503, headers={"Retry-After": "7"}), LAUNCH_WITHOUT_TOKEN, None),
            (Reply(503), GET, 1),
            (Reply(503), POST, 30),
            (Reply(500), GET, 1),
            (Reply(502, "<html>Bad gateway</html>"), POST, 30),
            (Reply(504, headers={"Retry-After": "7"}), POST, 30),
            (Reply(500), LAUNCH_WITHOUT_TOKEN, None),
            # The lock, no answer, or one that cannot be read: backoff from 1 s.
            (LOCKED, POST, 1),
            (LOCKED, LAUNCH_WITHOUT_TOKEN, None),
            (Reply(cut=True), POST, 1),
            (Reply(cut=True), LAUNCH_WITHOUT_TOKEN, None),
            (Reply(short=True), POST, 1),
            (Reply(short=True), LAUNCH_WITHOUT_TOKEN, None),
            (HTML, POST, 1),
            (HTML, LAUNCH_WITHOUT_TOKEN, None),
            *[(Reply(200, body), GET, 1) for body in ("[1]", "")],
            # Nothing else.
            *[(Reply(status, {"message": "no"}), GET, None) for status in (400, 401, 403, 404, 409, 418, 501)],
        ],
        ids=str,
    )
    def test_follow_the_documented_table(
        self,
        server: Server,
        transport: Transport,
        clock: Clock,
        *,
        reply: Reply,
        call: tuple[str, bool],
        wait: float | None,
    ) -> None:
        server.replies = [reply, FINE]
        method, repeatable = call
        body = {"a": 1} if method == "POST" else None
        if wait is None:
            with pytest.raises(CallError):
                transport.call(method, "2.2/jobs/x", body=body, repeatable=repeatable)
            assert (len(server.seen), clock.waits) == (1, [])
        else:
            assert transport.call(method, "2.2/jobs/x", body=body, repeatable=repeatable) == {"fine": True}
            assert len(server.seen) == 2
            (slept,) = clock.waits
            assert wait <= slept <= wait * 1.25

    @pytest.mark.parametrize(
        ("failure", "method", "waits"),
        [
            (Reply(429), "GET", [1, 2, 4, 8, 16, 32, 60, 60]),
            (Reply(cut=True), "POST", [1, 2, 4, 8]),
            (Reply(500), "GET", [1, 30, 30]),
            (Reply(500), "POST", [30, 30]),
        ],
        ids=str,
    )
    def test_wait_longer_up_to_a_limit(
        self, server: Server, transport: Transport, clock: Clock, *, failure: Reply, method: str, waits: list[float]
    ) -> None:
        server.replies = [failure] * len(waits) + [FINE]
        transport.call(method, "2.2/jobs/x", repeatable=True)
        assert clock.waits != waits, "calls that failed together do not come back together"
        for slept, wait in zip(clock.waits, waits, strict=True):
            assert wait <= slept <= wait * 1.25

    @pytest.mark.parametrize(
        ("policy", "failure", "attempts", "error", "words"),
        [
            (RetryPolicy(), Reply(503, {"message": "maintenance"}), range(17, 22), ServerError, "503: maintenance"),
            (RetryPolicy(retry_budget=1800), Reply(503), range(48, 62), ServerError, "503"),
            (RetryPolicy(retry_budget=100, server_error_wait=5), Reply(500), range(17, 22), ServerError, "500"),
            (
                RetryPolicy(retry_budget=10),
                Reply(429, headers={"Retry-After": "9"}),
                range(1, 3),
                TooManyRequests,
                "429",
            ),
            (
                RetryPolicy(retry_budget=10),
                Reply(429, headers={"Retry-After": "60"}),
                range(1, 2),
                TooManyRequests,
                "429",
            ),
            (RetryPolicy(retry_budget=0), Reply(cut=True), range(1, 2), Unreachable, "the connection broke"),
        ],
    )
    def test_end_within_the_budget(
        self,
        server: Server,
        transport: Transport,
        clock: Clock,
        *,
        policy: RetryPolicy,
        failure: Reply,
        attempts: range,
        error: type[Exception],
        words: str,
    ) -> None:
        server.replies = [failure]
        limited = transport.with_policy(policy)
        with pytest.raises(error) as caught:
            limited.call("POST", "2.2/jobs/x", repeatable=True)
        limited.close()
        assert len(server.seen) in attempts
        assert clock.now <= policy.retry_budget
        assert words in str(caught.value)
        tried = f"(attempt {len(server.seen)}, after {clock.now:.0f} s)"
        assert str(caught.value).endswith(tried) is (len(server.seen) > 1)

    def test_backoff_stays_finite(self) -> None:
        late = retry_decision(TooManyRequests("GET x", 429), attempt=5000, repeatable=True, policy=RetryPolicy())
        assert late
        assert late.wait == 60

    def test_are_logged_once_with_the_reason(self, server: Server, transport: Transport, caplog: Log) -> None:
        limited = Reply(429, {"error_code": "REQUEST_LIMIT_EXCEEDED"}, {"Retry-After": "7"})
        server.replies = [limited, Reply(503), LOCKED, HTML, Reply(cut=True), FINE]
        transport.call("POST", "2.2/jobs/run-now", repeatable=True)
        lines = [record.getMessage() for record in caplog.records if record.levelno >= logging.INFO]
        reasons = [
            "POST jobs/run-now answered 429 REQUEST_LIMIT_EXCEEDED, Retry-After 7 s. Attempt 2 in ",
            "POST jobs/run-now answered 503. Attempt 3 in ",
            "POST jobs/run-now answered 400 COULD_NOT_ACQUIRE_LOCK. Attempt 4 in ",
            "POST jobs/run-now answered 200 without a JSON object (text/html): <html>Sign in</html>. Attempt 5 in ",
            f"POST jobs/run-now: cannot reach {server.url}: the connection broke",
        ]
        for line, reason in zip(lines, reasons, strict=True):
            assert line.startswith(reason)
        assert lines[0].endswith(" s, giving up in 600 s.")

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("", "Connection refused. Check the connection's host and port"),
            ("https://no-such-workspace.invalid", "its name does not resolve. Check the connection's host and port"),
        ],
        ids=["refused", "unknown"],
    )
    def test_repeat_what_was_never_sent(
        self, connect: Connect, clock: Clock, refusing: str, url: str, words: str
    ) -> None:
        url = url or refusing
        with pytest.raises(Unreachable) as caught:
            connect(url, policy=RetryPolicy(retry_budget=5)).call("POST", "2.2/jobs/run-now", body={}, repeatable=False)
        assert words in str(caught.value)
        assert url in str(caught.value)
        assert not caught.value.sent
        assert len(clock.waits) == 2

    @pytest.mark.parametrize(
        "url", ["workspace.example", "http://[", "http://x:99999", "https://a b.example", "https://a..b"]
    )
    def test_do_not_repeat_an_unusable_url(self, connect: Connect, clock: Clock, url: str) -> None:
        with pytest.raises(ConfigurationError, match="is not a valid URL"):
            connect(url).call("GET", "2.2/jobs/list", repeatable=True)
        assert clock.waits == []

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            (None, None),
            ("", None),
            ("soon", None),
            ("7", 7),
            ("0.5", 0.5),
            ("-3", 0),
            (format_datetime(datetime.datetime(2026, 11, 22, 3, 0, 0, tzinfo=datetime.UTC), usegmt=True), 90),
            ("Sun, 22 Nov 2026 02:00:00 GMT", 0),
        ],
    )
    def test_respect_retry_after_as_number_or_date(self, header: str | None, seconds: float | None) -> None:
        now = datetime.datetime(2026, 11, 22, 2, 58, 30, tzinfo=datetime.UTC).timestamp()
        assert retry_after_seconds(header, now) == seconds

    @pytest.mark.parametrize(
        ("failures", "call", "waits"),
        [
            ([Reply(cut=True)] * 3, POST, [0.5, 1, 2]),
            ([HTML] * 2, POST, [0.5, 1]),
            ([LOCKED] * 2, POST, [0.5, 1]),
            ([Reply(429)] * 2, LAUNCH_WITHOUT_TOKEN, [0.5, 1]),
            ([Reply(500)] * 3, GET, [0.5, 3, 3]),
            ([Reply(500)] * 2, POST, [3, 3]),
            ([Reply(429, headers={"Retry-After": "0"}), Reply(503, headers={"Retry-After": "7"})], POST, [1, 7]),
            ([Reply(429)] * 8, GET, [0.5, 1, 2, 4, 8, 16, 32, 60]),
        ],
        ids=str,
    )
    def test_begin_with_the_policys_first_wait(
        self, server: Server, connect: Connect, clock: Clock, *, failures: list[Reply], call: Any, waits: list[float]
    ) -> None:
        method, repeatable = call
        server.replies = [*failures, FINE]
        policy = RetryPolicy(first_wait=0.5, server_error_wait=3)
        connect(server.url, policy=policy).call(method, "2.2/jobs/x", repeatable=repeatable)
        for slept, wait in zip(clock.waits, waits, strict=True):
            assert wait <= slept <= wait * 1.25


HERE = 1_800_000_000.0


def dated(epoch_seconds: float) -> Reply:
    return Reply(headers={"Date": formatdate(epoch_seconds, usegmt=True)})


@pytest.fixture
def local_time(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> Callable[[], float]:
    """Let this machine's date be HERE at the start of the test, and go as `clock` does."""

    def date() -> float:
        return HERE + clock.now

    monkeypatch.setattr(clock, "time", date)
    return date


class TestServerTime:
    @pytest.mark.parametrize("skew", [0, -86400, 3600, 365 * 86400], ids=str)
    @pytest.mark.usefixtures("local_time")
    def test_is_that_of_the_date_header_despite_clock_skew(
        self, server: Server, transport: Transport, clock: Clock, skew: float
    ) -> None:
        server.replies = [dated(HERE + skew + 100.9), dated(HERE + skew + 500)]
        clock.now = 100
        transport.send("GET", "2.2/jobs/x")
        clock.now = 400
        # In whole seconds, and at whichever reading of our clock.
        assert transport.server_time(100) == HERE + skew + 100
        assert transport.server_time(40) == HERE + skew + 40
        assert JobsClient(transport=transport).server_time(130) == HERE + skew + 130
        # The last reply counts: 100 s of ours that were not the server's, say.
        transport.send("GET", "2.2/jobs/x")
        assert transport.server_time(400) == HERE + skew + 500

    @pytest.mark.parametrize("status", [200, 503, 403])
    def test_is_read_from_a_reply_of_any_status(self, server: Server, transport: Transport, status: int) -> None:
        server.replies = [Reply(status, headers=dated(HERE).headers)]
        with suppress(CallError):
            transport.send("GET", "2.2/jobs/x")
        assert transport.server_time(0) == HERE

    @pytest.mark.parametrize(
        "headers",
        [
            *(None, {}, {"Date": ""}, {"Date": "yesterday"}, {"Date": "Sun, 99 Nov 2026 25:00:00 GMT"}, {"Date": "0"}),
            {"Date": "Sun, 99999999999999999999 Nov 2026 25:00:00 GMT"},
        ],
        ids=str,
    )
    def test_without_a_readable_date_is_the_local_clock(
        self,
        server: Server,
        transport: Transport,
        clock: Clock,
        local_time: Callable[[], float],
        headers: dict[str, str] | None,
    ) -> None:
        clock.now = 50
        if headers is not None:
            server.replies = [Reply(headers=headers)]
            transport.send("GET", "2.2/jobs/x")
        clock.now = 400
        assert transport.server_time(400) == local_time()
        assert transport.server_time(100) == HERE + 100
        # What was known stays so.
        server.replies = [dated(HERE - 7000), Reply(headers=headers or {})]
        for _ in server.replies.copy():
            transport.send("GET", "2.2/jobs/x")
        assert transport.server_time(400) == HERE - 7000

    def test_is_measured_by_each_policys_transport(
        self, server: Server, transport: Transport, connect: Connect
    ) -> None:
        server.replies = [dated(HERE)]
        transport.send("GET", "2.2/jobs/x")
        assert transport.with_policy(RetryPolicy()).server_time(0) != HERE


class TestTls:
    def test_error_on_a_plain_port_names_schema_and_port(self, server: Server, connect: Connect) -> None:
        url = server.url.replace("http:", "https:")
        with pytest.raises(
            WrongProtocol, match=rf"{url} speaks plain HTTP.*Check the connection's schema \(http or https\)"
        ) as caught:
            connect(url).call("POST", "2.2/jobs/run-now", body={}, repeatable=True)
        assert not caught.value.sent
        assert server.seen == []

    def test_certificates_are_verified_unless_switched_off(
        self, server: Server, connect: Connect, certificate: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        with pytest.raises(UntrustedCertificate, match=r"not trusted.*`verify` in its extra") as caught:
            connect(url).call("GET", "2.2/jobs/x", repeatable=True)
        assert not caught.value.sent
        assert (server.seen, clock.waits) == ([], [])
        assert connect(url, network=Network(verify=str(certificate))).send("GET", "2.2/jobs/x") == {"fine": True}
        with pytest.warns(Warning, match="Unverified HTTPS"):
            assert connect(url, network=Network(verify=False)).send("GET", "2.2/jobs/x") == {"fine": True}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        assert connect(url).send("GET", "2.2/jobs/x") == {"fine": True}

    def test_missing_ca_bundle_is_named_and_may_come_back(self, tmp_path: Path) -> None:
        bundle = tmp_path / "away.pem"
        transport = Transport("https://127.0.0.1:1", BearerAuth("a-token"), network=Network(verify=str(bundle)))
        with pytest.raises(
            UntrustedCertificate, match=rf"{bundle}.*Check `verify` in the connection's extra"
        ) as caught:
            transport.send("GET", "2.2/jobs/list")
        assert not caught.value.sent
        self_signed(bundle)
        with pytest.raises(Unreachable, match="cannot reach"):
            transport.send("GET", "2.2/jobs/list")
        # And it may go away again.
        bundle.unlink()
        with pytest.raises(UntrustedCertificate, match=rf"{bundle}.*Check `verify` in the connection's extra"):
            transport.send("GET", "2.2/jobs/list")


class TestTransports:
    def test_differ_by_workspace_credentials_and_trust(self, connect: Connect) -> None:
        one = connect("https://x", BearerAuth("t"), policy=RetryPolicy(retry_budget=1), product="airflow/3.3")
        same = connect("https://x/", BearerAuth("t"))
        others = [
            connect("https://y", BearerAuth("t")),
            connect("https://x", BearerAuth("u")),
            connect("https://x", BearerAuth("t"), network=Network(verify=False)),
            connect("https://x", BearerAuth("t"), network=Network(verify="/ca.pem")),
        ]
        assert one.identity == same.identity == same.with_policy(RetryPolicy(retry_budget=2)).identity
        assert len({transport.identity for transport in (one, same, *others)}) == 5

    def test_have_one_connection_per_thread_and_policy(self, server: Server, transport: Transport) -> None:
        ask = partial(transport.send, "GET", "2.2/jobs/x")
        ask()
        ask()
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        ask()
        quick = transport.with_policy(RetryPolicy(retry_budget=1))
        quick.send("GET", "2.2/jobs/x")
        quick.close()
        transport.close()
        ask()
        first, second, other_thread, third, other_policy, after_closing = server.connections
        assert first == second == third
        assert len({first, other_thread, other_policy, after_closing}) == 4

    def test_can_be_used_and_closed_again(self, server: Server, transport: Transport) -> None:
        for _ in range(2):
            assert transport.send("GET", "2.2/jobs/x") == {"fine": True}
            assert len(transport._sessions) == 1
            transport.close()
            assert transport._sessions == []
        assert len(set(server.connections)) == 2

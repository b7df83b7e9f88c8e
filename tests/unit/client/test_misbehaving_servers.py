"""What servers, and proxies before them, may send instead of an answer: no call takes longer, or more, than it may."""

from __future__ import annotations

import gzip
import os
import re
import socket
import ssl
import subprocess
import sys
import textwrap
import threading
import time
import tracemalloc
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from rude_server import RudeServer, reply, serving

from airflow_dbjobs.client import JobsClient, exchange
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.auth.databricks import ClientCredentials, Issuer
from airflow_dbjobs.client.auth.tokens import TokenAuth, TokenCache
from airflow_dbjobs.client.http_connection import CallTimer
from airflow_dbjobs.client.models import Run
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import CallError, NotFound, Unreachable, UnreadableReply
from airflow_dbjobs.runs.result import run_result
from airflow_dbjobs.runs.task_log import run_summary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Misbehave = Callable[[RudeServer, str], Iterable[bytes]]

CONNECT_SECONDS = 2.0
READ_SECONDS = 0.3
# What a call may take at the most on a machine that has much else to do.
LONGEST = 3.0
ONE_ATTEMPT = RetryPolicy(retry_budget=0.0, connect_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS)
HEAD = b"HTTP/1.1 200 OK\r\n"


def client_of(server: RudeServer, policy: RetryPolicy = ONE_ATTEMPT) -> JobsClient:
    return JobsClient(server.url, token="dapi-a-secret", retry=policy)


def sign_in(client: JobsClient) -> object:
    network = Network()
    source = ClientCredentials(Issuer(client.host, network), "id", "a-client-secret")
    return TokenAuth(source, cache=TokenCache()).token(READ_SECONDS)


CALLS: dict[str, Callable[[JobsClient], object]] = {
    "launch": lambda client: client.run_now({"job_id": 1, "idempotency_token": "one"}),
    "poll": lambda client: client.poll_run(5),
    "cancel": lambda client: client.cancel_run(5),
    "list": lambda client: client.poll_runs(limit=24),
    "output": lambda client: client.get_run_output(5),
    "token": sign_in,
}


def endless_interim(server: RudeServer, _: str) -> Iterator[bytes]:
    while not server.ended.wait(0.001):
        yield b"HTTP/1.1 100 Continue\r\n\r\n" * 10


def endless_hints(server: RudeServer, _: str) -> Iterator[bytes]:
    while not server.ended.wait(0.001):
        yield b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"


SLOW: dict[str, Misbehave] = {
    "nothing": lambda server, _: server.ended.wait(30) and [],
    "a header that drips": lambda server, _: server.drip(b"HTTP/1.1 200 OK\r\nX: aaa"),
    "a body that drips": lambda server, _: server.drip(HEAD + b"Content-Length: 9000\r\n\r\n{    "),
    "chunks that drip": lambda server, _: server.drip(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1;aaa"),
    "a body without an end that drips": lambda server, _: server.drip(HEAD + b"\r\n{ "),
    "endless 100 Continue": endless_interim,
    "endless 103 Early Hints": endless_hints,
}


class TestTimeLimit:
    @pytest.mark.parametrize("name", SLOW)
    @pytest.mark.parametrize("call", CALLS)
    def test_holds_for_a_whole_call(self, name: str, call: str) -> None:
        with serving(lambda request: SLOW[name](server, request)) as server:
            started = time.monotonic()
            with pytest.raises(CallError) as caught:
                CALLS[call](client_of(server))
            assert time.monotonic() - started < LONGEST
            assert isinstance(caught.value, Unreachable)
            assert caught.value.unclear == (call != "token")

    @pytest.mark.parametrize("name", SLOW)
    def test_holds_for_the_cancellation_on_kill(self, name: str) -> None:
        policy = RetryPolicy(
            retry_budget=1.0, connect_timeout=0.3, read_timeout=0.3, first_wait=0.01, ends_with_budget=True
        )
        with serving(lambda request: SLOW[name](server, request)) as server:
            started = time.monotonic()
            with pytest.raises(CallError):
                client_of(server, policy).cancel_run(5)
            assert time.monotonic() - started < LONGEST
            assert len(server.requests) > 1

    @pytest.mark.parametrize("pieces", [0, 100], ids=["nothing", "a little at a time"])
    def test_of_a_reply_ends_a_slow_upload(self, pieces: int) -> None:
        done = threading.Event()
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def read() -> None:
                connection, _ = listener.accept()
                with connection:
                    for _ in range(pieces):
                        if not done.wait(0.1):
                            connection.recv(65536)
                    done.wait()

            threading.Thread(target=read, daemon=True).start()
            client = JobsClient(f"http://127.0.0.1:{listener.getsockname()[1]}", token="t", retry=ONE_ATTEMPT)
            started = time.monotonic()
            with pytest.raises(Unreachable, match="did not answer within"):
                client.submit_run({"run_name": "x" * 9_000_000, "idempotency_token": "one"})
            done.set()
            assert time.monotonic() - started < LONGEST

    def test_for_connecting_includes_the_handshake(self, monkeypatch: pytest.MonkeyPatch) -> None:
        given: list[float] = []

        def handshake(_: ssl.SSLContext, sock: socket.socket, **__: object) -> None:
            given.append(sock.gettimeout() or 0.0)
            raise TimeoutError

        with socket.create_server(("127.0.0.1", 0)) as listener:
            two = [(2, 1, 6, "", (address, listener.getsockname()[1])) for address in ("127.0.0.1", "127.0.0.2")]
            monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: two)
            monkeypatch.setattr(ssl.SSLContext, "wrap_socket", handshake)
            url = f"https://two:{listener.getsockname()[1]}"
            with pytest.raises(CallError):
                Transport(url, BearerAuth("t"), policy=RetryPolicy(connect_timeout=60)).send("GET", "2.2/jobs/list")
        # Each of the two addresses has half of that to accept the connection.
        assert 40 < given[0] <= 60

    def test_is_not_extended_for_a_late_request(self) -> None:
        timer = CallTimer()
        timer.begin(read_seconds=60, total_seconds=1)
        timer.mark_sent()
        assert timer.left <= 1

    @pytest.mark.parametrize("addresses", [1, 3])
    def test_is_shared_by_all_addresses_of_a_name(self, monkeypatch: pytest.MonkeyPatch, addresses: int) -> None:
        # Where a backlog is full, connecting to it hangs.
        with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
            port = listener.getsockname()[1]
            waiting = [socket.socket() for _ in range(4)]
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(("127.0.0.1", port))
            resolve = socket.getaddrinfo
            everywhere = [(2, 1, 6, "", (f"127.0.0.{last}", port)) for last in range(1, addresses + 1)]
            monkeypatch.setattr(
                socket, "getaddrinfo", lambda host, *a, **k: everywhere if host == "many" else resolve(host, *a, **k)
            )
            attempts: list[float] = []
            connect = socket.socket.connect

            def note(self: socket.socket, address: Any) -> None:
                attempts.append(self.gettimeout() or 0.0)
                if address[0] != "127.0.0.1":
                    raise TimeoutError
                connect(self, address)

            monkeypatch.setattr(socket.socket, "connect", note)
            client = JobsClient(transport=transport_to(f"http://many:{port}"))
            with pytest.raises(Unreachable, match="did not accept a connection in time") as caught:
                client.cancel_run(5)
            assert not caught.value.sent
            assert len(attempts) == addresses
            assert attempts[0] <= CONNECT_SECONDS / addresses
            for one in waiting:
                one.close()


def transport_to(url: str) -> Transport:
    return Transport(url, BearerAuth("dapi-a-secret"), policy=ONE_ATTEMPT)


def flood(server: RudeServer, _: str) -> Iterator[bytes]:
    yield HEAD + b"\r\n"
    while not server.ended.is_set():
        yield b" " * 1_000_000


BOMB = reply(raw=gzip.compress(b" " * 20_000_000), headers=["Content-Encoding: gzip"])


def bomb(_server: RudeServer, _: str) -> list[bytes]:
    return [BOMB]


class TestSizeLimit:
    @pytest.mark.parametrize("call", CALLS)
    @pytest.mark.parametrize("misbehave", [flood, bomb])
    def test_ends_a_reply(self, misbehave: Misbehave, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(exchange, "MAX_REPLY_BYTES", 5_000_000)
        with serving(lambda request: misbehave(server, request)) as server:
            tracemalloc.start()
            try:
                with pytest.raises(UnreadableReply, match=r"is larger than \d MB, and was not read further") as caught:
                    CALLS[call](client_of(server, RetryPolicy(retry_budget=0.0)))
                assert tracemalloc.get_traced_memory()[1] < 15_000_000
            finally:
                tracemalloc.stop()
            assert caught.value.unclear == (call != "token")
            assert ("larger than 1 MB" in str(caught.value)) == (call == "token")

    def test_allows_the_largest_legitimate_reply(self) -> None:
        body = {"notebook_output": {"result": "x" * 10_000_000}}
        packed = gzip.compress(reply(body).partition(b"\r\n\r\n")[2])
        answers = iter([reply(body), reply(raw=packed, headers=["Content-Encoding: gzip"])])
        with serving(lambda _: [next(answers)]) as server:
            client = client_of(server, RetryPolicy())
            for _ in range(2):
                assert len(client.get_run_output(5)["notebook_output"]["result"]) == 10_000_000
            assert server.connections == 1

    @pytest.mark.parametrize("call", CALLS)
    def test_is_kept_by_requesting_gzip_only(self, call: str) -> None:
        with serving(reply({"run_id": 5, "access_token": "a"})) as server:
            with suppress(UnreadableReply):
                CALLS[call](client_of(server))
            assert re.findall(r"(?im)^accept-encoding: (.*)\r$", server.requests[0]) == ["gzip"]


NO_REPLIES = {
    "two lengths": HEAD + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a Location that is no URL": reply(status="302 Found", headers=["Location: http://[", "Connection: close"]),
    "a status line that is none": b"HTTP/1.1 abc\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
    "a chunk that is none": HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n",
    "too many headers": HEAD + b"".join(b"X-%d: 1\r\n" % number for number in range(300)) + b"\r\n{}",
    "gzip that is none": reply(raw=b"{}", headers=["Content-Encoding: gzip"]),
    "gzip that is cut": reply(raw=gzip.compress(b"{}" * 500)[:-9], headers=["Content-Encoding: gzip"]),
    "gzip that is cut after its text": reply(
        raw=gzip.compress(b'{"run_id": 5, "access_token": "a"}')[:-8], headers=["Content-Encoding: gzip"]
    ),
    "packed twice": reply(raw=gzip.compress(gzip.compress(b"{}")), headers=["Content-Encoding: gzip, gzip"]),
    "a length that is longer": HEAD + b"Content-Length: 50\r\nConnection: close\r\n\r\n{}",
    "switching protocols": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
    "half a character": reply(raw=b'{"run_id": "\xff"}'),
    "nested too deeply": reply(raw=b'{"run_id":' + b"[" * 200_000),
}


def _and_close(server: RudeServer, answer: bytes, _: str) -> Iterator[bytes]:
    yield answer
    raise ConnectionAbortedError


class TestReply:
    @pytest.mark.parametrize("charset", ["idna", "no-such-charset", "utf-16"])
    def test_is_decoded_as_utf_8_whatever_its_charset(self, charset: str) -> None:
        kind = f"Content-Type: application/json; charset={charset}"
        answers = iter([reply({"run_id": 7}, headers=[kind]), reply({"message": "ä"}, status="400 No", headers=[kind])])
        with serving(lambda _: [next(answers)]) as server:
            client = client_of(server)
            assert CALLS["launch"](client) == 7
            with pytest.raises(CallError, match="answered 400: ä"):
                CALLS["launch"](client)

    def test_is_read_after_interim_responses(self) -> None:
        hints = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>\r\n\r\n"

        def answer(request: str) -> list[bytes]:
            run_id = int(request.partition("run_id=")[2].split()[0])
            return [b"HTTP/1.1 100 Continue\r\n\r\n", hints, hints, reply({"run_id": run_id})]

        with serving(answer) as server:
            client = client_of(server)
            assert [client.poll_run(run_id).run_id for run_id in (5, 6, 7)] == [5, 6, 7]
            assert server.connections == 1

    @pytest.mark.parametrize(
        ("question", "answer"),
        [
            (CALLS["poll"], {"run_id": 6, "state": {"life_cycle_state": "RUNNING"}}),
            # What the cancellation before it was answered.
            (CALLS["poll"], {}),
            (lambda client: client.get_run(5), {"run_id": 6}),
            (lambda client: client.get_job(5), {"job_id": 6}),
            (CALLS["list"], {"run_id": 6, "state": {"life_cycle_state": "RUNNING"}}),
            (CALLS["cancel"], {"run_id": 6}),
            (CALLS["launch"], {"run_id": 6, "state": {"life_cycle_state": "RUNNING"}}),
            (CALLS["launch"], {"run_id": 0}),
            (lambda client: list(client.list_runs(job_id=5)), {"runs": [{"run_id": 7, "job_id": 6}]}),
        ],
    )
    def test_to_another_request_ends_the_connection(
        self, question: Callable[[JobsClient], object], answer: dict[str, object]
    ) -> None:
        with serving(reply(answer)) as server:
            client = client_of(server)
            for count in (1, 2):
                with pytest.raises(UnreadableReply):
                    question(client)
                assert server.connections == count

    @pytest.mark.parametrize("call", ["poll", "cancel", "output"])
    def test_about_another_run_does_not_mean_that_this_one_is_missing(self, call: str) -> None:
        def missing(run_id: int) -> bytes:
            return reply({"message": f"Run {run_id} does not exist."}, status="400 Bad Request")

        answers = iter([missing(6), missing(5)])
        with serving(lambda _: [next(answers)]) as server:
            client = client_of(server)
            with pytest.raises(UnreadableReply, match="answered about run_id 6 instead of 5"):
                CALLS[call](client)
            with pytest.raises(NotFound):
                CALLS[call](client)
            assert server.connections == 2


FORKING = """
    import os, sys
    from airflow_dbjobs.client import JobsClient
    client = JobsClient(sys.argv[1], token="t")
    assert client.poll_run(1).run_id == 1
    child = os.fork()
    for number in range(60):
        asked = number + (1000 if child else 2000)
        assert client.poll_run(asked).run_id == asked
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
"""


class TestFork:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
    def test_has_connections_of_its_own(self) -> None:
        with serving(lambda request: [reply({"run_id": int(request.partition("run_id=")[2].split()[0])})]) as server:
            script = [sys.executable, "-c", textwrap.dedent(FORKING), server.url]
            done = subprocess.run(script, check=False, capture_output=True, text=True, timeout=60)
            assert (done.returncode, done.stderr) == (0, "")
            assert server.connections == 2


WRONG_FIELDS: dict[str, tuple[Callable[[JobsClient], object], str]] = {
    "an endless run id": (CALLS["launch"], '{"run_id": 1e999}'),
    "a run id with a fraction": (CALLS["launch"], '{"run_id": 1.5}'),
    "a run id of 64 bits": (CALLS["launch"], '{"run_id": 9223372036854775808}'),
    "true as a run id": (CALLS["launch"], '{"run_id": true}'),
    "a list as a result": (CALLS["poll"], '{"run_id": 5, "state": {"result_state": ["SUCCESS"]}}'),
    "a list as a state": (CALLS["poll"], '{"run_id": 5, "state": {"life_cycle_state": ["TERMINATED"]}}'),
    "a number as a code": (CALLS["poll"], '{"run_id": 5, "status": {"termination_details": {"code": 5}}}'),
    "tasks that are none": (CALLS["poll"], '{"run_id": 5, "tasks": [1]}'),
    "an endless run id in a list": (CALLS["list"], '{"runs": [{"run_id": 1e999}]}'),
    "a list as a page's token": (lambda client: list(client.list_jobs()), '{"jobs": [], "next_page_token": ["a"]}'),
    "a list as a job's next page": (lambda client: client.get_job(5), '{"job_id": 5, "next_page_token": ["a"]}'),
    "a list as a run's next page": (lambda client: client.get_run(5), '{"run_id": 5, "next_page_token": ["a"]}'),
    "an endless job id": (
        lambda client: client.find_job_ids("x"),
        '{"jobs":[{"job_id":1e999,"settings":{"name":"x"}}]}',
    ),
    "a repair that is none": (lambda client: client.repair_run({"run_id": 5}), '{"run_id": 5, "repair_history": [1]}'),
}


class TestUnreadableReply:
    @pytest.mark.parametrize("name", NO_REPLIES)
    @pytest.mark.parametrize("call", CALLS)
    def test_leaves_the_outcome_of_the_call_open(self, name: str, call: str) -> None:
        answer = NO_REPLIES[name]

        def answered(_: str) -> list[bytes]:
            # What else was sent would wait in the connection.
            return [answer, b""] if b"Connection: close" not in answer else [answer]

        with serving(answered) as server:
            if b"Connection: close" in answer:
                server.answer = partial(_and_close, server, answer)
            with pytest.raises(CallError) as caught:
                CALLS[call](client_of(server))
            if call == "token":
                assert not caught.value.sent
            else:
                assert isinstance(caught.value, Unreachable | UnreadableReply)
                assert (caught.value.sent, caught.value.unclear, caught.value.transient) == (True, True, True)

    def test_repeats_a_launch_with_its_token(self) -> None:
        answers = iter([NO_REPLIES["two lengths"], reply({"run_id": 7})])
        with serving(lambda _: [next(answers)]) as server:
            policy = RetryPolicy(first_wait=0.01)
            assert client_of(server, policy).run_now({"job_id": 1, "idempotency_token": "one"}) == 7
            assert [request.count('"idempotency_token":"one"') for request in server.requests] == [1, 1]

    @pytest.mark.parametrize("name", WRONG_FIELDS)
    def test_is_one_with_a_required_field_of_another_type(self, name: str) -> None:
        question, body = WRONG_FIELDS[name]
        with serving(reply(raw=body.encode())) as server, pytest.raises(UnreadableReply):
            question(client_of(server))


OUTPUTS = {
    "notebook_task": ['{"notebook_output": 5}', '{"notebook_output": {"result": 5}}', '{"notebook_output": [1]}'],
    "run_job_task": ['{"run_job_output": 5}', '{"run_job_output": {"run_id": [1]}}'],
    "sql_task": ['{"sql_output": 5}', '{"sql_output": [5]}'],
    "alert_task": ['{"alert_output": 5}'],
}


class TestOptionalField:
    def test_of_another_type_is_left_out(self) -> None:
        body = (
            '{"run_id": 5, "start_time": %s, "end_time": "soon", "run_page_url": 5, "run_name": [],'
            ' "run_duration": 1e999,'
            ' "state": {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS", "state_message": {}},'
            ' "tasks": [{"run_id": 6, "task_key": "a", "attempt_number": "x",'
            ' "state": {"life_cycle_state": "RUNNING"}}]}'
        ) % ("1" + "0" * 400)
        with serving(reply(raw=body.encode())) as server:
            run = client_of(server).poll_run(5)
        assert run.state.is_success
        assert (run.start_time, run.end_time, run.page_url, run.run_name, run.state.message) == (None, None, "", "", "")
        assert run_summary(run) == "Run 5 ended as TERMINATED/SUCCESS."

    @pytest.mark.parametrize(("kind", "body"), [(kind, body) for kind, bodies in OUTPUTS.items() for body in bodies])
    def test_output_of_another_type_fails_no_successful_run(self, kind: str, body: str) -> None:
        over = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        tasks = [{"task_key": "a", "run_id": 6, kind: {}, "state": over}]
        run = Run.from_json({"run_id": 5, "state": over, "tasks": tasks})
        with serving(reply(raw=body.encode())) as server:
            assert run_result(client_of(server), run) in (None, 5)

    @pytest.mark.parametrize("fields", [{"condition_task": 5}, {"for_each_task": 5}, {"for_each_task": {"stats": [1]}}])
    def test_task_of_another_type_fails_no_successful_run(self, fields: dict[str, object]) -> None:
        over = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}
        run = Run.from_json(
            {"run_id": 5, "state": over, "tasks": [{"task_key": "a", "run_id": 6, "state": over, **fields}]}
        )
        with serving(reply({})) as server:
            assert run_result(client_of(server), run) is None


class TestErrorText:
    def test_can_always_be_encoded(self) -> None:
        body = rb'{"error_code": "A\u001b[31mB\ud800", "message": "one\r\ntwo\u202ethree\ud83d"}'
        with serving(reply(raw=body, status="400 Bad", headers=["X-Request-Id: a\x1bb"])) as server:
            with pytest.raises(CallError) as caught:
                client_of(server).cancel_run(5)
            assert re.fullmatch(
                r"POST jobs/runs/cancel answered 400 AB: one twothree \(request id ab\)", str(caught.value)
            )

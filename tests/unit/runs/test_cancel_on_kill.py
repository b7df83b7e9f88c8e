"""A kill, over real sockets: what it still sends, how long it takes, and what it leaves open."""

from __future__ import annotations

import json
import logging
import socket
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import Scene, submit
from dag_script import run_script
from injected_clock import CallingClock, rule_all
from rude_server import RudeServer, reply

from airflow_dbjobs.client import JobsClient, session
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import JobsError
from airflow_dbjobs.runs import cancel_on_kill

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from pytest_mock import MockerFixture

RUN = 7


def answer(request: str) -> Iterable[bytes]:
    return [reply({"run_id": RUN} if "runs/submit" in request else {})]


class Api(RudeServer):
    """A server that listens once `listen` is called, and answers each launch with the same run."""

    lost = 0

    def __init__(self) -> None:
        super().__init__(self._answer, listens=False)

    def _answer(self, request: str) -> Iterable[bytes]:
        if self.lost:
            self.lost -= 1
            # The connection is closed instead of an answer.
            raise ConnectionAbortedError
        return answer(request)

    @property
    def connection(self) -> str:
        return json.dumps({"conn_type": "databricks_jobs", "host": self.url, "password": "a-token"})

    @property
    def calls(self) -> list[str]:
        return [request.split()[1].removeprefix("/api/2.2/jobs/") for request in self.requests]

    @property
    def tokens(self) -> set[str]:
        bodies = [json.loads(request.partition("\r\n\r\n")[2]) for request in self.requests]
        return {body["idempotency_token"] for body in bodies if "idempotency_token" in body}


@pytest.fixture
def api() -> Iterator[Api]:
    running = Api()
    yield running
    running.close()


@pytest.fixture
def context(api: Api, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> dict[str, Any]:
    stand_in: Any = SimpleNamespace(base_url=api.url, token="a-token", handle=None, requests={})
    return Scene(stand_in, Path(), monkeypatch, mocker).context


def at_each_wait(monkeypatch: pytest.MonkeyPatch, *happens: Callable[[], object]) -> None:
    """Let something happen in each wait between two attempts, in turn; none takes time, and there is none after."""
    steps = iter(happens)
    rule_all(monkeypatch, sleep=lambda _: next(steps)())


# Real seconds, and more than enough of them for a busy machine.
BUDGET, BOUND = 1.0, 5.0


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], float]:
    """Return what kills the task of a run on a workspace, within BUDGET, and says how long that took."""
    monkeypatch.setattr(cancel_on_kill, "KILL_BUDGET_SECONDS", BUDGET)

    def took(url: str) -> float:
        client = JobsClient(transport=Transport(url, BearerAuth("a-token")))
        began = time.monotonic()
        cancel_on_kill.cancel_now(client, RUN, None, logging.getLogger(), began=began)
        return time.monotonic() - began

    return took


class TestKillBudget:
    def test_includes_an_unanswered_tls_handshake(self, kill_at, caplog):
        with socket.create_server(("127.0.0.1", 0)) as listener:
            assert kill_at(f"https://127.0.0.1:{listener.getsockname()[1]}") < BOUND
        assert "may still be running" in caplog.text

    def test_includes_silent_name_servers(self, kill_at, monkeypatch, caplog):
        ended = threading.Event()

        def hanging(*_: object, **__: object) -> Any:
            ended.wait(60)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        monkeypatch.setattr(socket, "getaddrinfo", hanging)
        seconds = kill_at("https://adb-1.azuredatabricks.net")
        ended.set()
        assert seconds < BOUND
        assert "did not accept a connection in time" in caplog.text

    def test_includes_the_diagnosis_of_a_broken_connection(self, kill_at, monkeypatch, caplog):
        monkeypatch.setattr(session, "_PROBE_SECONDS", 60.0)
        with socket.create_server(("127.0.0.1", 0)) as listener:

            def serve() -> None:
                # The request is broken off; who then tries TLS waits.
                listener.accept()[0].close()

            threading.Thread(target=serve, daemon=True).start()
            assert kill_at(f"http://127.0.0.1:{listener.getsockname()[1]}") < BOUND
        assert "may still be running" in caplog.text

    def test_ends_the_repeated_cancellations_of_a_repair(self, api, monkeypatch):
        api.listen()
        now = 100.0

        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds

        def answer(_: str) -> list[bytes]:
            sleep(1.6)
            return [reply({})]

        api.answer = answer
        monkeypatch.setattr(cancel_on_kill, "time", SimpleNamespace(monotonic=lambda: now))
        client = JobsClient(transport=Transport(api.url, BearerAuth("a-token"), clock=CallingClock(lambda: now, sleep)))
        cancel_on_kill.cancel_now(client, RUN, None, logging.getLogger(), began=now, repairing=True)
        # At 1.6 s and 3.7 s; then there is no time for another pause.
        assert api.calls == ["runs/cancel"] * 2
        assert now - 100.0 == pytest.approx(3.7)


DAG = """
from datetime import datetime, timezone
from airflow import DAG
from airflow_dbjobs.operators import DatabricksRunNowOperator

with DAG("killed", schedule=None, start_date=datetime(2024, 1, 1, tzinfo=timezone.utc)) as dag:
    DatabricksRunNowOperator(task_id="load", job_id=5)
"""

SCRIPT = """
import os, signal
from contextlib import suppress
from airflow.utils.db import initdb
from airflow_dbjobs.client.clock import Clock
from test_cancel_on_kill import Api

initdb()
from killed import dag

api = Api()
os.environ["AIRFLOW_CONN_DATABRICKS_DEFAULT"] = api.connection

def kill(_):
    api.listen()
    print("killing")
    os.kill(os.getpid(), signal.SIGTERM)

Clock.sleep, Clock.piece = staticmethod(kill), float("inf")
# Airflow 2 ends the whole test so.
with suppress(BaseException):
    dag.test()
print("the calls:", api.calls)
"""


class TestKillDuringLaunch:
    def test_launches_nothing_if_no_attempt_reached_the_server(self, api, context, monkeypatch):
        operator = submit(notebook_task={"notebook_path": "/x"})

        def killed() -> None:
            # From now on it could be launched.
            api.listen()
            operator.on_kill()

        at_each_wait(monkeypatch, lambda: None, killed)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(context)
        assert (api.connections, api.requests) == (0, [])

    def test_launches_nothing_while_the_host_is_unknown(self, api, context, monkeypatch):
        api.listen()
        operator = submit(notebook_task={"notebook_path": "/x"})

        def unresolved(*_: object, **__: object) -> Any:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

        def killed() -> None:
            resolving.undo()
            operator.on_kill()

        with monkeypatch.context() as resolving:
            resolving.setattr(socket, "getaddrinfo", unresolved)
            at_each_wait(monkeypatch, killed)
            with pytest.raises(JobsError, match="stopped the task"):
                operator.execute(context)
        assert (api.connections, api.requests) == (0, [])

    def test_stops_a_request_that_is_connecting(self, api, context, monkeypatch):
        api.listen()
        operator = submit(notebook_task={"notebook_path": "/x"})
        resolve = socket.getaddrinfo

        def killed_meanwhile(*args: Any, **kwargs: Any) -> Any:
            operator.on_kill()
            return resolve(*args, **kwargs)

        monkeypatch.setattr(socket, "getaddrinfo", killed_meanwhile)
        # A second signal finds it so, too.
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(context)
        operator.on_kill()
        assert api.requests == []

    def test_cancels_the_run_whose_reply_was_lost(self, api, context, monkeypatch):
        api.listen()
        api.lost = 1
        operator = submit(notebook_task={"notebook_path": "/x"})
        at_each_wait(monkeypatch, operator.on_kill)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(context)
        assert api.calls == ["runs/submit", "runs/submit", "runs/cancel"]
        assert len(api.tokens) == 1

    def test_remembers_an_attempt_that_reached_the_server(self, api, context, monkeypatch):
        api.listen()
        api.lost = 1
        operator = submit(notebook_task={"notebook_path": "/x"})

        def killed() -> None:
            api.listen()
            operator.on_kill()

        at_each_wait(monkeypatch, api.refuse, lambda: None, killed)
        with pytest.raises(JobsError, match="stopped the task"):
            operator.execute(context)
        assert api.calls == ["runs/submit", "runs/submit", "runs/cancel"]
        assert len(api.tokens) == 1

    @pytest.mark.airflow
    @pytest.mark.every_airflow
    def test_by_a_signal_launches_nothing(self, tmp_path: Path) -> None:
        (tmp_path / "killed.py").write_text(DAG)
        said = run_script(tmp_path, tmp_path, "", "-c", SCRIPT)
        assert [line for line in said.splitlines() if line in {"killing", "the calls: []"}] == [
            "killing",
            "the calls: []",
        ]

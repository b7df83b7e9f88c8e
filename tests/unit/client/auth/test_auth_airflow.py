"""Signing in from Airflow: connections, tasks in both modes, kills, and triggers by the dozen."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import time
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FAST, TaskDeferred, TaskInstance, connect, fire, rebuilt, submit, watching
from sign_in_scene import scene_of_sign_in  # noqa: F401 (a fixture)
from token_server import AWS_KEY, AWS_SECRET, CLIENT_ID, CLIENT_SECRET, ROLE_ARN, STS_PATH, TOKEN_PATH, Trouble

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, BaseHook
from airflow_dbjobs.client.auth import tokens
from airflow_dbjobs.errors import ConfigurationError, JobsError, SignInRefused
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks import jobs as hooks

if TYPE_CHECKING:
    from pytest_mock import MockerFixture
    from sign_in_scene import SignInScene

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.triggers import DatabricksRunTrigger

OAUTH = {"service_principal_oauth": True}
TASKS = [{"task_key": "main", "notebook_task": {"notebook_path": "/x"}}]


@pytest.fixture
def scene(scene_of_sign_in: SignInScene, monkeypatch: pytest.MonkeyPatch) -> SignInScene:  # noqa: F811 (the fixture)
    """Return a scene whose workspace is databricks_default, by OAuth; its time is the machine's."""
    scene = scene_of_sign_in
    scene.server.clock = time.monotonic
    monkeypatch.setattr(tokens, "CACHE", tokens.TokenCache())
    monkeypatch.setattr(hooks, "_remarked", set())
    sign_in_by(scene, OAUTH, login=CLIENT_ID, password=CLIENT_SECRET)
    return scene


@pytest.fixture(params=["get_conn", "aget_conn"])
def conn_of(request: pytest.FixtureRequest) -> Any:
    """Return the worker's way to a client, and the triggerer's."""

    def get() -> JobsClient:
        hook = DatabricksJobsHook()
        return hook.get_conn() if request.param == "get_conn" else asyncio.run(hook.aget_conn())

    return get


@pytest.fixture
def context(mocker: MockerFixture) -> dict[str, Any]:
    """Return what Airflow gives a task."""
    ti = TaskInstance()
    if AIRFLOW_V_3_0_PLUS:
        mocker.patch(
            "airflow.sdk.bases.xcom.BaseXCom.set", side_effect=lambda *, key, value, **_: ti.xcom_push(key, value)
        )
    return {"ti": ti, "dag_run": SimpleNamespace(start_date=datetime.now(UTC))}


def sign_in_by(scene: SignInScene, extra: dict[str, Any], **fields: Any) -> None:
    connect(scene.monkeypatch, scene.server.url, **{"password": "", **fields, "extra": extra})


def polls(scene: SignInScene) -> int:
    return len(scene.server.asked("/api/2.2/jobs/runs/get"))


AWS_CONNECTION = {
    "conn_type": "aws",
    "login": AWS_KEY,
    "password": AWS_SECRET,
    "extra": {"role_arn": ROLE_ARN, "region_name": "eu-central-1"},
}


class TestAwsConnection:
    @pytest.mark.parametrize("extra", [{}, {"aws_conn_id": "aws_default"}, {"aws_conn_id": " my_aws "}], ids=str)
    def test_determines_who_requests_the_token(self, scene: SignInScene, conn_of: Any, extra: dict[str, Any]) -> None:
        name = extra.get("aws_conn_id", "aws_default").strip()
        scene.use(**{f"AIRFLOW_CONN_{name.upper()}": json.dumps(AWS_CONNECTION)})
        scene.use_aws()
        sign_in_by(scene, {"federated_aws": True, **extra})
        assert list(conn_of().list_jobs()) == []
        assert [seen.form["Action"] for seen in scene.server.asked(STS_PATH)] == ["AssumeRole", "GetWebIdentityToken"]

    @pytest.mark.parametrize("empty", [None, ""], ids=repr)
    def test_left_empty_means_the_machines_identity(self, scene: SignInScene, conn_of: Any, empty: str | None) -> None:
        scene.use(AIRFLOW_CONN_AWS_DEFAULT=json.dumps(AWS_CONNECTION))
        scene.aws_environment()
        sign_in_by(scene, {"federated_aws": True, "aws_conn_id": empty})
        assert list(conn_of().list_jobs()) == []
        # The connection has a role to assume first.
        assert [seen.form["Action"] for seen in scene.server.asked(STS_PATH)] == ["GetWebIdentityToken"]

    @pytest.mark.parametrize("extra", [{}, {"aws_conn_id": "aws_default"}], ids=["left out", "the default"])
    def test_missing_aws_default_means_the_machines_identity(
        self, scene: SignInScene, conn_of: Any, extra: dict[str, Any]
    ) -> None:
        scene.aws_environment()
        sign_in_by(scene, {"federated_aws": True, **extra})
        assert list(conn_of().list_jobs()) == []
        assert [seen.form["Action"] for seen in scene.server.asked(STS_PATH)] == ["GetWebIdentityToken"]

    def test_missing_by_name_is_an_error(self, scene: SignInScene, conn_of: Any) -> None:
        sign_in_by(scene, {"federated_aws": True, "aws_conn_id": "my_aws"})
        with pytest.raises(ConfigurationError, match=r"aws_conn_id is 'my_aws', but no such connection is defined"):
            conn_of()

    def test_lookup_that_fails_is_not_taken_for_a_missing_one(
        self, scene: SignInScene, conn_of: Any, mocker: MockerFixture
    ) -> None:
        sign_in_by(scene, {"federated_aws": True})
        down = PermissionError("the secrets backend says no")
        ours = DatabricksJobsHook().get_connection("databricks_default")
        for name in ("get_connection", "aget_connection"):
            if hasattr(BaseHook, name):
                mocker.patch.object(BaseHook, name, side_effect=[ours, down])
        with pytest.raises(
            JobsError, match="aws_conn_id is 'aws_default', and looking it up failed with PermissionError"
        ):
            conn_of()


class TestConnection:
    @pytest.mark.parametrize("conn_type", ["databricks_jobs", "databricks"])
    @pytest.mark.parametrize(
        "name",
        ["oauth", "federated_file", "federated_env", "federated_callable", "kubernetes_projected", "kubernetes",
         "aws_environment", "aws_service_account", "aws_container", "aws_instance"],
    )  # fmt: skip
    def test_authenticates_in_the_worker_and_in_the_triggerer(
        self, scene: SignInScene, conn_of: Any, name: str, conn_type: str
    ) -> None:
        sign_in = getattr(scene, name)()
        sign_in_by(scene, sign_in.extra, conn_type=conn_type, login=sign_in.login, password=sign_in.password or "")
        assert list(conn_of().list_jobs()) == []
        # And a client that is made anew needs no token of its own.
        assert list(conn_of().list_jobs()) == []
        assert len(scene.fetches(sign_in)) == 1

    def test_fields_without_effect_are_reported_once(
        self, scene: SignInScene, conn_of: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
    ) -> None:
        sign_in_by(scene, {"retry_buget": 3, "azure_tenant_id": "t", "http_path": "/sql"}, password="dapi-a-token")
        for _ in range(3):
            conn_of()
        # Airflow 3 writes the log to stdout, Airflow 2 there and elsewhere.
        said = capfd.readouterr().out if AIRFLOW_V_3_0_PLUS else caplog.text
        assert (
            said.count(
                "Connection 'databricks_default': extra retry_buget is unknown and ignored. Is retry_budget meant?"
            )
            == 1
        )
        assert (
            said.count("Connection 'databricks_default': it authenticates by token, and azure_tenant_id has no effect.")
            == 1
        )
        assert "http_path" not in said

    def test_test_button_says_what_to_check(self, scene: SignInScene) -> None:
        sign_in_by(scene, OAUTH, login=CLIENT_ID, password="not-the-secret")
        ok, message = DatabricksJobsHook().test_connection()
        assert not ok
        assert "invalid_client" in message
        assert "Check the connection's login (the service principal's client id)" in message
        assert "not-the-secret" not in message


class Killed(BaseException):
    """What ends a task after its signal handler has called on_kill."""


class TestTask:
    def test_authenticates_in_both_modes_and_leaks_no_secret(
            self,
        scene: SignInScene, context: dict[str, Any], deferrable: bool, caplog: pytest.LogCaptureFixture,
        capfd: pytest.CaptureFixture[str],
    ) -> None:  # fmt: skip
        caplog.set_level(logging.DEBUG)
        shown: list[str] = []
        scene.server.is_over = not deferrable
        operator = submit(tasks=TASKS, deferrable=deferrable)
        if deferrable:
            with pytest.raises(TaskDeferred) as deferral:
                operator.execute(context)
            trigger = deferral.value.trigger
            shown += [json.dumps(trigger.serialize()), repr(trigger), json.dumps(deferral.value.kwargs)]
            scene.server.is_over = True
            event = fire(rebuilt(trigger))
            shown.append(json.dumps(event))
            submit(tasks=TASKS).execute_complete(context, event, **deferral.value.kwargs)
        else:
            operator.execute(context)
        assert len(scene.server.asked(TOKEN_PATH)) == 1
        shown += [json.dumps(context["ti"].xcom), repr(operator.__dict__), *capfd.readouterr()]
        shown += [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
        assert scene.server.given
        secrets = [CLIENT_SECRET, *scene.server.given]
        assert [(secret, text) for secret in secrets for text in shown if secret in text] == []

    def test_with_a_wrong_secret_fails_before_the_launch(self, scene: SignInScene, context: dict[str, Any]) -> None:
        sign_in_by(scene, OAUTH, login=CLIENT_ID, password="not-the-secret")
        with pytest.raises(SignInRefused, match=r"invalid_client.*Check the connection's login") as caught:
            submit(tasks=TASKS).execute(context)
        assert not caught.value.unclear
        assert [seen.path for seen in scene.server.seen] == [TOKEN_PATH]

    def test_killed_during_a_token_request_cancels_its_run(self, scene: SignInScene, context: dict[str, Any]) -> None:
        scene.server.is_over = False
        operator = submit(tasks=TASKS)
        took: list[float] = []

        def handle(*_: object) -> None:
            began = time.monotonic()
            operator.on_kill()
            took.append(time.monotonic() - began)
            raise Killed

        def kill() -> None:
            while not polls(scene):
                time.sleep(0.01)
            # The token is over, and the next one is long in coming.
            scene.server.troubles.append(Trouble(TOKEN_PATH, delay=20))
            fetched = len(scene.server.asked(TOKEN_PATH))
            for entry in tokens.CACHE._entries.values():
                entry.current.good_until = entry.current.renew_at = 0.0
            while len(scene.server.asked(TOKEN_PATH)) == fetched:
                time.sleep(0.01)
            os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            killer = threading.Thread(target=kill, daemon=True)
            killer.start()
            with pytest.raises(Killed):
                operator.execute(context)
            killer.join(30)
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert scene.server.result == "CANCELED"
        # Within the 4 s that there are.
        assert took[0] < 4
        assert len(scene.server.asked(TOKEN_PATH)) == 3


class TestTriggers:
    def test_continue_with_one_new_token_after_a_refusal(self, scene: SignInScene) -> None:
        scene.server.is_over = False
        many = 20

        async def wait_for_all() -> list[dict[str, Any]]:
            async def wait_for(trigger: DatabricksRunTrigger) -> dict[str, Any]:
                (event,) = [event.payload async for event in trigger.run()]
                return event

            waits = [asyncio.create_task(wait_for(watching(run_id))) for run_id in range(1, many + 1)]
            async with asyncio.timeout(30):
                while polls(scene) < 2 * many:  # noqa: ASYNC110 (a server has no event to wait for)
                    await asyncio.sleep(FAST)
                # Somebody has revoked it.
                scene.server.good.clear()
                asked = polls(scene)
                while polls(scene) < asked + 2 * many:  # noqa: ASYNC110
                    await asyncio.sleep(FAST)
                scene.server.is_over = True
                return await asyncio.gather(*waits)

        scene.monkeypatch.setattr("airflow_dbjobs.triggers.base.settling_seconds", lambda: 0)
        events = asyncio.run(wait_for_all())
        assert [event["run_id"] for event in events] == list(range(1, many + 1))
        assert [event.get("error") for event in events] == [None] * many
        assert len(scene.server.asked(TOKEN_PATH)) == 2

    def test_read_the_connection_again_after_a_rotated_secret(self, scene: SignInScene) -> None:
        scene.server.client_secret = "the-secret-of-tomorrow"
        asked = len(scene.server.seen)
        trigger = watching(7)

        async def rotate_while_it_waits() -> Any:
            async def first_event() -> Any:
                (event,) = [event.payload async for event in trigger.run()]
                return event

            waiting = asyncio.create_task(first_event())
            async with asyncio.timeout(30):
                while len(scene.server.seen) == asked:  # noqa: ASYNC110 (a server has no event to wait for)
                    await asyncio.sleep(FAST)
                sign_in_by(scene, OAUTH, login=CLIENT_ID, password="the-secret-of-tomorrow")
                return await waiting

        scene.monkeypatch.setattr("airflow_dbjobs.triggers.base.settling_seconds", lambda: 0)
        event = asyncio.run(rotate_while_it_waits())
        assert (event["run_id"], event.get("error")) == (7, None)

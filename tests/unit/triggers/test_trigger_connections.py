"""A trigger's connection lookup in an event loop, by Airflow 3's own decoder and a simulated supervisor.

A blocking lookup would make the event loop wait for itself. Airflow 3.0 rejects it ("You cannot use AsyncToSync in the
same thread as an async event loop"), which used to fail every deferred task of the official provider.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FAST, launch_endless

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS, AirflowNotFoundException
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.runs.conditions import IdleCondition
from airflow_dbjobs.triggers import DatabricksRunTrigger, DatabricksSensorTrigger
from airflow_dbjobs.triggers import base as triggers

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.local_workspace import LocalWorkspace

pytestmark = [
    pytest.mark.skipif(not AIRFLOW_V_3_0_PLUS, reason="in Airflow 2 a triggerer reads the database itself"),
    # Airflow 3.0 warns about its own implementation.
    pytest.mark.filterwarnings("ignore:Using Connection.get_connection_from_secrets from `airflow.models`"),
]

CONN_ID = "known_to_the_supervisor"


@pytest.fixture
def triggerer(workspace: LocalWorkspace, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """Return a context manager that connects the running event loop to a supervisor, as in a triggerer."""
    from airflow.jobs.triggerer_job_runner import TriggerCommsDecoder
    from airflow.sdk.execution_time import task_runner

    fields = {"host": workspace.base_url, "password": workspace.token, "extra": '{"retry_budget": 5}'}
    unset = dict.fromkeys(("schema", "login", "port"))
    connection = {"type": "ConnectionResult", "conn_id": CONN_ID, "conn_type": "databricks_jobs", **fields, **unset}
    monkeypatch.setattr(triggers, "settling_seconds", lambda: 0)
    # A failed lookup is not retried.
    monkeypatch.setattr(triggers, "LOOKUP_TOLERANCE_SECONDS", 0)

    @asynccontextmanager
    async def running() -> AsyncIterator[None]:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        tasks = [asyncio.create_task(answer(theirs, connection))]
        decoder = TriggerCommsDecoder(socket=ours, async_reader=reader, async_writer=writer)
        if hasattr(decoder, "start_reader"):  # from Airflow 3.2 on
            await decoder.start_reader()
            tasks.append(decoder._reader_task)
        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", decoder, raising=False)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            writer.close()
            await writer.wait_closed()
            theirs.close()

    return running


async def answer(end: socket.socket, connection: dict[str, Any]) -> None:
    """Answer as the triggerer's supervisor, which knows one connection and accepts secrets to mask."""
    import msgspec
    from airflow.sdk.execution_time.comms import _ResponseFrame

    reader, writer = await asyncio.open_connection(sock=end)
    try:
        while True:
            frame = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
            number, body, *_ = msgspec.msgpack.decode(frame)
            result = {"GetConnection": connection, "MaskSecret": None}[body["type"]]
            writer.write(bytes(_ResponseFrame(number, result).as_bytes()))
    finally:
        writer.close()
        await writer.wait_closed()


async def event_of(trigger: Any) -> dict[str, Any]:
    (payload,) = [event.payload async for event in trigger.run()]
    return payload


class TestLookupInEventLoop:
    def test_does_not_block_the_event_loop(self, client: JobsClient, triggerer: Callable[[], Any]) -> None:
        run_id = client.submit_run({"condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}})
        job_id = client.create_job({"name": "idle", "condition_task": {"op": "EQUAL_TO", "left": "1", "right": "1"}})

        async def both() -> list[dict[str, Any]]:
            async with triggerer(), asyncio.timeout(30):
                return await asyncio.gather(
                    event_of(DatabricksRunTrigger(run_id, CONN_ID, polling_period_seconds=FAST)),
                    event_of(
                        DatabricksSensorTrigger(IdleCondition(job_id=job_id).to_dict(), CONN_ID, poke_interval=FAST)
                    ),
                )

        run, idle = asyncio.run(both())
        assert run["state"] == "TERMINATED/SUCCESS"
        assert idle["met"] is True

    def test_works_for_cancelling_at_the_deadline(self, client: JobsClient, triggerer: Callable[[], Any]) -> None:
        run_id = launch_endless(client)

        async def out_of_time() -> dict[str, Any]:
            async with triggerer(), asyncio.timeout(30):
                return await event_of(DatabricksRunTrigger(run_id, CONN_ID, deadline=0))

        assert asyncio.run(out_of_time())["timed_out"] == "the API accepted the run's cancellation"

    def test_blocking_lookup_fails(self, triggerer: Callable[[], Any]) -> None:
        # If this succeeded, the tests above would prove nothing.
        async def blocking() -> None:
            async with triggerer():
                DatabricksJobsHook(CONN_ID).get_connection(CONN_ID)

        with pytest.raises((RuntimeError, AirflowNotFoundException)):
            asyncio.run(blocking())

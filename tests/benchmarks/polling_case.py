"""The watching process of one case of polling.py: triggers in one event loop, as in a triggerer, and what they cost.

Run by polling_measure.py, which drives it through three stages by a line each on stdin and reads a line of JSON at the
end of each: all triggers watch; the cost of watching was measured; all runs are over. What the loop's lateness is
measured with costs more than our triggers do, so it runs when the processor time has been taken.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import socket
import sys
import time
import traceback
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Self, TextIO

if TYPE_CHECKING:
    from airflow.triggers.base import BaseTrigger

NAP_SECONDS = 0.005


def main() -> None:
    """Read the case, and the stages' signals, from stdin."""
    # Whatever else is printed goes where the errors go.
    reports = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    case = json.loads(sys.stdin.readline())
    configure_logging(case["log"])
    asyncio.run(Watcher(case, reports).run())


def configure_logging(path: str) -> None:
    """Log as the process of a triggerer that runs the triggers does; there, the other end of the file is a pipe."""
    from airflow.sdk.log import configure_logging as configure

    configure(json_output=True, output=open(path, "wb", buffering=0), sending_to_supervisor=True)  # noqa: SIM115, PTH123


def connection_id(provider: str) -> str:
    """Return the id of the connection through which the triggers of a provider ask."""
    return f"polling_{provider}"


def make_trigger(provider: str, run_id: int, period: int) -> BaseTrigger:
    """Return what the provider's operators defer to."""
    if provider == "ours":
        from airflow_dbjobs.triggers import DatabricksRunTrigger

        return DatabricksRunTrigger(run_id, connection_id(provider), polling_period_seconds=period)
    from airflow.providers.databricks.triggers.databricks import DatabricksExecutionTrigger

    return DatabricksExecutionTrigger(run_id, connection_id(provider), polling_period_seconds=period)


def succeeded(event: Any) -> bool:
    """Whether a trigger, of either provider, has told that its run has succeeded."""
    if "run_state" in event:
        return json.loads(event["run_state"])["result_state"] == "SUCCESS"
    return event.get("state") == "TERMINATED/SUCCESS"


class Connections:
    """Counts the TCP connections that this process opens to the workspace."""

    def __init__(self, port: int) -> None:
        self.opened = 0
        connect = socket.socket.connect

        def counting(sock: socket.socket, address: Any) -> None:
            # Each of requests, aiohttp and asyncio calls this once for a connection.
            if sock.family in {socket.AF_INET, socket.AF_INET6} and address[1] == port:
                self.opened += 1
            connect(sock, address)

        socket.socket.connect = counting  # type: ignore[method-assign]


class Lateness:
    """How many seconds too late a coroutine is woken that sleeps again and again, as long as the `with` block lasts.

    Garbage collections stop a process as a whole, whoever's objects they look at: the longest is kept beside.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        self.longest_collection = 0.0
        self._collecting_since = 0.0

    async def __aenter__(self) -> Self:
        gc.callbacks.append(self._collecting)
        self._napping = asyncio.create_task(self._nap())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._napping.cancel()
        gc.callbacks.remove(self._collecting)

    async def _nap(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due = clock() + NAP_SECONDS
            await asyncio.sleep(NAP_SECONDS)
            self.late.append(max(0.0, clock() - due))

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        else:
            self.longest_collection = max(self.longest_collection, time.monotonic() - self._collecting_since)


class Watcher:
    """The triggers of a case, each in a task of its own."""

    def __init__(self, case: dict[str, Any], reports: TextIO) -> None:
        self._case = case
        self._reports = reports
        self._connections = Connections(case["port"])
        self._fired_at: list[float] = []
        self._wrong: list[str] = []
        self._all_over = asyncio.Event()

    async def run(self) -> None:
        """Go through the stages."""
        provider, period = self._case["provider"], self._case["period"]
        triggers = [make_trigger(provider, run_id, period) for run_id in self._case["run_ids"]]
        # Tasks defer one after the other; triggers that begin together would poll together ever after.
        apart = period / len(triggers)
        tasks = [asyncio.create_task(self._watch(trigger, after=i * apart)) for i, trigger in enumerate(triggers)]
        await self._report()
        await self._report(**await self._steady())
        async with Lateness() as steady:
            await asyncio.sleep(self._case["lateness_seconds"])
        async with Lateness() as ending:
            cpu = time.process_time()
            self._say(late=steady.late, longest_collection=steady.longest_collection)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_over.wait(), self._case["patience"])
            cpu = time.process_time() - cpu
        self._say(
            late=ending.late,
            longest_collection=ending.longest_collection,
            fired_at=self._fired_at,
            wrong=self._wrong[:3],
            cpu=cpu,
        )
        for task in tasks:
            task.cancel()

    async def _watch(self, trigger: BaseTrigger, after: float) -> None:
        await asyncio.sleep(after)
        try:
            async for event in trigger.run():
                self._fired_at.append(time.time())
                if not succeeded(event.payload):
                    self._wrong.append(repr(event.payload))
                break
        except Exception as error:  # noqa: BLE001 (a triggerer would go on, and so do the other triggers)
            self._wrong.append(repr(error))
            traceback.print_exc()
        if len(self._fired_at) == self._case["ending"]:
            self._all_over.set()

    async def _steady(self) -> dict[str, float]:
        opened, cpu, start = self._connections.opened, time.process_time(), time.monotonic()
        await asyncio.sleep(self._case["steady_seconds"])
        return {
            "cpu": time.process_time() - cpu,
            "seconds": time.monotonic() - start,
            "opened": self._connections.opened - opened,
        }

    async def _report(self, **values: Any) -> None:
        """Tell the parent that a stage is over, and wait until it wants the next one."""
        self._say(**values)
        if not await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline):
            raise SystemExit("Nobody measures any more.")

    def _say(self, **values: Any) -> None:
        print(json.dumps(values), file=self._reports)


if __name__ == "__main__":
    main()

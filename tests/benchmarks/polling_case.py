"""The watching process of one case of polling.py: triggers in one event loop, as in a triggerer, and what they cost.

Run by polling_measure.py, which drives it through its stages by a line each on stdin and reads a line of JSON at the
end of each: the first triggers start, as the first of their kind in this process; the cost of watching is measured;
then how late the loop is; runs end. What the loop's lateness is measured with costs more than our triggers do, so it
does not run while the processor time of watching is taken.
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
    # The process that runs a triggerer's triggers is a fork of one that has imported this.
    import airflow.jobs.triggerer_job_runner  # noqa: F401

    # The collection that these imports have made due is no provider's.
    gc.collect()
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


class Cpu:
    """This process' own processor time, and the time of day, since the object was made."""

    def __init__(self) -> None:
        self._cpu, self._start = time.process_time(), time.monotonic()

    def seconds(self) -> float:
        return time.process_time() - self._cpu

    def wall_seconds(self) -> float:
        return time.monotonic() - self._start


class Lateness:
    """How many seconds too late a coroutine is woken that sleeps again and again, as long as the `with` block lasts.

    Garbage collections stop a process as a whole, whoever's objects they look at: they are kept apart.
    """

    def __init__(self) -> None:
        self.late: list[float] = []
        # The worst of these if collections took no time.
        self.worst_beyond_collections = 0.0
        self.longest_collection = 0.0
        self._collected_seconds = 0.0
        self._collecting_since: float | None = None

    async def __aenter__(self) -> Self:
        gc.callbacks.append(self._collecting)
        self._napping = asyncio.create_task(self._nap())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._napping.cancel()
        gc.callbacks.remove(self._collecting)

    def summary(self) -> dict[str, float]:
        """Return what the parent wants to know."""
        return {
            "late_worst": max(self.late),
            "late_p99": sorted(self.late)[len(self.late) * 99 // 100],
            "late_beyond_collections": self.worst_beyond_collections,
            "longest_collection": self.longest_collection,
        }

    async def _nap(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, collected = clock() + NAP_SECONDS, self._collected()
            await asyncio.sleep(NAP_SECONDS)
            late = max(0.0, clock() - due)
            self.late.append(late)
            beyond = late - (self._collected() - collected)
            self.worst_beyond_collections = max(self.worst_beyond_collections, beyond)

    def _collected(self) -> float:
        """Return for how long collections took, one included whose end another thread has not reported yet."""
        since = self._collecting_since
        return self._collected_seconds + (0.0 if since is None else time.monotonic() - since)

    def _collecting(self, phase: str, _: dict[str, int]) -> None:
        if phase == "start":
            self._collecting_since = time.monotonic()
        elif self._collecting_since is not None:
            took, self._collecting_since = time.monotonic() - self._collecting_since, None
            self._collected_seconds += took
            self.longest_collection = max(self.longest_collection, took)


class Watcher:
    """The triggers of a case, each in a task of its own."""

    def __init__(self, case: dict[str, Any], reports: TextIO) -> None:
        self._case = case
        self._reports = reports
        self._connections = Connections(case["port"])
        self._tasks: list[asyncio.Task[None]] = []
        # Of each run, when its trigger fired.
        self._fired_at: dict[int, float] = {}
        self._wrong: list[str] = []
        self._all_over = asyncio.Event()

    async def run(self) -> None:
        """Go through the stages."""
        async with Lateness() as first:
            starting = asyncio.create_task(self._start())
            await self._report()
            await starting
        await self._report(**first.summary())
        await self._report(**await self._steady())
        async with Lateness() as steady:
            cpu = Cpu()
            await asyncio.sleep(self._case["lateness_seconds"])
            per_second = cpu.seconds() / cpu.wall_seconds()
        async with Lateness() as ending:
            cpu = Cpu()
            self._say(**steady.summary())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._all_over.wait(), self._case["patience"])
            # What watching would have taken in this time, the measuring of the lateness included, is not the ends'.
            ends_cpu = cpu.seconds() - per_second * cpu.wall_seconds()
        self._say(
            **ending.summary(),
            fired_at=self._fired_at,
            wrong=self._wrong[:3],
            ends_cpu=max(0.0, ends_cpu),
        )
        for task in self._tasks:
            task.cancel()

    async def _start(self) -> None:
        """Start the triggers one after the other: those that begin together would poll together ever after."""
        provider, period, run_ids = self._case["provider"], self._case["period"], self._case["run_ids"]
        for run_id in run_ids:
            # The first one imports its module in the event loop, as a triggerer does.
            trigger = make_trigger(provider, run_id, period)
            self._tasks.append(asyncio.create_task(self._watch(run_id, trigger)))
            await asyncio.sleep(period / len(run_ids))

    async def _watch(self, run_id: int, trigger: BaseTrigger) -> None:
        try:
            async for event in trigger.run():
                self._fired_at[run_id] = time.time()
                if not succeeded(event.payload):
                    self._wrong.append(repr(event.payload))
                break
        except Exception as error:  # noqa: BLE001 (a triggerer would go on, and so do the other triggers)
            self._wrong.append(repr(error))
            traceback.print_exc()
        if len(self._fired_at) == self._case["ending"]:
            self._all_over.set()

    async def _steady(self) -> dict[str, float]:
        opened, cpu = self._connections.opened, Cpu()
        await asyncio.sleep(self._case["steady_seconds"])
        return {
            "cpu": cpu.seconds(),
            "seconds": cpu.wall_seconds(),
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

"""The trigger of an asset watcher: it fires whenever a run of a job ends."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow import __version__
from airflow.triggers.base import TriggerEvent

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.airflow_compat.asset_watchers import (
    EventTriggerBase,
    has_asset_store,
    read_asset_values,
    write_asset_values,
)
from airflow_dbjobs.airflow_compat.metrics import emit_metric
from airflow_dbjobs.client.response_fields import identifier
from airflow_dbjobs.errors import ConfigurationError, PermissionDenied, Unauthenticated
from airflow_dbjobs.triggers.base import client_of, in_thread, load

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.runs.ended_runs import JobRun, Look, WatchedJob, Watermark

DEFAULT_RESULTS = ("SUCCESS", "SUCCESS_WITH_FAILURES")
_DAY_SECONDS = 86_400.0
_LEAST_POLL_INTERVAL = 1.0

# How often the connection is read again, and the job's name looked up.
RENEWAL_SECONDS = 600.0
# Airflow's triggerer passes events on once a second.
PASSING_ON_SECONDS = 2.0
# How long to wait before Airflow's store is read again.
STORE_WAIT_SECONDS = 20.0


class _InvalidArgument(ConfigurationError, TypeError):
    """A mistake in a watcher. A triggerer survives no other error than a TypeError of a trigger's constructor."""


class DatabricksJobRunTrigger(EventTriggerBase):  # type: ignore[misc] # it depends on Airflow's version
    """The trigger of an ``AssetWatcher``: updates its asset whenever a run of a job ends. Needs Airflow 3.

    It never fails: while the workspace cannot be reached, refuses the credentials or has no such job, it waits.
    Templates are not rendered.

    :param databricks_conn_id: the Airflow connection to the workspace.
    :param job_id: the job; or `job_name`.
    :param job_name: the exact name of the job, which need not exist yet.
    :param task_key: watch this task of the job's runs rather than the runs.
    :param results: the results that count, as the Jobs API names them; None: all.
    :param poll_interval: the time between two looks, in seconds.
    :param max_age: ends that are older, in seconds or as a timedelta, are left out after an interruption; None: never.
    """

    def __init__(
        self,
        databricks_conn_id: str = "databricks_default",
        *,
        job_id: int | str | None = None,
        job_name: str | None = None,
        task_key: str | None = None,
        results: str | Iterable[str] | None = DEFAULT_RESULTS,
        poll_interval: float = 30.0,
        max_age: float | timedelta | None = _DAY_SECONDS,
    ) -> None:
        super().__init__()
        if not AIRFLOW_V_3_0_PLUS:
            raise _InvalidArgument(
                f"DatabricksJobRunTrigger needs Airflow 3, and this is {__version__}, which has no asset watchers."
                " Schedule the DAG by time, and wait for the run with a DatabricksRunSensor."
            )
        self.databricks_conn_id = databricks_conn_id
        self.job_id = _job_id(job_id)
        self.job_name = job_name
        self.task_key = task_key
        # Airflow compares the serialized arguments of watchers, so equal ones have to look equal.
        self.results = None if results is None else _results(results)
        self.poll_interval = _seconds("poll_interval", poll_interval, _LEAST_POLL_INTERVAL)
        self.max_age = None if max_age is None else _seconds("max_age", max_age, 0.0)
        self._check_names()
        self._client: JobsClient | None = None
        self._job: WatchedJob | None = None
        self._renew_at = 0.0
        # What was seen until now, None before the first look, and what of it is stored.
        self._mark: Watermark | None = None
        self._stored: Watermark | None = None
        # What is wrong, by what was logged of it last.
        self._problems: dict[str, object] = {}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, which contain no credentials."""
        return (
            "airflow_dbjobs.triggers.DatabricksJobRunTrigger",
            {**self._subject(), "poll_interval": self.poll_interval, "max_age": self.max_age},
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield an event for each end, for ever."""
        loop = asyncio.get_running_loop()
        await load()
        await self._restore()
        while True:
            # Watchers with the same interval look at the same time, and so share requests.
            due = loop.time() // self.poll_interval * self.poll_interval + self.poll_interval
            ends = await self._look()
            for end in ends:
                yield TriggerEvent(dict(end.event or {}))
            await self._store(has_fired=bool(ends))
            await asyncio.sleep(due - loop.time())

    async def _look(self) -> list[JobRun]:
        """Look once; return the ends to fire for."""
        from airflow_dbjobs.runs.ended_runs import Watermark, advance

        try:
            look = await self._read()
        except Exception as error:  # noqa: BLE001 (Airflow would begin a trigger that raises again every second)
            if isinstance(error, Unauthenticated | PermissionDenied):
                self._renew_at = 0.0
            kind = type(error), getattr(error, "error_code", "")
            self._report("look", f"Looking at {self._name} failed; will retry: {str(error) or repr(error)}", kind)
            return []
        self._report("look", f"Cannot watch {self._name} yet; will retry: {look.problem}" if look.problem else "")
        if self._mark is None:
            self.log.info("Watching %s, from now on, with %d active runs.", self._name, _active(look))
        ends, self._mark = advance(self._mark or Watermark(look.now), look, self.max_age)
        return [end for end in ends if end.event and self._counts(end.event["result"])]

    async def _read(self) -> Look:
        """Look at the job. Raises any exception."""
        from airflow_dbjobs.runs.ended_runs import WatchedJob, look_at
        from airflow_dbjobs.runs.polling.poller import RunPoller

        now = asyncio.get_running_loop().time()
        if self._client is None or now >= self._renew_at:
            self._client = await client_of(self.databricks_conn_id)
            self._job, self._renew_at = None, now + RENEWAL_SECONDS
        poller = RunPoller.shared(self._client, emit_metric)
        self._client = poller.client
        job = self._job or WatchedJob(self.job_id, self.job_name, self.task_key)
        look = await look_at(poller, job, self._mark)
        self._job = None if look.problem else replace(job, job_id=look.job_id)
        return look

    async def _restore(self) -> None:
        """Read what an earlier triggerer has seen; wait until Airflow answers."""
        from airflow_dbjobs.runs.ended_runs import Watermark

        while has_asset_store(self):
            try:
                found = await in_thread(lambda: read_asset_values(self, self._key))
                marks = [Watermark.from_dict(plain) for plain in found]
            except Exception as error:  # noqa: BLE001 (of Airflow's API or of a custom store)
                self._report("store", f"Reading what was seen of {self._name} failed; will retry: {error!r}")
                await asyncio.sleep(STORE_WAIT_SECONDS)
                continue
            self._report("store", "")
            self._mark = self._stored = max(marks, key=lambda mark: mark.as_of, default=None)
            if self._mark is not None:
                self.log.info("Watching %s again, with %d active runs.", self._name, len(self._mark.active))
            return

    async def _store(self, *, has_fired: bool) -> None:
        """Store what was seen, so that the next triggerer continues from there."""
        if self._mark is None or self._mark == self._stored or not has_asset_store(self):
            return
        plain = self._mark.to_dict()
        try:
            if has_fired:
                # Only once Airflow has the events: after an answer of its supervisor, the runner passes them on within
                # a second; after another answer, the supervisor keeps them before it takes the next message.
                await in_thread(lambda: read_asset_values(self, self._key))
                await asyncio.sleep(PASSING_ON_SECONDS)
                await in_thread(lambda: read_asset_values(self, self._key))
            await in_thread(lambda: write_asset_values(self, self._key, plain))
        except Exception as error:  # noqa: BLE001 (of Airflow's API or of a custom store)
            self._report("store", f"Storing what was seen of {self._name} failed; will retry: {error!r}")
        else:
            self._report("store", "")
            self._stored = self._mark

    def _report(self, what: str, problem: str, kind: object = None) -> None:
        """Log a problem when it begins or becomes another, and its end."""
        known, found = self._problems.get(what), (kind or problem)
        if known != found:
            self._problems[what] = found
            if problem:
                self.log.warning("%s", problem)
            elif known:
                self.log.info("Watching %s works again.", self._name)

    def _counts(self, result: str) -> bool:
        return self.results is None or result in self.results

    def _subject(self) -> dict[str, Any]:
        """Return the arguments that say which ends count."""
        return {
            "databricks_conn_id": self.databricks_conn_id,
            "job_id": self.job_id,
            "job_name": self.job_name,
            "task_key": self.task_key,
            "results": None if self.results is None else list(self.results),
        }

    @property
    def _name(self) -> str:
        from airflow_dbjobs.runs.ended_runs import WatchedJob

        return WatchedJob(self.job_id, self.job_name, self.task_key).name

    @property
    def _key(self) -> str:
        """The key in the asset's store, which other watchers of the asset use too."""
        subject = json.dumps(self._subject(), sort_keys=True)
        return f"airflow_dbjobs.job_run.{hashlib.sha256(subject.encode()).hexdigest()[:32]}"

    def _check_names(self) -> None:
        if (self.job_id is None) == (self.job_name is None):
            raise _InvalidArgument("Give DatabricksJobRunTrigger either a job_id or a job_name.")
        for name in ("databricks_conn_id", "job_name", "task_key"):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, str) and value):
                raise _InvalidArgument(f"{name} is {value!r}; it must be a text that is not empty.")
            if value and "{{" in value:
                raise _InvalidArgument(f"{name} is {value!r}, but Airflow renders no templates in asset watchers.")


def _active(look: Look) -> int:
    return sum(run.end is None for run in (*look.listed, *look.others))


def _job_id(value: object) -> int | None:
    if value is None:
        return None
    with suppress(TypeError, ValueError):
        return identifier(value, least=1)
    raise _InvalidArgument(f"job_id is {value!r}; it must be a number (Airflow renders no templates here).")


def _results(results: str | Iterable[str]) -> tuple[str, ...]:
    from airflow_dbjobs.runs.ended_runs import RESULTS

    names = results.split(",") if isinstance(results, str) else results if isinstance(results, Iterable) else ()
    found = {str(name).strip().upper().replace("TIMED_OUT", "TIMEDOUT") for name in names}
    if not found or not found <= set(RESULTS):
        raise _InvalidArgument(f"results is {results!r}; it must be None, or some of {', '.join(RESULTS)}.")
    return tuple(sorted(found))


def _seconds(name: str, value: object, least: float) -> float:
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, str):
        with suppress(ValueError):
            seconds = float(seconds)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not least <= seconds < float("inf"):
        raise _InvalidArgument(f"{name} is {value!r}; it must be at least {least:g} seconds.")
    return float(seconds)

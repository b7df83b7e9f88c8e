"""Which runs of a job have ended since the last look: what a look reads, and what is remembered until the next.

The API lists runs by their start, and cannot list them by their end. So a look reads the list from the latest run back
to the watermark's `floor`, active and ended runs alike, and then those older runs that were active before.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import math
import weakref
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from airflow_dbjobs.client.models import NEVER_RAN
from airflow_dbjobs.errors import ConfigurationError, NotFound
from airflow_dbjobs.runs.result import fits_xcom

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.runs.polling.poller import RunPoller

T = TypeVar("T")

#: How a run or a task can end.
RESULTS = ("SUCCESS", "SUCCESS_WITH_FAILURES", "FAILED", "TIMEDOUT", "CANCELED", "SKIPPED", *sorted(NEVER_RAN))

# The least number of runs that a look reads, which is one page. A repair of one of them is noticed.
PAGE = 24
# How far behind the list may be: a run may appear in it late, or appear to be active after its end.
_LISTING_LAG_MS = 60_000
# The API accepts parameters of at most 10,000 bytes.
_MAX_PARAMETERS_BYTES = 16_000
_MAX_MESSAGE_LENGTH = 1000


@dataclass(frozen=True, slots=True)
class WatchedJob:
    """A job, by id or by name, and the task whose ends are watched; None: those of whole runs."""

    job_id: int | None
    job_name: str | None
    task_key: str | None

    @property
    def name(self) -> str:
        """The job and the task, as messages name them."""
        job = f"job {self.job_id}" if self.job_name is None else f"job {self.job_name!r}"
        return job if self.task_key is None else f"task {self.task_key!r} of {job}"


class JobRun(NamedTuple):
    """A run of the job, or its watched task, as a look found it. Times are the server's, in epoch milliseconds.

    `end` is None while it is active, and 0 if the API does not say when it ended. `event` describes the end; it is None
    if there is nothing to report, because the run does not have the task.
    """

    run_id: int
    start: int
    end: int | None
    event: Mapping[str, Any] | None = None


class Look(NamedTuple):
    """What a look found.

    `listed` are the latest runs with no gap between them, `others` older ones that were active before, unless they were
    deleted. `now` is the server's time in epoch milliseconds. `job_id` is None if the job was not found. `problem` says
    why nothing can be reported, "" if something can.
    """

    listed: Sequence[JobRun]
    others: Sequence[JobRun]
    now: int
    job_id: int | None = None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Watermark:
    """What has to be remembered from one look to the next.

    Every run that started at `floor` or later is in `active`, or in `ended` with its start and end, or is new. Older
    runs are in `active` if they have not ended yet, and in `ended` if they have just ended. `as_of` is the server's
    time of the latest look. All times are in epoch milliseconds.
    """

    floor: int
    active: frozenset[int] = frozenset()
    ended: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    as_of: int = field(default=0, compare=False)

    def is_news(self, run: JobRun) -> bool:
        """Return whether a run has ended since the last look; one that was repaired may end more than once."""
        if run.end is None:
            return False
        if known := self.ended.get(run.run_id):
            # The API may add when it ended.
            return 0 not in (known[1], run.end) and known[1] != run.end
        return run.run_id in self.active or run.start >= self.floor

    def to_dict(self) -> dict[str, Any]:
        """Return JSON values that `from_dict` reads."""
        ended = [[run_id, *times] for run_id, times in self.ended.items()]
        return {"floor": self.floor, "active": sorted(self.active), "ended": ended, "as_of": self.as_of}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Watermark:
        """Return the watermark that `to_dict` wrote."""
        ended = {run_id: (start, end) for run_id, start, end in plain["ended"]}
        return cls(plain["floor"], frozenset(plain["active"]), ended, plain["as_of"])


def advance(mark: Watermark, look: Look, max_age: float | None) -> tuple[list[JobRun], Watermark]:
    """Return the runs that have ended since the last look, in the order of their ends, and the next watermark.

    Ends that are older than `max_age` seconds are left out.
    """
    if look.job_id is None:
        return [], mark
    runs = [*look.listed, *look.others]
    oldest = -math.inf if max_age is None else look.now - max_age * 1000
    news = [run for run in runs if run.event and mark.is_news(run) and (not run.end or run.end >= oldest)]
    floor = _next_floor(look.listed, mark.floor)
    active = frozenset(run.run_id for run in runs if run.end is None)
    ended = {**mark.ended, **{run.run_id: (run.start, run.end) for run in runs if run.end is not None}}
    recent = look.now - _LISTING_LAG_MS
    kept = {run_id: (start, end) for run_id, (start, end) in ended.items() if start >= floor or end >= recent}
    return sorted(news, key=lambda run: (run.end, run.run_id)), Watermark(floor, active, kept, look.now)


def _next_floor(listed: Sequence[JobRun], floor: int) -> int:
    """Return the start back to which the next look should read the list."""
    latest = sorted((run.start for run in listed if run.start), reverse=True)
    if not latest or len(listed) < PAGE:
        return min([floor, *latest])
    # Other runs that started with the last one of these may not have been read.
    return next((start for start in latest[PAGE - 1 :] if start <= latest[0] - _LISTING_LAG_MS), latest[-1]) + 1


def job_run(run: Run, job: WatchedJob) -> JobRun:
    """Return a run, which was read with its tasks if one of them is watched."""
    task = next((task for task in run.tasks if task.task_key == job.task_key), None)
    start = _milliseconds(run.start_time or run.end_time)
    if not (run.is_terminal if task is None else run.is_final(task)):
        return JobRun(run.run_id, start, None)
    subject = run if job.task_key is None else task and run.only(task)
    end = _milliseconds((subject or run).end_time)
    return JobRun(run.run_id, start, end, _event(run, subject, job.task_key) if subject else None)


def _event(run: Run, subject: Run, task_key: str | None) -> dict[str, Any]:
    """Describe the end of `subject`, which is the run itself or reduced to one task."""
    state = subject.state
    return {
        "run_id": run.run_id,
        "job_id": run.job_id,
        "run_name": run.run_name,
        "task_key": task_key,
        "result": next((name for name in RESULTS if state.is_any_of((name,))), "FAILED"),
        "message": state.message[:_MAX_MESSAGE_LENGTH],
        "run_page_url": subject.page_url,
        "start_time": _iso_time(subject.start_time),
        "end_time": _iso_time(subject.end_time),
        "job_parameters": _bounded({item["name"]: item.get("value", item.get("default")) for item in _parameters(run)}),
        "overriding_parameters": _bounded(run.raw.get("overriding_parameters") or {}),
    }


def _parameters(run: Run) -> list[Mapping[str, Any]]:
    found: Any = run.raw.get("job_parameters")
    items = found if isinstance(found, list) else ()
    return [item for item in items if isinstance(item, dict) and isinstance(item.get("name"), str)]


def _bounded(parameters: Any) -> Any:
    """Return parameters, None if they are too large for an event, or Airflow's database cannot store them."""
    return parameters if len(json.dumps(parameters)) <= _MAX_PARAMETERS_BYTES and fits_xcom(parameters) else None


def _milliseconds(time: float | None) -> int:
    return round((time or 0) * 1000)


def _iso_time(time: float | None) -> str | None:
    try:
        return datetime.fromtimestamp(time, UTC).isoformat() if time else None
    except (OSError, OverflowError, ValueError):
        return None


# --- reading ---


class _Reading(NamedTuple):
    """A look in progress, with the watermark of the caller that began it."""

    mark: Watermark | None
    task: asyncio.Task[Look]

    def serves(self, mark: Watermark | None) -> bool:
        """Return whether it reads all that a caller with this watermark needs."""
        if mark is None or self.mark is None:
            return mark is self.mark
        return self.mark.floor <= mark.floor and self.mark.active >= mark.active


# The looks in progress.
_readings: weakref.WeakKeyDictionary[RunPoller, dict[WatchedJob, _Reading]] = weakref.WeakKeyDictionary()


async def look_at(poller: RunPoller, job: WatchedJob, mark: Watermark | None) -> Look:
    """Look at a job with requests of `poller`; callers that do so at the same time share them. Raises CallError.

    Without a watermark the older runs are those that are active.
    """
    readings = _readings.setdefault(poller, {})
    reading = readings.get(job)
    if reading is None or not reading.serves(mark):
        # In an empty context, since it belongs to none of the callers.
        task = asyncio.get_running_loop().create_task(_JobReader(poller, job).read(mark), context=contextvars.Context())
        readings[job] = reading = _Reading(mark, task)

        def on_done(_: object) -> None:
            if (latest := readings.get(job)) and latest.task is task:
                del readings[job]
            if not task.cancelled():
                # Marks the error as retrieved: asyncio would log it if every caller was cancelled.
                task.exception()

        task.add_done_callback(on_done)
    return await asyncio.shield(reading.task)


class _JobReader:
    """Reads the runs of a job for one look, with one turn at the poller's rate limit for each request."""

    def __init__(self, poller: RunPoller, job: WatchedJob) -> None:
        self._poller = poller
        self._job = job
        self._now = 0

    async def read(self, mark: Watermark | None) -> Look:
        """Return the runs that started since the watermark's floor, at least a page of them, and older ones."""
        try:
            job_id = await self._find_job()
            listed = await self._list(job_id, until=math.inf if mark is None else mark.floor)
            if not (listed or (mark and mark.active)):
                # The list of a job that does not exist is empty, too.
                await self._call(lambda client: client.get_job(job_id))
        except (ConfigurationError, NotFound) as error:
            return Look((), (), self._now, problem=str(error))
        missing = mark.active - listed.keys() if mark else frozenset[int]()
        found: dict[int, JobRun | None] = {}
        if mark is None or len(missing) > 1:
            found.update(await self._list(job_id, until=-math.inf, active_only=True))
        for run_id in sorted(missing - found.keys()):
            found[run_id] = await self._get(run_id)
        others = [run for run_id, run in found.items() if run and run_id not in listed]
        return Look(tuple(listed.values()), others, self._now, job_id, self._missing_task(listed.values()))

    def _missing_task(self, runs: Iterable[JobRun]) -> str:
        latest = next((run for run in runs if run.end is not None), None)
        if latest is None or latest.event:
            return ""
        return f"Run {latest.run_id} has no task {self._job.task_key!r} (keys are case-sensitive)."

    async def _call(self, request: Callable[[JobsClient], T]) -> T:
        """Return what a request returns, and note the server's time. Raises what it raises."""

        def timed(client: JobsClient) -> T:
            try:
                return request(client)
            finally:
                # What happens during the look comes after it.
                self._now = self._now or _milliseconds(client.server_time(client.clock()))

        return await self._poller.call(timed)

    async def _find_job(self) -> int:
        job = self._job
        if job.task_key is not None and self._poller.client.api_version == "2.0":
            raise ConfigurationError("task_key needs api_version 2.1 or 2.2 in the connection.")
        if job.job_id is not None:
            return job.job_id
        return await self._call(lambda client: client.find_job_id(str(job.job_name)))

    async def _list(self, job_id: int, *, until: float, active_only: bool | None = None) -> dict[int, JobRun]:
        """Return the runs back to the start `until`, latest first, and the others of the last page."""
        with_tasks = None if self._job.task_key is None else True
        pages: Iterator[Run] | None = None

        def read_page(client: JobsClient) -> list[JobRun]:
            nonlocal pages
            if pages is None:
                pages = client.list_runs(
                    job_id=job_id, active_only=active_only, expand_tasks=with_tasks, page_size=PAGE
                )
            return [job_run(run, self._job) for run in islice(pages, PAGE)]

        listed: dict[int, JobRun] = {}
        while True:
            page = await self._call(read_page)
            # A run that starts meanwhile may move others to the next page.
            listed |= {run.run_id: run for run in page}
            if len(page) < PAGE or any(0 < run.start < until for run in page):
                return listed

    async def _get(self, run_id: int) -> JobRun | None:
        """Return a run, None if it was deleted."""
        try:
            return job_run(await self._call(lambda client: client.get_run(run_id)), self._job)
        except NotFound:
            return None

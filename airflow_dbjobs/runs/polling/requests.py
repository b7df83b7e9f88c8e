"""A poller's requests: sent by a few threads, in turn, and only when the gate lets them through."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.errors import CallError, TooManyRequests, Unreachable
from airflow_dbjobs.runs.polling.rate_limit import Gate, TokenBucket
from airflow_dbjobs.runs.polling.threads import DaemonThreads

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run, RunsPage
    from airflow_dbjobs.runs.polling.active_runs import PageRequest
    from airflow_dbjobs.runs.polling.polled_run import Watched

T = TypeVar("T")

# Airflow gives a trigger's `on_kill` 30 s.
CANCEL_POLICY = RetryPolicy(
    retry_budget=25.0,
    server_error_wait=0.5,
    connect_timeout=5.0,
    read_timeout=10.0,
    first_wait=0.5,
    ends_with_budget=True,
)

# Requests for single runs at a time: so many, and more where requests take so long that the rate asks for it. Together
# with the threads below: the connections.
_CONCURRENCY = 5
_MOST_CONCURRENCY = 20
# A DAG run of a thousand deferred tasks may be marked failed.
_CANCELLING = 10
# A page takes megabytes to read, which the allocator keeps for the thread that has read it.
_LISTING = 1

# How much longer than its timeouts a call may take.
_TRICKLE_SECONDS = 10.0


class Answers(Protocol):
    """Who is told what became of the requests for single runs."""

    def answered(self, watched: Watched, run: Run) -> None:
        """Take the answer to a request."""

    async def failed(self, watched: Watched, error: CallError, asked_at: float) -> None:
        """Take the error that a request, sent at a reading of the clock, ended in."""

    def dropped(self, watched: Watched) -> None:
        """Take back a run that is not asked for: nobody waits for it any more, or its watchers were told why."""


class Asker:
    """Sends the requests of one poller, in daemon threads of its own.

    `start` lets work go on in a task; `answers` is told of single runs; `sleep` waits. `close` ends it all, and it can
    be used again then.
    """

    def __init__(
        self,
        client: JobsClient,
        answers: Answers,
        *,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
        sleep: Callable[[float], Coroutine[Any, Any, object]],
    ) -> None:
        self.client = client
        self.gate = Gate(self.bucket_for(client), clock=client.clock, sleep=sleep)
        #: How many requests were sent; whoever reports it sets it back.
        self.requests = 0
        self._answers = answers
        self._queue: deque[Watched] = deque()
        self._start = start
        self._canceller = client.with_policy(CANCEL_POLICY)
        self._threads = DaemonThreads(_MOST_CONCURRENCY, name="airflow_dbjobs-poller")
        self._listing_thread = DaemonThreads(_LISTING, name="airflow_dbjobs-list")
        # A cancellation has 30 s: it must not wait behind polls that hang.
        self._cancelling = DaemonThreads(_CANCELLING, name="airflow_dbjobs-cancel")
        self._workers: set[asyncio.Task[None]] = set()
        self._seconds_per_get = 0.0

    def bucket_for(self, client: JobsClient) -> TokenBucket:
        """Ask no more often than the client's connection says now, and others of the same credentials."""
        workspace = client.host, client.workspace_id
        return TokenBucket.of(workspace, client.max_requests_per_second, client.clock, self, client.connection)

    @property
    def seconds_per_run(self) -> float:
        """How long it takes to ask for many runs one by one, for each."""
        return max(self.gate.seconds_per_request, self._seconds_per_get / _MOST_CONCURRENCY)

    def close(self) -> None:
        """Forget what is to be asked for, and let threads and connections go."""
        self._queue.clear()
        self._workers = set()
        for threads in (self._threads, self._listing_thread, self._cancelling):
            threads.stop()
        self.client.close()
        self._canceller.close()

    async def cancel(self, run_id: int) -> None:
        """Ask the API to cancel a run, for as long as CANCEL_POLICY says once it is its turn. Raises CallError."""
        # What is logged in the thread goes where the caller's log goes.
        context = contextvars.copy_context()
        await self._cancelling.run(lambda: context.run(self._canceller.cancel_run, run_id))

    async def ask_for_page(self, request: PageRequest) -> RunsPage:
        """Return a page of the list. Raises CallError."""
        await self.gate.pass_through()
        self.requests += 1
        try:
            return await self._listing_thread.run(lambda: self.client.poll_active_runs(**request._asdict()))
        except TooManyRequests as error:
            self.gate.close(error)
            raise

    def ask_for(self, watched: Watched) -> None:
        """Let a run be asked for when it is its turn."""
        self._queue.append(watched)
        self._employ()

    @property
    def queue(self) -> Sequence[Watched]:
        """The runs that wait for their turn."""
        return self._queue

    def take_back(self, which: Callable[[Watched], bool] = lambda _: True) -> list[Watched]:
        """Return those of the runs that wait for their turn that are not to be asked for after all."""
        taken = [watched for watched in self._queue if which(watched)]
        self._queue = deque(watched for watched in self._queue if not which(watched))
        return taken

    def _employ(self) -> None:
        """Start a worker, if there is work for one more."""
        if self._queue and len(self._workers) < self._most_workers:
            workers = self._workers
            worker = self._start(self._work())
            workers.add(worker)
            worker.add_done_callback(workers.discard)

    @property
    def _most_workers(self) -> int:
        if self.gate.is_down:
            return 1
        wanted = math.ceil(self._seconds_per_get / self.gate.seconds_per_request)
        return min(max(wanted, _CONCURRENCY), _MOST_CONCURRENCY)

    async def _work(self) -> None:
        """Ask for one run of the queue after the other, until it is empty or there are too many who do so."""
        me = asyncio.current_task()
        while self._has_work() and len(self._workers) <= self._most_workers:
            await self.gate.pass_through()
            if self._has_work():
                await self._ask(self._queue.popleft())
                self._employ()
        if me is not None:
            # Now, not when asyncio comes to tell: else the others might all think that somebody else goes on.
            self._workers.discard(me)

    def _has_work(self) -> bool:
        """Drop those that nobody waits for any more from the head of the queue; return whether there is one left."""
        while self._queue and not self._queue[0].watchers:
            self._answers.dropped(self._queue.popleft())
        return bool(self._queue)

    async def _ask(self, watched: Watched) -> None:
        asked_at = watched.asked_at = self.client.clock()
        self.requests += 1
        try:
            run = await self._in_time(self._threads.run(lambda: self.client.poll_run(watched.run_id)))
        except CallError as error:
            await self._answers.failed(watched, error, asked_at)
        except Exception as error:  # noqa: BLE001 (it is raised where the run is waited for)
            watched.fail(error)
            self._answers.dropped(watched)
        else:
            self._seconds_per_get += (self.client.clock() - asked_at - self._seconds_per_get) / 5
            self._answers.answered(watched, run)

    async def _in_time(self, call: Coroutine[Any, Any, T]) -> T:
        """Return what a call returns. Raises Unreachable where it takes longer than its timeouts can explain."""
        policy = self.client.transport.policy
        longest = policy.connect_timeout + policy.read_timeout + _TRICKLE_SECONDS
        try:
            async with asyncio.timeout(longest) as limit:
                return await call
        except TimeoutError:
            if not limit.expired():
                # Somebody else's.
                raise
            # A reply that trickles is never late for requests.
            raise Unreachable(f"{self.client.host} did not answer in full within {longest:.0f} s") from None

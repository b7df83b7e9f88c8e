"""A poller's requests: queued, and sent by a few threads when the rate limit allows."""

from __future__ import annotations

import asyncio
import contextvars
import math
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_dbjobs.client.retry import Patience, RetryPolicy
from airflow_dbjobs.errors import CallError, TooManyRequests
from airflow_dbjobs.runs.polling.threads import DaemonThreads, respond_within

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.runs_page import RunsPage
    from airflow_dbjobs.runs.polling.lists import PageRequest
    from airflow_dbjobs.runs.polling.polled import PolledRun
    from airflow_dbjobs.runs.polling.poller import RunPoller
    from airflow_dbjobs.runs.polling.rate_limit import RequestGate

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

# Simultaneous polls of single runs; up to the maximum where slow responses would keep the poller below its rate.
# Together with the threads below, this is the number of connections.
_CONCURRENCY = 5
_MAX_CONCURRENCY = 20
# A user may mark a DAG run with a thousand deferred tasks as failed.
_CANCEL_THREADS = 10
# Parsing a page takes megabytes, which the memory allocator keeps for each thread that has parsed one.
_LIST_THREADS = 1

# Results that are read at the same time: a thousand runs may end together.
_CALL_THREADS = 5
_NO_PATIENCE = Patience(outage_tolerance=0.0, denied_tolerance=0.0)

# How much longer than its timeouts a poll may take. One that reads many pages has more time.
_TIMEOUT_MARGIN_SECONDS = 10.0
_PAGES_TIMEOUT_SECONDS = 300.0


class RequestQueue:
    """Sends the requests of one poller, in daemon threads of its own.

    `start` runs a coroutine as a task. After `close` the queue can be used again.
    """

    def __init__(
        self,
        client: JobsClient,
        gate: RequestGate,
        poller: RunPoller,
        *,
        start: Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]],
    ) -> None:
        self.client = client
        #: How many requests were sent since the last report of the metrics, which resets it.
        self.requests = 0
        self._gate = gate
        self._poller = poller
        self._queue: deque[PolledRun] = deque()
        self._start = start
        # Does not retry: waiting for the next attempt would occupy a thread for minutes.
        self._call_client = client.with_policy(replace(client.transport.policy, retry_budget=0.0), _NO_PATIENCE)
        self._cancel_client = client.with_policy(CANCEL_POLICY)
        self._poll_threads = DaemonThreads(_MAX_CONCURRENCY, name="airflow_dbjobs-poller")
        self._list_threads = DaemonThreads(_LIST_THREADS, name="airflow_dbjobs-list")
        # A cancellation has 30 s, and must not wait behind polls that hang.
        self._cancel_threads = DaemonThreads(_CANCEL_THREADS, name="airflow_dbjobs-cancel")
        self._call_threads = DaemonThreads(_CALL_THREADS, name="airflow_dbjobs-call")
        # A thousand calls must not reserve the rate limit of the polls after them.
        self._call_turns = asyncio.Semaphore(_CALL_THREADS)
        self._workers: set[asyncio.Task[None]] = set()
        self._seconds_per_poll = 0.0

    @property
    def seconds_per_run(self) -> float:
        """The average time per run when many runs are polled one by one."""
        return max(self._gate.seconds_per_request, self._seconds_per_poll / _MAX_CONCURRENCY)

    def server_time(self, reading: float) -> float:
        """Return the server's time, in epoch seconds, when the poller's clock read `reading`."""
        return self._call_client.server_time(reading)

    def close(self) -> None:
        """Empty the queue, and close threads and connections."""
        self._queue.clear()
        self._workers = set()
        for threads in (self._poll_threads, self._list_threads, self._cancel_threads, self._call_threads):
            threads.stop()
        self.client.close()
        self._call_client.close()
        self._cancel_client.close()

    async def cancel(self, run_id: int) -> None:
        """Cancel a run, retrying as CANCEL_POLICY says once a thread is free. Raises CallError."""
        # Keeps what the thread logs in the caller's log.
        context = contextvars.copy_context()
        await self._cancel_threads.run(lambda: context.run(self._cancel_client.cancel_run, run_id))

    async def call(self, call: Callable[[JobsClient], T]) -> T:
        """Return what `call` returns, after one turn at the rate limit. Raises what it raises."""
        async with self._call_turns:
            return await self._send(self._call_threads, call)

    async def fetch_page(self, request: PageRequest) -> RunsPage:
        """Return a page of a list of runs. Raises CallError."""
        return await self._send(self._list_threads, lambda client: client.poll_runs(**request._asdict()))

    async def _send(self, threads: DaemonThreads, call: Callable[[JobsClient], T]) -> T:
        context = contextvars.copy_context()
        await self._gate.wait_turn()
        self.requests += 1
        try:
            return await threads.run(lambda: context.run(call, self._call_client))
        except TooManyRequests as error:
            self._gate.pause(error)
            raise

    def poll(self, polled: PolledRun) -> None:
        """Queue a run to be polled."""
        self._queue.append(polled)
        self._start_worker()

    @property
    def queued(self) -> Sequence[PolledRun]:
        """The runs whose polls have not been sent yet."""
        return self._queue

    def withdraw(self, which: Callable[[PolledRun], bool] = lambda _: True) -> list[PolledRun]:
        """Remove queued runs, and return them."""
        withdrawn = [polled for polled in self._queue if which(polled)]
        self._queue = deque(polled for polled in self._queue if not which(polled))
        return withdrawn

    def _start_worker(self) -> None:
        """Start another worker if there is work for it."""
        if self._queue and len(self._workers) < self._max_workers:
            workers = self._workers
            worker = self._start(self._work())
            workers.add(worker)
            worker.add_done_callback(workers.discard)

    @property
    def _max_workers(self) -> int:
        if self._gate.is_down:
            return 1
        needed = math.ceil(self._seconds_per_poll / self._gate.seconds_per_request)
        return min(max(needed, _CONCURRENCY), _MAX_CONCURRENCY)

    async def _work(self) -> None:
        """Poll queued runs one after the other, until the queue is empty or there are too many workers."""
        this_worker = asyncio.current_task()
        while self._has_work() and len(self._workers) <= self._max_workers:
            await self._gate.wait_turn()
            if self._has_work():
                await self._send_poll(self._queue.popleft())
                self._start_worker()
        if this_worker is not None:
            # At once, before the done callback: otherwise several workers could end because each counts the others.
            self._workers.discard(this_worker)

    def _has_work(self) -> bool:
        """Drop the runs at the head of the queue that no caller waits for; return whether any run is left."""
        while self._queue and not self._queue[0].waiters:
            self._poller.on_dropped(self._queue.popleft())
        return bool(self._queue)

    async def _send_poll(self, polled: PolledRun) -> None:
        sent_at = self.client.clock()
        polled.record_sent(sent_at)
        self.requests += 1
        policy = self.client.transport.policy
        longest = policy.connect_timeout + policy.read_timeout + _TIMEOUT_MARGIN_SECONDS
        if polled.judges:
            longest = max(longest, _PAGES_TIMEOUT_SECONDS)
        poll = self._poll_threads.run(lambda: polled.read(self._call_client))
        try:
            answer = await respond_within(longest, self.client.host, poll)
        except CallError as error:
            await self._poller.on_failure(polled, error, sent_at)
        except Exception as error:  # noqa: BLE001 (it is raised where the run is waited for)
            polled.fail(error)
            self._poller.on_dropped(polled)
        else:
            self._seconds_per_poll += (self.client.clock() - sent_at - self._seconds_per_poll) / 5
            self._poller.on_answer(polled, answer)

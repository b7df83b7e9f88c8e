"""launch: what holds however tries, crashes, clears, cancellations, deletions and lost replies follow each other.

The operator, the launcher, the client and the transport are the real ones. Modelled are the API (`World`: tokens stand
for runs, and time passes only there) and what Airflow does with one task instance in each deployment (`Story`). A plan
says what befalls each try; hypothesis makes up the plans.

A launch is the n-th of one operator in a task instance of one deployment. What is promised, and where it ends:

(a) Of a launch's runs at most one is active and not being cancelled, at any time. A run from before a clear may be
    active in addition where its try died, or was killed, before it could report it to Airflow.
(b) A task that succeeds has exactly one successful run of each launch since its last clear, launched or joined by a try
    since. One from before may be taken in one case: the clear left `max_tries` as it had been once, because `retries`
    was lowered by as many as there had been tries, and Airflow does not tell (any more) that the task had succeeded.
(c) A try launches at most one run for each launch, unless that was cancelled meanwhile; a first try costs one POST and
    one GET.
(d) A try that is not killed learns of a run for each launch, and none fails of one that was over, or being cancelled,
    before it began. One that ended within two minutes before may be taken for the try's own, where its try died before
    it could report it.
(e) A worker that is killed, and whose calls get through, cancels what it launched or waits for, and launches no more.
    One that is stopped while Airflow has tries left cancels nothing.
(f) No try gets, joins or cancels a run of another launch, another task or another deployment.
(g) A launch has at most one run, one more for each of its runs that ended without success or was deleted, and one more
    for each clear.

Not promised, and not played here: a run that stays invisible to runs/get for more than 30 s counts as deleted; a person
who repairs the run of an earlier try while a later one runs makes two active runs; the clocks of the gateway and of the
Jobs API are more than a minute apart.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import pytest
from airflow_context import TaskDeferred
from hypothesis import given
from hypothesis import strategies as st
from injected_clock import CallingClock
from made_up import examples

from airflow_dbjobs.airflow_compat import AirflowFailException, launches, task_states
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth import BearerAuth
from airflow_dbjobs.client.responses import api_error
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import CallError, RunFailed, ServerError, Unreachable
from airflow_dbjobs.operators import DatabricksRunNowOperator
from airflow_dbjobs.runs.launch import TASK_SUCCEEDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from airflow_dbjobs.client.retry import RetryPolicy

HOST = "https://model.example"
EPOCH = 1_800_000_000.0
# Between any two tries: the scheduler is no faster.
LEAST_GAP = 1.0
READ_TIMEOUT = 60.0
KILL_GRACE = 5.0
MOST_REQUESTS = 500
JOBS = {"load": 1, "store": 2, "clean_up": 3}

Fault = Literal["die before", "die after", "lost", "cut", "503", "503 handled", "hang"]
Happening = Literal["die", "clear", "restart", "mark failed", "cancel the run", "stop the worker"]
Ending = Literal["success", "failed", "failed for good", "lost", "killed", "stopped"]
# Deployment, operator, number of the launch; of a callback the try, too.
Owner = tuple[Any, ...]


class WorkerDied(BaseException):
    """The process is gone, with all it knew."""


class Terminated(BaseException):
    """The process got a signal, and has ended."""


@dataclass(frozen=True)
class Plan:
    """What befalls one try.

    Before it: `idle` seconds pass, finished runs are deleted (`delete`), the file says `retries` now, the task is
    cleared (`clear_first`; one that is finished always is, or there would be no try), or its DAG run is deleted and
    created again (`recreate`). The run that it may launch: `fate`, after `duration` seconds, the last `tail` of them
    TERMINATING; when cancelled it takes `stopping` seconds to end; it is invisible for `lag` seconds.
    Meanwhile: `faults`, by the number of the request of the try. `happens`, after `at` seconds; a kill's cancel is
    `cancel_late` seconds late in a triggerer, or fails (None). A try that fails launches in a callback (`calls_back`).
    """

    idle: float = 60.0
    delete: bool = False
    retries: int | None = None
    clear_first: bool = False
    recreate: bool = False
    dag_run_finished: bool = False
    gap: float = LEAST_GAP
    deferrable: bool = False
    fate: str = "SUCCESS"
    duration: float = 45.0
    tail: float = 0.0
    stopping: float = 3.0
    lag: float = 0.0
    faults: Mapping[int, Fault] = field(default_factory=dict)
    happens: Happening | None = None
    at: float = 20.0
    cancel_late: float | None = 0.0
    dies_at_once: bool = True
    result_is_lost: bool = False
    calls_back: bool = False


@dataclass
class ModelRun:
    """A run of the model; `try_serial` counts all tries of the story: the one whose POST launched it."""

    run_id: int
    token: str
    owner: Owner
    start: float
    try_serial: int
    epoch: tuple[object, ...]
    plan: Plan
    canceled_at: float = math.inf
    deleted: bool = False

    @property
    def end(self) -> float:
        if self.canceled_at < math.inf:
            return self.canceled_at + self.plan.stopping
        return self.start + (0.0 if self.plan.fate == "SKIPPED" else self.plan.duration)

    def is_over(self, now: float) -> bool:
        return now >= self.end

    def is_active(self, now: float) -> bool:
        return not self.is_over(now) and self.canceled_at == math.inf

    def succeeded(self, now: float) -> bool:
        return self.is_over(now) and self.canceled_at == math.inf and self.plan.fate == "SUCCESS"

    def state(self, now: float) -> dict[str, Any]:
        if self.is_over(now):
            if self.canceled_at < math.inf:
                return {"life_cycle_state": "TERMINATED", "result_state": "CANCELED"}
            if self.plan.fate == "SKIPPED":
                return {"life_cycle_state": "SKIPPED"}
            return {"life_cycle_state": "TERMINATED", "result_state": self.plan.fate}
        if self.canceled_at < math.inf:
            return {"life_cycle_state": "TERMINATING", "user_cancelled_or_timedout": True}
        if now >= self.end - self.plan.tail:
            return {"life_cycle_state": "TERMINATING"}
        return {"life_cycle_state": "PENDING" if now < self.start + 2 else "RUNNING"}


class World:
    """The Jobs API, and time: it passes in requests and in `sleep`, and what is due meanwhile happens.

    The gateway's clock, which tells the Date, is `ahead` of the API's; a request takes `latency` seconds.
    """

    def __init__(self, fraction: float, *, ahead: float, latency: float) -> None:
        self.now = EPOCH + fraction
        self.ahead = ahead
        self.latency = latency
        self.runs: list[ModelRun] = []
        # Called at its time; it may raise what ends the process that is waiting.
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.story: Story
        self.plan = Plan()
        self.try_serial = 0
        self.calls: list[str] = []
        self.in_signal_handler = False
        self.worker_stops = False

    def clock(self) -> float:
        """Read a monotonic clock: one that does not tell the date."""
        return self.now - EPOCH + 1000.0

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self.due and (first := min(self.due, key=lambda item: item[0]))[0] <= until:
            self.due.remove(first)
            self.now = max(self.now, first[0])
            first[1]()
        self.now = max(self.now, until)

    def exchange(self, transport: Transport, call: str, query: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
        """Take a request and return its reply, unless something is planned to go wrong."""
        fault = None
        if self.in_signal_handler:
            if self.plan.cancel_late is None:
                raise Unreachable(call, sent=False)
        else:
            fault = self.plan.faults.get(len(self.calls))
            self.calls.append(call)
            assert len(self.calls) < MOST_REQUESTS, "the try does not end"
        self.sleep(self.latency / 2)
        if fault == "die before":
            raise WorkerDied
        if fault == "lost":
            raise Unreachable(call)
        reply: Any = None if fault == "503" else self._answer(call, {**query, **body})
        date = email.utils.formatdate(self.now + self.ahead, usegmt=True)
        self.sleep(READ_TIMEOUT if fault == "hang" else self.latency / 2)
        if fault == "die after":
            raise WorkerDied
        if fault in {"cut", "hang"}:
            raise Unreachable(call)
        transport._note_server_clock(date)
        if fault in {"503", "503 handled"}:
            raise ServerError(call, 503, "TEMPORARILY_UNAVAILABLE")
        if isinstance(reply, CallError):
            raise reply
        return reply

    def _answer(self, call: str, args: Mapping[str, Any]) -> Any:
        if call == "POST run-now":
            token, owner = args["idempotency_token"], tuple(json.loads(args["notebook_params"]["owner"]))
            run = next((run for run in self.runs if run.token == token), None) or self._launch(token, owner)
            assert run.owner == owner, "(f) a launch gets the run of another"
            if run.deleted:
                text = f"The idempotency_token was used for run {run.run_id}, which has been deleted."
                return api_error(call, 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": text}, {})
            return {"run_id": run.run_id}
        run = next((run for run in self.runs if run.run_id == args["run_id"]), None)
        if run is None or run.deleted or self.now < run.start + run.plan.lag:
            text = f"Run {args['run_id']} does not exist."
            return api_error(call, 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": text}, {})
        if call == "POST runs/cancel":
            assert run.owner[0] == self.story.deployment, "(f) a deployment cancels the run of another"
            self.cancel(run)
            return {}
        if call == "GET runs/get-output":
            return {}
        assert call == "GET runs/get", call
        times = {"start_time": round(run.start * 1000)}
        if run.is_over(self.now):
            times["end_time"] = round(run.end * 1000)
        page = f"{HOST}/jobs/1/runs/{run.run_id}"
        state = run.state(self.now)
        job_id = JOBS[run.owner[1]]
        return {"run_id": run.run_id, "job_id": job_id, "run_page_url": page, "state": state, **times}

    def cancel(self, run: ModelRun) -> None:
        if not run.is_over(self.now):
            run.canceled_at = min(run.canceled_at, self.now)

    def of(self, owner: Owner) -> list[ModelRun]:
        return [run for run in self.runs if run.owner == owner]

    # --- what the package asks of Airflow, and tells it ---

    def report(self, _: object, report: str, __: int) -> None:
        self.story.xcoms.append(report)

    def reported(self, _: object) -> list[str]:
        return self.story.earlier_xcoms

    def is_worker_stopping(self, *_: object) -> bool:
        return self.worker_stops

    def learn(self, _: object, url: str) -> None:
        """Take the link of the run that a launch waits for."""
        story, run_id = self.story, int(url.rpartition("/")[2])
        assert story.current
        story.learned.setdefault(story.current, []).append(run_id)
        story.last_learned = run_id

    def _launch(self, token: str, owner: Owner) -> ModelRun:
        epoch = self.story.epoch
        for run in self.of(owner):
            is_unknown = run.epoch != epoch and run.run_id not in self.story.reported_runs()
            assert not run.is_active(self.now) or is_unknown, "(a) a run is launched while another is active"
            is_canceled = run.canceled_at < math.inf
            assert run.try_serial < self.try_serial or is_canceled, "(c) a try launches a second run"
        run = ModelRun(100 + len(self.runs), token, owner, self.now, self.try_serial, epoch, self.plan)
        self.runs.append(run)
        return run


class ModelTransport(Transport):
    """The real one, but for the wire."""

    def __init__(self, world: World, policy: RetryPolicy | None = None) -> None:
        super().__init__(HOST, BearerAuth("a-token"), policy=policy, clock=CallingClock(world.clock, world.sleep))
        self.world = world

    def with_policy(self, policy: RetryPolicy) -> ModelTransport:
        return ModelTransport(self.world, policy)

    def send(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        call = f"{method} {path.partition('/jobs/')[2]}"
        # As the real one does when the request leaves: a kill must know of it.
        self._before_send()
        reply: dict[str, Any] = self.world.exchange(self, call, kwargs.get("query") or {}, kwargs.get("body") or {})
        return reply


class Operator(DatabricksRunNowOperator):
    """The real one, but for the connection."""

    def __init__(self, *, world: World, owner: Owner, **kwargs: Any) -> None:
        name = owner[1]
        super().__init__(
            task_id=name,
            job_id=JOBS[name],
            notebook_params={"owner": json.dumps(owner)},
            do_xcom_push=False,
            polling_period_seconds=20,
            **kwargs,
        )
        self.owner = owner
        self._world = world

    @property
    def log(self) -> logging.Logger:
        return logging.getLogger("airflow_dbjobs.model")

    def _connect(self) -> JobsClient:
        self._client = JobsClient(transport=ModelTransport(self._world))
        self._client.transport.interrupt = self._interrupt
        return self._client


class Story:
    """One task instance of one deployment, as Airflow keeps its books, from its first try to its last.

    `body` names the operators that it executes, one after the other.
    """

    def __init__(self, world: World, deployment: str, body: Sequence[str], retries: int) -> None:
        self.world = world
        self.deployment = deployment
        self.body = body
        self.retries = retries
        self.ti = SimpleNamespace(dag_id="nightly", run_id="scheduled__1", task_id="load", map_index=-1)
        self.ti.start_date = None
        self.serial = 0
        self.state: Literal["scheduled", "up for retry", "success", "failed"] = "scheduled"
        self.killed_in_process = False
        #: Of this try and launch, the runs that it has announced, the last one last.
        self.learned: dict[Owner, list[int]] = {}
        # Since the last clear: the serial of the last try before it, and the runs that tries since have joined.
        self.cleared_after = 0
        self.joined: set[int] = set()
        self.clears = 0
        #: The epochs of this task, which clears change; whether the last clear restored an earlier one.
        self.epochs: set[object] = set()
        self.is_clear_hidden = False
        # Names of XComs: of the present or last try, and of the one before it.
        self.xcoms: list[str] = []
        self.earlier_xcoms: list[str] = []
        #: The present or last launch, and the run whose link was stored last.
        self.current: Owner | None = None
        self.last_learned = 0
        self._begin_dag_run()

    def _begin_dag_run(self) -> None:
        self.ti.try_number, self.ti.max_tries = 0, self.retries
        self.xcoms = []
        self._start_dag_run()

    def _start_dag_run(self) -> None:
        self.world.sleep(0.000_003)
        self.dag_run = SimpleNamespace(start_date=datetime.fromtimestamp(self.world.now, UTC))

    @property
    def epoch(self) -> tuple[object, ...]:
        return self.deployment, self.dag_run.start_date, self.ti.max_tries

    def reported_runs(self) -> set[int]:
        """Return the runs that this try can know of from Airflow."""
        return {int(name.rpartition(".")[2]) for name in self.earlier_xcoms if name.startswith("airflow-")}

    def clear(self, *, dag_run_finished: bool = False) -> None:
        self.epochs.add(self.epoch)
        if dag_run_finished:
            self._start_dag_run()
        self.ti.max_tries = self.ti.try_number + self.retries
        self.is_clear_hidden = self.epoch in self.epochs
        self.cleared_after, self.joined = self.serial, set()
        self.clears += 1
        self.state = "scheduled"

    def play(self, plan: Plan) -> None:
        """Let one try happen, and what comes before it."""
        world = self.world
        world.story = self
        world.plan = Plan(cancel_late=world.plan.cancel_late)
        world.sleep(plan.idle)
        self.retries = self.retries if plan.retries is None else plan.retries
        for run in world.runs:
            run.deleted = run.deleted or (plan.delete and run.is_over(world.now))
        if self.serial and plan.recreate and self.state in {"success", "failed"}:
            self.clear()
            self._begin_dag_run()
            self.is_clear_hidden = False
        elif self.state in {"success", "failed"}:
            self.clear(dag_run_finished=plan.dag_run_finished)
        elif plan.clear_first and self.state == "up for retry":
            self.clear()
        world.sleep(plan.gap)
        self._try(plan)

    def _try(self, plan: Plan) -> None:
        world = self.world
        self.serial += 1
        self.ti.try_number += 1
        self.earlier_xcoms, self.xcoms = self.xcoms, []
        world.plan, world.calls, self.learned = plan, [], {}
        world.try_serial += 1
        self.killed_in_process = False
        began, was_over = world.now, {run.run_id for run in world.runs if run.is_over(world.now)}
        # What was not reported, and began a moment ago, may be taken for the try's own.
        reported, moment = self.reported_runs(), 120 + 6 * world.latency
        young = {run.run_id for run in world.runs if run.run_id not in reported and began - run.start < moment}
        was_stopping = {run.run_id for run in world.runs if run.canceled_at < began}
        is_first = not [run for run in world.runs if run.owner[0] == self.deployment]
        ending = Attempt(self, plan).ending()
        if (
            is_first
            and self.ti.try_number == 1
            and len(self.body) == 1
            and not plan.faults
            and plan.lag == 0
            and self.learned
            and plan.at > 1
        ):
            assert world.calls[:2] == ["POST run-now", "GET runs/get"], "(c) a first try costs one POST and one GET"
            assert plan.calls_back or world.calls.count("POST run-now") == 1, "(c) a first try costs one POST"
        learned = {run_id for runs in self.learned.values() for run_id in runs}
        self.joined |= {run_id for run_id in learned if self.run(run_id).start < began and run_id not in was_over}
        if ending in {"success", "failed", "failed for good"}:
            assert learned, "(d) a try that lives learns of a run"
        if ending in {"failed", "failed for good"}:
            run = self.run(self.last_learned)
            is_own = run.try_serial == world.try_serial or run.run_id in young
            assert is_own or run.run_id not in was_over, "(d) it fails of a run that was over before it began"
            assert is_own or run.canceled_at == math.inf, "(d) it fails of another try's kill"
        assert (was_stopping - young).isdisjoint(learned), (
            "(d) it waits for a run that was being cancelled before it began"
        )
        if ending == "killed" and self.killed_in_process and plan.cancel_late is not None:
            # One that is invisible cannot be cancelled.
            current = self.current
            its = (
                [run for run in world.of(current) if run.is_active(world.now) and run.plan.lag == 0] if current else []
            )
            its = [run for run in its if run.run_id in learned or run.try_serial == world.try_serial]
            assert not its, "(e) a killed try leaves a run behind"
        if ending == "success":
            for owner, runs in self.learned.items():
                self._check_success(owner, self.run(runs[-1]))
        self._note(ending, plan)
        for owner in {run.owner for run in world.runs if run.owner[0] == self.deployment}:
            runs = world.of(owner)
            ended_badly = sum(run.deleted or (run.is_over(world.now) and not run.succeeded(world.now)) for run in runs)
            stopping = sum(run.canceled_at < math.inf and not run.is_over(world.now) for run in runs)
            assert len(runs) <= 1 + ended_badly + stopping + self.clears, "(g) too many runs"

    def run(self, run_id: int) -> ModelRun:
        return next(run for run in self.world.runs if run.run_id == run_id)

    def _check_success(self, owner: Owner, run: ModelRun) -> None:
        assert run.succeeded(self.world.now)
        if self.is_clear_hidden:
            return
        since_clear = [
            other
            for other in self.world.of(owner)
            if (other.epoch == self.epoch or other.run_id in self.joined)
            and other.succeeded(self.world.now)
            and not other.deleted
        ]
        assert run in since_clear, "(b) a success from before the clear was taken"
        assert len(since_clear) == 1, "(b) a success was ignored"

    def _note(self, ending: Ending, plan: Plan) -> None:
        if ending == "success" and not plan.result_is_lost:
            self.state = "success"
            self.xcoms.append(TASK_SUCCEEDED)
        elif ending == "killed" and plan.happens == "clear":
            self.clear()
        elif ending == "killed" and plan.happens == "restart":
            self.state = "up for retry"
        elif ending in {"killed", "failed for good"}:
            self.state = "failed"
        else:
            # Failed, or its worker was lost or stopped, maybe when all was done.
            left = self.ti.max_tries != 0 and self.ti.try_number <= self.ti.max_tries
            self.state = "up for retry" if left else "failed"


class Attempt:
    """One try: a process, and where it deferred a trigger and another process."""

    def __init__(self, story: Story, plan: Plan) -> None:
        self.story = story
        self.world = story.world
        self.plan = plan
        self.context = {"ti": story.ti, "dag_run": story.dag_run}
        self.operator: Operator | None = None
        self.counts: Counter[str] = Counter()
        self.killed = False
        self.stopped = False
        if plan.happens:
            self.world.due.append((self.world.now + plan.at, self._happen))

    def ending(self) -> Ending:
        ending = self._process(self._body)
        while isinstance(ending, TaskDeferred):
            kwargs, trigger = ending.kwargs or {}, ending.trigger
            run = self.story.run(trigger.run_id)
            while not (self.killed or run.is_over(self.world.now)):
                self.world.sleep(10)
            if self.killed:
                ending = "killed"
            else:
                event = {"run_id": run.run_id, "run_page_url": trigger.run_page_url}
                owner = run.owner
                ending = self._process(
                    lambda: self._operator(owner).execute_complete(self.context, event, **kwargs)  # noqa: B023
                )
        if ending == "failed" and self.plan.calls_back:
            ending = self._call_back()
        self.plan = Plan()  # what is still due does not concern it any more
        return ending

    def _body(self) -> None:
        for name in self.story.body:
            if self.killed or self.stopped:
                # Only the operator that was executed knows of it; a task is one operator, whatever it executes.
                raise Terminated
            self._operator(self._next(name)).execute(self.context)

    def _call_back(self) -> Ending:
        """Launch something from on_retry_callback, in the same process."""
        context = {**self.context, "exception": RuntimeError("the try has failed")}
        last = self.story.last_learned
        owner = (*self._next("clean_up"), self.world.try_serial)
        ending = self._process(lambda: self._operator(owner).execute(context), is_new=False)
        self.story.last_learned = last
        # Airflow only logs what becomes of a callback.
        return ending if ending in {"killed", "lost", "stopped"} else "failed"

    def _next(self, name: str) -> Owner:
        self.counts[name] += 1
        return self.story.deployment, name, self.counts[name]

    def _operator(self, owner: Owner) -> Operator:
        self.story.current = owner
        deferrable = self.plan.deferrable and len(self.story.body) == 1 and owner[1] != "clean_up"
        self.operator = Operator(world=self.world, owner=owner, retries=self.story.retries, deferrable=deferrable)
        return self.operator

    def _process(self, work: Callable[[], object], *, is_new: bool = True) -> Ending | TaskDeferred:
        if is_new:
            launches._counter = None
        ending: Ending | TaskDeferred = "success"
        try:
            work()
        except TaskDeferred as deferral:
            ending = deferral
        except AirflowFailException:
            ending = "failed for good"
        except RunFailed:
            ending = "failed"
        except WorkerDied:
            ending = "lost"
        except Terminated:
            assert self.killed or self.stopped
        except Exception:
            # That is how a killed task ends as well.
            if not (self.killed or self.stopped):
                raise
        finally:
            self.operator = None
        if self.killed:
            return "killed"
        return "stopped" if self.stopped else ending

    def _happen(self) -> None:
        """Let happen what is planned, if the try is still running."""
        if self.plan.happens == "cancel the run":
            for run in self.world.runs:
                if run.is_active(self.world.now) and run.owner[0] == self.story.deployment:
                    self.world.cancel(run)
        elif self.plan.happens == "die":
            # A triggerer that dies changes nothing: its triggers go on in another one.
            if self.operator:
                raise WorkerDied
        elif self.plan.happens == "stop the worker":
            if self.operator and not self.stopped:
                self.stopped = True
                self._signal(self.operator)
        elif self.plan.happens and not self.killed:
            self.killed = True
            self._kill()

    def _kill(self) -> None:
        world = self.world
        if self.operator is None:
            # The trigger cancels the run it waits for, some time after Airflow may have gone on.
            if self.plan.cancel_late is not None:
                run = self.story.run(self.story.last_learned)
                world.due.append((world.now + self.plan.cancel_late, lambda: world.cancel(run)))
            return
        self.story.killed_in_process = True
        self._signal(self.operator)

    def _signal(self, operator: Operator) -> None:
        world = self.world
        active = {run.run_id for run in world.runs if run.is_active(world.now)}
        world.in_signal_handler, world.worker_stops = True, self.stopped and not self.killed
        operator.on_kill()
        world.in_signal_handler = False
        if (
            self.stopped
            and self.story.ti.try_number <= self.story.ti.max_tries
            and operator._next_try_joins(self.context)
        ):
            still = {run.run_id for run in world.runs if run.is_active(world.now)}
            assert active <= still | {run.run_id for run in world.runs if run.is_over(world.now)}, "(e) it cancels"
        if self.plan.dies_at_once:
            raise Terminated
        world.due.append((world.now + KILL_GRACE, self._end_of_grace))

    def _end_of_grace(self) -> None:
        if self.operator:
            raise Terminated


@pytest.fixture(autouse=True)
def no_log() -> Iterator[None]:
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@dataclass(frozen=True)
class Setting:
    """What does not change in a story: the task's `body` and `retries` at first, and what the clocks are like."""

    body: Sequence[str] = ("load",)
    retries: int = 1
    fraction: float = 0.25
    ahead: float = 0.0
    latency: float = 0.06
    deployments: int = 1


def play(plans: Sequence[Plan], setting: Setting = Setting(), *, last: Plan = Plan()) -> Story:
    """Play a story, in each deployment by turns, and after it `last` in each; return that of the first."""
    world = World(setting.fraction, ahead=setting.ahead, latency=setting.latency)
    stories = [
        Story(world, f"deployment {number}", setting.body, setting.retries) for number in range(setting.deployments)
    ]
    with (
        mock.patch("airflow_dbjobs.operators.launch.push_link", world.learn),
        mock.patch.object(launches, "report_launch", world.report),
        mock.patch.object(launches, "reported_launches", world.reported),
        mock.patch.object(task_states, "is_worker_stopping", world.is_worker_stopping),
    ):
        for number, plan in enumerate(plans):
            stories[number % len(stories)].play(plan)
        for story in stories:
            story.play(last)
    return stories[0]


FAULTS = st.sampled_from(["die before", "die after", "lost", "cut", "503", "503 handled", "hang"])
HAPPENINGS = [None] * 4 + ["die"] * 6 + ["cancel the run"] * 3 + ["clear"] * 2 + ["restart", "mark failed"]
HAPPENINGS += ["stop the worker"] * 2


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 3 + list(others))


PLANS = st.builds(
    Plan,
    idle=st.sampled_from([0.0, 0.0, 0.2, 30.0, 7200.0]),
    delete=mostly(False, True),
    retries=mostly(None, 0, 1, 3),
    clear_first=mostly(False, True),
    recreate=mostly(False, True),
    dag_run_finished=st.booleans(),
    gap=st.sampled_from([LEAST_GAP, 4.7, 12.3]),
    deferrable=st.booleans(),
    fate=mostly("SUCCESS", "FAILED", "FAILED", "SKIPPED"),
    duration=st.sampled_from([0.2, 31.0, 45.0, 400.0, 400.0]),
    tail=mostly(0.0, 380.0, 1000.0),
    stopping=st.sampled_from([0.2, 9.0, 90.0]),
    lag=mostly(0.0, 20.0),
    faults=st.dictionaries(st.integers(0, 7), FAULTS, max_size=2),
    happens=st.sampled_from(HAPPENINGS),
    at=st.sampled_from([0.0, 0.02, 0.05, 0.1, 0.2, 5.0, 25.0, 25.0, 70.0]),
    cancel_late=st.sampled_from([0.0, 0.0, None, 2.0, 30.0, 30.0]),
    dies_at_once=st.booleans(),
    result_is_lost=mostly(False, True),
    calls_back=mostly(False, True),
)
SETTINGS = st.builds(
    Setting,
    body=st.sampled_from([("load",)] * 3 + [("load", "store"), ("load", "load", "load"), ("load", "store", "load")]),
    retries=st.sampled_from([0, 2, 3, 4]),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 0.93, 0.999]),
    ahead=mostly(0.0, -60.0, -3.0, -0.7, 0.7, 3.0, 30.0, 60.0),
    latency=mostly(0.06, 0.0, 1.0, 6.0, 10.0),
    deployments=st.sampled_from([1, 1, 2]),
)


def owners(story: Story) -> list[tuple[str, int]]:
    """Return operator and number of each launch that had a run, in the order of the runs."""
    return [(run.owner[1], run.owner[2]) for run in story.world.runs]


LOST = Plan(happens="die", duration=400.0)


class TestStories:
    def test_run_of_a_callback_is_not_that_of_the_task(self) -> None:
        failing = Plan(fate="FAILED", calls_back=True)
        story = play([failing, failing], Setting(retries=2))
        assert story.state == "success"
        assert owners(story) == [("load", 1), ("clean_up", 1), ("load", 1), ("clean_up", 1), ("load", 1)]

    @pytest.mark.parametrize("body", [("load", "load", "load"), ("load", "store", "load")])
    def test_each_launch_of_a_loop_finds_its_own_run(self, body: tuple[str, ...]) -> None:
        # The worker is lost while the second of them is active.
        story = play([Plan(happens="die", at=70.0)], Setting(body))
        assert story.state == "success"
        assert len(owners(story)) == 3

    @pytest.mark.parametrize("retries", [0, 1, 2, 4])
    def test_lost_run_is_joined_whatever_retries_the_file_sets(self, retries: int) -> None:
        story = play([LOST], Setting(retries=3), last=Plan(retries=retries))
        assert story.state == "success"
        assert len(story.world.runs) == 1

    @pytest.mark.parametrize("retries", [0, 1, 3])
    def test_cleared_success_is_repeated_with_any_retries(self, retries: int) -> None:
        story = play([Plan()], Setting(retries=1), last=Plan(retries=retries))
        assert [run.succeeded(story.world.now) for run in story.world.runs] == [True, True]

    def test_lost_success_is_taken_if_no_run_precedes_the_clear(self) -> None:
        story = play([Plan(faults={0: "die before"}), Plan(clear_first=True, result_is_lost=True)], Setting(retries=2))
        assert story.state == "success"
        assert len(story.world.runs) == 1

    def test_stopping_worker_leaves_its_run_to_the_next_try(self) -> None:
        story = play([Plan(happens="stop the worker", duration=400.0)])
        assert story.state == "success"
        assert len(story.world.runs) == 1

    def test_worker_stopping_in_the_last_try_cancels_its_run(self) -> None:
        story = play([Plan(happens="stop the worker", duration=400.0)], Setting(retries=0))
        assert [run.canceled_at < math.inf for run in story.world.runs] == [True, False]

    def test_clear_ends_the_run_that_a_lost_worker_left(self) -> None:
        story = play([LOST], Setting(retries=0), last=Plan(dag_run_finished=True))
        assert [run.canceled_at < math.inf for run in story.world.runs] == [True, False]

    @pytest.mark.parametrize("counted", [True, False], ids=["counted as a clear", "counted as a retry"])
    def test_clear_of_a_running_task_counts_as_in_airflow(self, *, counted: bool) -> None:
        """Where it counts as a retry, and the kill failed to cancel the run, the next try takes what it ended with."""
        kill = Plan(happens="clear" if counted else "restart", cancel_late=None)
        story = play([kill])
        assert story.state == "success"
        assert len(story.world.runs) == (2 if counted else 1)

    def test_kill_during_the_first_request_cancels_its_run(self) -> None:
        story = play([Plan(happens="mark failed", at=0.0, dies_at_once=False, duration=400.0)])
        first, second = story.world.runs
        assert first.canceled_at < second.start
        assert story.state == "success"

    def test_two_deployments_have_separate_runs(self) -> None:
        killed = Plan(happens="mark failed", duration=400.0, recreate=True)
        story = play([LOST, LOST, killed, Plan()], Setting(deployments=2))
        runs = [(run.owner[0][-1], run.canceled_at < math.inf) for run in story.world.runs]
        assert runs == [("0", True), ("1", False), ("0", False), ("1", False)]

    @examples(400)
    @given(plans=st.lists(PLANS, min_size=2, max_size=6), setting=SETTINGS)
    def test_any_story_has_one_active_run_and_one_success(self, plans: list[Plan], setting: Setting) -> None:
        play(plans, setting)

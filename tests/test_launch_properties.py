"""launch: what holds however tries, crashes, clears, cancellations, deletions and lost replies follow each other.

The operator, the launcher, the client and the transport are the real ones. Modelled are the API (`World`: tokens stand
for runs, and time passes only there) and what Airflow does with one task instance (`Story`). A plan says what befalls
each try; hypothesis makes up the plans.

What is promised, and where the promise ends:

(a) Of a task instance's runs at most one is active and not being cancelled, at any time.
(b) A task that succeeds has exactly one successful run since its last clear, launched or joined by a try since. Two are
    possible in one case: since the DAG run began, no more runs were launched than there were tries before the clear (a
    try died before its POST, or joined, or the DAG run was over when it was cleared and has begun anew), and the result
    of the last one was lost. The walk cannot tell that success from one before the clear, and launches again. The other
    way round, a success from before a clear is never taken for a cleared task.
(c) A walk ends, and a first try costs one POST and one GET. A try launches at most one run (on this `judge` builds).
(d) A try that is not killed learns of a run, and none fails of a run that was over, or about to end, before it began.
    None waits for a run that was being cancelled before it began, nor fails of one that it had joined and that was
    cancelled: that was meant for the try which launched it.
(e) A worker that is killed, and whose calls get through, cancels what it launched or waits for, and launches no more.

Not promised, and not played here: a run that stays invisible to runs/get for more than 30 s counts as deleted, and a
second one is launched; a person who repairs the run of an earlier try while a later one runs makes two active runs.

Airflow counts a clear of a *running* task as a clear (`max_tries` grows) only where the executor reports its process as
ended well; Airflow 2.11, and Airflow 3 for other endings, only send it to a retry ("restart" below). To the launcher
this is a retry, so (b) counts from the last clear that Airflow counts.
"""

from __future__ import annotations

import email.utils
import logging
import math
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal
from unittest import mock

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, TaskDeferred
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up import REPEATABLE

from airflow_dbjobs.auth import BearerAuth
from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import CallError, RunFailed, ServerError, Unreachable
from airflow_dbjobs.launch import TaskTry, token_of
from airflow_dbjobs.operators import DatabricksRunNowOperator
from airflow_dbjobs.replies import api_error
from airflow_dbjobs.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_dbjobs.retries import RetryPolicy

HOST = "https://model.example"
EPOCH = 1_800_000_000.0
# Between any two tries: the scheduler is no faster. Below it, a Date in whole seconds is too coarse.
LEAST_GAP = 1.0
LATENCY = 0.03
READ_TIMEOUT = 60.0
KILL_GRACE = 5.0
MOST_REQUESTS = 500

Fault = Literal["die before", "die after", "lost", "cut", "503", "503 handled", "hang"]
Happening = Literal["die", "clear", "restart", "mark failed", "cancel the run"]
Ending = Literal["success", "failed", "failed for good", "lost", "killed"]


class WorkerDied(BaseException):
    """The process is gone, with all it knew."""


class Terminated(BaseException):
    """The process was told to stop, and has."""


@dataclass(frozen=True)
class Plan:
    """What befalls one try.

    Before it: `idle` seconds pass, finished runs are deleted (`delete`), the task is cleared (`clear_first`; one that
    is finished always is, or there would be no try), or its DAG run is deleted and made anew (`recreate`).
    The run that it may launch: `fate`, after `duration` seconds, the last `tail` of them TERMINATING; when cancelled it
    takes `stopping` seconds to end; it is invisible for `lag` seconds.
    Meanwhile: `faults`, by the number of the request of the try. `happens`, after `at` seconds; a kill's cancel is
    `cancel_late` seconds late in a triggerer, or fails (None).
    """

    idle: float = 60.0
    delete: bool = False
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


@dataclass
class ModelRun:
    """A run of the model; `try_serial` counts all tries of the story: the one whose POST launched it."""

    run_id: int
    ordinal: int
    start: float
    try_serial: int
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
    """The Jobs API, and time: it passes in requests and in `sleep`, and what is due meanwhile happens."""

    def __init__(self, fraction: float, identity: tuple[object, ...]) -> None:
        self.now = EPOCH + fraction
        self.runs: list[ModelRun] = []
        # Called at its time; it may raise what ends the process that is waiting.
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.plan = Plan()
        self.try_serial = 0
        self.calls: list[str] = []
        self.in_signal_handler = False
        self._ordinals = {token_of(identity, ordinal): ordinal for ordinal in range(1, 60)}

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

    def active(self) -> list[ModelRun]:
        return [run for run in self.runs if not run.is_over(self.now) and run.canceled_at == math.inf]

    def exchange(self, transport: Transport, call: str, query: Mapping[str, Any], body: Mapping[str, Any]) -> Any:
        """Take a request and return its reply, unless something is planned to go wrong."""
        fault = None
        if self.in_signal_handler:
            if self.plan.cancel_late is None:
                raise Unreachable(call, sent=False)
        else:
            fault = self.plan.faults.get(len(self.calls))
            self.calls.append(call)
            assert len(self.calls) < MOST_REQUESTS, "the walk does not end"
        self.sleep(LATENCY)
        if fault == "die before":
            raise WorkerDied
        if fault == "lost":
            raise Unreachable(call)
        reply: Any = None if fault == "503" else self._answer(call, {**query, **body})
        date = email.utils.formatdate(self.now, usegmt=True)
        self.sleep(READ_TIMEOUT if fault == "hang" else LATENCY)
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
            ordinal = self._ordinals[args["idempotency_token"]]
            run = next((run for run in self.runs if run.ordinal == ordinal), None) or self._launch(ordinal)
            if run.deleted:
                text = f"The idempotency_token was used for run {run.run_id}, which has been deleted."
                return api_error(call, 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": text}, {})
            return {"run_id": run.run_id}
        run = next((run for run in self.runs if run.run_id == args["run_id"]), None)
        if run is None or run.deleted or self.now < run.start + run.plan.lag:
            text = f"Run {args['run_id']} does not exist."
            return api_error(call, 400, {"error_code": "INVALID_PARAMETER_VALUE", "message": text}, {})
        if call == "POST runs/cancel":
            self.cancel(run)
            return {}
        if call == "GET runs/get-output":
            return {}
        assert call == "GET runs/get", call
        page = f"{HOST}/jobs/1/runs/{run.run_id}"
        start = round(run.start * 1000)
        return {
            "run_id": run.run_id,
            "job_id": 1,
            "start_time": start,
            "run_page_url": page,
            "state": run.state(self.now),
        }

    def cancel(self, run: ModelRun) -> None:
        if not run.is_over(self.now):
            run.canceled_at = min(run.canceled_at, self.now)

    def _launch(self, ordinal: int) -> ModelRun:
        assert not self.active(), "(a) a run is launched while another is active"
        assert all(run.try_serial < self.try_serial for run in self.runs), "(c) a try launches a second run"
        run = ModelRun(100 + len(self.runs), ordinal, self.now, self.try_serial, self.plan)
        self.runs.append(run)
        return run


class ModelTransport(Transport):
    """The real one, but for the wire."""

    def __init__(self, world: World, policy: RetryPolicy | None = None) -> None:
        super().__init__(HOST, BearerAuth("a-token"), policy=policy, clock=world.clock, sleep=world.sleep)
        self.world = world

    def with_policy(self, policy: RetryPolicy) -> ModelTransport:
        return ModelTransport(self.world, policy)

    def send(self, method: str, path: str, **kwargs: Any) -> dict[str, Any]:
        call = f"{method} {path.partition('/jobs/')[2]}"
        reply: dict[str, Any] = self.world.exchange(self, call, kwargs.get("query") or {}, kwargs.get("body") or {})
        return reply


class Operator(DatabricksRunNowOperator):
    """The real one, but for the connection."""

    def __init__(self, *, world: World, **kwargs: Any) -> None:
        super().__init__(task_id="load", job_id=1, do_xcom_push=False, polling_period_seconds=20, **kwargs)
        self._world = world

    @property
    def log(self) -> logging.Logger:
        return logging.getLogger("airflow_dbjobs.model")

    def _connect(self) -> JobsClient:
        self._client = JobsClient(transport=ModelTransport(self._world))
        return self._client


class Story:
    """One task instance, as Airflow keeps its books, from its first try to its last."""

    def __init__(self, retries: int, fraction: float) -> None:
        self.retries = retries
        self.ti = SimpleNamespace(dag_id="nightly", run_id="manual__1", task_id="load", map_index=-1, start_date=None)
        identity = TaskTry("nightly", "manual__1", "load").identity(HOST)
        self.world = World(fraction, identity)
        self.serial = 0
        self.state: Literal["scheduled", "up for retry", "success", "failed"] = "scheduled"
        self.learned: list[int] = []
        self.killed_in_process = False
        # Since the last clear: the serial of the last try before it, and the runs that tries since have joined.
        self.cleared_after = 0
        self.joined: set[int] = set()
        self._begin_dag_run()

    def _begin_dag_run(self) -> None:
        self.ti.try_number, self.ti.max_tries = 0, self.retries
        self.dag_run = SimpleNamespace(start_date=datetime.fromtimestamp(self.world.now, UTC))

    @property
    def tries_before_clear(self) -> int:
        return int(self.ti.max_tries) - self.retries

    def clear(self) -> None:
        self.ti.max_tries = self.ti.try_number + self.retries
        self.cleared_after, self.joined = self.serial, set()
        self.state = "scheduled"

    def play(self, plan: Plan) -> None:
        """Let one try happen, and what comes before it."""
        world = self.world
        world.plan = Plan(cancel_late=world.plan.cancel_late)
        world.sleep(plan.idle)
        for run in world.runs:
            run.deleted = run.deleted or (plan.delete and run.is_over(world.now))
        if self.serial and plan.recreate and self.state in {"success", "failed"}:
            self.clear()
            self._begin_dag_run()
        elif self.state in {"success", "failed"} or (plan.clear_first and self.state == "up for retry"):
            if plan.dag_run_finished and self.state != "up for retry":
                self.dag_run = SimpleNamespace(start_date=datetime.fromtimestamp(world.now, UTC))
            self.clear()
        world.sleep(plan.gap)
        self._try(plan)

    def _try(self, plan: Plan) -> None:
        world = self.world
        self.serial += 1
        self.ti.try_number += 1
        world.plan, world.try_serial, world.calls, self.learned = plan, self.serial, [], []
        self.killed_in_process = False
        began, was_over = world.now, {run.run_id for run in world.runs if run.is_over(world.now)}
        was_ending = {run.run_id for run in world.runs if run.state(began)["life_cycle_state"] == "TERMINATING"}
        was_stopping = {run.run_id for run in world.runs if run.canceled_at < began}
        is_first = not world.runs
        ending = Attempt(self, plan).ending()
        if is_first and not plan.faults and plan.lag == 0 and self.learned:
            assert world.calls[:2] == ["POST run-now", "GET runs/get"], "(c) a first try costs one POST and one GET"
            assert world.calls.count("POST run-now") == 1
        self.joined |= {run_id for run_id in self.learned if self._run(run_id).start < began and run_id not in was_over}
        if ending in {"success", "failed", "failed for good"}:
            assert self.learned, "(d) a try that lives learns of a run"
        if ending in {"failed", "failed for good"}:
            assert self.learned[-1] not in was_over | was_ending, "(d) it fails of a run that was over before it began"
            last = self._run(self.learned[-1])
            assert last.try_serial == self.serial or last.canceled_at == math.inf, "(d) it fails of another try's kill"
        assert was_stopping.isdisjoint(self.learned), "(d) it waits for a run that was being cancelled before it began"
        if ending == "killed" and self.killed_in_process and plan.cancel_late is not None:
            its = [run for run in world.active() if run.run_id in self.learned or run.try_serial == self.serial]
            its = [run for run in its if run.plan.lag == 0]  # one that is invisible cannot be cancelled
            assert not its, "(e) a killed try leaves a run behind"
        if ending == "success":
            self._check_success(self._run(self.learned[-1]))
        self._note(ending, plan)

    def _run(self, run_id: int) -> ModelRun:
        return next(run for run in self.world.runs if run.run_id == run_id)

    def _check_success(self, run: ModelRun) -> None:
        assert run.succeeded(self.world.now)
        since_clear = [
            run
            for run in self.world.runs
            if (run.try_serial > self.cleared_after or run.run_id in self.joined)
            and run.succeeded(self.world.now)
            and not run.deleted
        ]
        assert run in since_clear, "(b) a success from before the clear was taken"
        ambiguous = [
            other for other in since_clear if other is not run and self._launches(other) <= self.tries_before_clear
        ]
        assert len(since_clear) == 1 + len(ambiguous), "(b) a success was ignored"

    def _launches(self, run: ModelRun) -> int:
        """Return how many runs are known to have been launched since the DAG run began, up to this one."""
        began = self.dag_run.start_date.timestamp()
        return run.ordinal - sum(
            other.ordinal < run.ordinal and (other.deleted or other.start <= began) for other in self.world.runs
        )

    def _note(self, ending: Ending, plan: Plan) -> None:
        if ending == "success" and not plan.result_is_lost:
            self.state = "success"
        elif ending == "killed" and plan.happens == "clear":
            self.clear()
        elif ending == "killed" and plan.happens == "restart":
            self.state = "up for retry"
        elif ending in {"killed", "failed for good"}:
            self.state = "failed"
        else:
            # Failed, or its worker was lost, maybe when all was done.
            left = self.ti.max_tries != 0 and self.ti.try_number <= self.ti.max_tries
            self.state = "up for retry" if left else "failed"


class Attempt:
    """One try: a process, and where it deferred a trigger and another process."""

    def __init__(self, story: Story, plan: Plan) -> None:
        self.story = story
        self.world = story.world
        self.plan = plan
        self.operator: Operator | None = None
        self.killed = False
        if plan.happens:
            self.world.due.append((self.world.now + plan.at, self._happen))

    def ending(self) -> Ending:
        context = {"ti": self.story.ti, "dag_run": self.story.dag_run}
        ending = self._process(lambda operator: operator.execute(context))
        while isinstance(ending, TaskDeferred):
            kwargs, trigger = ending.kwargs or {}, ending.trigger
            run = self.story._run(trigger.run_id)
            while not (self.killed or run.is_over(self.world.now)):
                self.world.sleep(10)
            if self.killed:
                ending = "killed"
            else:
                event = {"run_id": run.run_id, "run_page_url": trigger.run_page_url}
                ending = self._process(lambda operator: operator.execute_complete(context, event, **kwargs))  # noqa: B023
        self.plan = Plan()  # what is still due does not concern it any more
        return ending

    def _process(self, work: Callable[[Operator], object]) -> Ending | TaskDeferred:
        self.operator = Operator(world=self.world, retries=self.story.retries, deferrable=self.plan.deferrable)
        ending: Ending | TaskDeferred = "success"
        try:
            work(self.operator)
        except TaskDeferred as deferral:
            ending = deferral
        except AirflowFailException:
            ending = "failed for good"
        except RunFailed:
            ending = "failed"
        except WorkerDied:
            ending = "lost"
        except Terminated:
            assert self.killed
        except Exception:
            # That is how a killed task ends as well.
            if not self.killed:
                raise
        finally:
            self.operator = None
        return "killed" if self.killed else ending

    def _happen(self) -> None:
        """Let happen what is planned, if the try still goes on."""
        if self.plan.happens == "cancel the run":
            for run in self.world.active():
                self.world.cancel(run)
        elif self.plan.happens == "die":
            # A triggerer that dies changes nothing: its triggers go on in another one.
            if self.operator:
                raise WorkerDied
        elif self.plan.happens and not self.killed:
            self.killed = True
            self._kill()

    def _kill(self) -> None:
        world = self.world
        if self.operator is None:
            # The trigger cancels the run it waits for, some time after Airflow may have gone on.
            if self.plan.cancel_late is not None:
                run = self.story._run(self.story.learned[-1])
                world.due.append((world.now + self.plan.cancel_late, lambda: world.cancel(run)))
            return
        self.story.killed_in_process = True
        world.in_signal_handler = True
        self.operator.on_kill()
        world.in_signal_handler = False
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


def play(plans: list[Plan], retries: int, fraction: float = 0.25) -> Story:
    """Play a story, and after it one more try that is left in peace."""
    story = Story(retries, fraction)

    def push_link(_: object, url: str) -> None:
        story.learned.append(int(url.rpartition("/")[2]))

    with mock.patch("airflow_dbjobs.launch_operator.push_link", push_link):
        for plan in plans:
            story.play(plan)
        story.play(Plan())
    return story


FAULTS = st.sampled_from(["die before", "die after", "lost", "cut", "503", "503 handled", "hang"])
HAPPENINGS = [None] * 4 + ["die"] * 6 + ["cancel the run"] * 3 + ["clear"] * 2 + ["restart", "mark failed"]


def mostly(usual: object, *others: object) -> st.SearchStrategy[Any]:
    return st.sampled_from([usual] * 3 + list(others))


PLANS = st.builds(
    Plan,
    idle=st.sampled_from([0.0, 0.0, 0.2, 30.0, 7200.0]),
    delete=mostly(False, True),
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
)


@settings(REPEATABLE, max_examples=400)
@given(
    plans=st.lists(PLANS, min_size=2, max_size=6),
    retries=st.sampled_from([0, 2, 3, 4]),
    fraction=st.sampled_from([0.0, 0.25, 0.5, 0.93, 0.999]),
)
def test_whatever_happens_a_task_has_one_active_run_and_one_success(
    plans: list[Plan], retries: int, fraction: float
) -> None:
    play(plans, retries, fraction)


@pytest.mark.parametrize("hundredth", range(0, 100, 7))
def test_a_second_between_two_tries_is_enough_for_a_date_in_whole_seconds(hundredth: int) -> None:
    skipped = Plan(fate="SKIPPED")
    play([skipped, Plan(idle=0.0, gap=LEAST_GAP)], retries=1, fraction=hundredth / 100)
    # Within one second the second try takes the run of the first for its own, and fails of it.
    if hundredth < 60:
        with pytest.raises(AssertionError, match=r"\(d\)"):
            play([skipped, Plan(idle=0.0, gap=0.2)], retries=1, fraction=hundredth / 100)


def test_a_lost_success_is_ignored_where_fewer_tokens_than_tries_were_used_before_the_clear() -> None:
    """The one case of two successes: the first token was used after the clear, by which it cannot be told."""
    died_before_its_post = Plan(faults={0: "die before"})
    story = play([died_before_its_post, Plan(clear_first=True, result_is_lost=True)], retries=1)
    assert story.state == "success"
    assert [run.succeeded(story.world.now) for run in story.world.runs] == [True, True]

    # With a token for each try it is taken.
    story = play(
        [Plan(faults={1: "die before"}, fate="FAILED"), Plan(clear_first=True, result_is_lost=True)], retries=1
    )
    assert [run.succeeded(story.world.now) for run in story.world.runs] == [False, True]


@pytest.mark.parametrize("finished", [False, True])
def test_a_success_from_before_the_clear_is_not_taken_where_the_dag_run_had_been_created_again(finished: bool) -> None:
    """Its token is the second, and one try was before the clear: by that alone it would seem to be from after it."""
    plans = [Plan(), Plan(recreate=True), Plan(faults={0: "die before"}, dag_run_finished=finished)]
    story = play(plans, retries=1)
    assert story.state == "success"
    assert [run.try_serial for run in story.world.runs] == [1, 2, 4]


@pytest.mark.parametrize("counted", [True, False], ids=["counted as a clear", "counted as a retry"])
def test_a_clear_of_a_running_task_is_what_airflow_counts_it_as(*, counted: bool) -> None:
    """Where it counts as a retry, and the kill failed to cancel the run, the next try takes what the run ended with."""
    kill = Plan(happens="clear" if counted else "restart", cancel_late=None)
    story = play([kill], retries=1)
    assert story.state == "success"
    assert len(story.world.runs) == (2 if counted else 1)

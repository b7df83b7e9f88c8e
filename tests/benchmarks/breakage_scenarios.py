"""What breaks, and what is right then: the scenarios that breakage.py plays, each a script for one task.

A script is a generator. It does something to its task or its workspace, and yields what it waits for: so the scripts of
all variants go on side by side, in one thread. A wait that is over without what it waited for is no error: the script
goes on, and what became of the task is observed at its end.
"""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING, Any

from breakage_case import EXECUTION_TIMEOUT_SECONDS, Case, Right, Scenario, Wait, is_active

if TYPE_CHECKING:
    from collections.abc import Callable

    from breakage_case import Steps

# What reads a run while it is waited for; nothing of a launch, nor of a cancellation.
READING = "runs/[gl]*"
OUTAGE_SECONDS = 20


def nothing_breaks(case: Case) -> Steps:
    case.open_gate()
    case.start()
    yield Wait(case.launched, 60)


def broken_launch(**how: Any) -> Callable[[Case], Steps]:
    """Handle the launch, and break its reply."""

    def script(case: Case) -> Steps:
        case.fault("runs/submit", **how)
        case.start()
        yield case.watched()
        case.open_gate()

    return script


def killed_at_launch(case: Case) -> Steps:
    case.fault("runs/submit", hang=600)
    case.start()
    yield Wait(case.launched, 60)
    case.kill_process()
    yield case.watched()
    case.open_gate()


def killed_while_waiting(case: Case) -> Steps:
    case.start()
    yield case.watched()
    if case.variant.deferrable:
        yield Wait(lambda: case.triggerer_killed(case), 60)
    else:
        case.kill_process()
    yield case.watched()
    case.open_gate()


def killed_at_the_end(case: Case) -> Steps:
    """Kill the process to which the run's success is news."""
    case.start(kind="slow" if case.variant.deferrable else "usual")
    yield case.watched()
    if case.variant.deferrable:
        first = case.task.pid
        case.open_gate()
        yield Wait(lambda: ((task := case.task).state == "running" and task.pid != first) or case.ended(), 60)
    else:
        case.fault(READING, hang=600)
        yield case.asked(1)
        case.open_gate()
        yield Wait(case.settled, 30)
    case.close_gate()
    case.kill_process()
    yield case.watched(30)
    case.open_gate()


def outage(**how: Any) -> Callable[[Case], Steps]:
    """Break all that is asked of the workspace, for some time."""

    def script(case: Case) -> Steps:
        case.start()
        yield case.watched()
        case.fault("*", times=1_000_000, **how)
        yield Wait(lambda: False, OUTAGE_SECONDS)
        case.workspace.clear_faults()
        yield case.watched()
        case.open_gate()

    return script


def bad_replies(*replies: dict[str, Any]) -> Callable[[Case], Steps]:
    """Answer polls with these, one after the other."""

    def script(case: Case) -> Steps:
        case.start()
        yield case.watched()
        for reply in replies:
            case.fault(READING, **reply)
        yield case.asked(len(replies))
        yield case.watched()
        case.open_gate()

    return script


def out_of_time(case: Case) -> Steps:
    case.start(kind="timed")
    yield Wait(case.launched, 60)


def marked_failed(case: Case) -> Steps:
    case.start()
    yield case.watched()
    case.mark_failed()


def marked_at_launch(case: Case) -> Steps:
    case.fault("runs/submit", hang=600)
    case.start()
    yield Wait(case.launched, 60)
    case.mark_failed()


def cleared(case: Case) -> Steps:
    case.start()
    yield case.watched()
    first = case.runs()[-1]["run_id"]
    case.clear()

    def replaced() -> bool:
        runs = case.runs()
        return len(runs) > 1 and not any(is_active(run) for run in runs if run["run_id"] == first)

    yield Wait(replaced, 45)
    yield case.watched()
    case.open_gate()


def failure(fails: str, *, with_token: bool = False) -> Callable[[Case], Steps]:
    """Let the notebook itself fail."""

    def script(case: Case) -> Steps:
        case.open_gate()
        case.start(fails=fails, token=f"token-{uuid.uuid4().hex}" if with_token else None)
        yield Wait(case.launched, 60)

    return script


def wrong_token(case: Case) -> Steps:
    case.start(conn=f"{case.variant.name}_wrong_token")
    yield Wait(case.ended, 60)


HTML = {"status": 200, "body": "<html>Please sign in to the proxy</html>"}
JSON = {"status": 200, "headers": {"Content-Type": "application/json"}}
TRUNCATED = JSON | {"body": '{"run_id": 1, "state": {"life_cycle_st'}
EMPTY = JSON | {"body": ""}
DENIED = {"status": 403, "body": {"error_code": "PERMISSION_DENIED", "message": "Not now."}}
LIMITED = {
    "status": 429,
    "headers": {"Retry-After": "5"},
    "body": {"error_code": "REQUEST_LIMIT_EXCEEDED", "message": "Too many requests."},
}

SCENARIOS = (
    Scenario("nothing", "nothing breaks; a run of a second", Right(), nothing_breaks),
    Scenario("launch-cut", "the reply to the launch is lost", Right(), broken_launch(cut="after")),
    Scenario("launch-503", "the launch is answered 503, but done", Right(), broken_launch(status=503, handled=True)),
    Scenario(
        "launch-killed", "SIGKILL of the worker after the launch, before its reply", Right(tries=2), killed_at_launch
    ),
    Scenario(
        "wait-killed", "SIGKILL while waiting: of the worker, or the triggerer", Right(tries=None), killed_while_waiting
    ),
    Scenario("end-killed", "SIGKILL of the worker when the run has just succeeded", Right(tries=2), killed_at_the_end),
    Scenario("outage-503", f"{OUTAGE_SECONDS} s of 503 while waiting", Right(), outage(status=503)),
    Scenario("outage-cut", f"{OUTAGE_SECONDS} s of cut connections while waiting", Right(), outage(cut="before")),
    Scenario("html", "a poll is answered with a proxy's HTML page, status 200", Right(), bad_replies(HTML)),
    Scenario("garbled", "a poll gets truncated JSON, the next nothing", Right(), bad_replies(TRUNCATED, EMPTY)),
    Scenario("denied", "a poll is answered 403", Right(), bad_replies(DENIED)),
    Scenario("limited", "three polls are answered 429, Retry-After: 5", Right(), bad_replies(*[LIMITED] * 3)),
    Scenario(
        "timeout",
        f"execution_timeout of {EXECUTION_TIMEOUT_SECONDS} s, retries=0",
        Right("failed", cancelled=1),
        out_of_time,
    ),
    Scenario("marked", "the user marks the waiting task failed", Right("failed", cancelled=1), marked_failed),
    Scenario(
        "marked-launch",
        "the user marks the task failed before the launch is answered",
        Right("failed", cancelled=1),
        marked_at_launch,
    ),
    Scenario("cleared", "the user clears the waiting task", Right(launched=2, cancelled=1, tries=2), cleared),
    Scenario("fails-once", "the first run fails, the second succeeds", Right(launched=2, tries=2), failure("once")),
    Scenario("wrong-token", "the token is wrong", Right("failed", launched=0, tries=None), wrong_token),
    Scenario(
        "own-token",
        "the user's constant idempotency_token; the run fails",
        Right("failed", tries=None, says="idempotency_token"),
        failure("always", with_token=True),
    ),
)

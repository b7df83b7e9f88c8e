"""pace: how fast requests may be sent, and when they may not."""

from __future__ import annotations

import asyncio
import gc
import threading

import pytest
from injected_clock import Clock

from airflow_dbjobs.client.responses import api_error
from airflow_dbjobs.errors import (
    CallError,
    NotFound,
    PermissionDenied,
    ServerError,
    TooManyRequests,
    Unauthenticated,
    Unreachable,
    UnreadableReply,
    UntrustedCertificate,
)
from airflow_dbjobs.runs.polling.rate_limit import Gate, TokenBucket

DOWN = ServerError("GET jobs/runs/get", 503)


def limited(retry_after: str | None = None) -> TooManyRequests:
    return TooManyRequests("GET jobs/runs/get", 429, retry_after=retry_after)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> Gate:
    return Gate(TokenBucket(10.0, clock), clock=clock, sleep=clock.sleep_async)


# --- the bucket ---


def sent_at(bucket: TokenBucket, clock: Clock, requests: int) -> list[float]:
    """Return when so many requests are sent, one after the other, by somebody who always has one."""
    sent = []
    for _ in range(requests):
        clock.now += bucket.take()
        sent.append(clock.now)
    return sent


@pytest.mark.parametrize(("rate", "burst"), [(100.0, 100), (10.0, 10), (1.0, 1), (0.5, 1), (0.01, 1)])
def test_after_a_pause_a_bucket_lets_through_what_a_second_brings_and_then_its_rate(rate: float, burst: int) -> None:
    clock = Clock()
    bucket = TokenBucket(rate, clock)
    for _ in range(2):
        began = clock.now
        sent = sent_at(bucket, clock, burst + 10)
        assert sent[:burst] == pytest.approx([began] * burst)
        later = [began + (number + 1) / rate for number in range(10)]
        assert sent[burst:] == pytest.approx(later)
        clock.now += 10 * burst / rate


def test_a_bucket_gives_no_more_for_a_longer_pause(clock: Clock) -> None:
    bucket = TokenBucket(10.0, clock)
    clock.now += 1e6
    assert sum(bucket.take() == 0 for _ in range(30)) == 10


def test_those_who_take_at_the_same_time_are_let_through_one_by_one(clock: Clock) -> None:
    bucket = TokenBucket(10.0, clock)
    assert [bucket.take() for _ in range(13)] == pytest.approx([0.0] * 10 + [0.1, 0.2, 0.3])


def test_a_bucket_is_shared_by_workspace_and_clock_at_the_lowest_rate(clock: Clock) -> None:
    users = [Clock() for _ in range(3)]
    bucket = TokenBucket.of("https://one", 50.0, clock, users[0])
    assert TokenBucket.of("https://one", 20.0, clock, users[1]) is bucket
    assert TokenBucket.of("https://one", 70.0, clock, users[2]) is bucket
    assert bucket.rate == 20.0
    assert TokenBucket.of("https://other", 50.0, clock, users[0]) is not bucket
    assert TokenBucket.of("https://one", 50.0, Clock(), users[0]) is not bucket


def test_a_rate_that_is_raised_takes_effect_while_others_use_the_workspace() -> None:
    clock = Clock()
    one, other = Clock(), Clock()
    bucket = TokenBucket.of("https://raised", 1.0, clock, one)
    TokenBucket.of("https://raised", 50.0, clock, other)
    assert bucket.seconds_per_request == 1.0
    TokenBucket.of("https://raised", 40.0, clock, one)
    assert bucket.seconds_per_request == 1 / 40
    # Whoever is gone wants nothing any more.
    TokenBucket.of("https://raised", 2.0, clock, one)
    del one
    gc.collect()
    assert bucket.seconds_per_request == 1 / 50


def test_a_bucket_that_nobody_uses_is_forgotten_with_its_rate(clock: Clock) -> None:
    TokenBucket.of("https://one", 20.0, clock, clock)
    gc.collect()
    assert TokenBucket.of("https://one", 50.0, clock, clock).rate == 50.0


def test_a_bucket_serves_several_threads_without_losing_count() -> None:
    clock = Clock()
    bucket = TokenBucket(100.0, clock)
    waits: list[float] = []

    def take() -> None:
        waits.extend(bucket.take() for _ in range(500))

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert max(waits) == pytest.approx((2000 - 100) / 100.0)


# --- the gate ---


def passed_at(gate: Gate, clock: Clock) -> float:
    asyncio.run(gate.pass_through())
    return clock.now


def test_a_gate_holds_up_for_the_bucket(gate: Gate, clock: Clock) -> None:
    assert [passed_at(gate, clock) for _ in range(12)] == pytest.approx([0.0] * 10 + [0.1, 0.2])
    assert gate.seconds_per_request == 0.1


@pytest.mark.parametrize(("retry_after", "seconds"), [("7", 7.0), ("0", 1.0), ("9999", 300.0)])
def test_a_gate_that_a_rate_limit_closes_opens_when_the_api_says(
    gate: Gate, clock: Clock, retry_after: str, seconds: float
) -> None:
    gate.close(limited(retry_after))
    assert passed_at(gate, clock) == seconds


def test_a_gate_that_is_closed_again_and_again_stays_closed_for_longer_until_there_is_an_answer(
    gate: Gate, clock: Clock
) -> None:
    for expected in (1, 2, 4, 8, 16, 32, 60, 60):
        gate.close(limited())
        assert gate.closed_until - clock.now == pytest.approx(expected, rel=0.11)
        clock.now = gate.closed_until
    gate.answered()
    gate.close(limited())
    assert gate.closed_until - clock.now == pytest.approx(1, rel=0.11)


def test_answers_to_requests_that_were_sent_together_close_a_gate_once(gate: Gate, clock: Clock) -> None:
    gate.close(limited())
    until = gate.closed_until
    for _ in range(5):
        gate.close(limited("200"))
    assert gate.closed_until == until


def test_what_is_closed_while_somebody_waits_for_the_bucket_holds_them_up(gate: Gate, clock: Clock) -> None:
    for _ in range(10):
        passed_at(gate, clock)
    clock.at[0.05] = lambda: gate.close(limited("30"))
    # The clock is looked at when they wake up.
    assert passed_at(gate, clock) == pytest.approx(30.1, abs=0.11)


def fail(gate: Gate, error: CallError, *run_ids: int, of: int = 100, at: float = 0.0) -> list[bool]:
    return [gate.failed(run_id, error, at, of=of) for run_id in run_ids]


API_ERRORS = [
    DOWN,
    Unreachable("no answer"),
    UntrustedCertificate("who are you?", sent=False),
    UnreadableReply("<html>"),
    Unauthenticated("GET jobs/runs/get", 401),
    PermissionDenied("GET jobs/runs/get", 403),
    api_error("GET jobs/runs/get", 404, {}, {}),
    api_error("GET jobs/runs/get", 302, {}, {}),
    api_error("GET jobs/runs/get", 400, {"error_code": "COULD_NOT_ACQUIRE_LOCK"}, {}),
]
RUN_ERRORS = [
    NotFound("GET jobs/runs/get", 400),
    PermissionDenied("GET jobs/runs/get", 403, "PERMISSION_DENIED"),
    api_error("GET jobs/runs/get", 400, {"error_code": "INVALID_PARAMETER_VALUE"}, {}),
]


@pytest.mark.parametrize("error", API_ERRORS, ids=lambda error: f"{type(error).__name__} {error}")
def test_three_runs_that_cannot_be_asked_for_are_an_api_that_is_down(gate: Gate, error: CallError) -> None:
    assert fail(gate, error, 1, 1, 1, 2) == [False] * 4
    assert not gate.is_down
    assert gate.closed_until < 0
    assert fail(gate, error, 3) == [True]
    assert gate.is_down
    assert gate.closed_until > 0
    assert gate.answered()
    assert not gate.is_down
    assert not gate.answered()
    assert fail(gate, error, 4, 5) == [False, False]


@pytest.mark.parametrize("error", RUN_ERRORS, ids=lambda error: f"{type(error).__name__} {error}")
def test_what_is_wrong_with_a_run_is_not_wrong_with_the_api(gate: Gate, error: CallError) -> None:
    assert fail(gate, error, *range(10), of=1) == [False] * 10
    assert not gate.is_down
    assert gate.outage_seconds == 0
    assert gate.closed_until < 0


@pytest.mark.parametrize("of", [1, 2])
def test_fewer_than_three_runs_tell_of_the_api_all_together(gate: Gate, of: int) -> None:
    assert fail(gate, DOWN, *range(of), of=of) == [False] * (of - 1) + [True]


def test_a_rate_limit_delays_and_is_an_outage_only_after_a_minute(gate: Gate, clock: Clock) -> None:
    assert fail(gate, limited("5"), 1, 2, 3, 4) == [False] * 4
    assert not gate.is_down
    assert passed_at(gate, clock) == 5.0
    clock.now = 61.0
    assert fail(gate, limited("5"), 5) == [True]
    assert gate.is_down
    assert gate.closed_until == 66.0


def test_an_outage_lasts_from_the_first_question_to_the_first_answer(gate: Gate, clock: Clock) -> None:
    clock.now = 90.0
    fail(gate, DOWN, 1, at=30.0)
    fail(gate, DOWN, 2, at=20.0)
    assert gate.outage_seconds == 70.0
    clock.now = 100.0
    assert gate.outage_seconds == 80.0
    gate.answered()
    assert gate.outage_seconds == 0

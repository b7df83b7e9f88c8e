"""The rate limit: the token bucket, and the gate that pauses requests."""

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
from airflow_dbjobs.runs.polling.rate_limit import RequestGate, TokenBucket

DOWN = ServerError("GET jobs/runs/get", 503)


def limited(retry_after: str | None = None) -> TooManyRequests:
    return TooManyRequests("GET jobs/runs/get", 429, retry_after=retry_after)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def gate(clock: Clock) -> RequestGate:
    return RequestGate(TokenBucket(10.0, clock), clock=clock, sleep=clock.sleep_async)


def sent_at(bucket: TokenBucket, clock: Clock, requests: int) -> list[float]:
    """Return when that many requests are sent, one after the other without a break."""
    sent = []
    for _ in range(requests):
        clock.now += bucket.take()
        sent.append(clock.now)
    return sent


def passed_at(gate: RequestGate, clock: Clock) -> float:
    asyncio.run(gate.wait_turn())
    return clock.now


def fail(gate: RequestGate, error: CallError, *run_ids: int, of: int = 100, at: float = 0.0) -> list[bool]:
    return [gate.record_failure(run_id, error, at, of=of) for run_id in run_ids]


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


class TestTokenBucket:
    @pytest.mark.parametrize(("rate", "burst"), [(100.0, 100), (10.0, 10), (1.0, 1), (0.5, 1), (0.01, 1)])
    def test_bursts_one_second_then_keeps_rate(self, rate: float, burst: int) -> None:
        clock = Clock()
        bucket = TokenBucket(rate, clock)
        for _ in range(2):
            began = clock.now
            sent = sent_at(bucket, clock, burst + 10)
            assert sent[:burst] == pytest.approx([began] * burst)
            later = [began + (number + 1) / rate for number in range(10)]
            assert sent[burst:] == pytest.approx(later)
            clock.now += 10 * burst / rate

    def test_longer_pause_allows_no_larger_burst(self, clock: Clock) -> None:
        bucket = TokenBucket(10.0, clock)
        clock.now += 1e6
        assert sum(bucket.take() == 0 for _ in range(30)) == 10

    def test_heavy_requests_leave_tokens_to_other_processes(self, clock: Clock) -> None:
        gate = RequestGate(TokenBucket(8.0, clock), clock=clock, sleep=clock.sleep_async)
        gate.weight = 4.0
        assert gate.seconds_per_request == pytest.approx(0.5)
        assert [passed_at(gate, clock) for _ in range(4)] == pytest.approx([0.0, 0.0, 0.5, 1.0])

    def test_simultaneous_requests_are_spaced(self, clock: Clock) -> None:
        bucket = TokenBucket(10.0, clock)
        assert [bucket.take() for _ in range(13)] == pytest.approx([0.0] * 10 + [0.1, 0.2, 0.3])

    def test_counts_tokens_across_threads(self) -> None:
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


class TestSharedBucket:
    def test_one_per_workspace_and_clock_at_lowest_rate(self, clock: Clock) -> None:
        users = [Clock() for _ in range(3)]
        bucket = TokenBucket.shared("https://one", 50.0, clock, users[0])
        assert TokenBucket.shared("https://one", 20.0, clock, users[1]) is bucket
        assert TokenBucket.shared("https://one", 70.0, clock, users[2]) is bucket
        assert bucket.rate == 20.0
        assert TokenBucket.shared("https://other", 50.0, clock, users[0]) is not bucket
        assert TokenBucket.shared("https://one", 50.0, Clock(), users[0]) is not bucket

    def test_raised_rate_takes_effect_while_shared(self) -> None:
        clock = Clock()
        one, other = Clock(), Clock()
        bucket = TokenBucket.shared("https://raised", 1.0, clock, one)
        TokenBucket.shared("https://raised", 50.0, clock, other)
        assert bucket.seconds_per_request == 1.0
        TokenBucket.shared("https://raised", 40.0, clock, one)
        assert bucket.seconds_per_request == 1 / 40
        # The rates of a user that is gone do not count.
        TokenBucket.shared("https://raised", 2.0, clock, one)
        del one
        gc.collect()
        assert bucket.seconds_per_request == 1 / 50

    def test_unused_bucket_forgets_its_rate(self, clock: Clock) -> None:
        TokenBucket.shared("https://one", 20.0, clock, clock)
        gc.collect()
        assert TokenBucket.shared("https://one", 50.0, clock, clock).rate == 50.0


class TestGateWaits:
    def test_waits_for_bucket(self, gate: RequestGate, clock: Clock) -> None:
        assert [passed_at(gate, clock) for _ in range(12)] == pytest.approx([0.0] * 10 + [0.1, 0.2])
        assert gate.seconds_per_request == 0.1

    @pytest.mark.parametrize(("retry_after", "seconds"), [("7", 7.0), ("0", 1.0), ("9999", 300.0)])
    def test_waits_as_long_as_retry_after(
        self, gate: RequestGate, clock: Clock, retry_after: str, seconds: float
    ) -> None:
        gate.pause(limited(retry_after))
        assert passed_at(gate, clock) == seconds

    def test_pauses_grow_until_an_answer(self, gate: RequestGate, clock: Clock) -> None:
        for expected in (1, 2, 4, 8, 16, 32, 60, 60):
            gate.pause(limited())
            assert gate.paused_until - clock.now == pytest.approx(expected, rel=0.11)
            clock.now = gate.paused_until
        gate.record_answer()
        gate.pause(limited())
        assert gate.paused_until - clock.now == pytest.approx(1, rel=0.11)

    def test_simultaneous_errors_pause_once(self, gate: RequestGate, clock: Clock) -> None:
        gate.pause(limited())
        until = gate.paused_until
        for _ in range(5):
            gate.pause(limited("200"))
        assert gate.paused_until == until

    def test_pause_delays_a_request_waiting_for_bucket(self, gate: RequestGate, clock: Clock) -> None:
        for _ in range(10):
            passed_at(gate, clock)
        clock.at[0.05] = lambda: gate.pause(limited("30"))
        # The caller reads the clock when it wakes up.
        assert passed_at(gate, clock) == pytest.approx(30.1, abs=0.11)


class TestOutageDetection:
    @pytest.mark.parametrize("error", API_ERRORS, ids=lambda error: f"{type(error).__name__} {error}")
    def test_three_failing_runs_are_an_outage(self, gate: RequestGate, error: CallError) -> None:
        assert fail(gate, error, 1, 1, 1, 2) == [False] * 4
        assert not gate.is_down
        assert gate.paused_until < 0
        assert fail(gate, error, 3) == [True]
        assert gate.is_down
        assert gate.paused_until > 0
        assert gate.record_answer()
        assert not gate.is_down
        assert not gate.record_answer()
        assert fail(gate, error, 4, 5) == [False, False]

    @pytest.mark.parametrize("error", RUN_ERRORS, ids=lambda error: f"{type(error).__name__} {error}")
    def test_errors_of_a_run_are_no_outage(self, gate: RequestGate, error: CallError) -> None:
        assert fail(gate, error, *range(10), of=1) == [False] * 10
        assert not gate.is_down
        assert gate.outage_seconds == 0
        assert gate.paused_until < 0

    @pytest.mark.parametrize("of", [1, 2])
    def test_all_of_fewer_than_three_runs_are_an_outage(self, gate: RequestGate, of: int) -> None:
        assert fail(gate, DOWN, *range(of), of=of) == [False] * (of - 1) + [True]

    def test_rate_limit_is_an_outage_after_a_minute(self, gate: RequestGate, clock: Clock) -> None:
        assert fail(gate, limited("5"), 1, 2, 3, 4) == [False] * 4
        assert not gate.is_down
        assert passed_at(gate, clock) == 5.0
        clock.now = 61.0
        assert fail(gate, limited("5"), 5) == [True]
        assert gate.is_down
        assert gate.paused_until == 66.0

    def test_outage_lasts_from_first_failure_to_answer(self, gate: RequestGate, clock: Clock) -> None:
        clock.now = 90.0
        fail(gate, DOWN, 1, at=30.0)
        fail(gate, DOWN, 2, at=20.0)
        assert gate.outage_seconds == 70.0
        clock.now = 100.0
        assert gate.outage_seconds == 80.0
        gate.record_answer()
        assert gate.outage_seconds == 0

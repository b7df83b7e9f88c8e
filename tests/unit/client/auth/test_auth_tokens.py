"""The cache of tokens: kept, renewed early, requested once for all threads; and no caller waits longer than it may."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import requests
from injected_clock import Clock

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.auth.token_requests import TokenRequests
from airflow_dbjobs.client.auth.tokens import Token, TokenAuth, TokenCache, TokenSource, _Entry
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.transport import Transport
from airflow_dbjobs.errors import NotFound, PermissionDenied, SignInRefused, Unreachable
from airflow_dbjobs.runs.polling.requests import CANCEL_POLICY

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.local_workspace import LocalWorkspace

PATIENCE = 30  # seconds after which a test is given up


@dataclass(eq=False)
class Source:
    """Gives numbered tokens, or `value`; `first` is called in each fetch, with the seconds that it has."""

    lifetime: float = 3600.0
    value: str = ""
    fetched: int = 0
    first: Callable[[float], object] = lambda _: None
    limits: list[float] = field(default_factory=list)

    def fetch(self, requests: TokenRequests) -> Token:
        self.fetched += 1
        number = self.fetched
        self.limits.append(requests.left)
        self.first(requests.left)
        return Token({"Authorization": f"Bearer {self.value or number}"}, self.lifetime)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> TokenCache:
    return TokenCache(clock)


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def auth(source: Source, cache: TokenCache) -> TokenAuth:
    return TokenAuth(source, cache=cache)


class WatchedLock:
    """A reentrant lock that counts the calls which want it."""

    def __init__(self) -> None:
        self.wanted = 0
        self._lock = threading.RLock()

    def acquire(self, *, blocking: bool = True, timeout: float = -1) -> bool:
        self.wanted += 1
        return self._lock.acquire(blocking, timeout)

    def release(self) -> None:
        self._lock.release()

    def wait_for(self, calls: int) -> None:
        """Wait until so many calls wanted it: all but one of them wait for it."""
        while self.wanted < calls:
            time.sleep(0.001)


def watch(cache: TokenCache, source: TokenSource) -> WatchedLock:
    entry = cache._entries.setdefault(source, _Entry())
    entry.lock = lock = WatchedLock()  # type: ignore[assignment]
    return lock


def number(token: Token) -> int:
    return int(token.headers["Authorization"].removeprefix("Bearer "))


def refuse(_: float) -> None:
    raise SignInRefused("no")


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start `work`; return its thread, and where what it returns or raises is put."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 (a result like others)
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, results


def held(source: Source) -> tuple[threading.Event, threading.Event]:
    """Hold the next fetch; return what says that it has begun, and what lets it go on."""
    begun, go_on = threading.Event(), threading.Event()

    def hold(_: float) -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    source.first = hold
    return begun, go_on


class TestKill:
    def test_cancels_with_the_current_token_without_a_renewal(
        self, workspace: LocalWorkspace, source: Source, auth: TokenAuth, clock: Clock
    ) -> None:
        source.value = workspace.token
        auth.token()
        clock.now = 3100

        def hang(seconds: float) -> None:
            clock.now += seconds
            raise Unreachable("no answer", sent=False)

        source.first = hang
        transport = Transport(workspace.base_url, auth, policy=CANCEL_POLICY, clock=clock)
        with pytest.raises(NotFound):
            JobsClient(transport=transport).cancel_run(5)
        assert workspace.requests == {"runs/cancel": 1}
        assert source.fetched == 1

    def test_keeps_its_time_limit_while_another_thread_fetches(self, workspace: LocalWorkspace, source: Source) -> None:
        fetching, go_on = held(source)
        auth = TokenAuth(source, cache=TokenCache())
        thread, _ = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        policy = RetryPolicy(retry_budget=0.2, ends_with_budget=True)
        with pytest.raises(Unreachable, match="Another thread is requesting a token"):
            JobsClient(transport=Transport(workspace.base_url, auth, policy=policy)).cancel_run(5)
        # The other request is still under way: the kill did not wait for its end.
        assert thread.is_alive()
        assert workspace.requests == {}
        go_on.set()
        thread.join(PATIENCE)


class TestHangingFetch:
    def test_does_not_pile_up(self, auth: TokenAuth, source: Source, cache: TokenCache, clock: Clock) -> None:
        go_on = threading.Event()
        source.first = lambda _: go_on.wait(PATIENCE)
        for _ in range(5):
            with pytest.raises(Unreachable, match=r"Got no token within 0\.1 s: Source\("):
                auth.token(0.01)
        with pytest.raises(Unreachable, match="5 requests for a token hang; not starting another one yet") as caught:
            auth.token(0.01)
        assert not caught.value.sent
        assert source.fetched == 5
        # Others have nothing to do with it.
        assert number(TokenAuth(Source(), cache=cache).token()) == 1
        # One more, now and then.
        clock.now = 299
        with pytest.raises(Unreachable, match="5 requests for a token hang"):
            auth.token(0.01)
        clock.now = 300
        with pytest.raises(Unreachable, match="Got no token within"):
            auth.token(0.01)
        clock.now = 599
        with pytest.raises(Unreachable, match="6 requests for a token hang; not starting another one yet"):
            auth.token(0.01)
        go_on.set()
        for thread in cache._entries[source].threads:
            thread.join(PATIENCE)
        assert number(auth.token()) == 7

    def test_does_not_end_authentication_forever(self, auth: TokenAuth, source: Source, clock: Clock) -> None:
        go_on = threading.Event()
        source.first = lambda _: go_on.wait(PATIENCE)
        for _ in range(5):
            with pytest.raises(Unreachable, match="Got no token within"):
                auth.token(0.01)
        source.first = lambda _: None
        clock.now = 300
        assert number(auth.token()) == 6
        go_on.set()

    def test_on_a_machine_without_threads_is_an_error(
        self, auth: TokenAuth, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:

        def refuse(_: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patched:
            patched.setattr(threading.Thread, "start", refuse)
            with pytest.raises(Unreachable, match="Cannot start a thread to request a token") as caught:
                auth.token()
        assert not caught.value.sent
        assert number(auth.token()) == 1


class TestRenewal:
    def test_that_fails_keeps_the_token_while_it_is_valid(
        self, auth: TokenAuth, source: Source, clock: Clock, caplog: pytest.LogCaptureFixture
    ) -> None:
        auth.token()
        clock.now = 3100
        source.first = refuse
        assert number(auth.token()) == 1
        (said,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert (
            said.getMessage()
            == "Renewing a token failed; will retry. The current one is valid for another 460 s. Error: no"
        )
        # Not again for each call.
        assert number(auth.token()) == 1
        assert source.fetched == 2
        clock.now = 3131
        source.first = lambda _: None
        assert number(auth.token()) == 3

    def test_that_fails_is_an_error_after_the_expiry(self, auth: TokenAuth, source: Source, clock: Clock) -> None:
        auth.token()
        source.first = refuse
        clock.now = 3559
        assert number(auth.token()) == 1
        clock.now = 3561
        with pytest.raises(SignInRefused, match="no"):
            auth.token()

    def test_lets_other_threads_use_the_current_token(self, auth: TokenAuth, source: Source, clock: Clock) -> None:
        auth.token()
        clock.now = 3100
        renewing, go_on = held(source)
        thread, results = in_thread(auth.token)
        assert renewing.wait(PATIENCE)
        assert number(auth.token()) == 1
        go_on.set()
        thread.join(PATIENCE)
        assert number(results[0]) == number(auth.token()) == 2

    def test_is_not_begun_with_little_time_left(self, auth: TokenAuth, source: Source, clock: Clock) -> None:
        auth.token()
        clock.now = 3100
        assert number(auth.token(4)) == number(auth.token(25)) == 1
        clock.now = 3561
        # But fetches what must be had, in that time.
        assert number(auth.token(4)) == 2
        assert source.limits == [30, 4]

    def test_that_hangs_keeps_the_token_while_it_is_valid(
        self, auth: TokenAuth, source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        auth.token()
        clock.now = 3100
        go_on = threading.Event()
        source.first = lambda _: go_on.wait(PATIENCE)
        # Of 30 s.
        monkeypatch.setattr(TokenRequests, "left", 0.1)
        assert number(auth.token()) == 1
        go_on.set()


class TestSignalHandler:
    def test_gets_a_token_within_the_fetch_it_interrupted(self, auth: TokenAuth, source: Source) -> None:
        taken: list[int] = []

        def handle(*_: object) -> None:
            source.first = lambda _: None
            taken.append(number(auth.token(4)))

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            source.first = lambda _: os.kill(os.getpid(), signal.SIGUSR1)
            assert number(auth.token()) == 1
        finally:
            signal.signal(signal.SIGUSR1, before)
        assert taken == [2]
        assert source.limits == [30, 4]

    def test_gets_a_token_while_its_thread_waits_for_another(self, auth: TokenAuth, source: Source) -> None:
        fetching, go_on = held(source)
        lock = watch(auth._cache, source)
        thread, results = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        taken: list[object] = []

        def handle(*_: object) -> None:
            go_on.set()
            taken.append(auth.token(4))

        def kill() -> None:
            lock.wait_for(2)
            os.kill(os.getpid(), signal.SIGUSR1)

        before = signal.signal(signal.SIGUSR1, handle)
        try:
            killer, _ = in_thread(kill)
            token = auth.token()
            killer.join(PATIENCE)
        finally:
            signal.signal(signal.SIGUSR1, before)
        thread.join(PATIENCE)
        assert [token] == taken == results
        assert source.fetched == 1


class TestFetch:
    @pytest.mark.parametrize("fails", [False, True], ids=["fetched", "refused"])
    def test_is_shared_by_all_threads_that_need_a_token(self, auth: TokenAuth, source: Source, fails: bool) -> None:
        fetching, go_on = threading.Event(), threading.Event()

        def slowly(_: float) -> None:
            fetching.set()
            assert go_on.wait(PATIENCE)
            if fails:
                raise SignInRefused("no")

        source.first = slowly
        lock = watch(auth._cache, source)
        first = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        others = [in_thread(auth.token) for _ in range(10)]
        lock.wait_for(1 + len(others))
        go_on.set()
        for thread, _ in (first, *others):
            thread.join(PATIENCE)
        assert source.fetched == 1
        results = [result for _, (result,) in (first, *others)]
        if fails:
            # Each has an error of its own, to which a call adds how often it was tried.
            assert {type(error) for error in results} == {SignInRefused}
            assert len({id(error) for error in results}) == len(results)
        else:
            assert len({id(token) for token in results}) == 1

    def test_of_another_thread_is_awaited_within_the_own_limit(self, auth: TokenAuth, source: Source) -> None:
        fetching, go_on = held(source)
        thread, _ = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        with pytest.raises(Unreachable, match="Another thread is requesting a token and got none in time") as caught:
            auth.token(0.01)
        assert not caught.value.sent
        go_on.set()
        thread.join(PATIENCE)

    def test_is_repeated_by_a_thread_with_more_time(self, auth: TokenAuth, source: Source, clock: Clock) -> None:
        fetching, go_on = threading.Event(), threading.Event()

        def too_slowly(_: float) -> None:
            fetching.set()
            assert go_on.wait(PATIENCE)
            raise Unreachable("no answer in time", sent=False)

        source.first = too_slowly
        lock = watch(auth._cache, source)
        hurried, failed = in_thread(lambda: auth.token(5))
        assert fetching.wait(PATIENCE)
        others = [in_thread(lambda limit=limit: auth.token(limit)) for limit in (30, 29)]
        lock.wait_for(1 + len(others))
        source.first = lambda _: None
        clock.now = 5
        go_on.set()
        for thread, _ in ((hurried, failed), *others):
            thread.join(PATIENCE)
        assert [number(result) for _, (result,) in others] == [2, 2]
        assert [str(error) for error in failed] == ["no answer in time"]
        assert source.fetched == 2

    def test_that_fails_is_not_repeated_by_all_who_wait(self, auth: TokenAuth, source: Source) -> None:
        fetching, go_on = threading.Event(), threading.Event()

        def refuse_connections(_: float) -> None:
            fetching.set()
            assert go_on.wait(PATIENCE)
            raise Unreachable("refused", sent=False)

        source.first = refuse_connections
        lock = watch(auth._cache, source)
        first = in_thread(lambda: auth.token(5))
        assert fetching.wait(PATIENCE)
        second = in_thread(auth.token)
        lock.wait_for(2)
        go_on.set()
        for thread, _ in (first, second):
            thread.join(PATIENCE)
        assert source.fetched == 1
        assert [str(error) for _, (error,) in (first, second)] == ["refused", "refused"]

    def test_that_is_interrupted_passes_to_a_waiting_thread(self, auth: TokenAuth, source: Source) -> None:
        class Killed(BaseException):
            pass

        fetching, go_on = threading.Event(), threading.Event()

        def break_off(_: float) -> None:
            source.first = lambda _: None
            fetching.set()
            assert go_on.wait(PATIENCE)
            raise Killed

        source.first = break_off
        lock = watch(auth._cache, source)
        first, broken = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        second, results = in_thread(auth.token)
        lock.wait_for(2)
        go_on.set()
        first.join(PATIENCE)
        second.join(PATIENCE)
        assert isinstance(broken[0], Killed)
        assert number(results[0]) == 2


class TestFork:
    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_during_a_fetch_gets_its_own_token(self, source: Source) -> None:
        # As LocalExecutor does; the process's own cache is the one that takes note.
        auth = TokenAuth(source)
        fetching, go_on = held(source)
        thread, results = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        source.first = lambda _: None
        child = os.fork()
        if not child:
            # Nothing of the test's runner is to go on here.
            signal.alarm(PATIENCE)
            os._exit(number(auth.token(5)))
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 2
        go_on.set()
        thread.join(PATIENCE)
        assert number(results[0]) == 1

    def test_waits_for_no_thread_of_its_parent(self, auth: TokenAuth, source: Source) -> None:
        fetching, go_on = held(source)
        thread, _ = in_thread(auth.token)
        assert fetching.wait(PATIENCE)
        source.first = lambda _: None
        # What os.fork calls in the child.
        auth._cache.after_fork()
        assert number(auth.token()) == 2
        go_on.set()
        thread.join(PATIENCE)


class TestRefusedToken:
    def test_is_replaced_in_the_time_that_is_left(
        self, workspace: LocalWorkspace, source: Source, auth: TokenAuth, clock: Clock
    ) -> None:
        with pytest.raises(PermissionDenied):
            Transport(workspace.base_url, auth, clock=clock).send("GET", "2.2/jobs/list", limit=4)
        assert source.limits == [4, 4]

    def test_is_replaced_once_for_all_threads(self, auth: TokenAuth) -> None:
        old = auth.token()
        # Two threads, before either has requested another.
        assert auth.forget(old)
        assert auth.forget(old)
        new = auth.token()
        assert auth.token() is new

    def test_is_dropped_by_all_threads(self, auth: TokenAuth, source: Source, clock: Clock) -> None:
        old = auth.token()
        clock.now = 100
        assert auth.forget(old)
        new = auth.token()
        assert number(new) == 2
        # Others, whose requests were signed before, are told later.
        assert auth.forget(old)
        assert auth.token() is new

    def test_is_replaced_while_another_thread_reports_it(
        self, auth: TokenAuth, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = auth.token()

        def replace_meanwhile() -> float:
            monkeypatch.undo()
            assert auth.forget(old)
            assert number(auth.token()) == 2
            return clock.now

        monkeypatch.setattr(clock, "monotonic", replace_meanwhile)
        assert auth.forget(old)
        assert number(auth.token()) == 2

    def test_is_replaced_at_most_once_a_minute(self, auth: TokenAuth, clock: Clock) -> None:
        assert auth.forget(auth.token())
        second = auth.token()
        assert number(second) == 2
        clock.now = 59
        assert not auth.forget(second)
        assert auth.token() is second
        clock.now = 61
        assert auth.forget(second)
        assert number(auth.token()) == 3


class TestToken:
    @pytest.mark.parametrize(
        ("lifetime", "good"),
        [(3600, 2999), (7200, 6599), (300, 239), (100, 59), (60, 29), (20, 9)],
        ids=str,
    )
    def test_is_kept_until_part_of_its_lifetime_is_left(
        self, auth: TokenAuth, source: Source, clock: Clock, lifetime: float, good: float
    ) -> None:
        source.lifetime = lifetime
        auth.token()
        clock.now = good
        assert number(auth.token()) == 1
        clock.now = good + 1.001
        assert number(auth.token()) == 2
        # From when it was fetched, again.
        clock.now += good
        assert number(auth.token()) == 2

    def test_without_lifetime_is_used_once(self, auth: TokenAuth, source: Source) -> None:
        source.lifetime = 0
        assert [number(auth.token()) for _ in range(3)] == [1, 2, 3]

    def test_signs_a_single_request(self, auth: TokenAuth) -> None:
        request = requests.Request("GET", "https://x.example", auth=auth).prepare()
        assert request.headers["Authorization"] == "Bearer 1"
        assert repr(auth.token()) == "Token(lifetime=3600.0)"

    def test_is_shared_by_equal_sources(self) -> None:
        one, other = Source(), Source()
        assert TokenAuth(one) == TokenAuth(one)
        assert TokenAuth(one) != TokenAuth(other)
        assert TokenAuth(one) != one
        assert len({TokenAuth(one), TokenAuth(one), TokenAuth(other)}) == 2


class TestTokenFunction:
    def test_that_exits_does_not_end_the_task(self, auth: TokenAuth, source: Source) -> None:
        source.first = lambda _: sys.exit(0)
        with pytest.raises(SignInRefused, match=r"tried to exit the process. Check Source\("):
            auth.token()

    def test_with_a_bug_is_named_without_its_message(self, auth: TokenAuth, source: Source) -> None:
        def mistake(_: float) -> None:
            raise ZeroDivisionError("s3cr3t")

        source.first = mistake
        with pytest.raises(SignInRefused, match="ZeroDivisionError") as caught:
            auth.token()
        assert "s3cr3t" not in str(caught.value)
        assert caught.value.__suppress_context__
        source.first = lambda _: None
        assert number(auth.token()) == 2

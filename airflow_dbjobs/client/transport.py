"""One HTTP request to the Jobs API, or a request with its retries, as the caller asks. The only place that retries.

What is retried, and when, is decided in ``client.retry``.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import os
import random
import threading
from collections.abc import Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import requests
import tenacity

from airflow_dbjobs.client.auth.tokens import TokenAuth
from airflow_dbjobs.client.clock import SYSTEM_CLOCK, Clock
from airflow_dbjobs.client.exchange import exchange
from airflow_dbjobs.client.responses import json_object
from airflow_dbjobs.client.retry import Retry, RetryPolicy, retry_decision
from airflow_dbjobs.client.session import Network, user_agent
from airflow_dbjobs.errors import (
    ApiError,
    CallError,
    ConfigurationError,
    JobsError,
    PermissionDenied,
    Unauthenticated,
    Unreachable,
    UnreadableReply,
)
from airflow_dbjobs.payloads.body import MAX_REQUEST_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests.auth import AuthBase

log = logging.getLogger(__name__)

# An answer that has less time than this does not come; what was sent may be carried out all the same.
_LEAST_SECONDS = 0.1


class Attempts:
    """What is known of a call's attempts while it is under way, for a kill that interrupts it.

    `unclear` says that one of them, or of an earlier call's, has left and was not refused: it may be carried out.
    """

    unclear = False


class Transport:
    """Sends requests to one workspace with one set of credentials, from any thread (each has a session of its own).

    `base_url` is scheme, host and port, with no path; where several workspaces share it, `workspace_id` says which is
    meant. `auth` signs each request; if it is an ``auth.tokens.TokenAuth``, it gets the token in the time that is left,
    and another one if the token is refused.
    """

    def __init__(
        self,
        base_url: str,
        auth: AuthBase,
        *,
        workspace_id: str = "",
        policy: RetryPolicy | None = None,
        network: Network | None = None,
        product: str = "",
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.auth = auth
        self.workspace_id = workspace_id
        self.policy = policy or RetryPolicy()
        self.network = network or Network()
        self.product = product
        self.clock = clock
        #: If set, it is called before each request and repeatedly during each wait, which end with its exception.
        self.interrupt: Callable[[], None] | None = None
        #: Takes note of the calls that are made meanwhile; None where nobody wants that.
        self.attempts: Attempts | None = None
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._process = os.getpid()
        # The server's clock at a reading of ours. One assignment: threads, and a signal handler, see both or neither.
        self._server_clock: tuple[float, float] | None = None

    @property
    def identity(self) -> Hashable:
        """What makes two transports interchangeable for a poller: the workspace, the credentials, the way to it."""
        # Some schemes of requests define equality and so no hash: those are the same only as one object.
        auth = self.auth if isinstance(self.auth, Hashable) else id(self.auth)
        return self.base_url, self.workspace_id, auth, self.network

    def with_policy(self, policy: RetryPolicy, *, auth: AuthBase | None = None) -> Transport:
        """Return a transport to the same workspace with another policy, maybe another auth, and sessions of its own."""
        return Transport(
            self.base_url,
            auth or self.auth,
            workspace_id=self.workspace_id,
            policy=policy,
            network=self.network,
            product=self.product,
            clock=self.clock,
        )

    def pause(self, seconds: float) -> None:
        """Sleep. Raises what `interrupt` raises meanwhile."""
        if self.interrupt is None:
            self.clock.sleep(seconds)
            return
        self.interrupt()
        while seconds > 0:
            self.clock.sleep(min(seconds, self.clock.piece))
            self.interrupt()
            seconds -= self.clock.piece

    def call(  # noqa: C901 (the callbacks of one tenacity loop, which share its state)
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        repeatable: bool,
        void: bool = False,
    ) -> dict[str, Any]:
        """Send a request, and again as ``client.retry`` says, until it is answered or the budget is spent.

        Raises what `send` raises; the error of the last attempt says how often and how long it was tried.
        """
        started = self.clock.monotonic()
        known = self.attempts or Attempts()

        def decision(state: tenacity.RetryCallState) -> Retry | None:
            error = state.outcome.exception() if state.outcome else None
            if not isinstance(error, CallError):
                return None
            return retry_decision(error, attempt=state.attempt_number, repeatable=repeatable, policy=self.policy)

        def wait(state: tenacity.RetryCallState) -> float:
            retry = decision(state)
            # Up to a quarter more, so that many tasks that failed together do not come back together.
            return retry.wait * random.uniform(1.0, 1.25) if retry else 0.0  # noqa: S311 (jitter is no secret)

        def spent(state: tenacity.RetryCallState) -> bool:
            return self.clock.monotonic() - started + state.upcoming_sleep > self.policy.retry_budget

        def attempt() -> dict[str, Any]:
            unclear = known.unclear
            left = self.policy.retry_budget - (self.clock.monotonic() - started)
            limit = left if self.policy.ends_with_budget else math.inf
            try:
                return self.send(method, path, query=query, body=body, void=void, limit=limit)
            except CallError as error:
                error.unclear = known.unclear = unclear or error.unclear
                raise
            except JobsError:
                # Nothing has left.
                known.unclear = unclear
                raise

        def announce(state: tenacity.RetryCallState) -> None:
            if retry := decision(state):
                log.warning(
                    "%s. Attempt %d in %.0f s, giving up in %.0f s.",
                    retry.reason,
                    state.attempt_number + 1,
                    state.upcoming_sleep,
                    self.policy.retry_budget - (self.clock.monotonic() - started),
                )

        retrying = tenacity.Retrying(
            retry=lambda state: decision(state) is not None,
            wait=wait,
            stop=spent,
            sleep=self.pause,
            before_sleep=announce,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except CallError as error:
            attempts = int(retrying.statistics.get("attempt_number", 1))
            if attempts > 1:
                error.args = (f"{error} (attempt {attempts}, after {self.clock.monotonic() - started:.0f} s)",)
            raise

    def send(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        void: bool = False,
        limit: float = math.inf,
        parse: Callable[[bytes], dict[str, Any]] | None = None,
    ) -> dict[str, Any]:
        """Send a request once and return the reply's JSON object.

        `path` is all after ``/api/`` ("2.2/jobs/runs/get"). `void` says that a success has nothing to tell, so that
        an empty body is one. `limit` shortens the policy's timeouts to so many seconds, signing in included; with none
        left nothing is sent. `parse` reads the body of a success in place of a plain JSON parser, and raises ValueError
        where it cannot. Raises ConfigurationError (nothing sent: body over 10 MB, bad URL), Unreachable,
        UnreadableReply or ApiError; SignInRefused, which is one, and the others with ``sent`` False, where no token
        could be had.
        """
        call = f"{method} {path.partition('/')[2]}"
        data = None if body is None else _encode(call, body)
        params = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        deadline = self.clock.monotonic() + limit

        def left() -> float:
            return deadline - self.clock.monotonic()

        def attempt(auth: AuthBase) -> dict[str, Any]:
            # To read the certificates for a new one takes its time, on a busy machine.
            session = self._session(call)
            if left() < _LEAST_SECONDS:
                raise Unreachable(f"{call}: there was no time left to send it", sent=False)
            request = requests.Request(
                method,
                f"{self.base_url}/api/{path}",
                params=params,
                data=data,
                headers={"Content-Type": "application/json"} if data is not None else {},
                auth=auth,
            )
            try:
                reply = exchange(
                    session,
                    request,
                    call=call,
                    server=self.base_url,
                    connect_seconds=self.policy.connect_timeout,
                    read_seconds=min(self.policy.read_timeout, left()),
                    total_seconds=min(self.policy.connect_timeout + self.policy.read_timeout, left()),
                    on_send=self._before_send,
                )
                self._note_server_clock(reply.header("Date"))
                return json_object(call, reply, query or {}, void=void, parse=parse)
            except Unauthenticated as error:
                if remedy := getattr(auth, "remedy", ""):
                    error.args = (str(error).replace(error.remedy, remedy),)
                raise
            except UnreadableReply:
                # Where one answer was not the right one, the next on this connection may be this one's.
                session.close()
                raise

        if not isinstance(self.auth, TokenAuth):
            return attempt(self.auth)
        token = self.auth.token(left())
        try:
            return attempt(token)
        except (Unauthenticated, PermissionDenied) as error:
            # A refused call has done nothing, so that even a launch may be sent again.
            if not (_tells_of_the_token(error) and self.auth.forget(token)):
                raise
        return attempt(self.auth.token(left()))

    def _before_send(self) -> None:
        """Take note that a request leaves, unless that is not wanted any more."""
        # In this order: for a kill that comes in between it has left.
        if self.attempts:
            self.attempts.unclear = True
        if self.interrupt:
            self.interrupt()

    def server_time(self, reading: float) -> float:
        """Return the time of the server (epoch seconds) at a `reading` of the monotonic clock.

        It comes from the last reply's ``Date``, in whole seconds, so it is early by the fraction of a second and by the
        time that the reply took. If no reply had one, it is this machine's time.
        """
        if self._server_clock is None:
            return self.clock.time() - (self.clock.monotonic() - reading)
        said, when = self._server_clock
        return said - (when - reading)

    def _note_server_clock(self, date: str | None) -> None:
        with suppress(ValueError, OverflowError):
            if date:
                self._server_clock = email.utils.parsedate_to_datetime(date).timestamp(), self.clock.monotonic()

    def close(self) -> None:
        """Close the sessions of all threads; who asks again gets a new one."""
        self._local = threading.local()
        while self._sessions:
            self._sessions.pop().close()

    def drop_connection(self) -> None:
        """Close this thread's connection: what came over it was not what was asked for."""
        if (session := getattr(self._local, "session", None)) is not None:
            session.close()

    def _session(self, call: str) -> requests.Session:
        if self._process != os.getpid():
            # After a fork the connections are the parent's: both would read each other's answers.
            self._process, self._local, self._sessions = os.getpid(), threading.local(), []
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            try:
                session = self._local.session = self._new_session()
            except ConfigurationError as error:
                raise ConfigurationError(f"{call}: {error}") from None
            # list.append is atomic: without a lock, a signal handler never waits for the call that it interrupts.
            self._sessions.append(session)
        return session

    def _new_session(self) -> requests.Session:
        session = self.network.session(self.base_url)
        session.headers["User-Agent"] = user_agent(self.product)
        session.headers["Accept"] = "application/json"
        if self.workspace_id:
            session.headers["X-Databricks-Workspace-Id"] = self.workspace_id
        return session


def _tells_of_the_token(error: ApiError) -> bool:
    """Whether a refusal may be of the token, which the API answers 401, or 403 with no code of its own."""
    return isinstance(error, Unauthenticated) or not error.error_code


def _encode(call: str, body: Mapping[str, Any]) -> bytes:
    try:
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{call}: the payload cannot be written as JSON: {error}") from error
    if len(data) > MAX_REQUEST_BYTES:
        raise ConfigurationError(
            f"{call}: the payload has {len(data)} bytes, and the API takes at most {MAX_REQUEST_BYTES}."
            " Move large values into files that the run reads."
        )
    return data


def _text(value: object) -> str:
    """Write a query value as the API does: lower-case booleans."""
    return str(value).lower() if isinstance(value, bool) else str(value)

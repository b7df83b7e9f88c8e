"""Send a request to the Jobs API, once (`send`) or with retries (`call`). No other module retries a request.

``client.retry`` decides what is retried, and when.
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

# With less time left than this, a request is not sent: no reply would arrive in time, but the server might still carry
# the request out.
_MIN_SECONDS = 0.1


class Attempts:
    """What is known about the attempts of a call in progress; a kill that interrupts the call reads it.

    `unclear` is True if an attempt, also one of an earlier call, was sent and not refused: the server may carry it out.
    """

    unclear = False


class Transport:
    """Sends requests to one workspace with one set of credentials, from any thread (each has a session of its own).

    `base_url` is scheme, host and port, without a path; if several workspaces share it, `workspace_id` selects one.
    `auth` signs each request. If it is an ``auth.tokens.TokenAuth``, it fetches the token within the time left for the
    request, and another token if the API refuses the first.
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
        #: Called before each request and repeatedly during each wait; it ends them by raising an exception.
        self.interrupt: Callable[[], object] = lambda: None
        #: What request bodies contain and errors must not, in addition to the credentials.
        self.secrets: tuple[str, ...] = ()
        #: Records the attempts of calls while it is set.
        self.attempts: Attempts | None = None
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        self._process = os.getpid()
        # The server's time, and the reading of our clock when it arrived. They are one tuple, so that other threads and
        # signal handlers never see one without the other.
        self._server_clock: tuple[float, float] | None = None

    @property
    def identity(self) -> Hashable:
        """Workspace, credentials and network. Transports with equal identities may share a poller."""
        # Auth classes of requests that define equality have no hash: such objects equal only themselves here.
        auth = self.auth if isinstance(self.auth, Hashable) else id(self.auth)
        return self.base_url, self.workspace_id, auth, self.network

    def with_policy(self, policy: RetryPolicy, *, auth: AuthBase | None = None) -> Transport:
        """Return a transport to the same workspace with its own sessions, another policy and possibly another auth."""
        transport = Transport(
            self.base_url,
            auth or self.auth,
            workspace_id=self.workspace_id,
            policy=policy,
            network=self.network,
            product=self.product,
            clock=self.clock,
        )
        transport.secrets = self.secrets
        return transport

    def pause(self, seconds: float) -> None:
        """Sleep, and raise what `interrupt` raises during that time."""
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
        """Send a request, retrying as ``client.retry`` decides, until the API answers or the retry budget is spent.

        `repeatable` is as in ``client.retry.retry_decision``, `void` as in `send`. Raises what `send` raises; the error
        of the last attempt quotes the number of attempts and the time spent.
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
            # Up to a quarter longer, so that tasks whose calls failed together do not all retry at once.
            return retry.wait * random.uniform(1.0, 1.25) if retry else 0.0  # noqa: S311 (jitter is no secret)

        def left() -> float:
            return self.policy.retry_budget - (self.clock.monotonic() - started)

        def attempt() -> dict[str, Any]:
            unclear = known.unclear
            limit = left() if self.policy.ends_with_budget else math.inf
            try:
                return self.send(method, path, query=query, body=body, void=void, limit=limit)
            except CallError as error:
                error.unclear = known.unclear = unclear or error.unclear
                raise
            except JobsError:
                # Nothing was sent.
                known.unclear = unclear
                raise

        def announce(state: tenacity.RetryCallState) -> None:
            if retry := decision(state):
                log.warning(
                    "%s. Attempt %d in %.0f s, giving up in %.0f s.",
                    retry.reason,
                    state.attempt_number + 1,
                    state.upcoming_sleep,
                    left(),
                )

        retrying = tenacity.Retrying(
            retry=lambda state: decision(state) is not None,
            wait=wait,
            stop=lambda state: state.upcoming_sleep > left(),
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
        parse: Callable[[bytes], Any] = json.loads,
    ) -> dict[str, Any]:
        """Send a request once and return the reply's JSON object.

        `path` is what follows ``/api/`` ("2.2/jobs/runs/get"). With `void`, a successful reply may be empty. `limit`
        reduces the policy's timeouts to at most so many seconds in total, including authentication; without time left,
        nothing is sent. `parse` replaces the JSON parser for successful replies; it raises ValueError if it fails.

        Raises ConfigurationError if the request cannot be sent (a body over 10 MB, a wrong URL), else Unreachable,
        UnreadableReply or ApiError. If no token could be fetched, ``sent`` is False in these, and refused credentials
        raise SignInRefused.
        """
        call = f"{method} {path.partition('/')[2]}"
        data = None if body is None else _encode(call, body)
        params = {name: _text(value) for name, value in (query or {}).items() if value is not None}
        deadline = self.clock.monotonic() + limit

        def left() -> float:
            return deadline - self.clock.monotonic()

        def attempt(auth: AuthBase) -> dict[str, Any]:
            # Before the time is checked: reading the certificates for a new session takes time on a busy machine.
            session = self._session(call)
            if left() < _MIN_SECONDS:
                raise Unreachable(f"{call}: no time left to send the request", sent=False)
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
                    secrets=self.secrets,
                    on_send=self._before_send,
                )
                self._note_server_clock(reply.header("Date"))
                return json_object(call, reply, query or body or {}, void=void, parse=parse)
            except Unauthenticated as error:
                if remedy := getattr(auth, "remedy", ""):
                    error.args = (str(error).replace(error.remedy, remedy),)
                raise
            except UnreadableReply:
                # If the reply belongs to another request, the next one on this connection may be the reply to this.
                session.close()
                raise

        if not isinstance(self.auth, TokenAuth):
            return attempt(self.auth)
        token = self.auth.token(left())
        try:
            return attempt(token)
        except (Unauthenticated, PermissionDenied) as error:
            # The API did nothing, so even a launch may be sent again.
            if not (_may_concern_token(error) and self.auth.forget(token)):
                raise
        return attempt(self.auth.token(left()))

    def _before_send(self) -> None:
        """Record that a request is about to be sent, and call `interrupt`, which may prevent it."""
        # In this order: if a kill arrives in between, the request must count as sent.
        if self.attempts:
            self.attempts.unclear = True
        self.interrupt()

    def server_time(self, reading: float) -> float:
        """Return the time of the server (epoch seconds) at a `reading` of the monotonic clock.

        It is derived from the last reply's ``Date`` header, which has whole seconds; so it is early by a fraction of a
        second and by the time that the reply took. If no reply had the header, this machine's time is returned.
        """
        if self._server_clock is None:
            return self.clock.time() - (self.clock.monotonic() - reading)
        server_time, read_at = self._server_clock
        return server_time - (read_at - reading)

    def _note_server_clock(self, date: str | None) -> None:
        with suppress(ValueError, OverflowError):
            if date:
                self._server_clock = email.utils.parsedate_to_datetime(date).timestamp(), self.clock.monotonic()

    def close(self) -> None:
        """Close the sessions of all threads; the next request of a thread opens a new one."""
        self._local = threading.local()
        while self._sessions:
            self._sessions.pop().close()

    def drop_connection(self) -> None:
        """Close this thread's connections, after one delivered the reply to another request."""
        if (session := getattr(self._local, "session", None)) is not None:
            session.close()

    def _session(self, call: str) -> requests.Session:
        if self._process != os.getpid():
            # After a fork the connections belong to the parent: both processes would read each other's replies.
            self._process, self._local, self._sessions = os.getpid(), threading.local(), []
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            try:
                session = self._local.session = self._new_session()
            except ConfigurationError as error:
                raise ConfigurationError(f"{call}: {error}") from None
            # list.append is atomic. With a lock, a signal handler could wait forever for the call that it interrupts.
            self._sessions.append(session)
        return session

    def _new_session(self) -> requests.Session:
        session = self.network.session(self.base_url)
        session.headers["User-Agent"] = user_agent(self.product)
        session.headers["Accept"] = "application/json"
        if self.workspace_id:
            session.headers["X-Databricks-Workspace-Id"] = self.workspace_id
        return session


def _may_concern_token(error: ApiError) -> bool:
    """Return True if the token may have been refused: the API answers 401, or 403 without an error code."""
    return isinstance(error, Unauthenticated) or not error.error_code


def _encode(call: str, body: Mapping[str, Any]) -> bytes:
    try:
        data = json.dumps(body, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"{call}: the payload cannot be encoded as JSON: {error}") from error
    if len(data) > MAX_REQUEST_BYTES:
        raise ConfigurationError(
            f"{call}: the payload has {len(data)} bytes, and the API accepts at most {MAX_REQUEST_BYTES}. The request"
            " was not sent. Move large values into files that the run reads."
        )
    return data


def _text(value: object) -> str:
    """Write a query value as the API does: lower-case booleans."""
    return str(value).lower() if isinstance(value, bool) else str(value)

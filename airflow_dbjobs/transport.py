"""One HTTP request to the Jobs API, or a request with its retries, as the caller asks. The only place that retries.

What is retried, and when, is decided in ``retries``.
"""

from __future__ import annotations

import email.utils
import json
import logging
import math
import platform
import random
import threading
import time
from collections.abc import Hashable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import requests
import tenacity
from requests.adapters import BaseAdapter, HTTPAdapter
from urllib3.exceptions import LocationParseError, NameResolutionError, NewConnectionError

from airflow_dbjobs import __version__
from airflow_dbjobs.errors import (
    ApiError,
    CallError,
    ConfigurationError,
    Unreachable,
    UnreadableReply,
    UntrustedCertificate,
    api_error,
)
from airflow_dbjobs.payloads.body import MAX_REQUEST_BYTES
from airflow_dbjobs.retries import Retry, RetryPolicy, retry_decision

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from requests.auth import AuthBase

log = logging.getLogger(__name__)


def user_agent(product: str = "") -> str:
    """Return the User-Agent: space-separated ``key/value`` pairs, as the platform asks of partners."""
    parts = (
        f"airflow-provider-dbjobs/{__version__}",
        f"python/{platform.python_version()}",
        f"os/{platform.system().lower()}",
        product,
    )
    return " ".join(part for part in parts if part)


def new_adapter() -> BaseAdapter:
    """Return what a session sends its requests through; tests put a workspace in this process here."""
    return HTTPAdapter(pool_connections=1, pool_maxsize=1)


class Transport:
    """Sends requests to one workspace with one set of credentials, from any thread (each has a session of its own).

    `base_url` is scheme, host and port, with no path. `clock` (monotonic seconds) and `sleep` are injectable, so that
    an outage of minutes is tested in milliseconds. `verify` is as in requests: True, False, or the path of a CA
    bundle.
    """

    def __init__(
        self,
        base_url: str,
        auth: AuthBase,
        *,
        policy: RetryPolicy | None = None,
        verify: bool | str = True,
        product: str = "",
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.auth = auth
        self.policy = policy or RetryPolicy()
        self.verify = verify
        self.product = product
        self.clock = clock
        self.sleep = sleep
        self._local = threading.local()
        self._sessions: list[requests.Session] = []
        # The server's clock at a reading of ours. One assignment: threads, and a signal handler, see both or neither.
        self._server_clock: tuple[float, float] | None = None

    @property
    def identity(self) -> Hashable:
        """What makes two transports interchangeable for a poller: the workspace, the credentials, the trust in it."""
        # Some schemes of requests define equality and so no hash: those are the same only as one object.
        auth = self.auth if isinstance(self.auth, Hashable) else id(self.auth)
        return self.base_url, auth, self.verify

    def with_policy(self, policy: RetryPolicy) -> Transport:
        """Return a transport to the same workspace with other limits, sharing no session and no lock with this one."""
        return Transport(
            self.base_url,
            self.auth,
            policy=policy,
            verify=self.verify,
            product=self.product,
            clock=self.clock,
            sleep=self.sleep,
        )

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
        """Send a request, and again as ``retries`` says, until it is answered or the budget is spent.

        Raises what `send` raises; the error of the last attempt says how often and how long it was tried.
        """
        started = self.clock()
        # Whether an attempt may have been carried out, although nobody said so.
        unclear = False

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
            return self.clock() - started + state.upcoming_sleep > self.policy.retry_budget

        def attempt() -> dict[str, Any]:
            nonlocal unclear
            left = self.policy.retry_budget - (self.clock() - started)
            try:
                return self.send(method, path, query=query, body=body, void=void, limit=left)
            except CallError as error:
                error.unclear = unclear = unclear or error.unclear
                raise

        def announce(state: tenacity.RetryCallState) -> None:
            if retry := decision(state):
                log.warning(
                    "%s. Attempt %d in %.0f s, giving up in %.0f s.",
                    retry.reason,
                    state.attempt_number + 1,
                    state.upcoming_sleep,
                    self.policy.retry_budget - (self.clock() - started),
                )

        retrying = tenacity.Retrying(
            retry=lambda state: decision(state) is not None,
            wait=wait,
            stop=spent,
            sleep=self.sleep,
            before_sleep=announce,
            reraise=True,
        )
        try:
            return retrying(attempt)
        except CallError as error:
            attempts = int(retrying.statistics.get("attempt_number", 1))
            if attempts > 1:
                error.args = (f"{error} (attempt {attempts}, after {self.clock() - started:.0f} s)",)
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
        an empty body is one. `limit` shortens the policy's timeouts to so many seconds. `parse` reads the body of a
        success in place of a plain JSON parser, and raises ValueError where it cannot. Raises ConfigurationError
        (nothing sent: body over 10 MB, bad URL), Unreachable, UnreadableReply or ApiError.
        """
        # requests takes no timeout of 0 or less.
        limit = max(limit, 0.1)
        timeout = min(self.policy.connect_timeout, limit), min(self.policy.read_timeout, limit)
        call = f"{method} {path.partition('/')[2]}"
        data = None if body is None else _encode(call, body)
        try:
            response = self._session().request(
                method,
                f"{self.base_url}/api/{path}",
                params={name: _text(value) for name, value in (query or {}).items() if value is not None},
                data=data,
                headers={"Content-Type": "application/json"} if data is not None else None,
                auth=self.auth,
                timeout=timeout,
                # No endpoint redirects: a redirect leads to a login page, and credentials must not follow it.
                allow_redirects=False,
            )
        # requests' own errors are OSErrors, and so is that of a CA bundle which is not there. It lets the others out: a
        # host name with an empty label ("adb..net"), or no host at all ("http://[").
        except (OSError, LocationParseError, ValueError) as error:
            raise self._no_reply(call, error, timeout[1]) from error
        self._note_server_clock(response.headers.get("Date"))
        return _read(call, response, void=void, parse=parse)

    def server_time(self, reading: float) -> float:
        """Return what the server's clock said (epoch seconds) when `clock` read `reading`.

        It is told by the last reply's ``Date``, in whole seconds, and so is early by the second's fraction and by the
        time that the reply took; where no reply had one, this machine's clock stands in.
        """
        if self._server_clock is None:
            return time.time() - (self.clock() - reading)
        said, when = self._server_clock
        return said - (when - reading)

    def _note_server_clock(self, date: str | None) -> None:
        with suppress(ValueError, OverflowError):
            if date:
                self._server_clock = email.utils.parsedate_to_datetime(date).timestamp(), self.clock()

    def close(self) -> None:
        """Close the sessions of all threads; who asks again gets a new one."""
        self._local = threading.local()
        while self._sessions:
            self._sessions.pop().close()

    def _session(self) -> requests.Session:
        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            # What the environment says (proxies, a CA bundle) is read once: for each request it would take a third of
            # its time, and all go to one host.
            environment = session.merge_environment_settings(self.base_url, {}, None, self.verify, None)
            session.proxies, session.verify, session.trust_env = environment["proxies"], environment["verify"], False
            session.mount(self.base_url, new_adapter())
            session.headers["User-Agent"] = user_agent(self.product)
            session.headers["Accept"] = "application/json"
            # list.append is atomic: no lock, so that a signal handler can never wait for one held by the call it
            # broke into.
            self._sessions.append(session)
        return session

    def _no_reply(self, call: str, error: Exception, read_timeout: float) -> Exception:
        """Return our error for a request that got no whole reply."""
        # That is how requests tells of a CA bundle that is not there.
        if isinstance(error, requests.exceptions.SSLError) or type(error) is OSError:
            return self._no_tls(call, error)
        if isinstance(error, requests.exceptions.ChunkedEncodingError | requests.exceptions.ContentDecodingError):
            return UnreadableReply(f"{call}: the reply of {self.base_url} was cut short or garbled")
        if isinstance(error, requests.ConnectTimeout):
            return Unreachable(f"{call}: {self.base_url} did not accept a connection in time", sent=False)
        if isinstance(error, requests.Timeout):
            return Unreachable(f"{call}: {self.base_url} did not answer within {read_timeout:.3g} s")
        is_bare = isinstance(error, OSError) and not isinstance(error, requests.RequestException)
        if isinstance(error, requests.ConnectionError) or is_bare:
            why, sent = _connection_failure(error)
            return Unreachable(
                f"{call}: cannot reach {self.base_url}: {why}. Check the connection's host and port", sent=sent
            )
        # What is left is about the request itself: a URL or a header that cannot be sent. Its text may quote a header.
        return ConfigurationError(f"{call}: {self.base_url} is not a URL that can be called: {type(error).__name__}")

    def _no_tls(self, call: str, error: Exception) -> Exception:
        if not isinstance(error, requests.exceptions.SSLError):
            return UntrustedCertificate(
                f"{call}: nothing to trust {self.base_url} by: {error}. Check `verify` in the connection's extra, and"
                " REQUESTS_CA_BUNDLE.",
                sent=False,
            )
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            return UntrustedCertificate(
                f"{call}: the certificate of {self.base_url} is not trusted. Check the connection's host, or give the"
                " path of a CA bundle as `verify` in its extra.",
                sent=False,
            )
        # It may have broken after the request was read, and nothing tells.
        why = "no secure connection. Check the connection's schema (https or http) and port"
        return Unreachable(f"{call}: {self.base_url}: {why}")


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


def _connection_failure(error: Exception) -> tuple[str, bool]:
    """Return why there was no connection, or why it broke, and whether the request may have reached the server."""
    cause: object = error.args[0] if error.args and isinstance(error, requests.RequestException) else error
    reason = getattr(cause, "reason", cause)
    if isinstance(reason, NameResolutionError):
        return "its name does not resolve", False
    if isinstance(reason, NewConnectionError):
        return str(reason).rpartition(": ")[2], False
    return f"the connection broke ({type(reason).__name__})", True


def _read(
    call: str, response: requests.Response, *, void: bool, parse: Callable[[bytes], dict[str, Any]] | None
) -> dict[str, Any]:
    """Return the JSON object of a reply. Raises ApiError or UnreadableReply."""
    if response.is_redirect:
        raise ApiError(
            call,
            response.status_code,
            message=f"a redirect to {response.headers['Location']}. Is the connection's host the workspace's URL?",
        )
    success = response.status_code in range(200, 300)
    if success and void and not response.content.strip():
        return {}
    try:
        body = parse(response.content) if success and parse else response.json()
    # A JSONDecodeError is one, and so is pydantic's ValidationError.
    except ValueError:
        body = None
    if success:
        if isinstance(body, dict):
            return body
        kind = response.headers.get("Content-Type", "no content type")
        raise UnreadableReply(
            f"{call} answered {response.status_code} without a JSON object ({kind}): {_start(response)}"
        )
    if not isinstance(body, dict):
        body = {"message": f"{response.reason or ''} {_start(response)}".strip()}
    raise api_error(call, response.status_code, body, response.headers)


def _start(response: requests.Response) -> str:
    """Return the start of a reply's text on one line: enough to tell a proxy's page from a login page."""
    return " ".join(response.text.split())[:200] or "an empty body"

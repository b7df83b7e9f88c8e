"""HTTP requests for tokens: one attempt each, in the time that is left.

``transport`` retries the API call that needs the token. It handles a failing token server like a failing API, except
that the call was not sent, and credentials that the token server refuses like those that the API refuses.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import requests

from airflow_dbjobs.client.exchange import Reply, exchange
from airflow_dbjobs.client.session import HOST_REMEDY, Network, user_agent
from airflow_dbjobs.errors import (
    CallError,
    ServerError,
    SignInRefused,
    TooManyRequests,
    UnreadableReply,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from requests.auth import AuthBase

    from airflow_dbjobs.client.clock import Clock

_CONNECT_SECONDS = 10.0
# A legitimate reply has a few kilobytes.
_MAX_BYTES = 1_000_000
# AWS answers 400 with these codes instead of 429.
LIMIT_CODES = frozenset({"Throttling", "ThrottlingException", "RequestLimitExceeded"})


@dataclass(frozen=True)
class TokenRequests:
    """Sends the requests for one token, all of them before `deadline` (monotonic seconds)."""

    deadline: float
    clock: Clock

    @property
    def left(self) -> float:
        """The seconds that are left, at least 0.1: requests does not accept a timeout of 0."""
        return max(self.deadline - self.clock.monotonic(), 0.1)

    def json(self, method: str, url: str, network: Network, **options: Any) -> dict[str, Any]:
        """Send a request as `text` does, and return the reply's JSON object."""
        reply = self._reply(method, url, network, **options)
        body = reply.json_object()
        if body is None:
            # An HTML page may be quoted; incomplete JSON may contain a token.
            page = f": {reply.start}" if reply.text.lstrip().startswith("<") else ""
            raise unreadable(_call(method, url), f"no JSON object{page}")
        return body

    def text(self, method: str, url: str, network: Network, **options: Any) -> str:
        """Send a request once and return the reply's text.

        `remedy` says what to check if the server refuses the request, `reach_remedy` if it does not respond; errors
        quote no `secrets`. Raises SignInRefused or, if the request may succeed later, another CallError;
        ConfigurationError if the URL is wrong.
        """
        return self._reply(method, url, network, **options).text

    def _reply(
        self,
        method: str,
        url: str,
        network: Network,
        *,
        form: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | bytes | None = None,
        headers: Mapping[str, str] | None = None,
        auth: AuthBase | None = None,
        secrets: Iterable[str] = (),
        remedy: str,
        reach_remedy: str = HOST_REMEDY,
    ) -> Reply:
        call = _call(method, url)
        request = requests.Request(
            method,
            url,
            data=form if form is not None else body if isinstance(body, bytes) else None,
            json=body if not isinstance(body, bytes) else None,
            headers={"User-Agent": user_agent(), "Accept": "application/json", **(headers or {})},
            auth=auth,
        )
        with network.session(url) as session:
            reply = exchange(
                session,
                request,
                call=call,
                server=_server(url),
                connect_seconds=_CONNECT_SECONDS,
                read_seconds=self.left,
                total_seconds=self.left,
                remedy=reach_remedy,
                secrets=secrets,
                max_bytes=_MAX_BYTES,
            )
        if not reply.is_success:
            raise _refusal(call, reply, remedy)
        return reply


def unreadable(call: str, why: str) -> CallError:
    """Return the error for a successful reply without a token; `why` must not quote a possible token."""
    return UnreadableReply(f"{call} answered with {why}")


def _refusal(call: str, reply: Reply, remedy: str) -> CallError:
    status, retry_after = reply.status, reply.header("Retry-After")
    # Remove secrets after parsing: JSON or XML may escape them.
    code, message = (reply.shown(part)[:500] for part in _code_and_message(reply))
    message = message or reply.reason
    if reply.is_redirect:
        return SignInRefused(f"{call} answered {status}, a redirect, which is not followed. {remedy}", status=status)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return ServerError(call, status, code, message, retry_after=retry_after)
    if status == HTTPStatus.TOO_MANY_REQUESTS or code in LIMIT_CODES:
        return TooManyRequests(call, status, code, message, retry_after=retry_after)
    if status < HTTPStatus.OK:
        return unreadable(call, f"{status}, which is not a final status")
    details = ": ".join(part for part in (code, message) if part)
    return SignInRefused(f"{call} answered {status}: {details.rstrip('.')}. {remedy}", status=status, error_code=code)


def _code_and_message(reply: Reply) -> tuple[str, str]:
    """Return the code and the message of a refusal, in any of the formats of token servers."""
    body, text = reply.json_object(), reply.text
    if body is None:
        # AWS answers in XML.
        in_xml = [re.search(rf"<{name}>([^<]*)</{name}>", text) for name in ("Code", "Message")]
        if in_xml[0] and in_xml[1]:
            return in_xml[0][1], html.unescape(in_xml[1][1])
        return "", text.strip()
    code = body.get("error") or body.get("errorCode") or body.get("error_code") or body.get("reason") or ""
    message = body.get("error_description") or body.get("errorSummary") or body.get("message") or ""
    return str(code), " ".join(str(message).split())


def _call(method: str, url: str) -> str:
    """Name a request without its query."""
    return f"{method} {url.partition('?')[0]}"


def _server(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url
    return f"{parts.scheme}://{parts.netloc}"

"""Send one HTTP request and read its whole reply, in bounded time and size. No other module sends requests.

This module decides whether a request without a reply was sent, and which parts of a reply may be shown.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import json
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from requests.hooks import dispatch_hook
from requests.utils import get_auth_from_url
from urllib3.exceptions import HTTPError

from airflow_dbjobs.client.http_connection import CallTimer, TimedAdapter
from airflow_dbjobs.client.sanitize import one_line, scrubbed
from airflow_dbjobs.client.session import HOST_REMEDY, no_reply_error
from airflow_dbjobs.errors import UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import requests

# The largest legitimate reply, the exported views of a run, has 10 MB. The limit applies to the decompressed body.
MAX_REPLY_BYTES = 100_000_000
# Longer messages are truncated.
_MAX_TEXT_LENGTH = 4000
_CHUNK = 65536
# A text is cut to this length before secrets are removed from it, and to the length that is shown only afterwards: the
# first half of a secret would not be recognized.
_MAX_INSPECTED = 100_000
_SECRET_HEADER = re.compile("authorization|cookie|key|secret|signature|token", re.IGNORECASE)
_GZIP_WINDOW_BITS = 16 + zlib.MAX_WBITS
# What the libraries raise if they cannot send a request or read a reply.
_LIBRARY_ERRORS = (OSError, ValueError, HTTPError, http.client.HTTPException, LookupError, ArithmeticError, zlib.error)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. `body` is for parsers only; `shown`, `header` and `start` return text that may be shown."""

    status: int
    body: bytes = field(repr=False)
    _reason: str = field(repr=False)
    _headers: Mapping[str, str] = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    @property
    def is_success(self) -> bool:
        """True if the status is 2xx."""
        return self.status in range(200, 300)

    @property
    def is_redirect(self) -> bool:
        """True if the server redirects to another URL."""
        return self.status in range(300, 400) and "Location" in self._headers

    @property
    def reason(self) -> str:
        """The reason phrase, safe to show."""
        return self.shown(self._reason)

    @property
    def text(self) -> str:
        """The body as text, not safe to show."""
        return self.body.decode(errors="replace")

    def json_object(self, parse: Callable[[bytes], Any] = json.loads) -> dict[str, Any] | None:
        """Return the body as a JSON object, not safe to show; None if it is not one."""
        try:
            parsed = parse(self.body)
        # JSONDecodeError is a ValueError; deeply nested JSON raises RecursionError.
        except (ValueError, RecursionError):
            return None
        return parsed if isinstance(parsed, dict) else None

    @property
    def start(self) -> str:
        """The start of the body on one line: enough to distinguish a proxy's error page from a login page."""
        return self.shown(self.body[:_MAX_INSPECTED].decode(errors="replace"))[:200] or "an empty body"

    def header(self, name: str) -> str | None:
        """Return a header, safe to show."""
        value = self._headers.get(name)
        return None if value is None else self.shown(str(value))

    def shown(self, text: str) -> str:
        """Return a text from this reply on one line, without the request's credentials, which some servers echo."""
        return scrubbed(one_line(text[:_MAX_INSPECTED]), self._secrets)[:_MAX_TEXT_LENGTH]

    def shown_json(self, value: Any) -> Any:
        """Return JSON from this reply with `shown` applied to every text in it."""
        if isinstance(value, str):
            return self.shown(value)
        if isinstance(value, list):
            return [self.shown_json(item) for item in value]
        if isinstance(value, dict):
            return {self.shown(name): self.shown_json(item) for name, item in value.items()}
        return value


def exchange(
    session: requests.Session,
    request: requests.Request,
    *,
    call: str,
    server: str,
    connect_seconds: float,
    read_seconds: float,
    total_seconds: float,
    remedy: str = HOST_REMEDY,
    secrets: Iterable[str] = (),
    max_bytes: int = 0,
    on_send: Callable[[], object] = lambda: None,
) -> Reply:
    """Send a request once and return its whole reply, following no redirect.

    Errors quote `call` and `server`, and `remedy`, which says what to check if the server cannot be reached. The reply
    must arrive within `read_seconds` after the request was sent; connecting, sending and reading may take
    `total_seconds` together. Errors and `Reply.shown` contain neither `secrets` nor the request's credentials.
    `on_send` is called immediately before the request is sent, and prevents that by raising. Raises ConfigurationError
    if the request cannot be sent, what `on_send` raises, or CallError.
    """
    timer = CallTimer()
    known_secrets = tuple(secrets)
    try:
        prepared = session.prepare_request(request)
        # Only gzip, which `_decoded_chunks` can decompress with a size limit.
        prepared.headers["Accept-Encoding"] = "gzip"
        known_secrets = (*known_secrets, *_secrets_of(prepared, session.proxies))
        adapter = session.get_adapter(prepared.url or "")
        options: dict[str, Any] = {
            "stream": True,
            "timeout": (min(connect_seconds, total_seconds), read_seconds),
            "verify": session.verify,
            "cert": session.cert,
            "proxies": session.proxies,
        }
        timer = adapter.timer if isinstance(adapter, TimedAdapter) else timer
        timer.begin(read_seconds, total_seconds, on_send)
        if not isinstance(adapter, TimedAdapter):
            # That of a local workspace in this process does not report when it gets the request.
            timer.mark_sent()
        response = adapter.send(prepared, **options)
        try:
            # Some authentication schemes (digest, for example) sign only after they have seen a reply.
            response = dispatch_hook("response", prepared.hooks, response, **options)  # type: ignore[no-untyped-call]
            body = b"".join(_decoded_chunks(response, max_bytes or MAX_REPLY_BYTES, call, server))
        except BaseException:
            response.close()
            raise
    except _LIBRARY_ERRORS as error:
        failure = no_reply_error(
            call, server, error, read_seconds, sent=timer.sent, deadline=timer.deadline, remedy=remedy
        )
        failure.args = (scrubbed(one_line(str(failure)), known_secrets),)
    else:
        return Reply(response.status_code, body, str(response.reason or ""), response.headers, known_secrets)
    # Raised outside of the except clause, without the library's error as context: that may quote a header or a URL, and
    # with it a secret.
    raise failure


def _decoded_chunks(response: requests.Response, max_bytes: int, call: str, server: str) -> Iterator[bytes]:
    """Yield the decompressed body in chunks. Raises UnreadableReply if it has more than `max_bytes`."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in {"", "identity", "gzip", "x-gzip"}:
        # requests could decompress some other encodings, but not with a size limit.
        raise UnreadableReply(f"{call}: the reply of {server} has a Content-Encoding that was not requested (not gzip)")
    decompressor = zlib.decompressobj(_GZIP_WINDOW_BITS) if "gzip" in encoding else None
    size, is_whole = 0, True
    while data := response.raw.read(_CHUNK):
        if decompressor:
            data = decompressor.decompress(data, max_bytes - size + 1)
            is_whole = decompressor.eof
        size += len(data)
        if size > max_bytes:
            raise UnreadableReply(
                f"{call}: the reply of {server} is larger than {max_bytes // 1_000_000} MB, and was not read further"
            )
        yield data
    if not is_whole:
        raise UnreadableReply(f"{call}: the reply of {server} was cut short or garbled")


def _secrets_of(request: requests.PreparedRequest, proxies: Mapping[str, str]) -> Iterator[str]:
    """Yield the credentials in a request's headers and in the proxies' URLs, also the passwords within them."""
    for name, value in request.headers.items():
        if _SECRET_HEADER.search(name):
            text = str(value)
            scheme, _, credentials = text.strip().rpartition(" ")
            yield credentials.removeprefix("Signature=")
            if scheme.lower() == "basic":
                yield from _passwords_in(credentials)
    for url in proxies.values():
        if auth := get_auth_from_url(str(url)):
            yield str(auth[1])
            yield base64.b64encode(":".join(str(part) for part in auth).encode()).decode()


def _passwords_in(credentials: str) -> Iterator[str]:
    try:
        pair = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return
    for coding in ("utf-8", "latin-1"):
        yield pair.decode(coding, errors="replace").partition(":")[2]

"""One HTTP request and its whole reply, in bounded time and size: the only place that sends one.

It decides whether a request that got no reply was sent, and what may be shown of a reply.
"""

from __future__ import annotations

import base64
import binascii
import http.client
import re
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from requests.hooks import dispatch_hook
from requests.utils import get_auth_from_url
from urllib3.exceptions import HTTPError

from airflow_dbjobs.client.http_connection import TimedAdapter, Wire
from airflow_dbjobs.client.sanitize import one_line, scrubbed
from airflow_dbjobs.client.session import HOST_REMEDY, no_reply
from airflow_dbjobs.errors import UnreadableReply

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import requests

# The largest honest reply, the exported views of a run, has 10 MB. What a reply holds once it is unpacked counts.
MAX_REPLY_BYTES = 100_000_000
# A message that is longer tells nobody more.
LONGEST_TEXT = 4000
_CHUNK = 65536
# Of a reply so much is looked at for what may be shown of it: cutting comes after scrubbing.
_LOOKED_AT = 100_000
_SECRET_HEADER = re.compile("authorization|cookie|key|secret|signature|token", re.IGNORECASE)
_UNPACKS_GZIP = 16 + zlib.MAX_WBITS
# What the libraries raise of a request that cannot be sent, or of a reply that they cannot read.
_LIBRARY_ERRORS = (OSError, ValueError, HTTPError, http.client.HTTPException, LookupError, ArithmeticError, zlib.error)


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole reply. Its `body` is for parsers; whatever is shown of it comes from `shown`, `header` and `start`."""

    status: int
    body: bytes = field(repr=False)
    _reason: str = field(repr=False)
    _headers: Mapping[str, str] = field(repr=False)
    _secrets: tuple[str, ...] = field(repr=False)

    @property
    def is_success(self) -> bool:
        """Whether the status is one of the 2xx."""
        return self.status in range(200, 300)

    @property
    def is_redirect(self) -> bool:
        """Whether it leads elsewhere."""
        return self.status in range(300, 400) and "Location" in self._headers

    @property
    def reason(self) -> str:
        """The reason phrase, fit to be shown."""
        return self.shown(self._reason)

    @property
    def text(self) -> str:
        """The body as text, as it came."""
        return self.body.decode(errors="replace")

    @property
    def start(self) -> str:
        """The start of the body on one line: enough to tell a proxy's page from a login page."""
        return self.shown(self.body[:_LOOKED_AT].decode(errors="replace"))[:200] or "an empty body"

    def header(self, name: str) -> str | None:
        """Return a header, fit to be shown."""
        value = self._headers.get(name)
        return None if value is None else self.shown(str(value))

    def shown(self, text: str) -> str:
        """Return a text of this reply on one line, without the credentials of its request: some servers repeat them."""
        return scrubbed(one_line(text[:_LOOKED_AT]), self._secrets)[:LONGEST_TEXT]

    def shown_json(self, value: Any) -> Any:
        """Return JSON of this reply with all texts in it `shown`."""
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
    most_bytes: int = 0,
    leaving: Callable[[], object] = lambda: None,
) -> Reply:
    """Send a request once and return its whole reply, following no redirect.

    `call` and `server` name both in errors, and `remedy` says what to check where the server is not reached. A reply
    may take `read_seconds` from when the request was sent, all together `total_seconds`. `secrets` are cut out of what
    is shown, and so are the request's credentials. `leaving` is called just before the request leaves. Raises
    ConfigurationError where it cannot be sent, what `leaving` raises, else CallError.
    """
    wire: Wire | None = None
    known = tuple(secrets)
    try:
        prepared = session.prepare_request(request)
        # What packs a reply otherwise has limits of its own, or none.
        prepared.headers["Accept-Encoding"] = "gzip"
        known = (*known, *_secrets_of(prepared, session.proxies))
        adapter = session.get_adapter(prepared.url or "")
        options: dict[str, Any] = {
            "stream": True,
            "timeout": (min(connect_seconds, total_seconds), read_seconds),
            "verify": session.verify,
            "cert": session.cert,
            "proxies": session.proxies,
        }
        # Of another adapter than ours nobody tells when the request leaves.
        wire = adapter.wire if isinstance(adapter, TimedAdapter) else Wire(tells=False)
        wire.begin(read_seconds, total_seconds, leaving)
        response = adapter.send(prepared, **options)
        try:
            # Some schemes of requests sign only once they have seen an answer.
            response = dispatch_hook("response", prepared.hooks, response, **options)  # type: ignore[no-untyped-call]
            body = b"".join(_unpacked(response, most_bytes or MAX_REPLY_BYTES, call, server))
        except BaseException:
            response.close()
            raise
    except _LIBRARY_ERRORS as error:
        failure = no_reply(call, server, error, read_seconds, sent=wire is not None and wire.sent, remedy=remedy)
        failure.args = (scrubbed(one_line(str(failure)), known),)
    else:
        return Reply(response.status_code, body, str(response.reason or ""), response.headers, known)
    # Not in the except clause: the library's error may quote a header or a URL, and so a secret.
    raise failure


def _unpacked(response: requests.Response, most: int, call: str, server: str) -> Iterator[bytes]:
    """Yield the pieces of a body as they come. Raises UnreadableReply where there are more than `most` bytes."""
    packing = response.headers.get("Content-Encoding", "identity").strip().lower()
    if packing not in {"", "identity", "gzip", "x-gzip"}:
        # It was not asked for, and each such library has limits of its own, or none.
        raise UnreadableReply(f"{call}: the reply of {server} is packed in a way that was not asked for")
    unpacker = zlib.decompressobj(_UNPACKS_GZIP) if "gzip" in packing else None
    size, is_whole = 0, True
    while data := response.raw.read(_CHUNK):
        if unpacker:
            data = unpacker.decompress(data, most - size + 1)
            is_whole = unpacker.eof
        size += len(data)
        if size > most:
            raise UnreadableReply(
                f"{call}: the reply of {server} is larger than {most // 1_000_000} MB, and was not read further"
            )
        yield data
    if not is_whole:
        raise UnreadableReply(f"{call}: the reply of {server} was cut short or garbled")


def _secrets_of(request: requests.PreparedRequest, proxies: Mapping[str, str]) -> Iterator[str]:
    """Yield the credentials that a request, and the proxy's part of it, carry, in whole and in their parts."""
    for name, value in request.headers.items():
        if _SECRET_HEADER.search(name):
            text = str(value)
            scheme, _, credentials = text.strip().rpartition(" ")
            yield credentials.removeprefix("Signature=")
            if scheme.lower() == "basic":
                yield from _parts_of(credentials)
    for url in proxies.values():
        if auth := get_auth_from_url(str(url)):
            yield str(auth[1])
            yield base64.b64encode(":".join(str(part) for part in auth).encode()).decode()


def _parts_of(credentials: str) -> Iterator[str]:
    try:
        pair = base64.b64decode(credentials, validate=True)
    except (binascii.Error, ValueError):
        return
    for coding in ("utf-8", "latin-1"):
        yield pair.decode(coding, errors="replace").partition(":")[2]

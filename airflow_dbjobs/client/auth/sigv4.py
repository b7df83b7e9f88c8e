"""Signature Version 4, by which AWS knows who sends a request; as much of it as a form that is posted needs.

Source: AWS, "Signature Version 4 signing process".
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from datetime import UTC, datetime
from urllib.parse import urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class AwsKeys:
    """An access key; `session_token` is "" where it is not a temporary one."""

    access_key: str
    secret_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


def signed_headers(url: str, body: bytes, keys: AwsKeys, *, region: str, service: str, now: float) -> dict[str, str]:
    """Return the headers of a POST of a form to `url`, which has no query, at `now` (epoch seconds)."""
    time = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    headers = {"content-type": _FORM, "host": parts.netloc, "x-amz-date": time}
    if keys.session_token:
        headers["x-amz-security-token"] = keys.session_token
    names = ";".join(sorted(headers))
    canonical = "\n".join([
        "POST",
        parts.path or "/",
        "",
        *(f"{name}:{headers[name]}" for name in sorted(headers)),
        "",
        names,
        hashlib.sha256(body).hexdigest(),
    ])  # fmt: skip
    scope = f"{time[:8]}/{region}/{service}/aws4_request"
    text = "\n".join([_ALGORITHM, time, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{keys.secret_key}".encode()
    for part in scope.split("/"):
        key = _hmac(key, part).digest()
    signature = _hmac(key, text).hexdigest()
    credential = f"{keys.access_key}/{scope}"
    headers["Authorization"] = f"{_ALGORITHM} Credential={credential}, SignedHeaders={names}, Signature={signature}"
    return headers


def _hmac(key: bytes, text: str) -> hmac.HMAC:
    return hmac.new(key, text.encode(), hashlib.sha256)

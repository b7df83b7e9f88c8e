"""The frame of every page: head, style, the script of pages that change, and the headers that keep others out."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Final

from airflow_dbjobs.local_workspace.messages import Reply

from .markup import text

_STYLE: Final = Path(__file__).with_name("pages.css").read_text(encoding="utf-8")
_SCRIPT: Final = Path(__file__).with_name("live.js").read_text(encoding="utf-8")
_SCRIPT_HASH: Final = base64.b64encode(hashlib.sha256(_SCRIPT.encode()).digest()).decode()
#: Without scripts, pages that are expected to change load themselves again.
_RELOAD: Final = '<noscript><meta http-equiv="refresh" content="2"></noscript>'
_LOST: Final = (
    '<p id="lost" role="status" hidden>The server does not answer, so this page may be out of date. '
    "It keeps trying.</p>"
)
_HEADERS: Final = {
    "Cache-Control": "no-store",
    # No page links to another site; if one did, the key would not be sent there.
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
#: Everything is escaped; if something were not, it still could not run or load anything.
_POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "


def document(
    title: str,
    body: str,
    *,
    heading: str = "",
    trail: str = "",
    status: int = 200,
    live: bool = False,
    active: bool = False,
) -> Reply:
    """Return a page.

    :param title: The title in plain text.
    :param heading: The title as HTML, if it is not the same.
    :param trail: The links to what this page is a part of, as HTML.
    :param live: Whether the page's script keeps it up to date.
    :param active: Whether something is running, so that the page also reloads without scripts.
    """
    script = f"<script>{_SCRIPT}</script>" if live else ""
    trail = f'<nav aria-label="Breadcrumb">{trail}</nav>' if trail else ""
    markup = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{_RELOAD if live and active else ""}'
        f'<meta name="viewport" content="width=device-width"><title>{text(title)}</title><style>{_STYLE}</style></head>'
        f"<body>{_LOST if live else ''}<main{' data-live' if live else ''}>{trail}<h1>{heading or text(title)}</h1>"
        f"{body}</main>{script}</body></html>"
    )
    policy = f"{_POLICY}style-src 'unsafe-inline'"
    if live:
        policy += f"; script-src 'sha256-{_SCRIPT_HASH}'; connect-src 'self'"
    headers = {**_HEADERS, "Content-Type": "text/html; charset=utf-8", "Content-Security-Policy": policy}
    return Reply(status, markup.encode(errors="replace"), headers)


def plain(content: str) -> Reply:
    """Return plain text."""
    headers = {**_HEADERS, "Content-Type": "text/plain; charset=utf-8", "Content-Security-Policy": _POLICY.rstrip("; ")}
    return Reply(200, content.encode(errors="replace"), headers)

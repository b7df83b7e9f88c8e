"""What a run printed or raised, made fit for a task's log: no terminal's control, no secrets, not too long."""

from __future__ import annotations

import re

LONGEST_LINE = 1000

# Colours, other control sequences and hyperlinks of a terminal.
_ANSI_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# Whatever else steers a terminal, breaks a line in some viewers, or turns the direction of what is read.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_NAMES_OF_SECRETS = "password|passwd|secret|(?:access|account|api|auth|refresh)[_-]?(?:key|token)"
# Secrets that are known by their shape; the value is the last group. Airflow masks those of its connections itself.
_SECRETS = tuple(
    re.compile(shape, re.IGNORECASE)
    for shape in (
        r"\b((?:dapi|dkea|dose)[0-9a-f]{32}(?:-\d+)?)",
        r"\b(eyJ[\w-]{10,}\.eyJ[\w-]{10,}\.[\w-]+)",
        r"\b((?:AKIA|ASIA)[0-9A-Z]{16})\b",
        r"\bBearer\s+([\w.~+/=-]{16,})",
        r"\bAuthorization[\"']?\s*[=:]\s*[\"']?(?:Basic|Bearer)\s+([\w.~+/=-]{4,})",
        r"[?&](?:sig|X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature)=([^&\s\"']+)",
        rf"(?:{_NAMES_OF_SECRETS})[\"']?\s*[=:]\s*[\"']?([^\s\"',;&}}]{{4,}})",
        r"://[^/\s:@]+:([^/\s@]+)@",
    )
)


def cleaned(text: str) -> str:
    """Return a text without control sequences and characters, and with ``***`` for what looks like a secret.

    Of a line that was written over again and again, as progress bars are, what stood there last is kept.
    """
    text = _ANSI_ESCAPE.sub("", text)
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
    text = "\n".join(_CONTROL.sub("", line) for line in lines)
    for shape in _SECRETS:
        text = shape.sub(_masked, text)
    return text


def tail(text: str, lines: int) -> list[str]:
    """Return the last lines of a text, cleaned; a first "…" stands for those before."""
    # More than fits into so many lines need not be looked at: a log may have 5 MB.
    most = 4 * lines * LONGEST_LINE
    found = [_cut(line) for line in cleaned(text[-most:]).rstrip().split("\n")]
    if found == [""]:
        return []
    is_whole = len(text) <= most and len(found) <= lines
    return found if is_whole else ["…", *found[-lines:]]


def _masked(found: re.Match[str]) -> str:
    start, end = found.span(found.lastindex or 0)
    begin = found.start()
    return found.string[begin:start] + "***" + found.string[end : found.end()]


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"

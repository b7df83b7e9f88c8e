"""Texts of others (replies, runs, secrets backends) made fit to be shown: no terminal control, no secrets, no excess.

All texts that come from elsewhere pass one of these before they reach a log, an error or a link: `one_line` names and
states, `without_controls` messages, `cleaned` what programs printed, `scrubbed` what may repeat known credentials.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_LINE = 1000

# Colours, other control sequences and hyperlinks of a terminal.
_ANSI_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# Whatever else steers a terminal, breaks a line in some viewers, turns the direction of what is read, or, being half a
# character, cannot be written at all.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# A character as URLs, JSON, Python, and HTML (by number, by name) spell it.
_ESCAPED = re.compile(
    r"%([0-9a-f]{2})|\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|&#x([0-9a-f]{1,6});"
    r"|&#(\d{1,7});|&(amp|lt|gt|quot|apos);|\\([\\/\"'])",
    re.IGNORECASE,
)
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
# What was escaped may be escaped again.
_SPELLINGS = 4
# A secret that is shorter is no secret, and would be cut out of innocent words.
LEAST_SECRET = 4
# What a cut leaves of a line: half a secret would not be known as one.
_FIRST_LINE = re.compile(r"\A[^\r\n]*[\r\n]?")
# How a secret is called. (PWD is more often the working directory.)
_NAMES = (
    r"(?:password|passwd|passphrase|pwd(?!\W{1,6}/)|secret|credentials?"
    r"|(?:access|account|api|auth|encryption|private|refresh|sas|secret|session|storage)[ ._-]?(?:key|token)"
    r"|(?:account\.key|client\.secret)\.[\w.-]{1,99})"
)
# In Spark's configuration a blank may follow them. The last part is the storage account, or there is none.
_SPARK_NAMES = r"(?:account\.key|client\.secret|secret\.key|session\.token)(?:\.[\w.-]{1,99})?"
# In JSON quotes may be escaped, once or twice; after an item's they are closed by a bracket.
_IS = r"(?:\\{0,2}[\"']\]?)?[ \t]{0,4}(?:=>|==?|:=?)[ \t]{0,4}"
# What code and templates have where a value would be: a placeholder, a call, an item, an attribute, a file (base64 has
# no dot), an AWS name, a constant.
_NO_VALUE = (
    r"(?!\$?[{<(\[]|\*\*\*|[a-z_][\w.]{0,99}[(\[]|[a-z_]{1,49}(?:\.[a-z_]{1,49}){1,9}(?![^\s,;)\]])"
    r"|(?=[\w.-]{0,99}/)[\w./-]{1,199}\.[a-z]{2,9}(?![^\s\"',;)\]])|arn:|(?:None|True|False|null)\b)"
)
_STRING = "|".join(rf"{quote}{_NO_VALUE}([^\s{quote}\\](?:[^{quote}\\\n]|\\(?![{quote}\\]))*)" for quote in "\"'")
_IN_QUOTES = rf"[bruf]{{0,2}}\\{{0,2}}(?:{_STRING})"
_PLAIN = r"[^\s\"',;&)}\]\\]"
# Prose has colons too.
_NO_WORD = rf"{_NO_VALUE}(?={_PLAIN}{{0,99}}[\d!#$%*+/=@^~])({_PLAIN}{{4,}})"
# Secrets that are known by their shape; the value is the last group. Each is found in time that grows with the text
# alone: what repeats is bounded, or begins where nothing like it went before. Airflow masks those of its connections.
_SECRETS = tuple(
    re.compile(shape, re.IGNORECASE)
    for shape in (
        r"(?<![0-9a-z])((?:dapi|dkea|dose)[0-9a-f]{28,}(?:-\d+)?)",
        r"(?<![\w-])(eyJ[\w-]{10,}\.[\w-]{10,}\.[\w-]*)",
        r"(?<![0-9a-z])((?:AKIA|ASIA)[0-9A-Z]{16})(?![0-9a-z])",
        r"(?<![0-9a-z])((?:gh[opsru]|github_pat)_\w{30,})",
        r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY-----([a-z0-9+/=\s\\]{20,})",
        r"\bBearer[ \t]+([\w.~+/=-]{16,})",
        r"\bAuthorization[\"']?\s{0,4}[=:]\s{0,4}[\"']?(?:Basic|Bearer)[ \t]+([\w.~+/=-]{4,})",
        r"[?&](?:sig|X-Amz-Signature|X-Amz-Security-Token|X-Goog-Signature)=([^&\s\"']+)",
        r"(?<![0-9a-z])sig=([\w%+/=-]{16,})",
        # Where a worker of Spark is, there is no password.
        r"(?<!spark)://[^/\s:@]{0,99}:([^/\s\"'<>]{1,200})@",
        rf"{_NAMES}{_IS}(?:{_IN_QUOTES}|{_NO_WORD})",
        rf"\([ \t]{{0,4}}[\"'][\w.-]{{0,99}}?{_NAMES}[\"'],[ \t]{{0,4}}{_IN_QUOTES}",
        rf"{_SPARK_NAMES}[ \t]{{1,9}}{_NO_WORD}",
        rf"{_NAMES}[ \t]{{0,4}}=[ \t]{{0,4}}{_NO_VALUE}({_PLAIN}{{4,}})",
        # A parser has tokens too, and a model.
        rf"token{_IS}(?:\\{{0,2}}[\"'])?{_NO_VALUE}(?=\D{{0,99}}\d)(?=[^a-z\s]{{0,99}}[a-z])([\w.~+/=-]{{8,}})",
        rf"(?<![a-z-])--[a-z-]{{0,30}}(?:{_NAMES}|token)(?:[ \t]+|[\"'],[ \t]*[\"']){_NO_VALUE}(?!-)({_PLAIN}{{4,}})",
    )
)


def cleaned(text: str) -> str:
    """Return a text without control sequences and characters, and with ``***`` for what looks like a secret.

    Of a line that was written over again and again, as progress bars are, what stood there last is kept.
    """
    text = without_controls(text)
    for shape in _SECRETS:
        text = shape.sub(_masked, text)
    return text


def without_controls(text: str) -> str:
    """Return a text of one or more lines without control sequences and characters."""
    if text.isprintable():
        return text
    lines = (line.rstrip("\r").rpartition("\r")[2] for line in _ANSI_ESCAPE.sub("", text).split("\n"))
    return "\n".join(_CONTROL.sub("", line) for line in lines)


def one_line(text: str) -> str:
    """Return a text on one line without control sequences and characters: a name, a state, an address."""
    if text.isprintable():
        return text
    return _CONTROL.sub("", " ".join(_ANSI_ESCAPE.sub("", text).split()))


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Return a text with ``***`` for these secrets, however they are spelled: as a URL, JSON, HTML or a form has them.

    Do it before the text is cut, as part of a secret may be left otherwise.
    """
    known = {spelled for secret in secrets if len(secret) >= LEAST_SECRET for spelled in _in_bytes(secret)}
    if not known:
        return text
    # Where in the text the characters of a layer begin: each layer undoes one spelling of the one before.
    layer, starts = text, list(range(len(text) + 1))
    hidden: list[tuple[int, int]] = []
    for _ in range(_SPELLINGS):
        # In a form a blank is a plus, and what is a plus here may be one there.
        plain = layer.replace("+", " ")
        for secret in known:
            wanted = secret.replace("+", " ")
            hidden += ((starts[found.start()], starts[found.end()]) for found in re.finditer(re.escape(wanted), plain))
        layer, starts, before = *_unescaped(layer, starts), layer
        if layer == before:
            break
    for start, end in _merged(hidden):
        text = f"{text[:start]}***{text[end:]}"
    return text


def _in_bytes(secret: str) -> set[str]:
    """Return a secret as it is, and as the bytes of its UTF-8, of which a URL spells each by itself."""
    return {secret, secret.encode(errors="replace").decode("latin-1")}


def _unescaped(text: str, starts: list[int]) -> tuple[str, list[int]]:
    """Undo one spelling, and say for each character where it begins."""
    parts, places, end = [], [], 0
    for found in _ESCAPED.finditer(text):
        parts += [text[end : found.start()], _character(found)]
        places += [*starts[end : found.start()], starts[found.start()]]
        end = found.end()
    return "".join([*parts, text[end:]]), [*places, *starts[end:]]


def _character(found: re.Match[str]) -> str:
    *in_hex, in_decimal, name, itself = found.groups()
    if name or itself:
        return itself or _ENTITIES[name.lower()]
    code = int(in_decimal) if in_decimal else int("".join(filter(None, in_hex)), 16)
    return chr(min(code, sys.maxunicode))


def _merged(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return spans without overlaps, the last one first."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans, reverse=True):
        if merged and end > merged[-1][0]:
            merged[-1] = start, max(end, merged[-1][1])
        else:
            merged.append((start, end))
    return merged


def tail(text: str, lines: int) -> list[str]:
    """Return the last lines of a text, cleaned; a first "…" stands for those before."""
    # More than fits into so many lines need not be looked at: a log may have 5 MB.
    most = 4 * lines * LONGEST_LINE
    is_cut = len(text) > most
    if is_cut:
        text = _FIRST_LINE.sub("", text[-most:])
    found = [_cut(line) for line in cleaned(text).rstrip().split("\n")]
    if found == [""]:
        found = []
    return ["…", *found[-lines:]] if is_cut or len(found) > lines else found


def _masked(found: re.Match[str]) -> str:
    start, end = found.span(found.lastindex or 0)
    before = found.string[found.start() : start]
    # A call that passes a parameter on, or an attribute that keeps it: `password=password`.
    if found.string.endswith(found.string[start:end], 0, found.start() + len(before.rstrip(" \t="))):
        return found.group()
    return before + "***" + found.string[end : found.end()]


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"

"""Make foreign text (from replies, runs, secrets backends) safe to show: no terminal controls, no secrets, no excess.

All such text passes one of these functions before it reaches a log, an error or a link: names and states `one_line`,
messages `without_controls`, the output of programs `cleaned`, and text that may echo known credentials `scrubbed`.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

LONGEST_LINE = 1000

# Colors, other control sequences and hyperlinks of a terminal.
_ANSI_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# Other control characters, line separators, characters that change the text direction, and unpaired surrogates, which
# cannot be encoded.
_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
# An escaped character in URLs, JSON, Python, or HTML (by number or by name).
_ESCAPED = re.compile(
    r"%([0-9a-f]{2})|\\u([0-9a-f]{4})|\\x([0-9a-f]{2})|&#x([0-9a-f]{1,6});"
    r"|&#(\d{1,7});|&(amp|lt|gt|quot|apos);|\\([\\/\"'])",
    re.IGNORECASE,
)
_ENTITIES = {"amp": "&", "lt": "<", "gt": ">", "quot": '"', "apos": "'"}
# How many layers of escapes are undone: escaped text may be escaped again.
_ESCAPE_LAYERS = 4
# Anything shorter is not a secret, and would be removed from unrelated words.
_MIN_SECRET_LENGTH = 4
# The partial line after a cut: half a secret would not be recognized.
_FIRST_LINE = re.compile(r"\A[^\r\n]*[\r\n]?")
# Names of secrets. (PWD is usually the working directory.)
_NAMES = (
    r"(?:password|passwd|passphrase|pwd(?!\W{1,6}/)|secret|credentials?"
    r"|(?:access|account|api|auth|encryption|private|refresh|sas|secret|session|storage)[ ._-]?(?:key|token)"
    r"|(?:account\.key|client\.secret)\.[\w.-]{1,99})"
)
# Names in Spark's configuration, where a blank may separate name and value. The storage account at the end is optional.
_SPARK_NAMES = r"(?:account\.key|client\.secret|secret\.key|session\.token)(?:\.[\w.-]{1,99})?"
# What separates a name and its value. In JSON, the quotes may be escaped once or twice; an index ends with a bracket.
_IS = r"(?:\\{0,2}[\"']\]?)?[ \t]{0,4}(?:=>|==?|:=?)[ \t]{0,4}"
# What is not a literal value in code and templates: a placeholder, a call, an index, an attribute, a file name (base64
# has no dot), an AWS resource name, a constant.
_NO_VALUE = (
    r"(?!\$?[{<(\[]|\*\*\*|[a-z_][\w.]{0,99}[(\[]|[a-z_]{1,49}(?:\.[a-z_]{1,49}){1,9}(?![^\s,;)\]])"
    r"|(?=[\w.-]{0,99}/)[\w./-]{1,199}\.[a-z]{2,9}(?![^\s\"',;)\]])|arn:|(?:None|True|False|null)\b)"
)
_STRING = "|".join(rf"{quote}{_NO_VALUE}([^\s{quote}\\](?:[^{quote}\\\n]|\\(?![{quote}\\]))*)" for quote in "\"'")
_IN_QUOTES = rf"[bruf]{{0,2}}\\{{0,2}}(?:{_STRING})"
_PLAIN = r"[^\s\"',;&)}\]\\]"
# Without quotes, a value must not look like a word, as ordinary text has colons too.
_NO_WORD = rf"{_NO_VALUE}(?={_PLAIN}{{0,99}}[\d!#$%*+/=@^~])({_PLAIN}{{4,}})"
# Patterns of secrets; the last group is the value. Each matches in linear time: repetitions are bounded, or cannot
# start in the middle of another match. (Airflow itself masks the secrets of its connections.)
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
        # A URL of a Spark worker has no password.
        r"(?<!spark)://[^/\s:@]{0,99}:([^/\s\"'<>]{1,200})@",
        rf"{_NAMES}{_IS}(?:{_IN_QUOTES}|{_NO_WORD})",
        rf"\([ \t]{{0,4}}[\"'][\w.-]{{0,99}}?{_NAMES}[\"'],[ \t]{{0,4}}{_IN_QUOTES}",
        rf"{_SPARK_NAMES}[ \t]{{1,9}}{_NO_WORD}",
        rf"{_NAMES}[ \t]{{0,4}}=[ \t]{{0,4}}{_NO_VALUE}({_PLAIN}{{4,}})",
        # Parsers and models have tokens too, so the value must have a digit and a letter.
        rf"token{_IS}(?:\\{{0,2}}[\"'])?{_NO_VALUE}(?=\D{{0,99}}\d)(?=[^a-z\s]{{0,99}}[a-z])([\w.~+/=-]{{8,}})",
        rf"(?<![a-z-])--[a-z-]{{0,30}}(?:{_NAMES}|token)(?:[ \t]+|[\"'],[ \t]*[\"']){_NO_VALUE}(?!-)({_PLAIN}{{4,}})",
    )
)


def cleaned(text: str) -> str:
    """Return a text without control sequences and characters, and with ``***`` instead of what looks like a secret.

    Of a line that was overwritten, as by a progress bar, only the last version is kept.
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
    """Return a text (a name, a state, a URL) on one line without control sequences and characters."""
    if text.isprintable():
        return text
    return _CONTROL.sub("", " ".join(_ANSI_ESCAPE.sub("", text).split()))


def scrubbed(text: str, secrets: Iterable[str]) -> str:
    """Return a text with ``***`` instead of these secrets, also if escaped as in a URL, JSON, HTML or a form.

    Call it before truncating the text, which could leave a part of a secret.
    """
    known = {secret for secret in secrets if len(secret) >= _MIN_SECRET_LENGTH}
    # Also with a character per byte of its UTF-8, as each byte is escaped in a URL.
    known |= {secret.encode(errors="replace").decode("latin-1") for secret in known}
    if not known:
        return text
    # Each layer is the one before with its escapes undone; `starts` are the positions of its characters in the text.
    layer, starts = text, list(range(len(text) + 1))
    hidden: list[tuple[int, int]] = []
    for _ in range(_ESCAPE_LAYERS):
        # A form encodes a blank as a plus.
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


def _unescaped(text: str, starts: list[int]) -> tuple[str, list[int]]:
    """Undo one layer of escapes; return the text, and the position of each of its characters in the original."""
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
    """Return the last lines of a text, cleaned; an "…" comes first if there are earlier lines."""
    # Do not clean the whole text: a log may have 5 MB.
    max_length = 4 * lines * LONGEST_LINE
    is_cut = len(text) > max_length
    if is_cut:
        text = _FIRST_LINE.sub("", text[-max_length:])
    found = [_cut(line) for line in cleaned(text).rstrip().split("\n")]
    if found == [""]:
        found = []
    return ["…", *found[-lines:]] if is_cut or len(found) > lines else found


def _masked(found: re.Match[str]) -> str:
    start, end = found.span(found.lastindex or 0)
    before = found.string[found.start() : start]
    # Code that passes on or stores a parameter: `password=password`.
    if found.string.endswith(found.string[start:end], 0, found.start() + len(before.rstrip(" \t="))):
        return found.group()
    return before + "***" + found.string[end : found.end()]


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}…"

"""What a run printed or raised, made fit for a task's log: no terminal's control, no secrets, not too long."""

from __future__ import annotations

import re

LONGEST_LINE = 1000

# Colours, other control sequences and hyperlinks of a terminal.
_ANSI_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
# Whatever else steers a terminal, breaks a line in some viewers, or turns the direction of what is read.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
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

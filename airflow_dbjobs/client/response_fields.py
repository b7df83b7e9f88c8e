"""Single fields of the API's answers, read with their types: strictly what decides, mildly what only decorates.

A field that decides (an id, a state) and has another type than the reference says raises TypeError or ValueError, which
the client raises as UnreadableReply. One that is only shown (a page, a message, when it ended) is left out then.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_dbjobs.client.sanitize import one_line, without_controls

_LONGEST_URL = 2000
_LARGEST_ID = 2**63


def identifier(value: object) -> int:
    """Return an id: an INT64, or its digits as text."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and value.isdecimal()):
        raise TypeError("an id is no whole number")
    read = int(str(value))
    if not -_LARGEST_ID <= read < _LARGEST_ID:
        raise ValueError("an id is no INT64")
    return read


def word(value: object) -> str:
    """Return a name that decides something, on one line; "" where there is none."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a name is {type(value).__name__}")
    return one_line(value)


def part(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return an object that decides something; an empty one where there is none."""
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise TypeError(f"{name} is no object")
    return found


def prose(value: object) -> str:
    """Return what is written for people; "" where it is no text."""
    return without_controls(value) if isinstance(value, str) else ""


def seconds(value: object) -> float | None:
    """Return milliseconds in seconds; None where they are no number, or 0."""
    try:
        read = float(value) / 1000 if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return read if math.isfinite(read) and read else None


def count(value: object) -> int:
    """Return a whole number that only decorates, or orders what is alike; 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def page_url(value: object) -> str:
    """Return the address of a page that a browser may be sent to; "" where it is none."""
    if not isinstance(value, str) or len(value) > _LONGEST_URL:
        return ""
    url = one_line(value.strip())
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in {"http", "https"} and parts.hostname and " " not in url else ""

"""Read single fields of API replies, strictly or leniently.

A field on which decisions depend (an id, a state) raises TypeError or ValueError if its type is not the documented one;
the client turns that into UnreadableReply. A field that is only shown (a URL, a message, a time) is then ignored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_dbjobs.client.sanitize import one_line, without_controls

_LONGEST_URL = 2000
_LARGEST_ID = 2**63


def identifier(value: object, *, least: int = -_LARGEST_ID) -> int:
    """Return an id, which may be a number or its digits. Raises TypeError or ValueError if it is not an INT64."""
    is_number = isinstance(value, int) and not isinstance(value, bool)
    if not is_number and not (isinstance(value, str) and value.isdecimal()):
        raise TypeError("an id is not an integer")
    read = int(str(value))
    if not least <= read < _LARGEST_ID:
        raise ValueError("an id is not an INT64")
    return read


def strict_name(value: object) -> str:
    """Return a name (of a state, say) on one line; "" if there is none. Raises TypeError if it is not a string."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"a name is of type {type(value).__name__}")
    return one_line(value)


def strict_object(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """Return a nested object; an empty one if there is none. Raises TypeError if it is not an object."""
    found = value.get(name)
    if found is None:
        return {}
    if not isinstance(found, Mapping):
        raise TypeError(f"{name} is not an object")
    return found


def message_text(value: object) -> str:
    """Return a text for people without control characters; "" if it is not a string."""
    return without_controls(value) if isinstance(value, str) else ""


def seconds(value: object) -> float | None:
    """Convert milliseconds to seconds; None if the value is not a number, or 0."""
    try:
        read = float(value) / 1000 if isinstance(value, int | float) and not isinstance(value, bool) else math.nan
    except OverflowError:
        return None
    return read if math.isfinite(read) and read else None


def job_name(job: Mapping[str, Any]) -> object:
    """Return the name in a job's settings; None if there is none."""
    settings = job.get("settings")
    return settings.get("name") if isinstance(settings, dict) else None


def count(value: object) -> int:
    """Return an integer that is only shown or sorted by; 0 if it is not one."""
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def page_url(value: object) -> str:
    """Return an http(s) URL that is safe to link to; "" if the value is not one."""
    if not isinstance(value, str) or len(value) > _LONGEST_URL:
        return ""
    url = one_line(value.strip())
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return url if parts.scheme in {"http", "https"} and parts.hostname and " " not in url else ""

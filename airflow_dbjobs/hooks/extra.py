"""Read a connection's extra: the authentication scheme, network and retry settings, and fields that have no effect."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.client.retry import MAX_REQUESTS_PER_SECOND, Patience, RetryPolicy
from airflow_dbjobs.client.session import Network, check_proxy
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.hooks.fields import BY_NAME, FIELDS, NAMES, SCHEMES, SDK_AUTH_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable

    from airflow_dbjobs.hooks.fields import Scheme

# Fields that a connection of the official provider may hold for its SQL operators and hooks.
_FOREIGN = frozenset({"http_path", "schema", "catalog", "session_configuration", "http_headers", "user_agent_entry"})
# To test a connection, Airflow 2's form sends each field twice, once with this prefix and the connection's type.
_FORM_PREFIX = "extra__"
_FLAGS = frozenset(field.name for field in FIELDS if field.kind == "flag")
_ZERO_COUNTS = frozenset(field.name for field in FIELDS if field.zero_counts)
# The values that a form fills in.
_FILLED_IN = {field.name: field.default for field in FIELDS if field.empty_counts}
# The fields that any scheme reads.
_OF_SCHEMES = frozenset().union(*(scheme.extras for scheme in SCHEMES))
_NO_CREDENTIALS = (
    "The connection has no credentials: leave its login empty and set its password (or `token` in its extra) to a"
    " personal access token, or set `auth_type` in its extra to another scheme."
)

# In seconds: a socket refuses a timeout that is too long.
_LONGEST_TIMEOUT = 86400.0
# The settings in seconds of a connection's extra, and the maximum of each.
SETTINGS = {
    "retry_budget": math.inf,
    "server_error_wait": math.inf,
    "connect_timeout": _LONGEST_TIMEOUT,
    "read_timeout": _LONGEST_TIMEOUT,
    "outage_tolerance": math.inf,
    "denied_tolerance": math.inf,
}


def is_auth_type(value: object) -> bool:
    """Return True if `auth_type` may have this value; it may be empty."""
    return not is_given(value) or str(value).strip() in {*BY_NAME, *SDK_AUTH_TYPES}


def is_given(value: object) -> bool:
    """Return True if a field has a value."""
    # For an empty field, a form stores null, an empty string or, from a JSON editor, an empty list.
    return value not in (None, "", {}, [])


def is_on(value: object) -> bool:
    """Read a flag, which is a JSON value or the text from a form."""
    return value.strip().lower() not in {"", "false", "0", "no", "off"} if isinstance(value, str) else bool(value)


def number(
    extra: Mapping[str, Any], name: str, *, what: str = "a number of seconds", most: float = math.inf
) -> float | None:
    """Read a number of the extra, which may be text; None if it is not given.

    Raises ConfigurationError if it is not a number, below 0, 0 for a field that must be positive, or above `most`.
    """
    value = extra.get(name)
    if not is_given(value):
        return None
    try:
        read = math.nan if isinstance(value, bool) else float(str(value))
    except ValueError:
        read = math.nan
    zero_is_valid = name in _ZERO_COUNTS
    if not math.isfinite(read) or read < 0 or (read == 0 and not zero_is_valid) or read > most:
        rule = ("0 or more" if zero_is_valid else "more than 0") + (
            "" if math.isinf(most) else f" and at most {most:.0f}"
        )
        raise ConfigurationError(f"extra {name} is {value!r}; it must be {what}, {rule}.")
    return read


def scheme_of(login: str | None, password: str | None, extra: Mapping[str, Any]) -> Scheme:
    """Return the authentication scheme that a connection's fields choose, in the official provider's order.

    Raises ConfigurationError if they choose none, lack what it needs, or contradict `auth_type`.
    """
    if auth_type := str(extra.get("auth_type") or "").strip():
        scheme = _by_name(auth_type)
        marks = [other.mark for other in SCHEMES if other.mark and _is_set(other.mark, extra)]
        if others := [mark for mark in marks if mark not in scheme.extras]:
            raise ConfigurationError(
                f"extra auth_type is {auth_type!r}, which contradicts {_joined(others)}: remove one of them."
            )
    else:
        scheme = _by_fields(login, password, extra)
    given = {**extra, "login": login, "password": password}
    contents = {"login": scheme.login, "password": scheme.password}
    if missing := [name for name in scheme.needs if not is_given(given.get(name))]:
        named = [f"the {name} ({contents[name]})" if name in contents else f"extra {name}" for name in missing]
        raise ConfigurationError(f"The connection authenticates by {scheme.name}, but it lacks {_joined(named)}.")
    if scheme.name == "token" and not (is_given(extra.get("token")) or password):
        raise ConfigurationError(_NO_CREDENTIALS)
    return scheme


def remarks(scheme: Scheme, extra: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each field of the extra that is not read, or has no effect with this scheme."""
    given = [name for name in extra if _is_set(name, extra) and extra[name] != _FILLED_IN.get(name)]
    notes = []
    if idle := [name for name in given if name in _OF_SCHEMES and name not in scheme.extras]:
        notes.append(
            f"it authenticates by {scheme.name}, and {_joined(idle)} {'has' if len(idle) == 1 else 'have'} no effect."
        )
    unknown = [name for name in given if name not in NAMES | _FOREIGN and not name.startswith(_FORM_PREFIX)]
    notes += [
        f"extra {name} is unknown and ignored." + _suggestion(" Is {} meant?", name, NAMES, cutoff=0.75)
        for name in unknown
    ]
    return notes


def settings_from(extra: Mapping[str, Any]) -> tuple[RetryPolicy, Patience]:
    """Read the SETTINGS of a connection's extra; numbers may be written as text. Raises ConfigurationError."""
    read = {name: number(extra, name, most=most) for name, most in SETTINGS.items()}

    def of(kind: type[RetryPolicy | Patience]) -> dict[str, Any]:
        return {field.name: value for field in dataclasses.fields(kind) if (value := read.get(field.name)) is not None}

    return RetryPolicy(**of(RetryPolicy)), Patience(**of(Patience))


def requests_per_second_from(extra: Mapping[str, Any]) -> float:
    """Read `max_requests_per_second` of a connection's extra. Raises ConfigurationError."""
    rate = number(extra, "max_requests_per_second", what="a number")
    return MAX_REQUESTS_PER_SECOND if rate is None else rate


def network_from(extra: Mapping[str, Any]) -> Network:
    """Read `verify`, `proxies`, `client_cert` and `client_key` of a connection's extra. Raises ConfigurationError."""
    cert, key = (str(extra.get(name) or "").strip() for name in ("client_cert", "client_key"))
    if key and not cert:
        raise ConfigurationError(
            "extra client_key is set, but client_cert is not: set it to the path of the key's certificate."
        )
    return Network(
        verify=_verify(extra.get("verify")),
        proxies=_proxies(extra.get("proxies")),
        cert=(cert, key) if key else cert or None,
    )


def _verify(value: object) -> bool | str:
    """Read a boolean (as a form may write one), or the path of a CA bundle."""
    if not is_given(value):
        return True
    if value in (0, 1):
        return bool(value)
    if not isinstance(value, str):
        raise ConfigurationError(f"extra verify is {value!r}; it must be true, false, or the path of a CA bundle.")
    path = value.strip()
    if path.lower() in {"", "true", "1", "yes", "on"}:
        return True
    return path if is_on(path) else False


def _proxies(value: object) -> tuple[tuple[str, str], ...]:
    """Read an object of proxies by scheme, as the official provider has it, or the URL of one for both schemes."""
    if isinstance(value, str):
        value = value.strip()
        # A form stores JSON as text.
        with suppress(ValueError):
            value = json.loads(value)
    if not value:
        return ()
    # Invalid JSON is not a URL.
    is_url = isinstance(value, str) and not value.startswith("{")
    by_scheme = {"http": value, "https": value} if is_url else value
    # Errors do not quote the value: it may contain a password.
    if not isinstance(by_scheme, Mapping) or not by_scheme.keys() <= {"http", "https"}:
        raise ConfigurationError(
            'extra proxies must be a URL, or an object: {"http": "http://…", "https": "http://…"}.'
        )
    for scheme, url in by_scheme.items():
        if not isinstance(url, str) or not url.strip():
            raise ConfigurationError(f"extra proxies has no URL for {scheme}.")
        check_proxy(url.strip(), f"extra proxies: the URL for {scheme}")
    return tuple(sorted((scheme, url.strip()) for scheme, url in by_scheme.items()))


def _by_name(auth_type: str) -> Scheme:
    if is_auth_type(auth_type):
        return BY_NAME.get(auth_type, BY_NAME["sdk"])
    names = [scheme.name for scheme in SCHEMES]
    near = _suggestion(" (is {} meant?)", auth_type, [*BY_NAME, *SDK_AUTH_TYPES])
    raise ConfigurationError(
        f"extra auth_type is {auth_type!r}{near}; it must be one of {', '.join(names)}, or one of databricks-sdk's:"
        f" {', '.join(SDK_AUTH_TYPES)}."
    )


def _by_fields(login: str | None, password: str | None, extra: Mapping[str, Any]) -> Scheme:
    if is_given(extra.get("token")) or (password and not login):
        return BY_NAME["token"]
    for scheme in SCHEMES:
        if (scheme.mark and _is_set(scheme.mark, extra)) or (scheme.login_marks and login == scheme.name):
            return scheme
    if login and password:
        return BY_NAME["basic"]
    raise ConfigurationError(_NO_CREDENTIALS)


def _is_set(name: str, extra: Mapping[str, Any]) -> bool:
    value = extra.get(name)
    return is_on(value) if name in _FLAGS else is_given(value)


def _joined(names: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _suggestion(words: str, name: str, names: Iterable[str], *, cutoff: float = 0.6) -> str:
    """Return `words` with the most similar of `names`, or "" if none is similar."""
    found = difflib.get_close_matches(name, names, n=1, cutoff=cutoff)
    return words.format(found[0]) if found else ""

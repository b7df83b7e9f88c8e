"""The "Test" button of a connection: who authenticates, by which scheme, and whether they may list jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.client.auth.tokens import TokenAuth, TokenCache
from airflow_dbjobs.client.retry import RetryPolicy
from airflow_dbjobs.client.sanitize import cleaned
from airflow_dbjobs.client.session import HOST_REMEDY
from airflow_dbjobs.errors import ApiError, CallError, JobsError, PermissionDenied

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.transport import Transport
    from airflow_dbjobs.hooks.fields import Scheme

# The user waits for the result.
SECONDS = 15.0
_TOKEN_SECONDS = 10.0
# No retries: the user can press the button again.
_POLICY = RetryPolicy(connect_timeout=5.0, read_timeout=10.0)
_LONGEST_NAME = 200


def check(client: JobsClient, scheme: Scheme) -> tuple[bool, str]:
    """Return whether the client's credentials may list jobs, and a message in full sentences, within about 15 s.

    `scheme` is their authentication scheme. The check changes and launches nothing.
    """
    auth = client.transport.auth
    # Test the credentials, not a cached token.
    fresh = TokenAuth(auth.source, cache=TokenCache()) if isinstance(auth, TokenAuth) else auth
    transport = client.transport.with_policy(_POLICY, auth=fresh)
    try:
        return _check(transport, client.api_version, f"by {scheme.name} ({scheme.help.rstrip('.')})")
    finally:
        transport.close()


def _check(transport: Transport, api_version: str, how: str) -> tuple[bool, str]:
    deadline = transport.clock.monotonic() + SECONDS
    failed = f"The connection authenticates {how}."
    try:
        if isinstance(transport.auth, TokenAuth):
            transport.auth.token(_TOKEN_SECONDS)
    except JobsError as error:
        return False, f"{failed} {_sentence(error)}"
    try:
        limit = deadline - transport.clock.monotonic()
        transport.send("GET", f"{api_version}/jobs/list", query={"limit": 1}, limit=limit)
    except PermissionDenied as error:
        me = _me(transport, deadline)
        denied = f"Authenticated as {me} at {_where(transport)} {how}, but jobs may not be listed:"
        return False, f"{denied if me else failed} {_sentence(error)}"
    except JobsError as error:
        # After an error without an error code of the API, the server may not be a workspace.
        hint = f" {HOST_REMEDY}." if type(error) is ApiError else ""
        return False, f"{failed} {_sentence(error)}{hint}"
    me = _me(transport, deadline)
    who = f"as {me} at {_where(transport)} {how}" if me else f"at {_where(transport)} {how}; the name is not available"
    return True, f"Authenticated {who}. The Jobs API {api_version} answers, and jobs may be listed."


def _me(transport: Transport, deadline: float) -> str:
    """Return the name of the authenticated user from the SCIM API; "" if it does not respond."""
    try:
        me = transport.send("GET", "2.0/preview/scim/v2/Me", limit=deadline - transport.clock.monotonic())
    except CallError:
        return ""
    if not me.get("userName"):
        return ""
    names = dict.fromkeys(str(me[key]) for key in ("displayName", "userName") if me.get(key))
    return cleaned(" / ".join(names))[:_LONGEST_NAME]


def _where(transport: Transport) -> str:
    workspace_id = transport.workspace_id
    return f"{transport.base_url}, workspace {workspace_id}," if workspace_id else transport.base_url


def _sentence(error: JobsError) -> str:
    return f"{str(error).rstrip('.')}."

"""Page tokens: opaque to clients, and checked when they come back."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.messages import ApiError

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json


def encode_token(content: Json) -> str:
    """Return a page token."""
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


def decode_token(token: str) -> dict[str, int]:
    """Return the content of a page token.

    :raises ApiError: This workspace did not issue the token.
    """
    try:
        content = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict) or not all(type(value) is int and value >= 0 for value in content.values()):
        raise ApiError("Field 'page_token' is not a token issued by this workspace.")
    return content

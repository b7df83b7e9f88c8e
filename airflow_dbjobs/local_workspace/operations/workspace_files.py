"""The operations of the Workspace API: storing a Python notebook in the root folder, and creating folders."""

from __future__ import annotations

import base64
import contextlib
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.engine.notebooks import HEADER
from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.paths import STATE_FOLDER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .context import RequestContext

_EXISTS: Final = "RESOURCE_ALREADY_EXISTS"


def mkdirs(context: RequestContext) -> Json:
    """Create a folder and the folders above it; do nothing if it exists."""
    with _as_api_errors(context):
        _place(context).mkdir(parents=True, exist_ok=True)
    return {}


def import_(context: RequestContext) -> Json:
    """Store a notebook from its source."""
    args = context.args
    if (args.get("format", "SOURCE"), args.get("language")) != ("SOURCE", "PYTHON"):
        raise ApiError("The local workspace imports Python notebooks only: set format to SOURCE, language to PYTHON.")
    try:
        source = base64.b64decode(args.get("content", ""), validate=True).decode()
    except ValueError:
        raise ApiError("Field 'content' must be text in UTF-8, encoded in base64.") from None
    with _as_api_errors(context):
        place = _place(context)
        file = place.with_name(f"{place.name}.py")
        if file.exists() and not args.get("overwrite", False):
            raise ApiError(f"{args['path']} already exists.", code=_EXISTS)
        # In one step: a run may be reading it.
        scratch = place.with_name(f"{place.name}.tmp")
        scratch.write_text(source if source.startswith(HEADER) else f"{HEADER}\n{source}")
        scratch.replace(file)
    return {}


def _place(context: RequestContext) -> Path:
    """Return where the path of a request lies in the root folder."""
    path: str = context.args.get("path", "")
    place = (context.root / path.removeprefix("/Workspace").lstrip("/")).resolve()
    if not path.startswith("/") or place == context.root:
        raise ApiError(f"Field 'path' must be an absolute path, not {path!r}.")
    if not place.is_relative_to(context.root) or place.is_relative_to(context.root / STATE_FOLDER):
        raise ApiError(f"{path!r} is outside the root folder of the local workspace.")
    return place


@contextlib.contextmanager
def _as_api_errors(context: RequestContext) -> Iterator[None]:
    """Turn errors of the file system into those of the API."""
    path = context.args.get("path")
    try:
        yield
    except FileNotFoundError:
        raise ApiError(f"The folder of {path} does not exist.", code="RESOURCE_DOES_NOT_EXIST", status=404) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ApiError(f"{path}, or a folder above it, already exists as something else.", code=_EXISTS) from None
    except PermissionError:
        raise ApiError(f"{path} may not be written.", code="PERMISSION_DENIED", status=403) from None
    except (OSError, ValueError) as error:
        raise ApiError(f"{path!r} cannot be written: {error}.") from None

"""The operations of the DBFS API: files in the folder `dbfs` below the root, and volumes next to it."""

from __future__ import annotations

import base64
import secrets
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.paths import with_top

from . import files

if TYPE_CHECKING:
    from pathlib import Path

    from .context import RequestContext

#: The largest block that one request may add or read, as in the cloud.
_MAX_BLOCK_BYTES: Final = 1024 * 1024


def put(context: RequestContext) -> Json:
    """Write a file, whose content may be larger than a block if a form brings it."""
    path = _path(context)
    form = context.request.headers.get("content-type", "").startswith("multipart/form-data")
    content = files.content_of(context, "contents", None if form else _MAX_BLOCK_BYTES)
    with files.api_errors(path):
        files.write(_new_file(context, path), content)
    return {}


def create(context: RequestContext) -> Json:
    """Open a file for blocks, and return its handle."""
    path = _path(context)
    with files.api_errors(path):
        place = _new_file(context, path)
        files.write(place, b"")
    handle = secrets.randbits(53)
    context.memory.uploads[handle] = place
    return {"handle": handle}


def add_block(context: RequestContext) -> Json:
    """Append a block to a file that `create` has opened."""
    place = _upload(context)
    block = files.content_of(context, "data", _MAX_BLOCK_BYTES)
    with files.api_errors(_shown(context, place)), place.open("ab") as file:
        file.write(block)
    return {}


def close(context: RequestContext) -> Json:
    """Forget the handle of a file."""
    _upload(context)
    del context.memory.uploads[context.args["handle"]]
    return {}


def read(context: RequestContext) -> Json:
    """Return a part of a file, in base64."""
    path, place = _existing(context)
    offset: int = context.args.get("offset", 0)
    length: int = context.args.get("length", _MAX_BLOCK_BYTES // 2)
    if offset < 0 or length < 0:
        raise ApiError("Fields 'offset' and 'length' must not be negative.")
    if length > _MAX_BLOCK_BYTES:
        message = f"Field 'length' must be at most {_MAX_BLOCK_BYTES}, not {length}."
        raise ApiError(message, code="MAX_READ_SIZE_EXCEEDED")
    with files.api_errors(path):
        content = files.read(place, offset, length)
    return {"bytes_read": len(content), "data": base64.b64encode(content).decode()}


def list_(context: RequestContext) -> Json:
    """List a folder, or a single file."""
    path, place = _existing(context)
    with files.api_errors(path):
        items = files.entries(context, place) if place.is_dir() else [place]
        return {"files": [_show(context, item) for item in items]}


def get_status(context: RequestContext) -> Json:
    """Describe a file or a folder."""
    path, place = _existing(context)
    with files.api_errors(path):
        return _show(context, place)


def mkdirs(context: RequestContext) -> Json:
    """Create a folder and the folders above it; do nothing if it exists."""
    path = _path(context)
    with files.api_errors(path):
        with_top(context.root, files.locate(context, path)).mkdir(parents=True, exist_ok=True)
    return {}


def delete(context: RequestContext) -> Json:
    """Delete a file or a folder; do nothing if it does not exist, as in the cloud."""
    path = _path(context)
    with files.api_errors(path):
        place = files.locate(context, path)
        if place.exists():
            files.remove(context, place, path, "IO_ERROR")
    return {}


def move(context: RequestContext) -> Json:
    """Move a file or a folder to a path that does not exist, or into a folder."""
    _, place = _existing(context, "source_path")
    target_path = _path(context, "destination_path")
    with files.api_errors(target_path):
        target = files.locate(context, target_path)
        if target.is_dir() and not place.is_dir():
            target /= place.name
        if target.exists():
            raise ApiError(f"{target_path} already exists.", code=files.EXISTS)
        place.rename(target)
    return {}


def _path(context: RequestContext, field: str = "path") -> str:
    """Return a path of a request with its scheme, without which it also means DBFS."""
    path: str = files.required(context, field)
    if not path.startswith(("/", "dbfs:/")):
        raise ApiError(f"Field '{field}' must be an absolute path, not {path!r}.")
    return path if path.startswith("dbfs:") else f"dbfs:{path}"


def _existing(context: RequestContext, field: str = "path") -> tuple[str, Path]:
    path = _path(context, field)
    with files.api_errors(path):
        place = files.locate(context, path)
        if place.exists():
            return path, place
        if place in _tops(context):
            return path, with_top(context.root, place)
    raise ApiError(f"No file or directory exists on path {path}.", code=files.MISSING, status=404)


def _tops(context: RequestContext) -> tuple[Path, Path]:
    """Return the folders that exist in every workspace."""
    return context.root / "dbfs", context.root / "Volumes"


def _new_file(context: RequestContext, path: str) -> Path:
    """Return the place of a file that is to be written, in a folder that exists."""
    place = files.locate(context, path)
    if place in _tops(context) or place.is_dir():
        raise ApiError(f"{path} is a folder.", code=files.EXISTS)
    if place.exists() and not context.args.get("overwrite", False):
        raise ApiError(f"A file or directory already exists at the input path {path}.", code=files.EXISTS)
    with_top(context.root, place.parent).mkdir(parents=True, exist_ok=True)
    return place


def _upload(context: RequestContext) -> Path:
    handle = files.required(context, "handle")
    if handle not in context.memory.uploads:
        message = f"No open stream has the handle {handle}; none survives a restart of the local workspace."
        raise ApiError(message, code=files.MISSING, status=404)
    return context.memory.uploads[handle]


def _shown(context: RequestContext, place: Path) -> str:
    """Return the path of a place as the API shows it: without the scheme."""
    dbfs = context.root / "dbfs"
    return "/" + "/".join(place.relative_to(dbfs if place.is_relative_to(dbfs) else context.root).parts)


def _show(context: RequestContext, place: Path) -> Json:
    size = 0 if place.is_dir() else place.stat().st_size
    return {
        "path": _shown(context, place),
        "is_dir": place.is_dir(),
        "file_size": size,
        "modification_time": files.modified_ms(place),
    }

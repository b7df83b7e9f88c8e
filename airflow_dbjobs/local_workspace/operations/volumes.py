"""The operations of the Files API: files and folders of volumes, which are below `Volumes` in the root folder."""

from __future__ import annotations

import re
from email.utils import formatdate
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.messages import ApiError, Json, Reply
from airflow_dbjobs.local_workspace.state.paths import with_top

from . import files

if TYPE_CHECKING:
    from pathlib import Path

    from .context import RequestContext

_DONE: Final = Reply(204)
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")


def upload(context: RequestContext) -> Reply:
    """Write a file, and the folders above it."""
    path, place = _place(context)
    with files.api_errors(path):
        if place.exists() and (place.is_dir() or not context.args.get("overwrite", True)):
            raise ApiError(f"{path} already exists.", code="ALREADY_EXISTS", status=409)
        with_top(context.root, place.parent).mkdir(parents=True, exist_ok=True)
        files.write(place, context.request.body)
    return _DONE


def download(context: RequestContext) -> Reply:
    """Return a file, or the part of it that the request's header Range names."""
    path, place = _existing(context, folder=False)
    part = _RANGE.fullmatch(context.request.headers.get("range", ""))
    with files.api_errors(path):
        if part is None:
            return Reply(200, files.read(place), _headers(place))
        start = int(part[1])
        content = files.read(place, start, int(part[2]) + 1 - start if part[2] else -1)
        size = place.stat().st_size
    if not content:
        raise ApiError(f"{path} has only {size} bytes.", code="OUT_OF_RANGE", status=416)
    return Reply(206, content, {**_headers(place), "Content-Range": f"bytes {start}-{start + len(content) - 1}/{size}"})


def describe(context: RequestContext) -> Reply:
    """Return the size and the time of a file as headers."""
    path, place = _existing(context, folder=False)
    with files.api_errors(path):
        return Reply(200, b"", {**_headers(place), "Content-Length": str(place.stat().st_size)})


def delete(context: RequestContext) -> Reply:
    """Delete a file."""
    path, place = _existing(context, folder=False)
    with files.api_errors(path):
        files.remove(context, place, path, "")
    return _DONE


def create_folder(context: RequestContext) -> Reply:
    """Create a folder and the folders above it; do nothing if it exists."""
    path, place = _place(context)
    with files.api_errors(path):
        with_top(context.root, place).mkdir(parents=True, exist_ok=True)
    return _DONE


def list_folder(context: RequestContext) -> Json:
    """List a folder, on one page."""
    path, place = _existing(context, folder=True)
    with files.api_errors(path):
        return {"contents": [_show(context, item) for item in files.entries(context, place)]}


def find_folder(context: RequestContext) -> Reply:
    """Answer whether a folder exists."""
    _existing(context, folder=True)
    return Reply(200)


def delete_folder(context: RequestContext) -> Reply:
    """Delete an empty folder."""
    path, place = _existing(context, folder=True)
    with files.api_errors(path):
        files.remove(context, place, path, "FAILED_PRECONDITION")
    return _DONE


def _place(context: RequestContext) -> tuple[str, Path]:
    """Return the path of a request, and where it is."""
    path: str = context.args["path"]
    place = files.locate(context, path)
    if context.root / "Volumes" not in place.parents:
        message = f"{path} is not in a volume: the Files API has paths like /Volumes/catalog/schema/volume/file."
        raise ApiError(message)
    return path, place


def _existing(context: RequestContext, *, folder: bool) -> tuple[str, Path]:
    path, place = _place(context)
    with files.api_errors(path):
        if place.is_dir() if folder else place.is_file():
            return path, place
    what = "folder" if folder else "file"
    raise ApiError(f"The {what} {path} does not exist.", code="NOT_FOUND", status=404)


def _headers(place: Path) -> Json:
    return {"Content-Type": "application/octet-stream", "Last-Modified": formatdate(place.stat().st_mtime, usegmt=True)}


def _show(context: RequestContext, place: Path) -> Json:
    shown = {
        "path": "/" + place.relative_to(context.root).as_posix(),
        "name": place.name,
        "is_directory": place.is_dir(),
        "last_modified": files.modified_ms(place),
    }
    return shown if place.is_dir() else {**shown, "file_size": place.stat().st_size}

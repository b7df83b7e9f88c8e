"""What the APIs of files share: where a path is, contents of requests, and errors of the file system."""

from __future__ import annotations

import base64
import contextlib
import shutil
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.messages import ApiError
from airflow_dbjobs.local_workspace.state.paths import STATE_FOLDER, PlaceError, is_inside, is_listed, place_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .context import RequestContext

EXISTS: Final = "RESOURCE_ALREADY_EXISTS"
MISSING: Final = "RESOURCE_DOES_NOT_EXIST"
#: The largest file that is read into one reply.
_MAX_REPLY_BYTES: Final = 512 * 1024 * 1024


def required(context: RequestContext, name: str) -> Any:
    """Return an argument that the request must have."""
    if name not in context.args:
        raise ApiError(f"Field '{name}' is required.")
    return context.args[name]


def locate(context: RequestContext, path: str) -> Path:
    """Return the place below the root that an absolute path stands for."""
    if not path.startswith(("/", "dbfs:/")):
        raise ApiError(f"Field 'path' must be an absolute path, not {path!r}.")
    try:
        return place_of(context.root, path)
    except PlaceError as error:
        raise ApiError(str(error)) from None


def content_of(context: RequestContext, name: str, limit: int | None = None) -> bytes:
    """Return the bytes that an argument holds in base64, or none if it is absent."""
    try:
        content = base64.b64decode(context.args.get(name, ""), validate=True)
    except ValueError:
        raise ApiError(f"Field '{name}' must be encoded in base64.") from None
    if limit is not None and len(content) > limit:
        message = f"Field '{name}' holds {len(content)} bytes; one request may have {limit}."
        raise ApiError(message, code="MAX_BLOCK_SIZE_EXCEEDED")
    return content


def write(place: Path, content: bytes) -> None:
    """Write a file in one step, as a run may be reading it."""
    # One name for all: requests are answered one at a time, and a longer name could be too long.
    scratch = place.with_name(f"{STATE_FOLDER}.new")
    try:
        scratch.write_bytes(content)
        if place.exists():
            shutil.copymode(place, scratch)
        scratch.replace(place)
    finally:
        scratch.unlink(missing_ok=True)


def read(place: Path, offset: int = 0, length: int = -1) -> bytes:
    """Return the content of a file, or a part of it."""
    # The end of a pipe could be waited for without end.
    if place.exists() and not place.is_file():
        raise ApiError(f"{place.name} is not a file.")
    if length < 0 and place.stat().st_size - offset > _MAX_REPLY_BYTES:
        raise ApiError(f"{place.name} is too large for one reply: it has more than {_MAX_REPLY_BYTES} bytes.")
    with place.open("rb") as file:
        file.seek(offset)
        return file.read(length)


def entries(context: RequestContext, folder: Path) -> list[Path]:
    """Return the files and folders in a folder by name, without those that lead out of the root."""
    root = context.root
    return sorted(
        item for item in folder.iterdir() if is_inside(root, item) and is_listed(root, item) and item.exists()
    )


def remove(context: RequestContext, place: Path, path: str, not_empty: str) -> None:
    """Remove a file or a folder; `not_empty` is the error code if the folder has content, and may not have."""
    if place == context.root:
        raise ApiError(f"{path} cannot be deleted.")
    folder, _, name = path.rstrip("/").rpartition("/")
    named = locate(context, f"{folder}/") / name
    if named.is_symlink():
        named.unlink()
    elif not place.is_dir():
        place.unlink()
    elif context.args.get("recursive", False):
        shutil.rmtree(place)
    elif any(place.iterdir()):
        raise ApiError(f"The folder {path} is not empty.", code=not_empty)
    else:
        place.rmdir()


def modified_ms(place: Path) -> int:
    """Return when a file was changed last, in epoch milliseconds."""
    return int(place.stat().st_mtime * 1000)


@contextlib.contextmanager
def api_errors(path: str) -> Iterator[None]:
    """Turn errors of the file system into those of the API."""
    try:
        yield
    except FileNotFoundError:
        raise ApiError(f"{path}, or a folder above it, does not exist.", code=MISSING, status=404) from None
    except (FileExistsError, NotADirectoryError, IsADirectoryError):
        raise ApiError(f"{path}, or a folder above it, already exists as something else.", code=EXISTS) from None
    except PermissionError:
        message = f"The user who runs the local workspace may not use {path}."
        raise ApiError(message, code="PERMISSION_DENIED", status=403) from None
    except (OSError, ValueError) as error:
        raise ApiError(f"{path!r} cannot be used: {getattr(error, 'strerror', None) or error}.") from None

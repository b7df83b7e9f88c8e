"""The operations of the Workspace API: notebooks, files and folders below the root.

A notebook is a file with an extension that its path in the API lacks, as in the cloud: `/etl/load` is `etl/load.py`.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
from codecs import BOM_UTF8
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.engine.notebooks import HEADER
from airflow_dbjobs.local_workspace.messages import MAX_BODY_BYTES, ApiError, Json, Reply

from . import files

if TYPE_CHECKING:
    from pathlib import Path

    from .context import RequestContext

#: The extension of notebooks in source format, and how their first line starts, by language.
_LANGUAGES: Final = {"PYTHON": (".py", "#"), "SQL": (".sql", "--"), "SCALA": (".scala", "//"), "R": (".r", "#")}
_JUPYTER: Final = ".ipynb"
_EXTENSIONS: Final = (*(extension for extension, _ in _LANGUAGES.values()), _JUPYTER)
_IMPORTED: Final = ("SOURCE", "JUPYTER", "AUTO", "RAW")
_EXPORTED: Final = ("SOURCE", "JUPYTER", "AUTO")


def mkdirs(context: RequestContext) -> Json:
    """Create a folder and the folders above it; do nothing if it exists."""
    path = files.required(context, "path")
    with files.api_errors(path):
        files.locate(context, path).mkdir(parents=True, exist_ok=True)
    return {}


def import_(context: RequestContext) -> Json:
    """Store a notebook or a file."""
    path = files.required(context, "path")
    kind = _format(context, _IMPORTED)
    content = files.content_of(context, "content")
    with files.api_errors(path):
        place = files.locate(context, path)
        if place == context.root:
            raise ApiError("Field 'path' must not be the root folder.")
        file, content = _as_stored(context, place, kind, content)
        found = file if file.exists() else _find(context, path, place)
        if found and not context.args.get("overwrite", False):
            raise ApiError(f"{path} already exists.", code=files.EXISTS)
        if found and not found.is_file():
            raise IsADirectoryError
        files.write(file, content)
        if found and found != file:
            # The notebook was kept in another format or language.
            found.unlink()
    return {}


def export(context: RequestContext) -> Json | Reply:
    """Return a notebook or a file as it is stored; formats are not converted."""
    path, place = _existing(context)
    kind = _format(context, _EXPORTED)
    if place.is_dir():
        raise ApiError(f"{path} is a folder; the local workspace exports single notebooks and files.")
    if kind not in ("AUTO", stored := "JUPYTER" if place.suffix == _JUPYTER else "SOURCE"):
        raise ApiError(f"{path} is stored in the format {stored}, and is not converted to {kind}.")
    with files.api_errors(path):
        content = files.read(place)
    if context.args.get("direct_download", False):
        return Reply(body=content, headers={"Content-Type": "application/octet-stream"})
    if len(content) > MAX_BODY_BYTES:
        message = f"{path} is larger than {MAX_BODY_BYTES} bytes; use direct_download."
        raise ApiError(message, code="MAX_NOTEBOOK_SIZE_EXCEEDED")
    return {"content": base64.b64encode(content).decode(), "file_type": place.suffix.removeprefix(".")}


def list_(context: RequestContext) -> Json:
    """List a folder, or a single notebook or file."""
    path, place = _existing(context)
    since = context.args.get("notebooks_modified_after", 0)
    with files.api_errors(path):
        shown = [_show(context, item) for item in (files.entries(context, place) if place.is_dir() else [place])]
    objects = [item for item in shown if item["object_type"] != "NOTEBOOK" or item["modified_at"] >= since]
    return {"objects": objects} if objects else {}


def get_status(context: RequestContext) -> Json:
    """Describe a notebook, a file or a folder."""
    path, place = _existing(context)
    with files.api_errors(path):
        return _show(context, place)


def delete(context: RequestContext) -> Json:
    """Delete a notebook, a file or a folder."""
    path, place = _existing(context)
    with files.api_errors(path):
        files.remove(context, place, path, "DIRECTORY_NOT_EMPTY")
    return {}


def _format(context: RequestContext, known: tuple[str, ...]) -> str:
    kind: str = context.args.get("format", "SOURCE")
    if kind not in known:
        raise ApiError(f"Field 'format' must be one of {', '.join(known)}, not {kind!r}.")
    return kind


def _as_stored(context: RequestContext, place: Path, kind: str, content: bytes) -> tuple[Path, bytes]:
    """Return the file and the content that an import is kept as."""
    if kind == "SOURCE":
        language = context.args.get("language", "")
        if language not in _LANGUAGES:
            raise ApiError(f"Field 'language' must be one of {', '.join(_LANGUAGES)}, not {language!r}.")
        extension, comment = _LANGUAGES[language]
        header = f"{comment} {HEADER}"
        text = _text(content)
        return _with_extension(place, extension), (text if text.startswith(header) else f"{header}\n{text}").encode()
    if kind == "JUPYTER" or (kind == "AUTO" and place.suffix == _JUPYTER):
        try:
            notebook = json.loads(_text(content))
        except (ValueError, RecursionError):
            notebook = None
        if not isinstance(notebook, dict) or "cells" not in notebook:
            raise ApiError("Field 'content' is not a Jupyter notebook.")
        return _with_extension(place, _JUPYTER), content
    return place, content


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise ApiError("Field 'content' must be text in UTF-8.") from None


def _with_extension(place: Path, extension: str) -> Path:
    return place if place.suffix.lower() == extension else place.with_name(place.name + extension)


def _find(context: RequestContext, path: str, place: Path) -> Path | None:
    """Return the file or folder that a path names; the path of a notebook may lack its extension."""
    if place.exists():
        return place
    candidates = (files.locate(context, path + extension) for extension in _EXTENSIONS)
    return next((file for file in candidates if file.is_file() and _language(file)), None)


def _existing(context: RequestContext) -> tuple[str, Path]:
    path = files.required(context, "path")
    with files.api_errors(path):
        if found := _find(context, path, files.locate(context, path)):
            return path, found
    raise ApiError(f"Path ({path}) doesn't exist.", code=files.MISSING, status=404)


def _language(file: Path) -> str | None:
    """Return the language of a notebook; None if a file is not one."""
    if file.suffix == _JUPYTER:
        return "PYTHON"
    for language, (extension, comment) in _LANGUAGES.items():
        if file.suffix.lower() == extension and file.is_file():
            return language if _starts_with(file, f"{comment} {HEADER}".encode()) else None
    return None


def _starts_with(file: Path, header: bytes) -> bool:
    with contextlib.suppress(OSError):
        return files.read(file, length=len(header) + len(BOM_UTF8)).removeprefix(BOM_UTF8).startswith(header)
    return False


def _show(context: RequestContext, place: Path) -> Json:
    """Describe a notebook, a file or a folder, as the API does."""
    path = "/" + "/".join(place.relative_to(context.root).parts)
    # It stays the same while the path does.
    number = int.from_bytes(hashlib.sha256(path.encode(errors="surrogateescape")).digest()[:6])
    shown = {"object_id": number, "resource_id": str(number), "path": path}
    if place.is_dir():
        return {**shown, "object_type": "DIRECTORY"}
    shown["modified_at"] = files.modified_ms(place)
    if language := _language(place):
        return {**shown, "object_type": "NOTEBOOK", "language": language, "path": path.removesuffix(place.suffix)}
    return {**shown, "object_type": "FILE", "size": place.stat().st_size}

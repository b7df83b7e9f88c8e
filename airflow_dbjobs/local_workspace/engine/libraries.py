"""What pip must install for a task: its `libraries`, and the dependencies of its serverless environment."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.state.paths import STATE_FOLDER

from .errors import CannotRunError
from .notebooks import WorkspaceFileError, find_file

if TYPE_CHECKING:
    from pathlib import Path

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.state.records import Run

#: Lines of a requirements file: a file, and perhaps extras of its package; a folder; and others.
_ARCHIVE = re.compile(r"((?:dbfs:|file:)?[^:@]+\.(?:whl|zip|tar\.gz))(\[.*\])?")
_FOLDER = re.compile(r"(?:-e|--editable)[ =]\s*(.+)|((?:dbfs:|file:|\.{0,2}/).+)")
_INCLUDED = re.compile(r"(-r|--requirement)[ =]\s*(.+)")
_COMMENT = re.compile(r"(^|\s)#.*")


def python_libraries(run: Run, spec: Json, root: Path) -> Json | None:
    """Return what `environments.enter` is to install for a task, and where; None if there is nothing.

    :raises CannotRunError: A file does not exist, or the settings are not valid.
    """
    lines: list[str] = []
    own_index: list[list[str]] = []
    notes: list[str] = []
    try:
        for library in spec.get("libraries", []):
            match library:
                case {"pypi": {"package": str(package), "repo": str(repo)}} if repo:
                    own_index.append([f"--index-url {repo}", package])
                case {"pypi": {"package": str(package)}}:
                    lines.append(package)
                case {"whl": str(path)}:
                    lines.append(str(find_file(root, path)))
                case {"requirements": str(path)}:
                    lines += _requirements(root, find_file(root, path))
                case _:
                    notes.append(_note(library))
        lines += _lines(root, _dependencies(run, spec))
    except WorkspaceFileError as error:
        raise CannotRunError(f"A library cannot be installed: {error}", "LIBRARY_INSTALLATION_ERROR") from None
    installs = [lines, *own_index] if lines else own_index
    if not (installs or notes):
        return None
    return {"installs": installs, "notes": notes, "cache": str(root / STATE_FOLDER / "environments")}


def _note(library: Any) -> str:
    """Return what the log says about a library that is not one for Python."""
    return f"Skipped, as only Python libraries can be installed here: {json.dumps(library)}"


def _dependencies(run: Run, spec: Json) -> list[str]:
    """Return the dependencies in the serverless environment that a task names."""
    key = spec.get("environment_key")
    if key is None:
        return []
    environments = run.settings.get("environments", [])
    for environment in environments:
        if environment.get("environment_key") == key:
            return [str(line) for line in (environment.get("spec") or {}).get("dependencies", [])]
    known = ", ".join(repr(item.get("environment_key")) for item in environments) or "none"
    message = f"Field 'environment_key' names {key!r}, which is not in 'environments'; there: {known}."
    raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")


def _requirements(root: Path, file: Path) -> list[str]:
    text = file.read_text(encoding="utf-8-sig", errors="replace").replace("\\\n", " ")
    return _lines(root, text.splitlines(), file.parent)


def _lines(root: Path, lines: list[str], folder: Path | None = None) -> list[str]:
    """Return lines of a requirements file with the files of the workspace as pip finds them on this machine."""
    found: list[str] = []
    for line in (_COMMENT.sub("", line).strip() for line in lines):
        if included := _INCLUDED.match(line):
            found += _requirements(root, find_file(root, included[2], folder=folder))
        elif archive := _ARCHIVE.fullmatch(line):
            found.append(f"{find_file(root, archive[1], folder=folder)}{archive[2] or ''}")
        elif project := _FOLDER.match(line):
            # Editable, as the environment is used again when the project has changed.
            found.append(f"-e {_project(root, project[1] or project[2], folder)}")
        elif line:
            found.append(line)
    return found


def _project(root: Path, path: str, folder: Path | None) -> Path | str:
    """Return the folder of a project in the workspace, or the path as it is: it may be one of this machine or a URL."""
    try:
        return find_file(root, f"{path.rstrip('/')}/pyproject.toml", folder=folder).parent
    except WorkspaceFileError:
        return path

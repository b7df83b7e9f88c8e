"""Finds files and notebooks in the workspace.

Imported by the subprocess of every task, so it imports the standard library only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.state.paths import OutsideRootError, PlaceError, place_of

if TYPE_CHECKING:
    from pathlib import Path

#: The first line of a notebook in source format, after the sign of a comment.
HEADER = "Databricks notebook source"
#: What comments begin with in the notebooks that can run, by their extension.
COMMENTS = {".py": "#", ".sql": "--"}
_OTHERS = (".scala", ".r", ".R")


class WorkspaceFileError(Exception):
    """A path that names no file or notebook of the workspace, or one outside its root."""


def find_file(root: Path, path: str, *, folder: Path | None = None, suffixes: tuple[str, ...] = ("",)) -> Path:
    """Return the file of the workspace that `path` names.

    Relative paths start at `folder` or the root, and `place_of` says where others are. What `dbfs:/x` names may also be
    `x` below the root. `suffixes` are tried in order.

    :raises WorkspaceFileError: There is no such file, or it is outside the root after following symbolic links.
    """
    for name in dict.fromkeys((path, path.removeprefix("dbfs:"))):
        for suffix in suffixes:
            try:
                file = place_of(root, name + suffix, folder=folder)
                found = file.is_file()
            except OutsideRootError as error:
                raise WorkspaceFileError(f"{str(error)[:-1]}; it was not run.") from None
            except (PlaceError, OSError):
                continue
            if found:
                return file
    raise WorkspaceFileError(f"{path!r} was not found under the root folder of the local workspace.")


def find_notebook(root: Path, path: str, *, folder: Path | None = None) -> Path:
    """Return the notebook file that `path` names, with or without its extension.

    :raises WorkspaceFileError: As in `find_file`, or the file is not a notebook, or not one of Python or SQL.
    """
    file = find_file(root, path, folder=folder, suffixes=("", *COMMENTS, ".ipynb", *_OTHERS))
    if file.suffix == ".ipynb":
        return file
    if file.suffix in _OTHERS:
        raise WorkspaceFileError(f"{path!r} is in {file.suffix[1:].title()}; the local workspace runs Python and SQL.")
    try:
        with file.open(encoding="utf-8", errors="replace") as lines:
            first = lines.readline().strip().removeprefix("\ufeff")
    except OSError as error:
        raise WorkspaceFileError(f"{path!r} cannot be read: {error.strerror}.") from None
    header = f"{COMMENTS.get(file.suffix, '#')} {HEADER}"
    if first != header:
        raise WorkspaceFileError(f"{path!r} is not a notebook: its first line is not {header!r}.")
    return file

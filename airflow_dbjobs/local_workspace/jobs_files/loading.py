"""Reads the files that `--jobs` names, and saves their jobs in the workspace."""

from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.local_workspace.messages import ApiError
from airflow_dbjobs.local_workspace.operations import jobs as operations
from airflow_dbjobs.local_workspace.operations.fields import decode
from airflow_dbjobs.local_workspace.operations.validation import check_settings
from airflow_dbjobs.local_workspace.state.folder import WorkspaceError
from airflow_dbjobs.local_workspace.state.records import Job
from airflow_dbjobs.payloads.bundles import FILE_NAMES, Node, is_part, read_nodes, root_file, root_of

from .bundle import FileJob, jobs_of_bundle, stable_id

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence

    from airflow_dbjobs.local_workspace.messages import Json
    from airflow_dbjobs.local_workspace.operations.context import RequestContext

_API_VERSION = "2.2"
_SUFFIXES = (".json", ".yml", ".yaml")


@dataclass(frozen=True)
class JobsFiles:
    """The options `--jobs`, `--target` and `--job-id`.

    :param paths: Bundles (the folder, or its `databricks.yml`), and files, or folders of files, with a job each.
    :param target: The target of the bundles; the default one if empty.
    :param ids: The ids of jobs, by key: that in the bundle, or the name of a file without its suffix.
    """

    paths: Sequence[Path] = ()
    target: str = ""
    ids: Mapping[str, int] = field(default_factory=dict)

    @property
    def root(self) -> Path | None:
        """The folder of the first bundle, with the folders that it synchronizes; None if there is no bundle."""
        file = next(filter(None, map(_bundle_file, self.paths)), None)
        if file is None:
            return None
        try:
            paths = (read_nodes(file)[0].get("sync", "paths") or Node([], file, 1)).plain() or []
        except ConfigurationError:
            # `read` reports it.
            return file.parent
        return Path(os.path.commonpath([(file.parent / str(path)).resolve() for path in (".", *paths)]))

    @property
    def sources(self) -> set[str]:
        """What the paths name: the `source` of their jobs."""
        return {str((_bundle_file(path) or path).resolve()) for path in self.paths}

    def reason_for_no_root(self) -> str:
        """Return why these paths, of which none is a bundle, have no root."""
        for path in self.paths:
            if not path.exists():
                return f"--jobs {path}: no such file or folder."
            for file in (path, *sorted(path.glob("*"))):
                if (bundle := root_of(file)) != file:
                    return f"--jobs {path} belongs to the bundle {bundle}: name that, or its folder."
        paths = ", ".join(map(str, self.paths))
        return f"--jobs {paths} holds no bundle ({FILE_NAMES[0]}): add --root, the folder that holds the notebooks."

    def read(self, root: Path, *, user: str, host: str) -> tuple[list[FileJob], list[str]]:
        """Return the jobs of the files, checked, and notes about what is not as in the cloud.

        :param root: The folder of the workspace.
        :raises WorkspaceError: A file cannot be read, a job is invalid, or an id is not that of a single job.
        """
        if len(self.sources) < len(self.paths):
            raise WorkspaceError(
                f"--jobs names a bundle, file or folder twice: {', '.join(map(str, self.paths))}. Name it once."
            )
        for key, number in self.ids.items():
            if not _is_id(number):
                raise WorkspaceError(
                    f"The id of the job {key!r} must be an integer from 1 to 2**63 - 1, not {number!r}."
                )
        jobs, notes = [], []
        try:
            for path in self.paths:
                if file := _bundle_file(path):
                    found, more = jobs_of_bundle(
                        file, root=root, target=self.target, ids=self.ids, user=user, host=host
                    )
                    jobs += found
                    notes += more
                else:
                    jobs += [self._job_of(file, path) for file in _files(path)]
        except ConfigurationError as error:
            raise WorkspaceError(str(error)) from None
        if self.target and not any(map(_bundle_file, self.paths)):
            raise WorkspaceError(f"--target {self.target} is that of a bundle: name the bundle with --jobs.")
        self._check_ids(jobs)
        return [_checked(job) for job in jobs], notes

    def _job_of(self, file: Path, path: Path) -> FileJob:
        """Return the job in a file: settings as of jobs/create, or what jobs/get answers."""
        node, *others = read_nodes(file)
        settings = node.get("settings") or node
        if others or not isinstance(settings.value, dict):
            raise ConfigurationError(f"{file}: must hold one job: its settings, or the answer of jobs/get.")
        if is_part(settings.plain()):
            raise ConfigurationError(f"{file}: is a part of a bundle. Name the folder of the bundle's {FILE_NAMES[0]}.")
        exported = node.get("job_id")
        job_id = self.ids.get(file.stem) or (_id(exported) if exported else stable_id(file.stem))
        return FileJob(file.stem, job_id, settings.plain(), str(path.resolve()), settings.place)

    def _check_ids(self, jobs: Iterable[FileJob]) -> None:
        seen: dict[int, FileJob] = {}
        for job in jobs:
            if (other := seen.setdefault(job.job_id, job)) is not job:
                raise WorkspaceError(
                    f"{job.place} and {other.place} both have the id {job.job_id}. Give one another: --job-id"
                    f" {job.key}=ID."
                )
        if unknown := self.ids.keys() - {job.key for job in seen.values()}:
            keys = ", ".join(sorted(job.key for job in seen.values())) or "none; name them with --jobs"
            raise WorkspaceError(f"--job-id names {', '.join(sorted(unknown))}; the jobs of the files are: {keys}.")


def chosen_id(text: str) -> tuple[str, int]:
    """Return key and id of `KEY=ID`, the value of `--job-id`."""
    key, _, number = text.rpartition("=")
    if not key or not number.isdecimal() or not 0 < int(number) < 2**63:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=ID, such as nightly=123")
    return key, int(number)


def save(jobs: Sequence[FileJob], sources: Container[str], context: Callable[[str, Json], RequestContext]) -> None:
    """Create or reset the jobs in the workspace, and delete those that their files had when they were last read.

    `sources` are what `--jobs` named, and `context` makes the context of a request from its API version and arguments.
    """
    for job in jobs:
        request = context(_API_VERSION, {"job_id": job.job_id, "new_settings": job.settings})
        saved = request.store.jobs.get(job.job_id) or Job(job.job_id, {}, request.user, request.now_ms)
        saved.source = job.source
        request.store.save(saved)
        operations.reset(request)
    store = context(_API_VERSION, {}).store
    ids = {job.job_id for job in jobs}
    for stale in [job.job_id for job in store.jobs.values() if job.source in sources and job.job_id not in ids]:
        operations.delete(context(_API_VERSION, {"job_id": stale}))


def _bundle_file(path: Path) -> Path | None:
    """Return the root file of a bundle, which may be named itself or by its folder."""
    return path if path.name in FILE_NAMES else root_file(path)


def _files(path: Path) -> list[Path]:
    files = sorted(file for file in path.iterdir() if file.suffix in _SUFFIXES) if path.is_dir() else [path]
    if not files:
        raise ConfigurationError(f"{path}: has neither a {FILE_NAMES[0]} nor jobs as JSON or YAML files.")
    return files


def _is_id(number: object) -> bool:
    return type(number) is int and 0 < number < 2**63


def _id(node: Node) -> int:
    if not str(node.value).isdecimal() or not 0 < int(node.value) < 2**63:
        raise ConfigurationError(f"{node.place}: {node.value!r} is no id of a job. Correct or remove it.")
    return int(node.value)


def _checked(job: FileJob) -> FileJob:
    """Return a job with the types of its fields corrected as those of a request are."""
    try:
        settings = decode(job.settings)
        check_settings(settings, _API_VERSION)
    except ApiError as error:
        raise WorkspaceError(f"{job.place}: {error.message}") from None
    return FileJob(job.key, job.job_id, settings, job.source, job.place)

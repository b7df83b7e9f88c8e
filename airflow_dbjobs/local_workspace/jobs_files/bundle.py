"""The jobs of a bundle, as its deployment to this workspace makes them; their files stay where they are."""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.local_workspace.operations.fields import STRINGS
from airflow_dbjobs.payloads.bundles import (
    Node,
    default_target,
    is_relative,
    jobs_of,
    map_paths,
    merge_elements,
    parameters_as_texts,
    read_bundle,
    with_target,
)

from .references import References

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airflow_dbjobs.local_workspace.messages import Json

#: As many runs of a job may be active in a target of `mode: development`.
_DEVELOPMENT_RUNS: Final = 4
_TRIGGERS: Final = ("schedule", "continuous", "trigger")


@dataclass(frozen=True)
class FileJob:
    """A job of a file. `source` is what `--jobs` named, `place` where the job is."""

    key: str
    job_id: int
    settings: Json
    source: str
    place: str


def stable_id(name: str) -> int:
    """Return an id for a job that depends on nothing but `name`: nine digits, shorter than those of other jobs."""
    return 100_000_000 + int.from_bytes(hashlib.sha256(name.encode()).digest()) % 900_000_000


def jobs_of_bundle(
    file: Path, *, root: Path, target: str, ids: Mapping[str, int], user: str, host: str
) -> tuple[list[FileJob], list[str]]:
    """Return the jobs of a bundle, and notes about what is left out.

    :raises ConfigurationError: The bundle cannot be read, or a reference or path in it leads nowhere.
    """
    bundle = read_bundle(file)
    target = target or default_target(bundle)
    bundle = with_target(bundle, target)
    name = (bundle.get("bundle", "name") or replace(bundle, value="")).plain()
    job_ids = {key: ids.get(key) or stable_id(f"{name}/{key}") for key in jobs_of(bundle)}
    folder = file.parent.resolve()
    root_path = f"/Workspace/Users/{user}/.bundle/{name}/{target}"
    known = {
        "bundle.target": target,
        "bundle.environment": target,
        "workspace.host": host,
        "workspace.current_user.userName": user,
        "workspace.current_user.short_name": _short(user),
        # The deployed copy of the bundle's folder: here, the folder itself.
        "workspace.file_path": str(folder),
        **({} if bundle.get("workspace", "root_path") else {"workspace.root_path": root_path}),
        **{f"resources.jobs.{key}.id": job_id for key, job_id in job_ids.items()},
    }
    presets, is_development = _presets(bundle, target, user)
    bundle = _with_presets(bundle, presets)
    references = References(bundle, target, known)
    try:
        deployed = references.resolved(replace(bundle, value="${workspace.root_path}/files")).value
    except ConfigurationError:
        # No job needs it, or the same mistake is found in the job.
        deployed = str(folder)
    notes = [*_skipped(bundle)]
    if is_development:
        notes.insert(
            0,
            f"target {target!r} is in development mode: names of jobs begin with {presets['name_prefix']!r}."
            " DAGs that run jobs by their names in production need --target NAME.",
        )
    jobs = []
    for key, job in jobs_of(bundle).items():
        made = parameters_as_texts(merge_elements(references.resolved(job))).map(_as_text)
        made = map_paths(made, _localizer(root, folder, deployed, notes.append))
        jobs.append(FileJob(key, job_ids[key], made.plain(), str(file.resolve()), job.place))
    notes += [
        f"{place}: ${{{name}}} is known to a real workspace only, and stays as it is."
        for name, place in references.unknown.items()
    ]
    return jobs, notes


def _as_text(node: Node, names: tuple[str, ...]) -> Node:
    """Return a number or boolean in a field of strings as the text that a deployment makes of it."""
    is_text = bool(names) and names[-1] in STRINGS and isinstance(node.value, int | float)
    return replace(node, value=json.dumps(node.value)) if is_text else node


def _skipped(bundle: Node) -> Iterator[str]:
    for kind, node in bundle.fields("resources").items():
        if kind != "jobs":
            yield f"{node.place}: is not loaded; only jobs are."
    if python := bundle.get("python") or bundle.get("experimental", "python"):
        yield f"{python.place}: is not read, so jobs that Python code defines are missing."


def _short(user: str) -> str:
    """Return the name in `${workspace.current_user.short_name}`."""
    return re.sub(r"\W", "_", user.partition("@")[0])


def _presets(bundle: Node, target: str, user: str) -> tuple[dict[str, Any], bool]:
    """Return the presets of the target, with those that its mode implies, and whether that is development."""
    presets = {name: node.plain() for name, node in bundle.fields("presets").items()}
    presets["tags"] = {name: node.plain() for name, node in bundle.fields("presets", "tags").items()}
    mode = bundle.get("targets", target, "mode") or bundle.get("bundle", "mode")
    is_development = mode is not None and mode.value == "development"
    if is_development:
        tags = {"dev": _short(user), **presets["tags"]}
        presets = {
            "name_prefix": f"[dev {_short(user)}] ",
            "jobs_max_concurrent_runs": _DEVELOPMENT_RUNS,
            "trigger_pause_status": "PAUSED",
            **{name: value for name, value in presets.items() if value},
            "tags": tags,
        }
    return presets, is_development


def _with_presets(bundle: Node, presets: Mapping[str, Any]) -> Node:
    """Return the bundle with presets applied to its jobs."""
    jobs = {key: _preset(job, presets) for key, job in jobs_of(bundle).items()}
    resources = bundle.fields("resources")
    if not jobs:
        return bundle
    resources = {**resources, "jobs": replace(resources["jobs"], value=jobs)}
    return replace(bundle, value={**bundle.value, "resources": replace(bundle.value["resources"], value=resources)})


def _preset(job: Node, presets: Mapping[str, Any]) -> Node:
    settings = dict(job.value)

    def add(fields: dict[str, Node], name: str, value: object) -> None:
        if value and not (name in fields and fields[name].value):
            fields[name] = replace(job, value=value)

    if prefix := presets.get("name_prefix"):
        name = settings.get("name") or replace(job, value="")
        if not isinstance(name.value, dict | list):
            settings["name"] = replace(name, value=f"{prefix}{name.value}")
    # A deployment turns queueing on, unless the job says otherwise.
    settings.setdefault("queue", replace(job, value={"enabled": replace(job, value=True)}))
    add(settings, "max_concurrent_runs", presets.get("jobs_max_concurrent_runs"))
    if tags := presets.get("tags"):
        node = settings.get("tags") or replace(job, value={})
        if isinstance(node.value, dict):
            given = dict(node.value)
            for name, value in tags.items():
                add(given, name, value)
            settings["tags"] = replace(node, value=given)
    for name in _TRIGGERS:
        if name in settings and isinstance(settings[name].value, dict):
            trigger = dict(settings[name].value)
            add(trigger, "pause_status", presets.get("trigger_pause_status"))
            settings[name] = replace(settings[name], value=trigger)
    return replace(job, value=settings)


def _localizer(root: Path, folder: Path, deployed: str, note: Callable[[str], None]) -> Callable[[Node], Node]:
    """Return a function that makes of a path to a file of the bundle the path of the same file in the workspace.

    `deployed` is where the cloud has a copy of `folder`.
    """

    def localized(node: Node) -> Node:
        text = node.value
        if text.startswith(f"{deployed}/"):
            path = folder / text.removeprefix(f"{deployed}/")
        elif is_relative(text):
            path = node.file.parent / text
        elif text.startswith(f"{root}/"):
            path = root / text.removeprefix(f"{root}/")
        else:
            return node
        try:
            path = _newest(path).resolve()
            exists = any(path.with_name(path.name + suffix).exists() for suffix in ("", ".py", ".ipynb"))
        except (OSError, ValueError, RuntimeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ConfigurationError(f"{node.place}: {text!r} cannot be a path: {reason}.") from None
        if not path.is_relative_to(root):
            raise ConfigurationError(
                f"{node.place}: {text!r} is outside the root folder, {root}. Start with a --root that holds both:"
                f" --root {os.path.commonpath((root, path))}"
            )
        if not exists:
            build = " Build it, and start the workspace again." if "*" in path.name else ""
            note(f"{node.place}: there is no file {path}.{build}")
        return replace(node, value=f"/{path.relative_to(root).as_posix()}")

    return localized


def _newest(path: Path) -> Path:
    """Return the newest file that a pattern matches, as `dist/*.whl` does, or the path itself."""
    matches = path.parent.glob(path.name) if "*" in path.name else ()
    return max(matches, key=lambda file: file.stat().st_mtime, default=path)

"""Read Databricks bundles (``databricks.yml`` and what it includes): the jobs that each target has.

Every value keeps its place, as the parts of a job may come from several files. The local workspace reads bundles with
this module, too.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.body import TEXT_PARAMETERS
from airflow_dbjobs.payloads.files import Document, read
from airflow_dbjobs.payloads.templates import UNKNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

FILE_NAMES = ("databricks.yml", "databricks.yaml", "bundle.yml", "bundle.yaml")
# A file with one of these mappings is a bundle, or a part of one: no payload has them.
_SECTIONS = ("bundle", "resources", "targets", "variables")
# What of these a target has is merged with what the bundle has.
_MERGED = ("bundle", "workspace", "presets", "resources")
# Lists of a job whose elements are merged if they have the same key; those of other lists are appended.
_KEYS = {"tasks": "task_key", "job_clusters": "job_cluster_key", "parameters": "name"}
# Fields of a job in a bundle that are no settings: other APIs have them, or only the deployment.
_NOT_SETTINGS = ("permissions", "lifecycle")
# Fields of a task that may name a file of the bundle; "*" is an index.
_PATHS = {
    ("notebook_task", "notebook_path"),
    ("spark_python_task", "python_file"),
    ("sql_task", "file", "path"),
    ("dbt_task", "project_directory"),
    ("alert_task", "workspace_path"),
    *(("libraries", "*", kind) for kind in ("whl", "jar", "egg", "requirements")),
}
_DEPENDENCIES = ("environments", "*", "spec", "dependencies", "*")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_SUFFIXES = (".yml", ".yaml", ".json")
_GLOB = re.compile(r"[*?\[]")


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a file, and its place there. What a mapping or a list holds are nodes, too."""

    value: Any
    file: Path
    line: int
    path: str = ""

    @property
    def place(self) -> str:
        """File, line and path: messages begin with it."""
        return f"{self.file}:{self.line}: {self.path}".removesuffix(": ")

    def get(self, *names: str | int) -> Node | None:
        """Return the value below this one that has these names and indexes, or None."""
        node: Node | None = self
        for name in names:
            value = node.value if node else None
            if isinstance(value, list):
                node = value[name] if isinstance(name, int) and name < len(value) else None
            else:
                node = value.get(name) if isinstance(value, dict) else None
        return node

    def fields(self, *names: str) -> dict[str, Node]:
        """Return the mapping below this node, empty if absent. Raises ConfigurationError if it is not a mapping."""
        node = self.get(*names)
        if node is None or node.value is None:
            return {}
        if not isinstance(node.value, dict):
            raise ConfigurationError(f"{node.place}: must be a mapping, not {type(node.value).__name__}.")
        return node.value

    def plain(self) -> Any:
        """Return the value as JSON has it."""
        if isinstance(self.value, dict):
            return {name: node.plain() for name, node in self.value.items()}
        return [node.plain() for node in self.value] if isinstance(self.value, list) else self.value

    def map(self, change: Callable[[Node, tuple[str, ...]], Node], names: tuple[str, ...] = ()) -> Node:
        """Return this node with `change(node, names)` in the place of each scalar; "*" stands for an index."""
        if isinstance(self.value, dict):
            changed = {name: node.map(change, (*names, name)) for name, node in self.value.items()}
            return replace(self, value=changed)
        if isinstance(self.value, list):
            return replace(self, value=[node.map(change, (*names, "*")) for node in self.value])
        return change(self, names)

    def by_path(self, path: str = "") -> Iterator[tuple[str, Node]]:
        """Yield this node and all below it, with their paths from here: those in a file differ after a merge."""
        yield path, self
        if isinstance(self.value, dict):
            for name, node in self.value.items():
                yield from node.by_path(f"{path}.{name}".removeprefix("."))
        elif isinstance(self.value, list):
            for index, node in enumerate(self.value):
                yield from node.by_path(f"{path}[{index}]")


def read_nodes(file: Path, *, may_be_empty: bool = False) -> list[Node]:
    """Return the documents of a JSON or YAML file. Raises ConfigurationError if it cannot be read."""
    return [node_of(document, file) for document in read(file, may_be_empty=may_be_empty)]


def node_of(document: Document, file: Path) -> Node:
    """Return a document of a file as a node."""

    def node(value: Any, path: str) -> Node:
        if isinstance(value, dict):
            value = {str(name): node(item, f"{path}.{name}".lstrip(".")) for name, item in value.items()}
        elif isinstance(value, list):
            value = [node(item, f"{path}[{index}]") for index, item in enumerate(value)]
        return Node(value, file, document.line_of(path), path)

    return node(document.payload, "")


def is_part(payload: object) -> bool:
    """Return whether the content of a file is a bundle, or a part of one."""
    return isinstance(payload, dict) and any(isinstance(payload.get(name), dict) for name in _SECTIONS)


def root_file(folder: Path) -> Path | None:
    """Return the file in a folder that is the root of a bundle, or None."""
    return next((folder / name for name in FILE_NAMES if (folder / name).is_file()), None)


def root_of(file: Path) -> Path:
    """Return the root file of the bundle that includes a file, or the file itself if none does.

    A root file that cannot be read counts as one that does.
    """
    here = Path.cwd()
    folders = file.absolute().parents
    roots = (root_file(folder.relative_to(here) if folder.is_relative_to(here) else folder) for folder in folders)
    root = next(filter(None, roots), file)
    try:
        included = file.suffix in _SUFFIXES and file.resolve() in {path.resolve() for path in _included(_part(root))}
    except ConfigurationError:
        return root
    return root if included else file


def read_bundle(file: Path, root: Node | None = None) -> Node:
    """Return a bundle: the root file, or a single part, with what it includes. `root` is the content of the file.

    Raises ConfigurationError if a file cannot be read or is no part of a bundle, or two define the same resource.
    """
    root = root or _part(file)
    parts = [root, *map(_part, _included(root))]
    _refuse_redefinition(parts)
    bundle = parts[0]
    for part in parts[1:]:
        bundle = _merged(bundle, part)
    return bundle


def _part(file: Path) -> Node:
    documents = read_nodes(file, may_be_empty=True)
    part = documents[0] if documents else Node({}, file, 1)
    if len(documents) > 1 or not isinstance(part.value, dict | None):
        raise ConfigurationError(f"{file}: a part of a bundle must be one YAML document, with a mapping.")
    return part if part.value is not None else replace(part, value={})


def _included(root: Node) -> list[Path]:
    """Return the files that a root file includes. As in the Databricks CLI, ``**`` matches one folder."""
    found: dict[Path, None] = {}
    folder = root.file.parent
    include = root.get("include") or replace(root, value=[])
    if not isinstance(include.value, list | None):
        raise ConfigurationError(f"{include.place}: must be a list of paths.")
    for node in include.value or []:
        pattern = str(node.value).replace("**", "*").removeprefix("./")
        try:
            matches = sorted(folder.glob(pattern)) if _GLOB.search(pattern) else [folder / pattern]
        except (ValueError, NotImplementedError) as error:
            raise ConfigurationError(f"{node.place}: {pattern!r} is not a pattern of paths in the bundle.") from error
        found.update(dict.fromkeys(path for path in matches if path.name not in FILE_NAMES or path.parent != folder))
    return list(found)


def _refuse_redefinition(parts: Iterable[Node]) -> None:
    places: dict[tuple[str, str], str] = {}
    for part in parts:
        for kind in part.fields("resources"):
            for key, node in part.fields("resources", kind).items():
                if (other := places.setdefault((kind, key), node.place)) != node.place:
                    raise ConfigurationError(f"{node.place}: is defined twice, also in {other}. Rename one.")


def _merged(base: Node, given: Node) -> Node:
    """Return `base` with what `given` has: mappings are merged, lists appended, other values replaced."""
    if given.value is None:
        return base
    if isinstance(base.value, dict) and isinstance(given.value, dict):
        made = dict(base.value)
        for name, node in given.value.items():
            made[name] = _merged(made[name], node) if name in made else node
        return replace(base, value=made)
    if isinstance(base.value, list) and isinstance(given.value, list):
        return replace(base, value=[*base.value, *given.value])
    return given


def merge_elements(job: Node) -> Node:
    """Return a job with what a target has for a task, a cluster or a parameter merged with what the bundle has for it.

    A list is UNKNOWN if that depends on a reference (``${var.x}``) which is not replaced yet.
    """
    lists = {name: (node, key) for name, key in _KEYS.items() if isinstance((node := job.get(name) or job).value, list)}
    made = {name: replace(node, value=_elements(node.value, key)) for name, (node, key) in lists.items()}
    return replace(job, value=job.value | made)


def _elements(nodes: list[Node], key: str) -> list[Node] | str:
    made: list[Node] = []
    for node in nodes:
        name = node.get(key)
        # Two elements of one list remain two: that is a mistake.
        others = [other for other in made if other.path.rpartition("[")[0] != node.path.rpartition("[")[0]]
        names = [of.value for other in others if (of := other.get(key))]
        if others and any("${" in str(value) for value in [*names, name and name.value]):
            return UNKNOWN
        same = next((other for other in others if name and (of := other.get(key)) and of.value == name.value), None)
        if same is None:
            made.append(node)
        else:
            made[made.index(same)] = _merged(same, node)
    return made


def targets_of(bundle: Node) -> list[str]:
    """Return the names of the bundle's targets."""
    return list(bundle.fields("targets"))


def default_target(bundle: Node) -> str:
    """Return the default target, "default" if there is none. Raises ConfigurationError if it cannot be known."""
    names = targets_of(bundle)
    marked = [name for name in names if (node := bundle.get("targets", name, "default")) and node.value is True]
    chosen = marked or names or ["default"]
    if len(chosen) > 1:
        raise ConfigurationError(f"{bundle.file}: has no single default target. Name one of {', '.join(names)}.")
    return chosen[0]


def with_target(bundle: Node, name: str) -> Node:
    """Return the bundle with what a target overrides, except for variables. Raises ConfigurationError."""
    target = bundle.get("targets", name)
    if target is None and (name != "default" or targets_of(bundle)):
        names = ", ".join(targets_of(bundle))
        remedy = f"Name one of {names}" if names else "Name none, as it has no targets"
        raise ConfigurationError(f"{bundle.file}: has no target {name!r}. {remedy}.")
    overrides = {field: node for field in _MERGED if (node := target and target.get(field))}
    return _merged(bundle, replace(bundle, value=overrides))


def jobs_of(bundle: Node) -> dict[str, Node]:
    """Return the settings of the jobs, by their keys. Raises ConfigurationError if one is not a mapping."""
    jobs = bundle.fields("resources", "jobs")
    return {
        key: replace(job, value={name: node for name, node in job.fields().items() if name not in _NOT_SETTINGS})
        for key, job in jobs.items()
    }


def map_paths(job: Node, change: Callable[[Node], Node]) -> Node:
    """Return a job with `change(node)` in the place of each path of a file that may be the bundle's.

    A job with a ``git_source`` has none. The node that `change` gets is a string, without the ``-r`` of pip.
    """

    def changed(node: Node, names: tuple[str, ...]) -> Node:
        if not isinstance(node.value, str):
            return node
        flag, _, path = node.value.rpartition(" ") if re.match(r"-[re] \S+$", node.value) else ("", "", node.value)
        if not (_task_field(names) in _PATHS or (names == _DEPENDENCIES and (flag or _is_file(path)))):
            return node
        new = change(replace(node, value=path))
        return replace(new, value=f"{flag} {new.value}") if flag else new

    return job if job.get("git_source") else job.map(changed)


def parameters_as_texts(job: Node) -> Node:
    """Return a job with the texts that a deployment makes of numbers and booleans among the parameters of code."""

    def text(node: Node, names: tuple[str, ...]) -> Node:
        is_parameter = isinstance(node.value, int | float) and not TEXT_PARAMETERS.isdisjoint(names)
        return replace(node, value=json.dumps(node.value)) if is_parameter else node

    return job.map(text)


def _task_field(names: tuple[str, ...]) -> tuple[str, ...]:
    """Return the names of a field of a task below the task, which may be that of a ``for_each_task``."""
    below = names[2:] if names[:2] == ("tasks", "*") else ()
    return below[2:] if below[:2] == ("for_each_task", "task") else below


def _is_file(dependency: str) -> bool:
    """Return whether a dependency of an environment is a file, not the name of a package."""
    return dependency.startswith((".", "/")) or dependency.endswith(".whl")


def is_relative(path: str) -> bool:
    """Return whether a path in a bundle is relative to the file that names it."""
    return not (path.startswith(("/", "${", "{{")) or _SCHEME.match(path))

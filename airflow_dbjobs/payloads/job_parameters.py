"""Let templated parameters of tasks travel as parameters of their job, so that its settings stay the same in each run.

A task's parameter with a template becomes a reference to a parameter of the job, ``{{job.parameters.<name>}}``. The
caller renders the template and sends its value with each run; a repair of the run gets the same value again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.payloads.references import is_constant, split_expressions
from airflow_dbjobs.payloads.rules.parameters import MAX_BYTES
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Mapping

# By type of task the fields whose value, or whose elements, Databricks fills in when the task starts.
_FIELDS: dict[str, tuple[str, ...]] = {
    "notebook_task": ("base_parameters",),
    "spark_python_task": ("parameters",),
    "spark_jar_task": ("parameters",),
    "spark_submit_task": ("parameters",),
    "python_wheel_task": ("parameters", "named_parameters"),
    "sql_task": ("parameters",),
    "dbt_task": ("commands",),
    "run_job_task": ("job_parameters",),
    "condition_task": ("left", "right"),
    "for_each_task": ("inputs",),
}
_VALUES = ("left", "right", "inputs")
# How many parameters an error names.
_NAMED = 3


class JobParameters:
    """The parameters of a job: the templates whose values each run sends, by name.

    `fixed` are the paths of templates that cannot travel so: they become settings of the job. `taken` are names that
    the parameters must not have: those that the job has already, and those that its tasks use for themselves, which a
    parameter of the job would override.
    """

    def __init__(self, taken: set[str]) -> None:
        self.templates: dict[str, Any] = {}
        self.fixed: list[str] = []
        self._taken = taken

    def hoist(self, task: Mapping[str, Any], task_key: str, path: str) -> dict[str, Any]:
        """Return a task's settings with references in the place of templates. `path` is where errors look for it."""
        return {
            name: self.hoist_fields(value, _FIELDS[name], task_key, f"{path}.{name}")
            if name in _FIELDS and isinstance(value, dict)
            else self.fix(value, f"{path}.{name}")
            for name, value in task.items()
        }

    def hoist_fields(self, settings: Mapping[str, Any], fields: tuple[str, ...], key: str, path: str) -> dict[str, Any]:
        """Return settings with references in the place of templates in these fields; `key` begins their names."""
        hoisted: dict[str, Any] = {}
        for name, value in settings.items():
            below = f"{path}.{name}"
            if name == "task" and isinstance(value, dict):
                hoisted[name] = self.hoist(value, key, below)
            elif name in _VALUES and name in fields:
                hoisted[name] = self._hoist_value(value, f"{key}_{name}", below)
            elif name in fields and isinstance(value, dict):
                hoisted[name] = {
                    each: self._hoist_value(item, f"{key}_{each}", f"{below}.{each}") for each, item in value.items()
                }
            elif name in fields and isinstance(value, (list, tuple)):
                hoisted[name] = [
                    self._hoist_value(item, f"{key}_{name}_{number}", f"{below}[{number}]")
                    for number, item in enumerate(value)
                ]
            else:
                hoisted[name] = self.fix(value, below)
        return hoisted

    def _hoist_value(self, value: Any, name: str, path: str) -> Any:
        if not varies(value):
            return self.fix(value, path)
        parts = split_expressions(value) if isinstance(value, str) else ["", value, ""]
        if parts is None:
            return self.fix(value, path)
        return "".join(self._reference(part, name) if index % 2 else part for index, part in enumerate(parts))

    def _reference(self, template: Any, name: str) -> str:
        wanted = name = re.sub(r"[^A-Za-z0-9_]", "_", name)
        number = 1
        while name in self._taken:
            number += 1
            name = f"{wanted}_{number}"
        self._taken.add(name)
        self.templates[name] = template
        # Airflow renders this to the reference.
        return f"{{{{ '{{{{job.parameters.{name}}}}}' }}}}"

    def fix(self, value: Any, path: str) -> Any:
        """Record the templates in `value`, which is returned, as settings of the job."""
        if isinstance(value, dict):
            for name, item in value.items():
                self.fix(item, f"{path}.{name}")
        elif isinstance(value, (list, tuple)):
            for number, item in enumerate(value):
                self.fix(item, f"{path}[{number}]")
        elif varies(value):
            self.fixed.append(path)
        return value


def varies(value: object) -> bool:
    """Return whether Airflow may render a value to another one in each DAG run."""
    return is_templated(value) and not (isinstance(value, str) and "{" in value and is_constant(value))


def own_names(task: Mapping[str, Any]) -> set[str]:
    """Return the names of a task's own parameters."""
    names: set[str] = set()
    for kind, fields in _FIELDS.items():
        settings = task.get(kind)
        if isinstance(settings, dict):
            names.update(*(settings[name] for name in fields if isinstance(settings.get(name), dict)))
            names |= own_names(settings["task"]) if isinstance(settings.get("task"), dict) else set()
    return names


def to_text(value: object) -> str:
    """Return the value of a parameter as the string that the API requires."""
    # The output of a mapped task is a sequence of Airflow's own.
    plain = list(value) if isinstance(value, Sequence) else value
    return value if isinstance(value, str) else json.dumps(plain, default=str)


def size_of(parameters: Mapping[str, str]) -> int:
    """Return the size of ``job_parameters`` in bytes; the API counts the name of the field, too."""
    return len(json.dumps({"job_parameters": parameters}, ensure_ascii=False, separators=(",", ":")).encode())


def check_size(parameters: Mapping[str, str]) -> None:
    """Raise ConfigurationError if the API would reject the parameters because of their size."""
    size = size_of(parameters)
    if size <= MAX_BYTES:
        return
    largest = sorted(parameters, key=lambda name: len(parameters[name].encode()), reverse=True)[:_NAMED]
    sizes = ", ".join(f"{name} ({len(parameters[name].encode()):,} bytes)" for name in largest)
    raise ConfigurationError(
        f"The job parameters have {size:,} bytes, and the API accepts {MAX_BYTES:,}. Nothing was written or launched."
        f" The largest: {sizes}. Pass large data in a file or a table, and its name as the parameter."
    )

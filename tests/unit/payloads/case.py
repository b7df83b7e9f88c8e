"""What a case of a rule is: changes to a payload in which nothing is wrong."""

from __future__ import annotations

import copy
import re
from typing import Any, NamedTuple

GONE = object()

CLUSTER = {"spark_version": "15.4.x-scala2.12", "num_workers": 1, "node_type_id": "m"}
TASK = {"task_key": "a", "notebook_task": {"notebook_path": "/a"}, "new_cluster": CLUSTER}
FLAT = {"notebook_task": {"notebook_path": "/a"}, "new_cluster": CLUSTER}
SETTINGS = {"name": "nightly", "tasks": [TASK]}
GOOD: dict[str, dict[str, Any]] = {
    "create": SETTINGS,
    "reset": {"job_id": 1, "new_settings": SETTINGS},
    "update": {"job_id": 1, "new_settings": {"name": "nightly"}},
    "delete": {"job_id": 1},
    "get": {"job_id": 1},
    "list": {},
    "run-now": {"job_id": 1},
    "runs/submit": {"run_name": "nightly", "tasks": [TASK]},
    "runs/repair": {"run_id": 1, "rerun_tasks": ["a"]},
    "runs/cancel": {"run_id": 1},
    "runs/cancel-all": {"job_id": 1},
    "runs/delete": {"run_id": 1},
    "runs/get": {"run_id": 1},
    "runs/get-output": {"run_id": 1},
    "runs/export": {"run_id": 1},
    "runs/list": {},
    "permissions": {"access_control_list": [{"user_name": "a@example.com", "permission_level": "CAN_VIEW"}]},
}


class Case(NamedTuple):
    """A rule, what keeps it and what breaks it (value by path), and the place that must be told."""

    rule: str
    good: dict[str, Any]
    bad: dict[str, Any]
    where: str
    endpoint: str = "create"
    version: str = "2.2"
    warns: bool = False


def body_of(endpoint: str, version: str, changes: dict[str, Any]) -> Any:
    """Return a payload in which nothing is wrong but the changes."""
    body: Any = copy.deepcopy(GOOD[endpoint])
    if version == "2.0":
        for holder in (body, body.get("new_settings", {})):
            if holder.pop("tasks", None):
                holder.update(copy.deepcopy(FLAT))
    for path, value in changes.items():
        if not path:
            return value
        steps: list[Any] = [
            int(step[1:-1]) if step.startswith("[") else step for step in re.findall(r"[^.\[\]]+|\[\d+\]", path)
        ]
        holder = body
        for step, following in zip(steps, [*steps[1:], None], strict=True):
            if following is None:
                _set(holder, step, copy.deepcopy(value) if value is not GONE else GONE)
            else:
                if isinstance(step, str) and step not in holder:
                    holder[step] = [] if isinstance(following, int) else {}
                elif isinstance(step, int) and step == len(holder):
                    holder.append({})
                holder = holder[step]
    return body


def _set(holder: Any, step: Any, value: Any) -> None:
    if value is GONE:
        del holder[step]
    elif isinstance(step, int) and step == len(holder):
        holder.append(value)
    else:
        holder[step] = value


def task_of(kind: str, definition: Any, **more: Any) -> dict[str, Any]:
    """Return changes that make the first task one of another type."""
    return {"tasks[0]": {"task_key": "a", kind: definition, **more}}


# The places that most cases are about.
T = "tasks[0]"
C = "tasks[0].new_cluster"
N = "tasks[0].notebook_task"

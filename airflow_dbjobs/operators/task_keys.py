"""The key of an operator's task in a workflow group, and the group itself."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import BaseOperator

_MAX_KEY = 100


def task_key(task_id: str) -> str:
    """Return the key made of a task id, which the API accepts; a long one is cut, and made unique by its hash."""
    key = re.sub(r"[^A-Za-z0-9_-]", "_", task_id.replace(".", "__"))
    if len(key) <= _MAX_KEY:
        return key
    digest = hashlib.sha256(task_id.encode()).hexdigest()[:16]
    return f"{key[: _MAX_KEY - 1 - len(digest)]}_{digest}"


def workflow_group(operator: BaseOperator) -> Any:
    """Return the nearest workflow group above an operator, or None."""
    group: Any = operator.task_group
    while group is not None and not getattr(group, "is_databricks", False):
        group = group.parent_group
    return group

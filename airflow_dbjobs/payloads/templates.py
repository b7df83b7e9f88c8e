"""What is not known before a task runs: Jinja strings, XComArgs, files that hold a template."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# `{{` is also how Databricks marks what it fills in itself ("{{job.run_id}}"): that is not known here either.
_MARKS = ("{{", "{%", "{#")
# The template_ext of the operators: Airflow puts the file's content in the place of its name.
_FILE_SUFFIX = ".json-tpl"
# A template, of which nothing is known.
UNKNOWN = "{{ }}"


def is_templated(value: object) -> bool:
    """Whether `value` stands for another one, which only Airflow (or Databricks, at the run) will know.

    Airflow's own objects (XComArg, DagParam, Param, mapped arguments) are known by their ``resolve``, as in Airflow 3:
    nothing of Airflow is imported here. Paths have one too, and are no templates. A function is one only where it is
    the whole of a template field: ``checks.check_early`` sees to that.
    """
    if isinstance(value, str):
        return ("{" in value and any(mark in value for mark in _MARKS)) or value.endswith(_FILE_SUFFIX)
    if value is None or isinstance(value, (dict, list, tuple, int, float)):
        return False
    return callable(getattr(value, "resolve", None)) and not isinstance(value, os.PathLike)


def without(value: Any, is_unknown: Callable[[str], bool]) -> Any:
    """Return `value` with a template in the place of each text of which nothing is known."""
    if isinstance(value, str):
        return UNKNOWN if is_unknown(value) else value
    if isinstance(value, dict):
        return {key: without(item, is_unknown) for key, item in value.items()}
    if isinstance(value, list):
        return [without(item, is_unknown) for item in value]
    return value

"""Recognize values that are unknown before a task runs: Jinja strings, XComArgs and names of template files."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

# "{{" also begins Databricks' references ("{{job.run_id}}"), whose values are just as unknown.
_MARKS = ("{{", "{%", "{#")
# The template_ext of the operators: Airflow replaces the file name by the file's content.
_FILE_SUFFIX = ".json-tpl"
# Values of these classes are no templates, though their elements may be.
_PLAIN = frozenset({dict, list, tuple, int, float, bool, type(None)})
# Stands for a value of which nothing is known.
UNKNOWN = "{{ }}"


def is_templated(value: object) -> bool:
    """Return whether Airflow, or Databricks during the run, will replace `value` by another one.

    This module must not import Airflow, so Airflow's objects (XComArg, DagParam, Param, mapped arguments) are
    recognized by their method ``resolve``. Paths have one, too, but are not templates. Airflow calls a function only if
    it is the whole value of a template field; ``validation.check_early`` handles those.
    """
    if isinstance(value, str):
        return ("{" in value and any(mark in value for mark in _MARKS)) or value.endswith(_FILE_SUFFIX)
    if type(value) in _PLAIN:
        return False
    return callable(getattr(value, "resolve", None)) and not isinstance(value, os.PathLike)


def mask_texts(value: Any, is_unknown: Callable[[str], bool]) -> Any:
    """Return `value` with each string for which `is_unknown` returns True replaced by UNKNOWN."""
    if isinstance(value, str):
        return UNKNOWN if is_unknown(value) else value
    if isinstance(value, dict):
        return {key: mask_texts(item, is_unknown) for key, item in value.items()}
    if isinstance(value, list):
        return [mask_texts(item, is_unknown) for item in value]
    return value

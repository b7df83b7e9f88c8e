"""What is not known before a task runs: Jinja strings, XComArgs, files that hold a template."""

from __future__ import annotations

# `{{` is also how Databricks marks what it fills in itself ("{{job.run_id}}"): that is not known here either.
_MARKS = ("{{", "{%", "{#")
# The template_ext of the operators: Airflow puts the file's content in the place of its name.
_FILE_SUFFIX = ".json-tpl"


def is_templated(value: object) -> bool:
    """Whether `value` stands for another one, which only Airflow (or Databricks, at the run) will know.

    Airflow's own objects (XComArg, DagParam, Param, mapped arguments) are known by their ``resolve``, so that nothing
    of Airflow is imported here; a template field may also be a function.
    """
    if isinstance(value, str):
        return ("{" in value and any(mark in value for mark in _MARKS)) or value.endswith(_FILE_SUFFIX)
    if value is None or isinstance(value, (dict, list, tuple, int, float)):
        return False
    return callable(getattr(value, "resolve", None)) or callable(value)

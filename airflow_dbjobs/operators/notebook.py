"""The operator that runs a notebook, in a workflow group or in a run of its own."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.task import NOTHING, SingleTaskOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.payloads import Library
    from airflow_dbjobs.payloads.field_types import Many, Map, Text


class DatabricksNotebookOperator(SingleTaskOperator):
    """Runs a notebook: as a task of the job of a workflow group, or else of a one-time run.

    Databricks stops the notebook after the task's ``execution_timeout``, too. ``operators.task.SingleTaskOperator``
    describes the other parameters, and ``operators.submit_run.DatabricksSubmitRunOperator`` the result.

    :param notebook_path: the path of the notebook: absolute in the workspace, relative in a Git repository.
    :param source: WORKSPACE or GIT. By default GIT if the run has a ``git_source``, else WORKSPACE.
    :param notebook_params: the parameters of the notebook, by name.
    :param notebook_packages: the libraries to install on its cluster, in addition to those of the workflow group.
    """

    template_fields: Sequence[str] = (
        *SingleTaskOperator.template_fields, "notebook_path", "source", "notebook_params", "notebook_packages",
    )  # fmt: skip

    def __init__(
        self,
        *,
        notebook_path: Text,
        source: Text = None,
        notebook_params: Map = None,
        notebook_packages: Many[Library] = None,
        **kwargs: Any,
    ) -> None:
        self.notebook_path = notebook_path
        self.source = source
        self.notebook_params = notebook_params
        self.notebook_packages: Any = notebook_packages
        super().__init__(**kwargs)

    def _task_settings(self) -> dict[str, Any]:
        fields = {
            "notebook_path": self.notebook_path,
            "source": self.source,
            "base_parameters": self.notebook_params,
        }
        settings: dict[str, Any] = {
            "notebook_task": {name: value for name, value in fields.items() if value not in NOTHING}
        }
        if self.execution_timeout:
            settings["timeout_seconds"] = math.ceil(self.execution_timeout.total_seconds())
        return settings

    def _task_fields(self) -> dict[str, Any]:
        given = super()._task_fields()
        if self.notebook_packages in NOTHING:
            return given
        libraries = [*given["libraries"], *self.notebook_packages] if "libraries" in given else self.notebook_packages
        return {**given, "libraries": libraries}

"""The operator that runs a notebook, in a workflow group or in a run of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.operators.task import SingleTaskOperator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.payloads import Library
    from airflow_dbjobs.payloads.field_types import Many, Map, Text


class DatabricksNotebookOperator(SingleTaskOperator):
    """Runs a notebook: as a member of a workflow group, or else as a one-time run of its own.

    :param notebook_path: the path of the notebook.
    :param source: ``WORKSPACE`` or ``GIT``, by default as Databricks decides.
    :param notebook_params: the parameters of the notebook, by name.
    :param notebook_packages: the libraries to install on its cluster.
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
        self.notebook_packages = notebook_packages
        super().__init__(**kwargs)

    def _task_settings(self) -> dict[str, Any]:
        notebook = {"notebook_path": self.notebook_path}
        if self.source:
            notebook["source"] = self.source
        if self.notebook_params:
            notebook["base_parameters"] = self.notebook_params
        return {"notebook_task": notebook, **({"libraries": self.notebook_packages} if self.notebook_packages else {})}

"""A Jobs API server for one machine: for trying out DAGs, and for this project's own tests.

It stands in for the cloud, so it shares no code with the client: a mistake made in both would go unnoticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names

if TYPE_CHECKING:
    from .faults import Fault
    from .jobs_files.loading import JobsFiles
    from .workspace import LocalWorkspace
else:
    # The subprocess of every task imports this package too, and must start fast.
    __getattr__ = lazy_names(
        {
            "Fault": "airflow_dbjobs.local_workspace.faults",
            "JobsFiles": "airflow_dbjobs.local_workspace.jobs_files.loading",
            "LocalWorkspace": "airflow_dbjobs.local_workspace.workspace",
        }
    )

__all__ = ["Fault", "JobsFiles", "LocalWorkspace"]

"""A Jobs API server for one machine: the workspace to try a DAG on, and the one every test here runs against.

It stands for the cloud, so it shares no code with the client: a mistake made in both would hide itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.faults import Fault
    from airflow_dbjobs.local_workspace.workspace import LocalWorkspace

__all__ = ["Fault", "LocalWorkspace"]


def __getattr__(name: str) -> object:
    """Import what is exported when it is first asked for: the subprocess of every task imports this package too."""
    if name == "LocalWorkspace":
        from airflow_dbjobs.local_workspace.workspace import LocalWorkspace

        return LocalWorkspace
    if name == "Fault":
        from airflow_dbjobs.local_workspace.faults import Fault

        return Fault
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

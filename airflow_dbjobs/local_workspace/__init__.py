"""A Jobs API server for one machine: for trying out DAGs, and for this project's own tests.

It stands in for the cloud, so it shares no code with the client: a mistake made in both would go unnoticed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .faults import Fault
    from .workspace import LocalWorkspace

__all__ = ["Fault", "LocalWorkspace"]


def __getattr__(name: str) -> object:
    """Import the exports on first use: the subprocess of every task imports this package too and must start fast."""
    if name == "LocalWorkspace":
        from .workspace import LocalWorkspace

        return LocalWorkspace
    if name == "Fault":
        from .faults import Fault

        return Fault
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

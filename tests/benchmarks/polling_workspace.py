"""A local workspace for the polling benchmark: its runs are entries that end when they are told to, and run nothing."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from airflow_stack import WorkspaceServer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

# Longer than any benchmark: runs end when they are told to.
FOR_EVER_SECONDS = 86_400


class SimulatedWorkspace(WorkspaceServer):
    """A workspace in `folder`, whose listings have at most `page_size` runs on a page."""

    def __init__(self, folder: Path, page_size: int) -> None:
        root = folder / "workspace"
        root.mkdir(parents=True)
        super().__init__(root, folder / "logs")
        self._page_size = page_size

    @property
    def port(self) -> int:
        """Where the server listens."""
        return self._port

    def start(self) -> None:
        """Start the server."""
        options = ("--root", str(self.root), "--port", str(self._port), "--token", self._token)
        simulate = ("--simulate", str(FOR_EVER_SECONDS), "--max-page", str(self._page_size))
        self.processes.start("workspace", sys.executable, "-m", "airflow_dbjobs.local_workspace", *options, *simulate)
        self.processes.wait_for("the local workspace", lambda: self.call("GET", "jobs/list"), timeout=30)

    def connection_for(self, conn_type: str) -> str:
        """Return the connection that leads here, as JSON, of the type that a provider wants."""
        return json.dumps(json.loads(self.connection) | {"conn_type": conn_type})

    def launch(self, count: int) -> list[int]:
        """Start runs and return their ids."""
        return list(self._call("POST", "local/runs", {"count": count, "seconds": FOR_EVER_SECONDS})["run_ids"])

    def end(self, run_ids: Sequence[int]) -> float:
        """Let all these runs succeed at the same moment, and return it in epoch seconds."""
        return self._call("POST", "local/end-runs", {"run_ids": list(run_ids), "result": "SUCCESS"})["end_time"] / 1000

    def polls(self) -> int:
        """Return how many requests of the Jobs API have asked for runs."""
        return sum(count for operation, count in self.requests().items() if operation.startswith("runs/"))

    def cpu_seconds(self) -> float:
        """Return the processor time that the server has taken."""
        times = self.processes.process("workspace").cpu_times()
        return times.user + times.system

"""Where the state is kept. Imported by the subprocess of every task, so it imports the standard library only."""

from __future__ import annotations

from typing import Final

#: The folder, inside the workspace's root, that holds its state.
STATE_FOLDER: Final = ".airflow_dbjobs"

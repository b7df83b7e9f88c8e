"""How hypothesis is to make stories up: the same ones in each run, however long one takes, and nothing written here."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import HealthCheck, Phase, settings
from hypothesis.configuration import set_hypothesis_home_dir

# Where it keeps what it learns of this Python, which is nothing of the repository: with all else of this test run.
set_hypothesis_home_dir(Path(os.environ["AIRFLOW_HOME"]) / "hypothesis")

REPEATABLE = settings(
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)

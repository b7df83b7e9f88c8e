"""How hypothesis generates examples: the same ones in each run, or with `make explore` ten times as many others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.configuration import set_hypothesis_home_dir

if TYPE_CHECKING:
    from collections.abc import Callable

_EXPLORING = 10


def register_profiles() -> None:
    """Load the ordinary profile, and register the one that pytest's `--hypothesis-profile=explore` loads instead."""
    # Where it keeps what it learns of this Python: with all else of this test run.
    set_hypothesis_home_dir(Path(os.environ["AIRFLOW_HOME"]) / "hypothesis")
    common = settings(
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
    )
    settings.register_profile("repeat", common, derandomize=True)
    settings.register_profile("explore", common, derandomize=False, print_blob=True)
    settings.load_profile("repeat")


def examples(count: int) -> Callable[[Any], Any]:
    """Return the decorator of a test that hypothesis gives `count` examples, or ten times as many if it explores."""
    if not settings().derandomize:
        return settings(max_examples=_EXPLORING * count)
    # Otherwise the examples, and so the duration, would depend on the name of the test.
    return lambda test: seed(0)(settings(max_examples=count)(test))

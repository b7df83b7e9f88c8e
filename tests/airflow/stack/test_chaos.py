"""What `make chaos` plays, in its short form: whatever dies, each task instance launches its run once."""

from __future__ import annotations

import chaos
import pytest
from demo import Progress

# Its Airflow has settings of its own, and shares nothing with the other tests.
pytestmark = [pytest.mark.airflow, pytest.mark.xdist_group("chaos")]

NAMES = [name for wave in chaos.SHORT_WAVES for name in wave]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, chaos.Result]:
    """Return what was counted after each scenario. They are played side by side: one by one takes too long."""
    counted = chaos.run(chaos.SHORT_WAVES, tmp_path_factory.mktemp("chaos"), Progress(), short=True)
    return {result.name: result for result in counted}


@pytest.mark.parametrize("name", NAMES)
def test_each_run_is_launched_once_and_no_task_is_lost(results: dict[str, chaos.Result], name: str) -> None:
    assert results[name].problems == []

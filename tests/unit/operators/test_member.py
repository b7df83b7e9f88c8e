"""Members of a workflow group: each is one task of the group's run, over all of its tries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import FAST
from group_scene import TOKEN, GroupScene, running
from injected_clock import shorten_waits

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.errors import RunFailed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pytest_mock import MockerFixture


@pytest.fixture
def group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mocker: MockerFixture) -> Iterator[GroupScene]:
    # A repair that is refused, or siblings that stay undecided, would otherwise take seconds.
    shorten_waits(monkeypatch, FAST)
    yield from running(tmp_path / "scripted", monkeypatch, mocker)


@pytest.fixture
def api(group: GroupScene) -> JobsClient:
    return JobsClient(group.workspace.base_url, token=TOKEN)


class TestFirstTry:
    def test_returns_the_result_of_its_task(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("extract", deferrable=deferrable)
        group.add("load", after=("extract",), deferrable=deferrable)
        run_id = group.launch()
        assert group.run("extract") == {"attempt": 0}
        assert group.run("load") == {"attempt": 0}
        task = group.task(api, "load")
        assert group.xcoms["etl.load", "run_id"] == task.run_id != run_id
        assert group.xcoms["etl.load", "run_page_url"] == task.page_url

    def test_fails_as_its_task_does(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("extract", deferrable=deferrable)
        group.executor.failures["extract"] = 1
        group.launch()
        with pytest.raises(RunFailed) as failure:
            group.run("extract")
        assert failure.value.run_id == group.task(api, "extract").run_id
        assert group.repairs(api) == []


class TestRetry:
    def test_repairs_its_task_alone(self, group: GroupScene, api: JobsClient, deferrable: bool) -> None:
        group.add("extract", deferrable=deferrable)
        group.add("flaky", after=("extract",), retries=1, deferrable=deferrable)
        group.executor.failures["flaky"] = 1
        group.launch()
        group.run("extract")
        with pytest.raises(RunFailed):
            group.run("flaky")
        assert group.run("flaky") == {"attempt": 1}
        assert group.repairs(api) == [["flaky"]]

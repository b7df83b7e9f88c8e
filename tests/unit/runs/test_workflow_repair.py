"""Repairs of a workflow group's run, against answers that a local workspace does not give."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import mock

import pytest
from described_runs import described, state

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.retry import Patience
from airflow_dbjobs.errors import BadRequest, JobsError, PermissionDenied
from airflow_dbjobs.runs.workflow_repair import read_with_repairs, repair_tasks

if TYPE_CHECKING:
    from airflow_dbjobs.client.models import Run


def shown(attempt: int = 70, *, life: str = "TERMINATED", repairs: tuple[str, ...] = ()) -> Run:
    """Return the run as it is shown: with an attempt at its task, and the states of its repairs, 1, 2, ..."""
    history = [{"type": "REPAIR", "id": number, **state(of)} for number, of in enumerate(repairs, 1)]
    tasks = [{"task_key": "load", "run_id": attempt, **state("TERMINATED", "FAILED")}]
    return described(life, "FAILED", tasks=tasks, repair_history=history)


JUDGED = shown()


class Api:
    """A client that returns runs one after the other, the last for ever, and what `repair_run` does."""

    def __init__(self, *runs: Run, repairs: Any = None) -> None:
        self.client = mock.create_autospec(JobsClient, instance=True, patience=Patience())
        self.client.get_run.side_effect = [*runs, *[runs[-1]] * 10]
        self.client.repair_run.side_effect = repairs
        self.client.clock.return_value = 0.0

    def repair(self) -> None:
        repair_tasks(self.client, JUDGED, JUDGED.tasks[0], ["load"], period=5)


REFUSED = BadRequest("POST jobs/runs/repair", 400, "INVALID_STATE", "The run is active.")


class TestAcceptedRepair:
    @pytest.mark.parametrize("after", [shown(71), shown(life="RUNNING")], ids=["another attempt", "an active run"])
    def test_is_over_once_the_run_shows_it(self, after: Run) -> None:
        api = Api(JUDGED, after)
        api.repair()
        assert api.client.repair_run.call_count == 1
        assert api.client.sleep.call_args_list == [mock.call(5)]

    def test_that_shows_in_the_history_only_is_not_repeated(self) -> None:
        api = Api(shown(repairs=("TERMINATED",)))
        with pytest.raises(JobsError, match="accepted a repair of run 7, but does not show another attempt"):
            api.repair()
        assert api.client.repair_run.call_count == 1


class TestRefusedRepair:
    @pytest.mark.parametrize(
        "after",
        [shown(71), shown(life="RUNNING"), shown(repairs=("TERMINATED",))],
        ids=["another attempt", "an active run", "another repair"],
    )
    def test_is_no_error_if_somebody_else_has_repaired_the_run(self, after: Run) -> None:
        Api(after, repairs=REFUSED).repair()

    def test_is_an_error_if_the_run_is_the_same(self) -> None:
        api = Api(JUDGED, repairs=REFUSED)
        with pytest.raises(
            BadRequest, match=r"could not be repaired: .*The run is active.*Nothing was started"
        ) as error:
            api.repair()
        assert error.value.error_code == "INVALID_STATE"
        assert api.client.repair_run.call_count == 1
        assert api.client.sleep.call_args_list == [mock.call(5)] * 3

    @pytest.mark.parametrize("renewed", [True, False])
    def test_for_lack_of_a_permission_is_repeated_with_new_credentials(self, renewed: bool) -> None:
        denied = PermissionDenied("POST jobs/runs/repair", 403)
        api = Api(shown(71) if renewed else JUDGED, repairs=[denied, 5])
        api.client.renew_credentials.return_value = renewed
        if renewed:
            api.repair()
        else:
            with pytest.raises(PermissionDenied):
                api.repair()
        assert api.client.repair_run.call_count == 1 + renewed


class TestReadWithRepairs:
    def test_waits_for_a_repair_that_the_run_does_not_show(self) -> None:
        repaired = shown(71, life="RUNNING", repairs=("RUNNING",))
        api = Api(shown(repairs=("RUNNING",)), repaired)
        assert read_with_repairs(api.client, 7, period=5) is repaired

    def test_does_not_wait_for_ever(self) -> None:
        stale = shown(repairs=("RUNNING",))
        api = Api(stale)
        assert read_with_repairs(api.client, 7, period=5) is stale
        assert api.client.sleep.call_count == 3

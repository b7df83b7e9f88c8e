"""An operator that resumes with the event or the deferral of another release."""

from __future__ import annotations

from typing import Any

import pytest
from airflow_context import FAST, fire, rebuilt, submit

from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.errors import JobsError, RunLost


class TestOtherRelease:
    def test_task_deferred_by_it_resumes(self, scene, client):
        notebook = scene.notebook("dbutils.notebook.exit('done')")
        deferral = scene.defer_task(lambda: submit(notebook_task=notebook, deferrable=True))
        scene.open_gate()
        wait_for_run(client, deferral.trigger.run_id, period=FAST)
        event = {**fire(rebuilt(deferral.trigger)), "key_of_tomorrow": 1}
        for kwargs in ({**deferral.kwargs, "argument_of_tomorrow": 1}, {}):
            woken = submit(notebook_task=notebook, deferrable=True)
            assert woken.resume_execution("execute_complete", {**kwargs, "event": event}, scene.context) == "done"
        assert scene.launches() == 1


class TestForeignEvent:
    @pytest.mark.parametrize(
        "event", [None, "done", {}, {"run_id": "7"}, ["x" * 9999]], ids=lambda event: str(event)[:9]
    )
    def test_error_names_the_run(self, scene, client, event: Any):
        notebook = scene.notebook()
        deferral = scene.defer_task(lambda: submit(notebook_task=notebook, deferrable=True))
        run_id, page_url = deferral.trigger.run_id, deferral.trigger.run_page_url
        message = rf"does not name a run: .{{2,200}}\. Run {run_id} was not cancelled and may still be running\."
        woken = submit(notebook_task=notebook, deferrable=True)
        with pytest.raises(RunLost, match=message) as error:
            woken.resume_execution("execute_complete", {**deferral.kwargs, "event": event}, scene.context)
        assert (error.value.run_id, error.value.page_url) == (run_id, page_url)
        with pytest.raises(JobsError, match="an event that does not name a run"):
            woken.resume_execution("execute_complete", {"event": event}, scene.context)
        client.cancel_run(run_id)

"""causes: which error stands for a run's end."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from described_runs import described, state, status

from airflow_dbjobs.client.models import Run
from airflow_dbjobs.errors import (
    ClusterFailed,
    LimitReached,
    PlatformFailed,
    RunCanceled,
    RunFailed,
    RunMisconfigured,
    RunNotPermitted,
    RunSkipped,
    RunTimedOut,
    UserCodeFailed,
)
from airflow_dbjobs.runs.failure_cause import run_failed_error


def ended(**reply: Any) -> Run:
    return Run.from_json({"run_id": 7, "run_page_url": "https://x/7", **reply})


def kind_of(run: Run) -> type:
    return type(run_failed_error(run, "why"))


def several(*tasks: dict[str, Any], **run: Any) -> Run:
    return ended(
        **{**state("INTERNAL_ERROR", "FAILED"), **status("RUN_EXECUTION_ERROR"), **run},
        tasks=[{"task_key": f"t{number}", "run_id": number, **task} for number, task in enumerate(tasks)],
    )


class TestErrorClass:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("RUN_EXECUTION_ERROR", UserCodeFailed),
            ("INVALID_CLUSTER_REQUEST", RunMisconfigured),
            ("INVALID_RUN_CONFIGURATION", RunMisconfigured),
            ("RESOURCE_NOT_FOUND", RunMisconfigured),
            ("FEATURE_DISABLED", RunMisconfigured),
            ("UNAUTHORIZED_ERROR", RunNotPermitted),
            ("CLUSTER_ERROR", ClusterFailed),
            ("CLUSTER_TERMINATED_BY_USER", ClusterFailed),
            ("DRIVER_ERROR", ClusterFailed),
            ("LIBRARY_INSTALLATION_ERROR", ClusterFailed),
            ("BUDGET_POLICY_LIMIT_EXCEEDED", LimitReached),
            ("CLUSTER_REQUEST_LIMIT_EXCEEDED", LimitReached),
            ("MAX_SPARK_CONTEXTS_EXCEEDED", LimitReached),
            ("WORKSPACE_RUN_LIMIT_EXCEEDED", LimitReached),
            ("BREAKING_CHANGE", PlatformFailed),
            ("CLOUD_FAILURE", PlatformFailed),
            ("INTERNAL_ERROR", PlatformFailed),
            ("REPOSITORY_CHECKOUT_FAILED", PlatformFailed),
            ("STORAGE_ACCESS_ERROR", PlatformFailed),
            ("USER_CANCELED", RunCanceled),
            ("CANCELED", RunCanceled),
            ("MAX_CONCURRENT_RUNS_EXCEEDED", RunSkipped),
            ("MAX_JOB_QUEUE_SIZE_EXCEEDED", RunSkipped),
            ("SUCCESS_WITH_FAILURES", RunFailed),
            ("A_CODE_OF_2031", RunFailed),
        ],
    )
    def test_is_that_of_the_termination_code(self, code: str, kind: type) -> None:
        assert kind_of(ended(**status(code))) is kind
        if kind not in {RunCanceled, RunSkipped, RunFailed}:
            # Both descriptions, as the API gives them.
            assert kind_of(ended(**state("INTERNAL_ERROR", "FAILED"), **status(code))) is kind

    @pytest.mark.parametrize(
        ("type_", "kind"),
        [("INTERNAL_ERROR", PlatformFailed), ("CLOUD_FAILURE", PlatformFailed), ("CLIENT_ERROR", RunFailed)],
    )
    def test_of_an_unknown_code_is_that_of_its_type(self, type_: str, kind: type) -> None:
        details = {"code": "A_CODE_OF_2031", "type": type_}
        assert kind_of(ended(status={"state": "TERMINATED", "termination_details": details})) is kind

    @pytest.mark.parametrize(
        ("life", "result", "message", "kind"),
        [
            ("TERMINATED", "FAILED", "", UserCodeFailed),
            ("INTERNAL_ERROR", "FAILED", "Workload failed, see run output for details", UserCodeFailed),
            ("INTERNAL_ERROR", "FAILED", "Task a failed with message: Workload failed, see run output", UserCodeFailed),
            ("INTERNAL_ERROR", "FAILED", "", RunFailed),
            ("INTERNAL_ERROR", None, "", PlatformFailed),
            ("TERMINATED", "EVICTED", "", RunFailed),
            (
                "INTERNAL_ERROR",
                "FAILED",
                "Unexpected failure while waiting for the cluster (1-2) to be ready",
                ClusterFailed,
            ),
            ("INTERNAL_ERROR", "FAILED", "Cluster 1-2 was terminated during the run.", ClusterFailed),
            ("INTERNAL_ERROR", "FAILED", "The spark driver has stopped unexpectedly and is restarting", ClusterFailed),
            ("INTERNAL_ERROR", "FAILED", "Could not reach driver of cluster 1-2", ClusterFailed),
            ("INTERNAL_ERROR", "FAILED", "Library installation failed for library x", ClusterFailed),
            (
                "INTERNAL_ERROR",
                "FAILED",
                "Unexpected failure while waiting for the cluster to be ready: AZURE_QUOTA_EXCEEDED_EXCEPTION",
                LimitReached,
            ),
            ("INTERNAL_ERROR", "FAILED", "CLOUD_PROVIDER_RESOURCE_STOCKOUT", LimitReached),
            ("INTERNAL_ERROR", "FAILED", "INSUFFICIENT_INSTANCE_CAPACITY", LimitReached),
            ("INTERNAL_ERROR", "FAILED", "PERMISSION_DENIED: me does not have View", RunNotPermitted),
            ("INTERNAL_ERROR", "FAILED", "Notebook not found: /x", RunMisconfigured),
            ("INTERNAL_ERROR", "FAILED", "Failed: task cluster_driver.", RunFailed),
            ("TERMINATED", "FAILED", "Failed: task cluster.", UserCodeFailed),
        ],
        ids=str,
    )
    def test_without_a_code_comes_from_states_and_clear_words(
        self, life: str, result: str | None, message: str, kind: type
    ) -> None:
        assert kind_of(described(life, result, message)) is kind

    @pytest.mark.parametrize(
        ("run", "kind"),
        [
            (several(status("CLUSTER_ERROR"), status("SUCCESS")), ClusterFailed),
            (several(status("CLUSTER_ERROR"), status("CLUSTER_ERROR")), ClusterFailed),
            (several(state("TERMINATED", "TIMEDOUT")), RunTimedOut),
            # Another's failure kept it from running.
            (several(status("CLOUD_FAILURE"), state("TERMINATED", "UPSTREAM_FAILED")), PlatformFailed),
            (several(status("CLUSTER_ERROR"), status("RUN_EXECUTION_ERROR")), RunFailed),
            (
                several(status("CLUSTER_ERROR"), status("RUN_EXECUTION_ERROR"), **status("CLOUD_FAILURE")),
                PlatformFailed,
            ),
            (several(state("TERMINATED", "CANCELED")), UserCodeFailed),
            (several(), UserCodeFailed),
            (several(status("CLUSTER_ERROR"), **state("TERMINATED", "CANCELED")), RunCanceled),
        ],
    )
    def test_of_several_tasks_is_that_of_their_failures(self, run: Run, kind: type) -> None:
        assert kind_of(run) is kind


class TestErrorFields:
    def test_are_set_and_survive_pickling(self) -> None:
        details = {"code": "DRIVER_ERROR", "type": "CLOUD_FAILURE", "message": "lost"}
        failed = {"task_key": "a", "run_id": 8, **state("TERMINATED", "FAILED"), **status("DRIVER_ERROR")}
        run = ended(
            **state("INTERNAL_ERROR", "FAILED"),
            status={"state": "TERMINATED", "termination_details": details},
            tasks=[failed],
        )
        error = pickle.loads(pickle.dumps(run_failed_error(run, "why")))
        assert (type(error), str(error)) == (ClusterFailed, "why")
        assert vars(error) == {
            "run_id": 7,
            "page_url": "https://x/7",
            "life_cycle_state": "INTERNAL_ERROR",
            "result_state": "FAILED",
            "termination_code": "DRIVER_ERROR",
            "termination_type": "CLOUD_FAILURE",
            "failed_tasks": ("a",),
        }
        assert error.error_code == "DRIVER_ERROR"

    def test_without_a_code_have_the_state_as_error_code(self) -> None:
        assert run_failed_error(described("TERMINATED", "FAILED"), "why").error_code == "FAILED"
        assert run_failed_error(described("INTERNAL_ERROR"), "why").error_code == "INTERNAL_ERROR"

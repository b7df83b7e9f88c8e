"""Why a run failed: which of the errors below ``errors.RunFailed`` stands for its end.

``status.termination_details`` says it from API 2.1 on. Where there are none, the message may, which is text for people:
only words that leave no doubt are taken from it. A run of several tasks is told of by what its tasks failed of, for its
own code then says no more than that tasks failed.
"""

from __future__ import annotations

import re
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from airflow_dbjobs.client.models import Outcome, RunState
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from airflow_dbjobs.client.models import Run

NOTHING_KNOWN: Mapping[int, type[RunFailed]] = MappingProxyType({})

_OF_OUTCOME: dict[Outcome, type[RunFailed]] = {
    Outcome.TIMED_OUT: RunTimedOut,
    Outcome.CANCELED: RunCanceled,
    Outcome.SKIPPED: RunSkipped,
}

# Source: TerminationCode of the Jobs API reference.
_OF_CODE: dict[str, type[RunFailed]] = {
    "RUN_EXECUTION_ERROR": UserCodeFailed,
    "INVALID_CLUSTER_REQUEST": RunMisconfigured,
    "INVALID_RUN_CONFIGURATION": RunMisconfigured,
    "RESOURCE_NOT_FOUND": RunMisconfigured,
    "FEATURE_DISABLED": RunMisconfigured,
    "UNAUTHORIZED_ERROR": RunNotPermitted,
    "CLUSTER_ERROR": ClusterFailed,
    "CLUSTER_TERMINATED_BY_USER": ClusterFailed,
    "DRIVER_ERROR": ClusterFailed,
    "LIBRARY_INSTALLATION_ERROR": ClusterFailed,
    "BUDGET_POLICY_LIMIT_EXCEEDED": LimitReached,
    "CLUSTER_REQUEST_LIMIT_EXCEEDED": LimitReached,
    "MAX_CONCURRENT_RUNS_EXCEEDED": LimitReached,
    "MAX_JOB_QUEUE_SIZE_EXCEEDED": LimitReached,
    "MAX_SPARK_CONTEXTS_EXCEEDED": LimitReached,
    "WORKSPACE_RUN_LIMIT_EXCEEDED": LimitReached,
    "BREAKING_CHANGE": PlatformFailed,
    "CLOUD_FAILURE": PlatformFailed,
    "INTERNAL_ERROR": PlatformFailed,
    "REPOSITORY_CHECKOUT_FAILED": PlatformFailed,
    "STORAGE_ACCESS_ERROR": PlatformFailed,
}
# Of a code that is newer than this release.
_OF_TYPE: dict[str, type[RunFailed]] = {"INTERNAL_ERROR": PlatformFailed, "CLOUD_FAILURE": PlatformFailed}

# The first that fits counts: a cluster that the cloud's quota kept from starting met a limit.
_OF_MESSAGE: tuple[tuple[re.Pattern[str], type[RunFailed]], ...] = tuple(
    (re.compile(words, re.IGNORECASE | re.DOTALL), kind)
    for words, kind in (
        (r"workload failed, see run output", UserCodeFailed),
        (r"quota_?.{0,20}exceeded|exceed.{0,40}quota|stockout|insufficient.{0,20}capacity", LimitReached),
        (r"library installation failed|waiting for the cluster|could not reach driver", ClusterFailed),
        (r"\bcluster\b.{0,80}\b(?:was terminated|unexpected state|is unhealthy|not reachable)", ClusterFailed),
        (r"\bdriver\b.{0,60}\b(?:unresponsive|stopped unexpectedly)", ClusterFailed),
        (r"permission_denied|does not have .{0,40}permission", RunNotPermitted),
        (r"\bnotebook not found", RunMisconfigured),
    )
)


def error_of(run: Run, message: str, inner: Mapping[int, type[RunFailed]] = NOTHING_KNOWN) -> RunFailed:
    """Return the error that stands for the end of a run which did not succeed.

    `inner` are the causes, by the run of a task, of what tasks ran that run others: jobs, iterations.
    """
    state = run.state
    return kind_of(run, inner)(
        message,
        run_id=run.run_id,
        page_url=run.page_url,
        life_cycle_state=state.life_cycle_state,
        result_state=state.result_state,
        termination_code=state.termination_code,
        termination_type=state.termination_type,
        failed_tasks=[task.task_key for task in run.failed_tasks],
    )


def kind_of(run: Run, inner: Mapping[int, type[RunFailed]] = NOTHING_KNOWN) -> type[RunFailed]:
    """Return the class of the error that stands for the end of a run; `inner` is as in `error_of`."""
    if kind := _OF_OUTCOME.get(run.outcome):
        return kind
    of_tasks = {
        inner.get(task.run_id) or _of_failure(task.state)
        for task in run.failed_tasks
        if task.state.outcome is not Outcome.CANCELED
    }
    if len(of_tasks) == 1:
        return of_tasks.pop()
    of_run = _of_failure(run.state)
    # Of several tasks that failed of different causes, the run says only that tasks failed.
    return RunFailed if of_tasks and of_run is UserCodeFailed else of_run


def kind_of_child(child: Run, inner: Mapping[int, type[RunFailed]]) -> type[RunFailed]:
    """Return of what a task failed that ran a job, the run of which is `child`."""
    if child.outcome is Outcome.SKIPPED:
        return LimitReached
    # Who cancelled it has not cancelled the run that waited for it.
    return RunFailed if child.outcome is Outcome.CANCELED else kind_of(child, inner)


def kind_of_messages(messages: Iterable[tuple[str, str]]) -> type[RunFailed] | None:
    """Return of what the iterations of a task failed, by their termination codes and messages; None where none says."""
    failed = RunState("TERMINATED", "FAILED")
    kinds = {
        _of_failure(replace(failed, termination_code=code if code in _OF_CODE else "", message=message))
        for code, message in messages
    }
    return (kinds.pop() if len(kinds) == 1 else RunFailed) if kinds else None


def _of_failure(state: RunState) -> type[RunFailed]:
    """Say what a run, or a task of it, failed of."""
    if state.outcome is Outcome.TIMED_OUT:
        return RunTimedOut
    if state.outcome is not Outcome.FAILED:
        # A success in part that is not good enough.
        return RunFailed
    if state.termination_code:
        return _OF_CODE.get(state.termination_code) or _OF_TYPE.get(state.termination_type) or RunFailed
    for words, kind in _OF_MESSAGE:
        if words.search(state.message):
            return kind
    if state.life_cycle_state == "INTERNAL_ERROR":
        # With a result, the work began: what ended it is not told.
        return RunFailed if state.result_state else PlatformFailed
    return UserCodeFailed if state.result_state == "FAILED" else RunFailed

"""Why a run failed, as a subclass of ``errors.RunFailed``.

From API 2.1 on, ``status.termination_details`` gives a code. Without it, the message may name the cause; it is text for
people, so only unambiguous words in it are used. The cause of a run of several tasks is that of its failed tasks,
because the run's own code then only says that tasks failed.
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

_NO_INNER_ERRORS: Mapping[int, type[RunFailed]] = MappingProxyType({})

_BY_OUTCOME: dict[Outcome, type[RunFailed]] = {
    Outcome.TIMED_OUT: RunTimedOut,
    Outcome.CANCELED: RunCanceled,
    Outcome.SKIPPED: RunSkipped,
}

# Source: TerminationCode of the Jobs API reference.
_BY_CODE: dict[str, type[RunFailed]] = {
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
# For codes that this release does not know.
_BY_TYPE: dict[str, type[RunFailed]] = {"INTERNAL_ERROR": PlatformFailed, "CLOUD_FAILURE": PlatformFailed}

# The first match counts: if a cloud quota kept a cluster from starting, the cause is the limit, not the cluster.
_BY_MESSAGE: tuple[tuple[re.Pattern[str], type[RunFailed]], ...] = tuple(
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


def run_failed_error(
    run: Run, message: str, inner_errors: Mapping[int, type[RunFailed]] = _NO_INNER_ERRORS
) -> RunFailed:
    """Return the error for a run that did not succeed.

    `inner_errors` maps the run id of a task that ran another job, or iterations, to the error class of their failure.
    """
    state = run.state
    return _error_class(run, inner_errors)(
        message,
        run_id=run.run_id,
        page_url=run.page_url,
        life_cycle_state=state.life_cycle_state,
        result_state=state.result_state,
        termination_code=state.termination_code,
        termination_type=state.termination_type,
        failed_tasks=[task.task_key for task in run.failed_tasks],
    )


def _error_class(run: Run, inner_errors: Mapping[int, type[RunFailed]]) -> type[RunFailed]:
    if kind := _BY_OUTCOME.get(run.outcome):
        return kind
    of_tasks = {
        inner_errors.get(task.run_id) or _error_class_of_state(task.state)
        for task in run.failed_tasks
        if task.state.outcome is not Outcome.CANCELED
    }
    if len(of_tasks) == 1:
        return of_tasks.pop()
    of_run = _error_class_of_state(run.state)
    # If tasks failed for different reasons, the run's own code only says that tasks failed.
    return RunFailed if of_tasks and of_run is UserCodeFailed else of_run


def child_run_error_class(child: Run, inner_errors: Mapping[int, type[RunFailed]]) -> type[RunFailed]:
    """Return the error class for a task that ran another job, from that job's run `child`."""
    if child.outcome is Outcome.SKIPPED:
        return LimitReached
    # A person who cancels the child run has not cancelled the run that waits for it.
    return RunFailed if child.outcome is Outcome.CANCELED else _error_class(child, inner_errors)


def iterations_error_class(failures: Iterable[tuple[str, str]]) -> type[RunFailed] | None:
    """Return the error class for a task's iterations, from their termination codes and messages; None without any."""
    failed = RunState("TERMINATED", "FAILED")
    kinds = {
        _error_class_of_state(replace(failed, termination_code=code if code in _BY_CODE else "", message=message))
        for code, message in failures
    }
    return (kinds.pop() if len(kinds) == 1 else RunFailed) if kinds else None


def _error_class_of_state(state: RunState) -> type[RunFailed]:
    """Return the error class for the state in which a run or a task ended."""
    if state.outcome is Outcome.TIMED_OUT:
        return RunTimedOut
    if state.outcome is not Outcome.FAILED:
        # A partial success that the user does not accept.
        return RunFailed
    if state.termination_code:
        return _BY_CODE.get(state.termination_code) or _BY_TYPE.get(state.termination_type) or RunFailed
    for words, kind in _BY_MESSAGE:
        if words.search(state.message):
            return kind
    if state.life_cycle_state == "INTERNAL_ERROR":
        # If there is a result, the work had begun, and the reason for its end is unknown.
        return RunFailed if state.result_state else PlatformFailed
    return UserCodeFailed if state.result_state == "FAILED" else RunFailed

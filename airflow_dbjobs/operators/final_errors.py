"""Errors of ``errors`` that end a task for good: Airflow does not retry it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_dbjobs.errors import CallError, NoRunToWaitFor, RunCanceled, restored


class RunCanceledByPerson(RunCanceled, AirflowFailException):
    """A person cancelled the run on Databricks: who did that does not want it started again by a retry."""

    worth_a_retry = False


class ContinuousJobRestarted(NoRunToWaitFor, AirflowFailException):
    """A continuous job was told to run, which restarted it: each retry would do so again."""


def final(error: CallError) -> CallError:
    """Return an error of a launch as one that Airflow does not retry, where a retry would only do harm."""
    return restored(ContinuousJobRestarted, error.args, vars(error)) if isinstance(error, NoRunToWaitFor) else error

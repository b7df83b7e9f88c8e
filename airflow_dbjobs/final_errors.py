"""Errors of ``errors`` that end a task for good: Airflow does not retry it."""

from __future__ import annotations

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_dbjobs.errors import RunCanceled


class RunCanceledByPerson(RunCanceled, AirflowFailException):
    """A person cancelled the run on Databricks: who did that does not want it started again by a retry."""

    worth_a_retry = False

"""The errors that end a launching task, among them some that Airflow does not retry."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.airflow_compat import AirflowFailException, redact_error
from airflow_dbjobs.client.models import Outcome
from airflow_dbjobs.errors import CallError, NoRunToWaitFor, RunCanceled, RunFailed, restored
from airflow_dbjobs.runs.failure import explain_failure

if TYPE_CHECKING:
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run

_ALREADY_USED = (
    "The idempotency_token belongs to this run, which ended before this try began, so this try launched nothing. Make"
    " the token depend on the try (with {{ ti.try_number }}), or omit it: then a retry launches a new run, but never"
    " two."
)


class RunCanceledByPerson(RunCanceled, AirflowFailException):
    """A person cancelled the run in Databricks, and would not want a retry to launch it again."""

    worth_a_retry = False


class ContinuousJobRestarted(NoRunToWaitFor, AirflowFailException):
    """The task restarted a continuous job by asking it to run now; each retry would restart it again."""


def without_harmful_retry(error: CallError) -> CallError:
    """Return an error of a launch, as one that Airflow does not retry if a retry would do harm."""
    return restored(ContinuousJobRestarted, error.args, vars(error)) if isinstance(error, NoRunToWaitFor) else error


def run_error(client: JobsClient, run: Run, *, token_already_used: bool, retry_on_cancel: bool) -> RunFailed:
    """Return the error for a run that did not succeed.

    Unless `retry_on_cancel`, it is one that Airflow does not retry if a person cancelled the run. `token_already_used`
    is as in ``runs.launch.Launched``.
    """
    failure = redact_error(explain_failure(client, run))
    if token_already_used:
        failure.args = (f"{failure}\n{_ALREADY_USED}",)
    if run.outcome is Outcome.CANCELED and not run.state.canceled_by_platform and not retry_on_cancel:
        return restored(RunCanceledByPerson, failure.args, vars(failure))
    return failure

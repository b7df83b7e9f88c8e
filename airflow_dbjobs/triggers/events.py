"""The event that a trigger fires: written in a triggerer, read in a worker, which may run another release.

An event is a dict of JSON values. Keys that this release does not know are ignored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from airflow_dbjobs import errors
from airflow_dbjobs.errors import JobsError, RunError, RunLost, restored

_KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, JobsError)}
# A foreign event may be any value, of any size.
_LONGEST_QUOTE = 200


class RunEvent(NamedTuple):
    """The event of a launched run. `timed_out` says what was done about the run if its task reached the deadline."""

    run_id: int
    page_url: str
    timed_out: str = ""


class SensorEvent(NamedTuple):
    """The event of a sensor's trigger; `run_id` is None if no run has been chosen or the condition is about none."""

    run_id: int | None
    page_url: str
    timed_out: str = ""
    met: bool = False


def error_event(error: JobsError) -> dict[str, Any]:
    """Return the event keys for an error that ended a trigger; `read_sensor_event` raises it again."""
    plain = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
    return {"error": str(error), "error_class": type(error).__name__, "error_fields": plain}


def read_event(event: Any, *, run_id: int | None = None, page_url: str = "") -> RunEvent:
    """Read the event of a launched run's trigger. `run_id` and `page_url` are what the task itself stored.

    Raises errors.RunLost, which names the run, for any error that ended the trigger and for an event that names no run;
    errors.JobsError if the task does not know the run either.
    """
    if not _names_run(event):
        raise _invalid_event(event, run_id, page_url)
    read = RunEvent(event["run_id"], str(event.get("run_page_url") or page_url), str(event.get("timed_out") or ""))
    if error := event.get("error"):
        raise RunLost(str(error), run_id=read.run_id, page_url=read.page_url)
    return read


def read_sensor_event(event: Any) -> SensorEvent:
    """Read the event of a sensor's trigger.

    Raises the error that ended the trigger, of the same class as a worker would; errors.RunLost or errors.JobsError if
    the event does not name the class, and errors.JobsError for an event that does not come from this package.
    """
    if not _names_run(event) and not (isinstance(event, dict) and event.get("run_id", 0) is None):
        raise _invalid_event(event)
    run_id, page_url = event["run_id"], str(event.get("run_page_url") or "")
    if event.get("error"):
        raise _error_of(event, run_id, page_url)
    return SensorEvent(run_id, page_url, str(event.get("timed_out") or ""), met=bool(event.get("met")))


def _names_run(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(event.get("run_id"), int)


def _error_of(event: dict[str, Any], run_id: int | None, page_url: str) -> JobsError:
    text, kind, plain = str(event["error"]), _KINDS.get(str(event.get("error_class"))), event.get("error_fields")
    if kind is None or not isinstance(plain, dict):
        # The event comes from another release.
        return JobsError(text) if run_id is None else RunLost(text, run_id=run_id, page_url=page_url)
    # Safe with any names: the fields are plain values, and become attributes of this one error only.
    error = restored(kind, (text,), plain)
    if isinstance(error, RunError):
        error.run_id = error.run_id or run_id or 0
        error.page_url = error.page_url or page_url
    return error


def _invalid_event(event: Any, run_id: int | None = None, page_url: str = "") -> JobsError:
    text = f"The task was resumed with an event that does not name a run: {repr(event)[:_LONGEST_QUOTE]}"
    remedy = "Check that workers and triggerers run the same release of airflow-dbjobs"
    if run_id is None:
        return JobsError(f"{text}. {remedy}.")
    return RunLost(
        f"{text}. Run {run_id} was not cancelled and may still be running. {remedy}. {page_url}".rstrip(),
        run_id=run_id,
        page_url=page_url,
    )

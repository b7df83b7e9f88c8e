"""What a trigger tells the task that it wakes: written there, read in a worker, which may run another release.

An event is a dict of values that JSON has. Keys that this release does not know are ignored.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from airflow_dbjobs import errors
from airflow_dbjobs.errors import JobsError, RunError, RunLost, restored

_KINDS = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, JobsError)}
# An event that is not ours may be anything, and of any size.
_LONGEST_QUOTE = 200


class Ending(NamedTuple):
    """What the event of a run says: which run, and, where the task's time was over before it, what became of it."""

    run_id: int
    page_url: str
    timed_out: str = ""


class Sighting(NamedTuple):
    """What the event of a sensor's trigger says; `run_id` is None where it is about no run."""

    run_id: int | None
    page_url: str
    timed_out: str = ""
    met: bool = False


def of_error(error: JobsError) -> dict[str, Any]:
    """Return what an event says where its trigger could not go on: the error, as `read_sighting` raises it."""
    plain = {name: value for name, value in vars(error).items() if isinstance(value, str | int | float | None)}
    return {"error": str(error), "error_class": type(error).__name__, "error_fields": plain}


def read_event(event: Any, *, run_id: int | None = None, page_url: str = "") -> Ending:
    """Return what the trigger of a launched run has fired. `run_id` and `page_url` are what the task knows itself.

    Raises errors.RunLost, which names the run, where the trigger could not wait for the end, whatever it failed of, and
    for an event that is not of a run; errors.JobsError where not even the task knows the run.
    """
    if not _is_of_a_run(event):
        raise _unreadable(event, run_id, page_url)
    ending = Ending(event["run_id"], str(event.get("run_page_url") or page_url), str(event.get("timed_out") or ""))
    if error := event.get("error"):
        raise RunLost(str(error), run_id=ending.run_id, page_url=ending.page_url)
    return ending


def read_sighting(event: Any) -> Sighting:
    """Return what the trigger of a sensor has fired.

    Raises what the trigger could not go on for, of the class that a worker raises; errors.RunLost or errors.JobsError
    where the event does not tell the class, and errors.JobsError for an event that is not ours.
    """
    if not _is_of_a_run(event) and not (isinstance(event, dict) and event.get("run_id", 0) is None):
        raise _unreadable(event)
    run_id, page_url = event["run_id"], str(event.get("run_page_url") or "")
    if event.get("error"):
        raise _error_of(event, run_id, page_url)
    return Sighting(run_id, page_url, str(event.get("timed_out") or ""), met=bool(event.get("met")))


def _is_of_a_run(event: Any) -> bool:
    return isinstance(event, dict) and isinstance(event.get("run_id"), int)


def _error_of(event: dict[str, Any], run_id: int | None, page_url: str) -> JobsError:
    text, kind, told = str(event["error"]), _KINDS.get(str(event.get("error_class"))), event.get("error_fields")
    if kind is None or not isinstance(told, dict):
        # Of another release.
        return JobsError(text) if run_id is None else RunLost(text, run_id=run_id, page_url=page_url)
    # Whatever names the fields have, they are plain values that become attributes of this one error.
    error = restored(kind, (text,), told)
    if isinstance(error, RunError):
        error.run_id = error.run_id or run_id or 0
        error.page_url = error.page_url or page_url
    return error


def _unreadable(event: Any, run_id: int | None = None, page_url: str = "") -> JobsError:
    text = f"The trigger fired something that is not an event of a run: {repr(event)[:_LONGEST_QUOTE]}"
    if run_id is None:
        return JobsError(text)
    return RunLost(
        f"{text}. Run {run_id} is left alone and may still be running. {page_url}".rstrip(),
        run_id=run_id,
        page_url=page_url,
    )

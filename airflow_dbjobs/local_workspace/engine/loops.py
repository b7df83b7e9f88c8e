"""The iterations of for_each tasks: their inputs, and how the task ends after them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.state.records import State, TaskRun

from .errors import CannotRunError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_dbjobs.local_workspace.messages import Json

#: The API also takes 10,000 characters at most where the inputs are no reference.
_MAX_BYTES: Final = 48 * 1024
_FAILED: Final = ("FAILED", "TIMEDOUT")
_SHOWN_CHARACTERS: Final = 100


def inputs_of(payload: Json) -> list[Any]:
    """Return the inputs of a for_each task whose references have been replaced.

    :raises CannotRunError: They are no JSON array, or too large.
    """
    text = str(payload["inputs"])
    if (size := len(text.encode())) > _MAX_BYTES:
        message = f"The inputs of a for_each_task must have at most {_MAX_BYTES} bytes; these have {size}."
        raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")
    try:
        inputs = json.loads(text)
    except (ValueError, RecursionError) as error:
        inputs, why = None, f": {error}"
    else:
        why = ""
    if isinstance(inputs, list):
        return inputs
    message = f"The inputs of a for_each_task must be a JSON array, not {_cut(text)}{why}."
    raise CannotRunError(message, "INVALID_RUN_CONFIGURATION")


def latest_iterations(loop: TaskRun, task_runs: Mapping[int, TaskRun]) -> list[TaskRun]:
    """Return the latest attempt at each iteration of a for_each task, in the order of the inputs."""
    attempts = (task_runs[run_id] for run_id in loop.iteration_ids)
    return list({item.iteration: item for item in attempts}.values())


def has_failed(iteration: TaskRun) -> bool:
    """Return whether an iteration failed or timed out."""
    return iteration.state.result in _FAILED


def state_after(iterations: Sequence[TaskRun]) -> State:
    """Return how a for_each task ends whose iterations have all ended."""
    if failed := [item for item in iterations if has_failed(item)]:
        first = failed[0]
        given = _cut(first.iteration.input) if first.iteration else ""
        message = f"Iteration {first.run_id}, with the input {given}, failed: {first.state.message}"
        return State("TERMINATED", "FAILED", message)
    if canceled := sum(item.state.result == "CANCELED" for item in iterations):
        return State("TERMINATED", "CANCELED", f"Cancelled iterations: {canceled} of {len(iterations)}.")
    return State("TERMINATED", "SUCCESS")


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}…"

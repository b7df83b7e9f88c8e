"""Many simulated runs at once, for benchmarks: starting them, and ending them in one instant."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.engine import launch
from airflow_dbjobs.local_workspace.engine.simulation import MAX_SECONDS, RESULTS
from airflow_dbjobs.local_workspace.messages import ApiError, Json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.local_workspace.engine.runner import Runner
    from airflow_dbjobs.local_workspace.state.records import Run
    from airflow_dbjobs.local_workspace.state.store import Store

_MAX_COUNT: Final = 100_000
#: As large as those of a typical nightly job, so that reading these runs costs as much as reading real ones.
_CLUSTER: Final[Json] = {
    "spark_version": "15.4.x-scala2.12",
    "node_type_id": "Standard_DS3_v2",
    "driver_node_type_id": "Standard_DS3_v2",
    "num_workers": 4,
    "spark_conf": {"spark.sql.shuffle.partitions": "64", "spark.databricks.delta.preview.enabled": "true"},
    "spark_env_vars": {"PYSPARK_PYTHON": "/databricks/python3/bin/python3"},
    "azure_attributes": {"availability": "ON_DEMAND_AZURE", "first_on_demand": 1, "spot_bid_max_price": -1},
    "custom_tags": {"team": "data-platform", "environment": "benchmark", "cost_center": "4711"},
    "data_security_mode": "SINGLE_USER",
    "enable_elastic_disk": True,
}
_LIBRARIES: Final = [{"whl": "dbfs:/FileStore/wheels/etl-1.4.2-py3-none-any.whl"}, {"pypi": {"package": "pyarrow"}}]


def check_names(body: Json, required: str, *optional: str) -> None:
    """Check that a request has the required field, and no unknown ones.

    :raises ApiError: Naming the field that is missing or unknown.
    """
    if required not in body:
        raise ApiError(f"Field '{required}' is missing.")
    if unknown := body.keys() - {required, *optional}:
        raise ApiError(f"Field '{min(unknown)}' is unknown; the fields are {', '.join((required, *optional))}.")


def create(
    store: Store, runner: Runner, *, count: int, seconds: float, result: str, user: str, now_ms: int
) -> list[int]:
    """Start one-time runs with one task each, which takes `seconds` from now; return their ids.

    :raises ApiError: Naming the wrong argument.
    """
    if not _is_number(count, int) or not 1 <= count <= _MAX_COUNT:
        raise _bad("count", f"an integer from 1 to {_MAX_COUNT}", count)
    if not _is_number(seconds, int | float) or not 0 <= seconds <= MAX_SECONDS:
        raise _bad("seconds", f"a number from 0 to {MAX_SECONDS}", seconds)
    _check_result(result)
    parameters = {"day": "2027-01-15", "simulated_seconds": str(seconds), "simulated_result": result}
    settings: Json = {
        "run_name": "Simulated run",
        "new_cluster": _CLUSTER,
        "libraries": _LIBRARIES,
        "notebook_task": {"notebook_path": "/Repos/data-platform/etl/load_orders", "base_parameters": parameters},
    }
    runs = [launch.launch_one_time(store, settings, user, now_ms) for _ in range(count)]
    for run in runs:
        # The tasks start now, not at the next tick.
        runner.advance(run, now_ms)
    return [run.run_id for run in runs]


def end(store: Store, runner: Runner, *, run_ids: Sequence[int], result: str, now_ms: int) -> None:
    """End active simulated runs now, with `result` instead of what their tasks had planned.

    :raises ApiError: Naming the wrong argument, or the run that does not exist, has ended, or cannot end now.
    """
    _check_result(result)
    if not isinstance(run_ids, list | tuple) or not all(_is_number(item, int) for item in run_ids):
        raise _bad("run_ids", "an array of integers", run_ids)
    for run_id in run_ids:
        run = store.runs.get(run_id)
        if run is None or run.deleted:
            raise ApiError(f"Run {run_id} does not exist.")
        if not run.active:
            raise ApiError(f"Run {run_id} has already ended.")
        _end(store, runner, run, result, now_ms)


def _end(store: Store, runner: Runner, run: Run, result: str, now_ms: int) -> None:
    if run.state.life == "PENDING":
        runner.advance(run, now_ms)
    for task in store.tasks_of(run):
        if task.state.life == "RUNNING" and task.planned_end_ms is not None:
            task.planned_end_ms, task.planned_result = now_ms, result
            store.save(task)
    runner.advance(run, now_ms)
    if run.active:
        raise ApiError(f"Run {run.run_id} cannot end now: it has tasks that have not started, or will be retried.")


def _is_number(value: Any, kind: Any) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def _check_result(result: str) -> None:
    if result not in RESULTS:
        raise _bad("result", " or ".join(RESULTS), result)


def _bad(name: str, expected: str, value: Any) -> ApiError:
    return ApiError(f"Field '{name}' must be {expected}, not {json.dumps(value, default=str)[:100]}.")

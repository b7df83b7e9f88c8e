"""An Airflow provider for the Databricks Jobs API."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__version__ = "0.1.0"

# Airflow's database keeps triggers of deferred tasks by their class paths: modules that have moved are found here, too.
__path__.append(f"{__path__[0]}/triggers/moved")


# Names of the official provider that this one does not offer, and what to use. docs/migrating.md says the same.
NOT_OFFERED = {
    **dict.fromkeys(
        (
            "DatabricksSQLStatementsOperator", "DatabricksSqlOperator", "DatabricksCopyIntoOperator",
            "DatabricksCopyIntoAssetOperator", "DatabricksSqlSensor", "DatabricksSQLStatementsSensor",
            "DatabricksPartitionSensor", "DatabricksSqlHook", "DatabricksSQLStatementExecutionTrigger",
        ),
        "a sql_task, where a run will do",
    ),
    **dict.fromkeys(
        ("DatabricksReposCreateOperator", "DatabricksReposUpdateOperator", "DatabricksReposDeleteOperator"),
        "git_source, where a run reads from Git",
    ),
    **dict.fromkeys(
        (
            "DatabricksStartWarehouseOperator", "DatabricksStopWarehouseOperator", "DatabricksWarehouseStateTrigger",
        ),
        "a sql_task, which starts its warehouse by itself",
    ),
    "DatabricksHook": "the client that DatabricksJobsHook(conn_id).get_conn() returns",
    "RunState": "the state of a run that the client's get_run(run_id) returns",
    "normalise_json_content": "the payload as it is: operators and client send the types of JSON",
    "DatabricksExecutionTrigger": "an operator or a sensor with deferrable=True, or DatabricksRunTrigger",
    **dict.fromkeys(
        ("DatabricksSubmitRunDeferrableOperator", "DatabricksRunNowDeferrableOperator"),
        "the operator without Deferrable in its name, with deferrable=True",
    ),
    "DatabricksTaskBaseOperator": "DatabricksTaskOperator: a subclass sets its task_config in __init__",
    **dict.fromkeys(
        (
            "_handle_databricks_operator_execution", "_handle_deferrable_databricks_operator_execution",
            "_handle_deferrable_databricks_operator_completion",
        ),
        "super().execute(context), which also launches the run, or in an operator of another base the client's"
        " wait_for_run(run_id)",
    ),
}  # fmt: skip


def lazy_names(modules: Mapping[str, str]) -> Callable[[str], Any]:
    """Return a package's ``__getattr__`` that imports a name from its module when it is first used.

    `modules` gives the module of each name: what a DAG file imports stays cheap. A name of the official provider that
    is not offered raises ImportError, because Python replaces the message of an AttributeError with its own.
    """

    def get(name: str) -> Any:
        if name in modules:
            return getattr(import_module(modules[name]), name)
        if name in NOT_OFFERED:
            raise ImportError(
                f"airflow_dbjobs does not offer {name}. Use {NOT_OFFERED[name]}; or import it from the official"
                " provider, as before: both can be installed together."
            )
        raise AttributeError(f"the package has no attribute {name!r}")

    return get

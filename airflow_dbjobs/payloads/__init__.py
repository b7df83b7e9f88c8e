"""Request bodies: models of the API's structures, how a body is put together, and the rules it must keep.

The models are loaded when they are named: ``from airflow_dbjobs.payloads import NewCluster, NotebookTask``. A mistake
is told by ``check``, which the operators call. ``python -m airflow_dbjobs.payloads FILE...`` checks files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.body import merge as merge
from airflow_dbjobs.payloads.catalog import HOME, find
from airflow_dbjobs.payloads.checks import check as check
from airflow_dbjobs.payloads.checks import check_early as check_early

if TYPE_CHECKING:
    # Each of these is also in the catalog, by which it is found at run time.
    from airflow_dbjobs.payloads.access import *  # noqa: F403
    from airflow_dbjobs.payloads.answers import *  # noqa: F403
    from airflow_dbjobs.payloads.clusters import *  # noqa: F403
    from airflow_dbjobs.payloads.code_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.enums import *  # noqa: F403
    from airflow_dbjobs.payloads.flow_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.gpu_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.jobs import *  # noqa: F403
    from airflow_dbjobs.payloads.libraries import *  # noqa: F403
    from airflow_dbjobs.payloads.notifications import *  # noqa: F403
    from airflow_dbjobs.payloads.parameters import *  # noqa: F403
    from airflow_dbjobs.payloads.runs import *  # noqa: F403
    from airflow_dbjobs.payloads.schedule import *  # noqa: F403
    from airflow_dbjobs.payloads.sources import *  # noqa: F403
    from airflow_dbjobs.payloads.sql_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.storage import *  # noqa: F403
    from airflow_dbjobs.payloads.tasks import *  # noqa: F403

__all__ = ["check", "check_early", "merge"]
__all__ += list(HOME)


if not TYPE_CHECKING:
    # A type checker would take it that every name exists.
    def __getattr__(name: str) -> Any:
        if name not in HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME})

"""Request bodies: types of the API's structures, how a body is put together, and the rules it must keep.

``NewCluster(num_workers=2)`` is the plain dict ``{"num_workers": 2}``, whose fields editors and mypy know. A type is
loaded when it is named. ``check``, which the operators call, finds mistakes in a body, and
``python -m airflow_dbjobs.payloads FILE...`` those in files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.schema import HOME, find

if TYPE_CHECKING:
    # Each of these is also in HOME, by which it is found at run time.
    from airflow_dbjobs.payloads.access import *  # noqa: F403
    from airflow_dbjobs.payloads.answers import *  # noqa: F403
    from airflow_dbjobs.payloads.body import merge as merge
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
    from airflow_dbjobs.payloads.validation import check as check
    from airflow_dbjobs.payloads.validation import check_early as check_early

__all__ = list(HOME)


if not TYPE_CHECKING:
    # A type checker would take it that every name exists.
    def __getattr__(name: str) -> Any:
        if name not in HOME:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return find(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *HOME})

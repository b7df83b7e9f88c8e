"""Request bodies: types of the API's structures, how a body is put together, and the rules it must keep.

``NewCluster(num_workers=2)`` is the plain dict ``{"num_workers": 2}``, whose fields editors and mypy know. A type is
loaded when it is named. ``check``, which the operators call, finds mistakes in a body, and
``python -m airflow_dbjobs.payloads FILE...`` those in files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names
from airflow_dbjobs.payloads.schema import HOME

if TYPE_CHECKING:
    # Each of these is also in HOME, by which it is found at run time.
    from airflow_dbjobs.payloads.body import merge as merge
    from airflow_dbjobs.payloads.types.access import *  # noqa: F403
    from airflow_dbjobs.payloads.types.answers import *  # noqa: F403
    from airflow_dbjobs.payloads.types.clusters import *  # noqa: F403
    from airflow_dbjobs.payloads.types.code_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.types.enums import *  # noqa: F403
    from airflow_dbjobs.payloads.types.flow_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.types.gpu_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.types.jobs import *  # noqa: F403
    from airflow_dbjobs.payloads.types.libraries import *  # noqa: F403
    from airflow_dbjobs.payloads.types.notifications import *  # noqa: F403
    from airflow_dbjobs.payloads.types.parameters import *  # noqa: F403
    from airflow_dbjobs.payloads.types.runs import *  # noqa: F403
    from airflow_dbjobs.payloads.types.schedule import *  # noqa: F403
    from airflow_dbjobs.payloads.types.sources import *  # noqa: F403
    from airflow_dbjobs.payloads.types.sql_tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.types.storage import *  # noqa: F403
    from airflow_dbjobs.payloads.types.tasks import *  # noqa: F403
    from airflow_dbjobs.payloads.validation import check as check
    from airflow_dbjobs.payloads.validation import check_early as check_early
else:
    # A type checker would take it that every name exists.
    __getattr__ = lazy_names(
        {
            "check": "airflow_dbjobs.payloads.validation",
            "check_early": "airflow_dbjobs.payloads.validation",
            "merge": "airflow_dbjobs.payloads.body",
            **{name: f"airflow_dbjobs.payloads.types.{module}" for name, module in HOME.items()},
        }
    )

__all__ = ["check", "check_early", "merge"]
__all__ += list(HOME)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

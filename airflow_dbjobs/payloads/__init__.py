"""Request bodies of the Jobs API: typed dicts for its structures, merging, and validation.

``NewCluster(num_workers=2)`` returns the plain dict ``{"num_workers": 2}``, and editors and mypy know its fields. Each
type is imported on first use. The operators validate payloads with ``check``;
``python -m airflow_dbjobs.payloads FILE...`` validates files.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs import lazy_names
from airflow_dbjobs.payloads.schema import MODULE_OF

if TYPE_CHECKING:
    # At run time these names are looked up in MODULE_OF.
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
    # Type checkers must not see this __getattr__: they would accept every name.
    __getattr__ = lazy_names(
        {
            "check": "airflow_dbjobs.payloads.validation",
            "check_early": "airflow_dbjobs.payloads.validation",
            "merge": "airflow_dbjobs.payloads.body",
            **{name: f"airflow_dbjobs.payloads.types.{module}" for name, module in MODULE_OF.items()},
        }
    )

__all__ = ["check", "check_early", "merge"]
__all__ += list(MODULE_OF)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

"""The only room that tells Airflow's versions apart, or uses anything outside Airflow's public API.

Names of Airflow that have moved are imported when they are first used here. What this room adds is in its modules.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from airflow import __version__

try:
    from airflow.sdk.configuration import conf
except ImportError:  # before Airflow 3.2
    from airflow.configuration import conf

if TYPE_CHECKING:
    from airflow.sdk import (
        BaseHook,
        BaseOperator,
        BaseOperatorLink,
        BaseSensorOperator,
        Connection,
        Context,
        PokeReturnValue,
        TaskGroup,
        XComArg,
    )
    from airflow.sdk.bases.decorator import (
        DecoratedOperator,
        TaskDecorator,
        determine_kwargs,
        task_decorator_factory,
    )
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.definitions.taskgroup import MappedTaskGroup
    from airflow.sdk.exceptions import (
        AirflowException,
        AirflowFailException,
        AirflowNotFoundException,
        AirflowSensorTimeout,
        AirflowSkipException,
        AirflowTaskTimeout,
        ParamValidationError,
    )
    from airflow.sdk.log import mask_secret, redact
    from airflow.sdk.types import TaskInstanceKey

    from airflow_dbjobs.errors import RunFailed

AIRFLOW_V_3_0_PLUS = not __version__.startswith("2.")

# The modules that may contain a name, from the newest Airflow to 2.11. The common-compat provider has such a table too,
# but not in the version that Airflow 3.0's constraints pin.
_EXCEPTIONS = (
    "AirflowException", "AirflowFailException", "AirflowNotFoundException", "AirflowSensorTimeout",
    "AirflowSkipException", "AirflowTaskTimeout", "ParamValidationError",
)  # fmt: skip
_MASKERS = ("airflow.sdk.log", "airflow.sdk.execution_time.secrets_masker", "airflow.utils.log.secrets_masker")
_MODULES = {
    "BaseHook": ("airflow.sdk", "airflow.hooks.base"),
    "BaseOperator": ("airflow.sdk", "airflow.models.baseoperator"),
    "BaseOperatorLink": ("airflow.sdk", "airflow.models.baseoperatorlink"),
    "BaseSensorOperator": ("airflow.sdk", "airflow.sensors.base"),
    "PokeReturnValue": ("airflow.sdk", "airflow.sensors.base"),
    "TaskGroup": ("airflow.sdk", "airflow.utils.task_group"),
    "MappedTaskGroup": ("airflow.sdk.definitions.taskgroup", "airflow.utils.task_group"),
    "XComArg": ("airflow.sdk", "airflow.models.xcom_arg"),
    "DecoratedOperator": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "task_decorator_factory": ("airflow.sdk.bases.decorator", "airflow.decorators.base"),
    "determine_kwargs": ("airflow.sdk.bases.decorator", "airflow.utils.operator_helpers"),
    "Connection": ("airflow.sdk", "airflow.models.connection"),
    "BaseXCom": ("airflow.sdk.bases.xcom",),
    "XCom": ("airflow.sdk.execution_time.xcom", "airflow.models.xcom"),
    "SENSITIVE_FIELD_PLACEHOLDER": ("airflow.www.views",),
    **dict.fromkeys(("mask_secret", "redact"), _MASKERS),
    **dict.fromkeys(_EXCEPTIONS, ("airflow.sdk.exceptions", "airflow.exceptions")),
}


def __getattr__(name: str) -> Any:
    for module in _MODULES.get(name, ()):
        try:
            globals()[name] = found = getattr(import_module(module), name)
        except (ImportError, AttributeError):
            continue
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def redact_error(error: RunFailed) -> RunFailed:
    """Mask in an error the secrets that Airflow masks in logs, because errors also appear in callbacks and mails."""
    from airflow_dbjobs.airflow_compat import redact

    error.args = (redact(str(error)),)
    return error

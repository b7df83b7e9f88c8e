"""What the OpenLineage provider, which is optional, knows of a task and of its own transport.

Nothing but a set flag or OpenLineage's own extractor imports this module.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow_dbjobs.airflow_compat import Context

_TASK_TYPE = {"processingType": "BATCH", "integration": "AIRFLOW", "jobType": "TASK"}
_DAG_TYPE = {**_TASK_TYPE, "jobType": "DAG"}


def is_openlineage_listening() -> bool:
    """Return whether the OpenLineage provider is installed, and its listener sends events."""
    try:
        from airflow.providers.openlineage.conf import is_disabled
        from airflow.providers.openlineage.plugins.listener import get_openlineage_listener

        return not is_disabled() and bool(get_openlineage_listener())
    except Exception:  # noqa: BLE001 (also of a configuration that it cannot read)
        return False


def parent_properties(context: Context) -> dict[str, str]:
    """Return the properties that name this task as the parent of a Spark application."""
    from airflow.providers.openlineage.utils.spark import inject_parent_job_information_into_spark_properties

    properties: dict[str, str] = inject_parent_job_information_into_spark_properties({}, context)
    return properties


def parent_context(context: Context) -> str:
    """Return the JSON that names this task as the parent of a run, with the shape that the official operators give."""
    from airflow.providers.openlineage.plugins import macros as untyped

    macros: Any = untyped
    ti: Any = context["ti"]
    namespace = macros.lineage_job_namespace()
    # The provider that Airflow 3.0 pins has no macro for it, and knows no other namespace.
    root_namespace = getattr(macros, "lineage_root_job_namespace", lambda _: namespace)(ti)
    root: dict[str, Any] = {"namespace": root_namespace, "name": macros.lineage_root_job_name(ti)}
    if (root_namespace, root["name"]) == (namespace, ti.dag_id):
        root["facets"] = {"jobType": _DAG_TYPE}
    elif kind := _root_job_type(context):
        root["facets"] = {"jobType": kind}
    task = {"namespace": namespace, "name": macros.lineage_job_name(ti), "facets": {"jobType": _TASK_TYPE}}
    parent = {
        "run": {"runId": macros.lineage_run_id(ti)},
        "job": task,
        "root": {"run": {"runId": macros.lineage_root_run_id(ti)}, "job": root},
    }
    return json.dumps({"parent": parent}, separators=(",", ":"))


def _root_job_type(context: Context) -> Any:
    """Return the type of the job that started the DAG run, if its ``conf`` has it."""
    conf = getattr(context["dag_run"], "conf", None)
    inherited = conf.get("openlineage") if isinstance(conf, dict) else None
    kind = inherited.get("rootParentJobType") if isinstance(inherited, dict) else None
    return kind if isinstance(kind, dict) else None


class _Secret(str):
    """A text that neither the `repr` of a payload nor a traceback with local variables shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def transport_properties(context: Context) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the properties with which a Spark application sends its events where Airflow does, and their secrets.

    Airflow's logs mask the secrets from now on.
    """
    from airflow.providers.openlineage.utils.spark import inject_transport_information_into_spark_properties

    from airflow_dbjobs.airflow_compat import mask_secret

    properties: dict[str, str] = inject_transport_information_into_spark_properties({}, context)
    found = {name: _secrets_in(name, str(value)) for name, value in properties.items()}
    properties |= {name: _Secret(properties[name]) for name, secrets in found.items() if secrets}
    secrets = tuple(_Secret(secret) for secrets in found.values() for secret in secrets)
    for secret in secrets:
        mask_secret(str(secret))
    return properties, secrets


def _secrets_in(name: str, value: str) -> tuple[str, ...]:
    if ".headers." in name or (".auth." in name and not name.endswith(".type")):
        # In a text, the key may also stand without its scheme.
        return value, value.rpartition(" ")[2]
    if name.endswith(".url") and (password := urlsplit(value).password):
        return (password,)
    return ()


def run_lineage(run_id: int | None, page_url: str | None) -> Any:
    """Return the ``OperatorLineage`` of a task: the run that it launched, if it did."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from openlineage.client.facet_v2 import external_query_run

    if run_id is None:
        return OperatorLineage()
    facet = external_query_run.ExternalQueryRunFacet(externalQueryId=str(run_id), source=page_url or "databricks")
    return OperatorLineage(run_facets={"externalQuery": facet})

"""OpenLineage: names the task as the parent of what it launches, and says where that sends its events.

The parent goes into the parameters of the run, and with the transport into the Spark properties of its new clusters.
What the payload already says about one of them is kept. No task fails because of its lineage.
"""

from __future__ import annotations

import json
import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.airflow_compat.lineage import (
    is_openlineage_listening,
    parent_context,
    parent_properties,
    transport_properties,
)
from airflow_dbjobs.client.sanitize import cleaned, one_line
from airflow_dbjobs.operators.dag_params import NAMED_PARAMETERS, OTHER_PARAMETERS, change_tasks
from airflow_dbjobs.payloads.job_parameters import size_of
from airflow_dbjobs.payloads.rules.parameters import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from airflow_dbjobs.airflow_compat import Context
    from airflow_dbjobs.client.jobs_client import JobsClient
    from airflow_dbjobs.client.models import Run

log = logging.getLogger(__name__)

_CONTEXT = "OPENLINEAGE_CONTEXT"
_CONTEXTS = (_CONTEXT, "spark.openlineage.context")
_PARENT = "spark.openlineage.parent"
_TRANSPORT = "spark.openlineage.transport"


def with_lineage(
    payload: dict[str, Any], client: JobsClient, context: Context, *, parent: bool, transport: bool
) -> dict[str, Any]:
    """Return the body of a runs/submit request, or a job's settings, with parent and transport where they fit.

    The errors of `client` show no secret of the transport from now on.
    """
    if not _is_available():
        return payload
    text, spark = "", {}
    if parent:
        text = _collected("the parent", lambda: parent_context(context)) or ""
        spark[_PARENT] = _collected("the parent", lambda: parent_properties(context)) or {}
    if transport:
        spark[_TRANSPORT], secrets = _collected("the transport", lambda: transport_properties(context)) or ({}, ())
        client.transport.secrets += secrets
    made = change_tasks(payload, partial(_add_to_task, context=text, spark=spark))
    if isinstance(made.get("job_clusters"), list):
        made["job_clusters"] = [_add_to_cluster(cluster, spark) for cluster in made["job_clusters"]]
    return made


def with_job_context(payload: dict[str, Any], client: JobsClient, context: Context) -> dict[str, Any]:
    """Return the body of a run-now request with the parent among its ``job_parameters``."""
    if client.api_version == "2.0":
        log.info("API 2.0 has no job_parameters, so the run does not name its OpenLineage parent.")
        return payload
    if not _is_available():
        return payload
    text = _collected("the parent", lambda: parent_context(context)) or ""
    return _add_context(payload, "job_parameters", OTHER_PARAMETERS, text)


def log_parent(run: Run) -> None:
    """Log which parent a run names that an earlier try launched."""
    found = dict(_named_values(run.raw))
    name, run_id = found.get(f"{_PARENT}JobName"), found.get(f"{_PARENT}RunId")
    with suppress(ValueError, KeyError, TypeError):
        parent = json.loads(found[_CONTEXT])["parent"]
        name, run_id = str(parent["job"]["name"]), str(parent["run"]["runId"])
    if name and run_id:
        log.info(
            "Run %d names as its OpenLineage parent %s (%s), the try that launched it.",
            run.run_id,
            one_line(name),
            one_line(run_id),
        )


def _named_values(value: Any) -> Iterator[tuple[str, str]]:
    """Yield the names and texts of a reply, at any depth; parameters may be a list of names and values."""
    if isinstance(value, dict):
        yield from ((name, text) for name, text in value.items() if isinstance(text, str))
        if isinstance(text := value.get("value"), str):
            yield str(value.get("name")), text
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _named_values(item)


def _is_available() -> bool:
    if is_openlineage_listening():
        return True
    log.warning(
        "Nothing of OpenLineage is added to the payload: the provider apache-airflow-providers-openlineage is not"
        " installed, is disabled, or has no valid transport. Configure it, or set openlineage_inject_*_info=False."
    )
    return False


def _collected(what: str, collect: Callable[[], Any]) -> Any:
    """Return what OpenLineage knows; None, and a warning, if it fails."""
    try:
        return collect()
    except Exception as error:  # noqa: BLE001 (of another provider, on which no run may depend)
        log.warning("OpenLineage: %s is not added to the payload: %s", what, cleaned(repr(error)))
        return None


def _add_to_task(task: Mapping[str, Any], *, context: str, spark: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    made: dict[str, Any] = _add_to_cluster(task, spark)
    for kind, (field, excluding) in NAMED_PARAMETERS.items():
        if isinstance(settings := made.get(kind), dict):
            made[kind] = _add_context(settings, field, excluding, context)
    return made


def _add_to_cluster(holder: Any, spark: Mapping[str, Mapping[str, str]]) -> Any:
    """Return a copy of a task or an entry of ``job_clusters``, with properties for its new cluster if it has one."""
    cluster = holder.get("new_cluster") if isinstance(holder, dict) else None
    properties = (cluster.get("spark_conf") or {}) if isinstance(cluster, dict) else None
    if not isinstance(cluster, dict) or not isinstance(properties, dict):
        return dict(holder) if isinstance(holder, dict) else holder
    for prefix, added in spark.items():
        if any(str(name).startswith(prefix) for name in properties):
            log.info("The spark_conf of a cluster has %s* already, which is kept.", prefix)
        else:
            properties = {**properties, **added}
    return {**holder, "new_cluster": {**cluster, "spark_conf": properties}} if properties else dict(holder)


def _add_context(fields: dict[str, Any], field: str, excluding: tuple[str, ...], context: str) -> dict[str, Any]:
    """Return a structure with the context among the parameters in `field`, unless they exclude it."""
    parameters = fields.get(field) or {}
    if not context or not isinstance(parameters, dict):
        return fields
    if others := [name for name in excluding if fields.get(name)]:
        log.info("No OpenLineage parent is added to %s, as %s excludes it.", field, ", ".join(others))
        return fields
    if any(name in parameters for name in _CONTEXTS):
        log.info("%s has an OpenLineage context already, which is kept.", field)
        return fields
    made = {**parameters, _CONTEXT: context}
    # The other parameters may have a megabyte.
    if field == "job_parameters" and (size := size_of(made)) > MAX_BYTES:
        log.warning(
            "No OpenLineage parent is added to job_parameters: with it they would have %d bytes, and the API accepts"
            " %d.",
            size,
            MAX_BYTES,
        )
        return fields
    return {**fields, field: made}

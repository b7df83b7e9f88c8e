"""The operations of the Clusters and Libraries APIs: made up, as tasks run as processes of this machine.

Every cluster that a request names exists and runs, until it is terminated.
"""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.views.json_view import CLUSTER_ID

from . import files

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Json

    from .context import RequestContext

_NODE_TYPE: Final = "local"
_ZONE: Final = "local"
_MADE_UP: Final = "Made up by the local workspace: tasks run as processes of this machine."
#: By key. databricks-sdk finds versions by these names.
_SPARK_VERSIONS: Final = {
    "17.3.x-scala2.13": "17.3 LTS (includes Apache Spark 4.0.0, Scala 2.13; made up)",
    "16.4.x-scala2.12": "16.4 LTS (includes Apache Spark 3.5.2, Scala 2.12; made up)",
    "15.4.x-scala2.12": "15.4 LTS (includes Apache Spark 3.5.0, Scala 2.12; made up)",
}


def get(context: RequestContext) -> Json:
    """Describe a cluster with any id."""
    return _show(context, files.required(context, "cluster_id"))


def list_(context: RequestContext) -> Json:
    """List one cluster."""
    return {"clusters": [_show(context, CLUSTER_ID)]}


def create(context: RequestContext) -> Json:  # noqa: ARG001 - an operation
    """Return the id of a cluster that runs already."""
    return {"cluster_id": f"local-{secrets.token_hex(4)}"}


def start(context: RequestContext) -> Json:
    """Let a cluster run."""
    context.memory.terminated.discard(files.required(context, "cluster_id"))
    return {}


def terminate(context: RequestContext) -> Json:
    """Let a cluster be terminated, which concerns no run."""
    context.memory.terminated.add(files.required(context, "cluster_id"))
    return {}


def accept(context: RequestContext) -> Json:
    """Do nothing to a cluster, which has neither settings nor libraries."""
    files.required(context, "cluster_id")
    return {}


def events(context: RequestContext) -> Json:
    """List the events of a cluster: none."""
    files.required(context, "cluster_id")
    return {"events": [], "total_count": 0}


def spark_versions(context: RequestContext) -> Json:  # noqa: ARG001 - as above
    """List versions of the Databricks runtime."""
    return {"versions": [{"key": key, "name": name} for key, name in _SPARK_VERSIONS.items()]}


def node_types(context: RequestContext) -> Json:  # noqa: ARG001 - as above
    """List one type of node: this machine."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
    node = {
        "node_type_id": _NODE_TYPE,
        "instance_type_id": _NODE_TYPE,
        "category": "General Purpose",
        "description": _MADE_UP,
        "memory_mb": memory,
        "num_cores": float(os.cpu_count() or 1),
        "num_gpus": 0,
        "is_deprecated": False,
        "node_instance_type": {"instance_type_id": _NODE_TYPE, "local_disks": 1, "local_disk_size_gb": 1},
    }
    return {"node_types": [node]}


def zones(context: RequestContext) -> Json:  # noqa: ARG001 - as above
    """List one zone."""
    return {"zones": [_ZONE], "default_zone": _ZONE}


def library_statuses(context: RequestContext) -> Json:
    """Return the libraries of a cluster: none, as `libraries` of a task are its own."""
    return {"cluster_id": files.required(context, "cluster_id"), "library_statuses": []}


def all_library_statuses(context: RequestContext) -> Json:  # noqa: ARG001 - as above
    """Return the libraries of all clusters: none."""
    return {"statuses": []}


def _show(context: RequestContext, cluster_id: str) -> Json:
    return {
        "cluster_id": cluster_id,
        "cluster_name": f"{cluster_id} (local workspace)",
        "state": "TERMINATED" if cluster_id in context.memory.terminated else "RUNNING",
        "state_message": _MADE_UP,
        "creator_user_name": context.user,
        "spark_version": next(iter(_SPARK_VERSIONS)),
        "node_type_id": _NODE_TYPE,
        "driver_node_type_id": _NODE_TYPE,
        "num_workers": 0,
        "cluster_source": "API",
        "default_tags": {"Vendor": "airflow_dbjobs local workspace"},
    }

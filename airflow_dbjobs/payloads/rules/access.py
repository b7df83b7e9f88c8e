"""Rules for permissions, run_as and queue settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import is_bool, type_of
from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.checks import all_of, exactly_one, one_of, required
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import JobPermissionLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

PRINCIPALS = ("user_name", "group_name", "service_principal_name")


def _queue_enabled(node: Node) -> Iterator[Fault]:
    enabled = node.value.get("enabled")
    if node.lacks("enabled"):
        yield "", "enabled is missing"
    elif not is_templated(enabled) and not is_bool(enabled):
        yield "", f"enabled {type_of(enabled)}"


def one_owner(node: Node) -> Iterator[Fault]:
    """Report a second owner in an access_control_list, and a group as owner."""
    owners = [
        index for index, grant in node.elements("access_control_list") if _is_owner(grant.get("permission_level"))
    ]
    if len(owners) > 1:
        yield f"access_control_list[{owners[1]}]", "grants IS_OWNER a second time"
    for index, grant in node.elements("access_control_list"):
        if index in owners and grant.get("group_name"):
            yield f"access_control_list[{index}]", "grants IS_OWNER to a group"


def _is_owner(level: object) -> bool:
    return level == JobPermissionLevel.IS_OWNER


ONE_OWNER = Rule(
    "ACL-ONE-OWNER",
    one_owner,
    "a job can only have one owner, which must be a user or a service principal",
    "Use CAN_MANAGE instead.",
    warning=True,
)

RULES = {
    "JobAccessControlRequest": (
        Rule(
            "ACL-ONE-PRINCIPAL",
            exactly_one(*PRINCIPALS),
            f"an entry must have exactly one of {', '.join(PRINCIPALS)}",
            "Use a separate entry for each principal.",
        ),
        Rule(
            "ACL-LEVEL",
            all_of(required("permission_level"), one_of("permission_level", JobPermissionLevel)),
            f"it is required, and must be one of {', '.join(JobPermissionLevel)}",
            "Use one of these.",
        ),
    ),
    "SetJobPermissions": (ONE_OWNER,),
    "JobRunAs": (
        Rule(
            "RUNAS-ONE",
            exactly_one(*PRINCIPALS),
            f"run_as must have exactly one of {', '.join(PRINCIPALS)}",
            "Keep only one.",
            versions=FROM_2_1,
        ),
    ),
    "QueueSettings": (
        Rule(
            "QUEUE-OBJECT",
            _queue_enabled,
            "queue must be {enabled: true} or {enabled: false}",
            "Set enabled to true or false.",
            versions=FROM_2_1,
        ),
    ),
}

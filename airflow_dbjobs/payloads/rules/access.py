"""Rules of permissions, identities and queueing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import is_bool, type_of
from airflow_dbjobs.payloads.rules import FROM_2_1, Rule
from airflow_dbjobs.payloads.rules.forms import any_of, exactly_one, one_of, present
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import JobPermissionLevel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Fault

PRINCIPALS = ("user_name", "group_name", "service_principal_name")


def _says_whether(node: Node) -> Iterator[Fault]:
    enabled = node.value.get("enabled")
    if node.lacks("enabled"):
        yield "", "enabled is missing"
    elif not is_templated(enabled) and not is_bool(enabled):
        yield "", f"enabled {type_of(enabled)}"


def one_owner(node: Node) -> Iterator[Fault]:
    """Find a second owner in an access_control_list, or a group as one."""
    owners = [
        index for index, grant in node.elements("access_control_list") if _is_owner(grant.get("permission_level"))
    ]
    if len(owners) > 1:
        yield f"access_control_list[{owners[1]}]", "is a second owner"
    for index, grant in node.elements("access_control_list"):
        if index in owners and grant.get("group_name"):
            yield f"access_control_list[{index}]", "makes a group the owner"


def _is_owner(level: object) -> bool:
    return level == JobPermissionLevel.IS_OWNER


ONE_OWNER = Rule(
    "ACL-ONE-OWNER",
    one_owner,
    "a job can have one owner, a user or a service principal",
    "Give CAN_MANAGE instead.",
    warning=True,
)

RULES = {
    "JobAccessControlRequest": (
        Rule(
            "ACL-ONE-PRINCIPAL",
            exactly_one(*PRINCIPALS),
            f"an entry must have exactly one of {', '.join(PRINCIPALS)}",
            "Name one, and give each other principal an entry of its own.",
        ),
        Rule(
            "ACL-LEVEL",
            any_of(present("permission_level"), one_of("permission_level", JobPermissionLevel)),
            f"it is required, and must be one of {', '.join(JobPermissionLevel)}",
            "Give one of these.",
        ),
    ),
    "SetJobPermissions": (ONE_OWNER,),
    "JobRunAs": (
        Rule(
            "RUNAS-ONE",
            exactly_one(*PRINCIPALS),
            f"run_as must have exactly one of {', '.join(PRINCIPALS)}",
            "Name one identity.",
            versions=FROM_2_1,
        ),
    ),
    "QueueSettings": (
        Rule(
            "QUEUE-OBJECT",
            _says_whether,
            "queue must be {enabled: true} or {enabled: false}",
            "Give enabled, true or false.",
            versions=FROM_2_1,
        ),
    ),
}

"""Rules for permissions, run_as and queue settings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import is_bool, type_of
from airflow_dbjobs.payloads.rules import Rule
from airflow_dbjobs.payloads.rules.checks import all_of, exactly_one, one_of, required, when_given
from airflow_dbjobs.payloads.templates import is_templated
from airflow_dbjobs.payloads.types.enums import JobPermissionLevel

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Faults

PRINCIPALS = ("user_name", "group_name", "service_principal_name")


@when_given()
def _queue_enabled(node: Node) -> Faults:
    enabled = node.value.get("enabled")
    if node.lacks("enabled"):
        yield "", "enabled is missing"
    elif not is_templated(enabled) and not is_bool(enabled):
        yield "", f"enabled {type_of(enabled)}"


@when_given("access_control_list")
def _one_owner(node: Node) -> Faults:
    """Report a second owner in an access_control_list, and a group as owner."""
    grants = node.elements("access_control_list")
    owners = [(index, grant) for index, grant in grants if grant.get("permission_level") == JobPermissionLevel.IS_OWNER]
    if len(owners) > 1:
        yield f"access_control_list[{owners[1][0]}]", "grants IS_OWNER a second time"
    for index, grant in owners:
        if grant.get("group_name"):
            yield f"access_control_list[{index}]", "grants IS_OWNER to a group"


ONE_OWNER = Rule(
    "ACL-ONE-OWNER",
    _one_owner,
    "a job can only have one owner, which must be a user or a service principal",
    "Use CAN_MANAGE instead.",
    warning=True,
)

RULES = {
    "JobAccessControlRequest": (
        Rule("ACL-ONE-PRINCIPAL", exactly_one(*PRINCIPALS), remedy="Use a separate entry for each principal."),
        Rule("ACL-LEVEL", all_of(required("permission_level"), one_of("permission_level", JobPermissionLevel))),
    ),
    "SetJobPermissions": (ONE_OWNER,),
    "JobRunAs": (Rule("RUNAS-ONE", exactly_one(*PRINCIPALS)),),
    "QueueSettings": (
        Rule(
            "QUEUE-OBJECT",
            _queue_enabled,
            "queue must be {enabled: true} or {enabled: false}",
            "Set enabled to true or false.",
        ),
    ),
}

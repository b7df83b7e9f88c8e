"""Rules for notifications and health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow_dbjobs.payloads.field_types import is_list, type_of, whole_number
from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.checks import (
    STRINGS,
    all_of,
    all_required,
    max_entries,
    of_type,
    one_of,
    quoted,
    reported_at,
    required,
    when_given,
)
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Faults

ASCII_EVENTS = ("on_start", "on_success", "on_failure")
EVENTS = (
    *ASCII_EVENTS, "on_duration_warning_threshold_exceeded", "on_streaming_backlog_exceeded", "on_maintenance_start",
    "on_maintenance_complete",
)  # fmt: skip
DURATION = "RUN_DURATION_SECONDS"
METRICS = (DURATION, *(f"STREAMING_BACKLOG_{unit}" for unit in ("BYTES", "RECORDS", "SECONDS", "FILES")))


@when_given(*ASCII_EVENTS)
def _ascii_addresses(node: Node) -> Faults:
    for event in ASCII_EVENTS:
        for index, address in enumerate(node.items(event)):
            if isinstance(address, str) and not address.isascii() and not is_templated(address):
                yield event, f"{event}[{index}] has non-ASCII characters"


@when_given("on_duration_warning_threshold_exceeded")
def _duration_rule(node: Node) -> Faults:
    """Report a duration warning that is never sent, because no health rule sets its threshold."""
    event = "on_duration_warning_threshold_exceeded"
    if not node.filled(event) or node.parent is None or node.body.is_partial:
        return
    holders = (node.parent.value, node.body.settings)
    if not any(_has_duration_rule(holder.get("health")) for holder in holders):
        yield event, "has no matching health rule"


def _has_duration_rule(health: object) -> bool:
    rules = health.get("rules") if isinstance(health, dict) else health
    if not is_list(rules):
        return rules is not None and is_templated(rules)
    return any(
        is_templated(rule) or (isinstance(rule, dict) and (rule.get("metric") == DURATION or is_templated(rule)))
        for rule in rules
    )


def _health_rule(operator: str, metrics: tuple[str, ...]) -> Check:
    @when_given("value")
    def whole_value(node: Node) -> Faults:
        value: Any = node.known("value")
        if value is not None and whole_number(value) is None:
            yield "value", f"is {quoted(value)}" if isinstance(value, str | float) else type_of(value)

    complete = all_required("metric", operator, "value", may_be_empty=True)
    return reported_at("", all_of(complete, one_of("metric", metrics), one_of(operator, ["GREATER_THAN"]), whole_value))


EMAIL_RULES = (
    Rule(
        "EMAIL-LIST",
        all_of(*(reported_at(event, of_type(event, STRINGS)) for event in EVENTS)),
        "it must be a list of email addresses",
        'Use a list such as ["someone@example.com"].',
    ),
    Rule("EMAIL-ASCII", _ascii_addresses, "email addresses must be ASCII", "Use another address."),
    Rule(
        "HEALTH-WARNING-RULE",
        _duration_rule,
        f"it is only sent if a health rule sets a threshold for {DURATION}",
        "Add such a rule to health.",
        warning=True,
    ),
)

RULES = {
    "JobEmailNotifications": EMAIL_RULES,
    "WebhookNotifications": (
        Rule(
            "WEBHOOK-COUNT",
            all_of(*(max_entries(event, 3) for event in EVENTS)),
            "at most 3 destinations are allowed for each event",
            "Remove some destinations.",
        ),
        EMAIL_RULES[-1],
    ),
    "Webhook": (Rule("WEBHOOK-ID", required("id"), remedy="Set the id of a notification destination."),),
    "JobsHealthRule": (
        Rule(
            "HEALTH-2_0",
            _health_rule("operator", METRICS[:1]),
            f"a rule must have metric {DURATION}, operator GREATER_THAN and an integer value",
            "Correct or complete the rule; in API 2.0, op is named operator.",
            versions=ONLY_2_0,
        ),
        Rule(
            "HEALTH-2_1",
            _health_rule("op", METRICS),
            f"a rule must have a metric ({', '.join(METRICS)}), op GREATER_THAN and an integer value",
            "Correct or complete the rule; from API 2.1, operator is named op.",
            versions=FROM_2_1,
        ),
    ),
}

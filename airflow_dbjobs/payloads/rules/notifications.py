"""Rules for notifications and health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import is_list, type_of, whole_number
from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.checks import (
    STRINGS,
    all_of,
    joined,
    max_entries,
    of_type,
    quoted,
    reported_at,
    required,
    when_given,
)
from airflow_dbjobs.payloads.templates import is_templated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from airflow_dbjobs.payloads.paths import Node
    from airflow_dbjobs.payloads.rules import Check, Fault

EVENTS = (
    "on_start",
    "on_success",
    "on_failure",
    "on_duration_warning_threshold_exceeded",
    "on_streaming_backlog_exceeded",
    "on_maintenance_start",
    "on_maintenance_complete",
)
ASCII_EVENTS = EVENTS[:3]
DURATION = "RUN_DURATION_SECONDS"
METRICS = (
    DURATION,
    "STREAMING_BACKLOG_BYTES",
    "STREAMING_BACKLOG_RECORDS",
    "STREAMING_BACKLOG_SECONDS",
    "STREAMING_BACKLOG_FILES",
)


def _ascii_addresses(node: Node) -> Iterator[Fault]:
    for event in ASCII_EVENTS:
        for index, address in enumerate(node.items(event)):
            if isinstance(address, str) and not address.isascii() and not is_templated(address):
                yield event, f"{event}[{index}] has non-ASCII characters"


def _known_events(node: Node) -> Iterator[Fault]:
    for name in node.value:
        if str(name).startswith("on_") and name not in EVENTS:
            yield str(name), "is not a known event"


def _duration_rule(node: Node) -> Iterator[Fault]:
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
    def check(node: Node) -> Iterator[Fault]:
        missing = [name for name in ("metric", operator, "value") if node.lacks(name)]
        if missing:
            yield "", f"{joined(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        metric, comparison, value = node.known("metric"), node.known(operator), node.known("value")
        if metric is not None and metric not in metrics:
            yield "metric", f"is {quoted(metric)}"
        if comparison is not None and comparison != "GREATER_THAN":
            yield operator, f"is {quoted(comparison)}"
        if value is not None and whole_number(value) is None:
            yield "value", f"is {quoted(value)}" if isinstance(value, str | float) else type_of(value)

    return check


EMAIL_RULES = (
    Rule(
        "EMAIL-LIST",
        all_of(*(reported_at(event, of_type(event, STRINGS)) for event in EVENTS)),
        "it must be a list of email addresses",
        'Use a list such as ["someone@example.com"].',
    ),
    Rule(
        "EMAIL-ASCII",
        when_given(ASCII_EVENTS, _ascii_addresses),
        "email addresses must be ASCII",
        "Use another address.",
    ),
    Rule(
        "HEALTH-WARNING-RULE",
        when_given("on_duration_warning_threshold_exceeded", _duration_rule),
        "it is only sent if a health rule sets a threshold for RUN_DURATION_SECONDS",
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
        Rule(
            "WEBHOOK-EVENT-NAME",
            _known_events,
            f"it must be one of {', '.join(EVENTS)}",
            "Use one of these.",
            warning=True,
        ),
        EMAIL_RULES[-1],
    ),
    "Webhook": (Rule("WEBHOOK-ID", required("id"), "it is required", "Set the id of a notification destination."),),
    "JobsHealthRule": (
        Rule(
            "HEALTH-2_0",
            reported_at("", _health_rule("operator", METRICS[:1])),
            f"a rule must have metric {DURATION}, operator GREATER_THAN and an integer value",
            "Correct or complete the rule; in API 2.0, op is named operator.",
            versions=ONLY_2_0,
        ),
        Rule(
            "HEALTH-2_1",
            reported_at("", _health_rule("op", METRICS)),
            f"a rule must have a metric ({', '.join(METRICS)}), op GREATER_THAN and an integer value",
            "Correct or complete the rule; from API 2.1, operator is named op.",
            versions=FROM_2_1,
        ),
    ),
}

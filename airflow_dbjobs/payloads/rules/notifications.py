"""Rules of notifications and health."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.field_types import is_list, type_of, whole_number
from airflow_dbjobs.payloads.rules import FROM_2_1, ONLY_2_0, Rule
from airflow_dbjobs.payloads.rules.forms import STRINGS, any_of, at, listed, most, of, of_type, present, shown
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
            if isinstance(address, str) and not is_templated(address) and not address.isascii():
                yield event, f"{event}[{index}] has other characters than ASCII"


def _known_events(node: Node) -> Iterator[Fault]:
    for name in node.value:
        if str(name).startswith("on_") and name not in EVENTS:
            yield str(name), "is no event"


def _duration_rule(node: Node) -> Iterator[Fault]:
    """Find a notification that never fires, because no health rule says when."""
    event = "on_duration_warning_threshold_exceeded"
    if not node.filled(event) or node.parent is None or node.body.is_partial:
        return
    holders = (node.parent.value, node.body.settings)
    if not any(_has_duration_rule(holder.get("health")) for holder in holders):
        yield event, "is given"


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
            yield "", f"{listed(missing)} {'is' if len(missing) == 1 else 'are'} missing"
        metric, comparison, value = node.known("metric"), node.known(operator), node.known("value")
        if metric is not None and metric not in metrics:
            yield "metric", f"is {shown(metric)}"
        if comparison is not None and comparison != "GREATER_THAN":
            yield operator, f"is {shown(comparison)}"
        if value is not None and whole_number(value) is None:
            yield "value", f"is {shown(value)}" if isinstance(value, str | float) else type_of(value)

    return check


EMAIL_RULES = (
    Rule(
        "EMAIL-LIST",
        any_of(*(at(event, of_type(event, STRINGS)) for event in EVENTS)),
        "it must be a list of addresses",
        'Write ["someone@example.com"].',
    ),
    Rule("EMAIL-ASCII", _ascii_addresses, "addresses must be ASCII", "Give another address."),
    Rule(
        "HEALTH-WARNING-RULE",
        of("on_duration_warning_threshold_exceeded", _duration_rule),
        "it fires only by a health rule for RUN_DURATION_SECONDS",
        "Add the rule to health.",
        warning=True,
    ),
)

RULES = {
    "JobEmailNotifications": EMAIL_RULES,
    "WebhookNotifications": (
        Rule(
            "WEBHOOK-COUNT",
            any_of(*(most(event, 3) for event in EVENTS)),
            "at most 3 are allowed for each event",
            "Leave some destinations out.",
        ),
        Rule(
            "WEBHOOK-EVENT-NAME",
            _known_events,
            f"the events are {', '.join(EVENTS)}",
            "Choose one of these.",
            warning=True,
        ),
        EMAIL_RULES[-1],
    ),
    "Webhook": (Rule("WEBHOOK-ID", present("id"), "it is required", "Give the id of a notification destination."),),
    "JobsHealthRule": (
        Rule(
            "HEALTH-2_0",
            at("", _health_rule("operator", METRICS[:1])),
            f"a rule must have metric {DURATION}, operator GREATER_THAN and an integer value",
            "Correct or complete the rule; op is named operator in API 2.0.",
            versions=ONLY_2_0,
        ),
        Rule(
            "HEALTH-2_1",
            at("", _health_rule("op", METRICS)),
            f"a rule must have a metric ({', '.join(METRICS)}), op GREATER_THAN and an integer value",
            "Correct or complete the rule; operator is named op from API 2.1 on.",
            versions=FROM_2_1,
        ),
    ),
}

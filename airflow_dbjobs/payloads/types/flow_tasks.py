"""Tasks that steer others: conditions, loops, and what depends on what."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Int, One, Text, v21

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.tasks import Task


class TaskDependency(TypedDict, total=False):
    """A task that must be over first."""

    task_key: Annotated[Text, v21("The task. Required.")]
    outcome: Annotated[Text, v21('Outcome that a condition task must have: "true" or "false".')]


class ConditionTask(TypedDict, total=False):
    """Compares two values; its outcome decides what runs next."""

    op: Annotated[Text, v21("EQUAL_TO and NOT_EQUAL compare strings, GREATER_THAN and the like numbers. Required.")]
    left: Annotated[Text, v21("One value, or a reference such as {{tasks.a.values.x}}. Required.")]
    right: Annotated[Text, v21("The other one. Required.")]


class ForEachTask(TypedDict, total=False):
    """Runs a task once for each of its inputs."""

    inputs: Annotated[Text, v21("A JSON list of at most 10,000 characters, or a reference to one. Required.")]
    task: Annotated[One["Task"], v21("The task; no ForEachTask itself. Required.")]
    concurrency: Annotated[Int, v21("How many run at a time, 1 to 100. Default: 1.")]

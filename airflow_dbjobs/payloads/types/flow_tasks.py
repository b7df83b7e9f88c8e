"""Control flow: conditions, loops, and dependencies between tasks."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from airflow_dbjobs.payloads.field_types import Int, One, Text, v21

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.types.tasks import Task


class TaskDependency(TypedDict, total=False):
    """A dependency on another task of the run."""

    task_key: Annotated[Text, v21("Key of the other task. Required.")]
    outcome: Annotated[Text, v21('Outcome that a condition task must have: "true" or "false".')]


class ConditionTask(TypedDict, total=False):
    """Compares two values; other tasks can depend on the outcome."""

    op: Annotated[Text, v21("A ConditionTaskOp: EQUAL_TO and NOT_EQUAL compare strings, the others numbers. Required.")]
    left: Annotated[Text, v21("Left operand, a value or a reference such as {{tasks.a.values.x}}. Required.")]
    right: Annotated[Text, v21("Right operand. Required.")]


class ForEachTask(TypedDict, total=False):
    """Runs a task once for each of its inputs."""

    inputs: Annotated[Text, v21("A JSON list of at most 10,000 characters, or a reference to one. Required.")]
    task: Annotated[One["Task"], v21("The task to repeat; not a ForEachTask. Required.")]
    concurrency: Annotated[Int, v21("Maximum number of concurrent runs, 1 to 100. Default: 1.")]

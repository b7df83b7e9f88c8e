"""Tasks that steer others: conditions, loops, and what depends on what."""

from typing import TYPE_CHECKING

from airflow_dbjobs.payloads.kinds import Int, One, Text
from airflow_dbjobs.payloads.structure import Structure, v21

if TYPE_CHECKING:
    from airflow_dbjobs.payloads.tasks import Task


class TaskDependency(Structure):
    """A task that must be over first."""

    task_key: Text = v21("The task. Required.")
    outcome: Text = v21('Outcome that a condition task must have: "true" or "false".')


class ConditionTask(Structure):
    """Compares two values; its outcome decides what runs next."""

    op: Text = v21("EQUAL_TO and NOT_EQUAL compare strings, GREATER_THAN and the like numbers. Required.")
    left: Text = v21("One value, or a reference such as {{tasks.a.values.x}}. Required.")
    right: Text = v21("The other one. Required.")


class ForEachTask(Structure):
    """Runs a task once for each of its inputs."""

    inputs: Text = v21("A JSON list of at most 10,000 characters, or a reference to one. Required.")
    task: One["Task"] = v21("The task; no ForEachTask itself. Required.")
    concurrency: Int = v21("How many run at a time, 1 to 100.", default="1")

"""What breaks in a deployment: each of its parts is killed while 200 deferred tasks launch or wait."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from chaos_scene import Group, Wait, scenario

if TYPE_CHECKING:
    from chaos_scene import Scene, Steps

# Of each single wait: with four kills, two cores start hundreds of tasks meanwhile.
TIMEOUT = 420


@scenario(
    "a deployment killed part by part",
    Group("submitted", deferrable=True, count=160, short=8),
    Group("job", kind="job", deferrable=True, count=40, short=2),
    # Each occupies a worker until the gates open.
    Group("waiting", count=2, short=2),
)
def deployment_killed(scene: Scene) -> Steps:
    """A worker and the database die while tasks launch, a triggerer and Redis while they wait, a worker at the end.

    Redis does so while no task is on a worker. Otherwise Celery delivers the task's message again. If its token has
    expired, Airflow 3.3 takes the task for failed: it ends the task, which cancels its run, and tries again.
    """
    scene.trigger()
    yield from launches(scene, 0.2)
    replace(scene, "worker")
    yield from launches(scene, 0.5)
    replace(scene, "postgres")
    yield from launches(scene, 1)
    yield from waits_for_runs(scene, since=datetime.now(UTC))
    replace(scene, "triggerer")
    yield from waits_for_runs(scene, since=datetime.now(UTC))
    scene.open_gates("waiting")
    yield from scene.every("to succeed", lambda task: task.state == "success", "waiting")
    replace(scene, "redis")
    scene.open_gates()
    yield from successes(scene, 0.3)
    replace(scene, "worker-2")
    yield from successes(scene, 1)


def replace(scene: Scene, part: str) -> None:
    """Kill a part of the deployment with SIGKILL, and start it again."""
    scene.airflow.kill(part)
    scene.say(f"killed {part}")
    scene.airflow.start(part)
    scene.say(f"{part} is up again")


def launches(scene: Scene, part: float) -> Steps:
    """Wait until this part of the runs has been launched."""
    number = part * scene.expected()
    yield Wait(f"{number:.0f} launches", lambda: len(scene.workspace.runs()) >= number, TIMEOUT)


def successes(scene: Scene, part: float) -> Steps:
    """Wait until this part of the tasks has succeeded."""
    number = part * scene.expected()

    def condition() -> bool:
        return sum(task.state == "success" for task in scene.tasks()) >= number

    yield Wait(f"{number:.0f} successes", condition, TIMEOUT)


def waits_for_runs(scene: Scene, since: datetime) -> Steps:
    """Wait until all tasks wait for their runs, the deferred ones in triggerers that have been alive since then."""

    def condition() -> bool:
        alive = {job.job_id for job in scene.airflow.api.jobs() if job.heartbeat and job.heartbeat > since}
        tasks = scene.tasks()
        return len(tasks) == scene.expected() and all(
            task.triggerer in alive if scene.groups[task.task_id].deferrable else task.state == "running"
            for task in tasks
        )

    yield Wait("all tasks to wait for their runs", condition, TIMEOUT)

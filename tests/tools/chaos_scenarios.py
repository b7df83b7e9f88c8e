"""What breaks in the chaos, and what is to become of the tasks. The steps wait for conditions, never for time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from chaos_scene import Group, Wait, scenario

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_stack import TaskInstance
    from chaos_scene import Scene, Steps


def kill_and_try_again(scene: Scene, tasks: Sequence[TaskInstance]) -> Steps:
    """Kill the workers of all tasks ("lost": with their supervisors), and let the runs end when all wait again."""
    scene.kill(task for task in tasks if task.task_id != "lost")
    scene.kill((task for task in tasks if task.task_id == "lost"), with_supervisor=True)
    yield from scene.tried_again(tasks)
    yield from scene.watched()
    scene.open_gates()


@scenario(
    "worker killed, the launch accepted",
    Group("sync"),
    Group("deferred", deferrable=True, short=0),
    Group("job", kind="job"),
    Group("lost"),
)
def killed_at_launch(scene: Scene) -> Steps:
    """The workspace has launched the run, and the worker dies before it learns so; one of them with its supervisor."""
    scene.hold_replies("runs/submit", "run-now")
    scene.trigger()
    tasks = yield from scene.launched()
    scene.workspace.clear_faults()
    yield from kill_and_try_again(scene, tasks)


@scenario(
    "worker killed while it waits",
    Group("sync"),
    Group("job", kind="job"),
    Group("python", kind="python", short=0),
    Group("lost", count=1, short=0),
)
def killed_while_waiting(scene: Scene) -> Steps:
    scene.trigger()
    tasks = yield from scene.watched()
    yield from kill_and_try_again(scene, tasks)


@scenario(
    "worker killed, the run succeeded",
    Group("sync"),
    Group("deferred", deferrable=True, end_in_triggerer=False),
    Group("job", kind="job", short=0),
)
def killed_while_finishing(scene: Scene) -> Steps:
    """The run has succeeded, and the worker, the first or the one after the deferral, dies asking for its result."""
    scene.trigger()
    yield from scene.launched()
    scene.hold_replies("runs/get-output")
    scene.open_gates()
    tasks = yield from scene.every("to fetch its result", scene.fetches_output)
    scene.workspace.clear_faults()
    scene.kill(tasks)


@scenario(
    "worker killed as the task resumes",
    Group("deferred", deferrable=True, end_in_triggerer=False),
    Group("job", kind="job", deferrable=True, end_in_triggerer=False),
)
def killed_while_resuming(scene: Scene) -> Steps:
    scene.trigger()
    yield from scene.every("to be deferred", lambda task: task.state == "deferred")
    # Else one may have ended before the last has started.
    scene.hold_replies("runs/get-output")
    scene.open_gates()
    tasks = yield from scene.every("to run again", lambda task: task.state == "running")
    scene.kill(tasks)
    scene.workspace.clear_faults()


@scenario(
    "replies to the launch lost",
    Group("sync", count=3),
    Group("deferred", deferrable=True, count=3),
    Group("job", kind="job"),
)
def lost_replies(scene: Scene) -> Steps:
    """Each operation loses a reply to a broken connection, another to a gateway, and a request on its way."""
    for operation in ("runs/submit", "run-now"):
        scene.workspace.add_fault(operation, cut="after")
        scene.workspace.add_fault(operation, status=503, handled=True, headers={"Retry-After": "1"})
        scene.workspace.add_fault(operation, cut="before")
    scene.trigger()
    tasks = yield from scene.watched()
    if later := [task.name for task in tasks if task.try_number > 1]:
        scene.problems.append(f"a lost reply failed the first try of {', '.join(later)}")
    scene.open_gates()


FAILS_ONCE: dict[str, Any] = {"program": "fails_once", "results": ("FAILED", "SUCCESS")}


@scenario(
    "runs that fail by themselves",
    Group("sync", **FAILS_ONCE, short=0),
    Group("deferred", deferrable=True, **FAILS_ONCE),
    Group("job", kind="job", **FAILS_ONCE),
)
def genuine_failures(scene: Scene) -> Steps:
    """Nothing else breaks."""
    scene.trigger()
    yield from scene.every("to be on its second try", lambda task: task.try_number == 2)


@scenario(
    "worker killed, the run failed",
    Group("sync", **FAILS_ONCE),
    Group("deferred", deferrable=True, **FAILS_ONCE),
)
def killed_while_failing(scene: Scene) -> Steps:
    """The run has failed by itself, and the worker dies asking why."""
    scene.hold_replies("runs/get-output")
    scene.trigger()
    tasks = yield from scene.every("to ask why its run failed", scene.fetches_output)
    scene.workspace.clear_faults()
    scene.kill(tasks)


MARKED = ("CANCELED",)
CLEARED = ("CANCELED", "SUCCESS")


@scenario(
    "users mark and clear",
    Group("running_failed", results=MARKED, state="failed", count=1, short=0),
    Group("running_success", results=MARKED, count=1, short=0),
    Group("running_cleared", results=CLEARED, count=1),
    Group("deferred_failed", deferrable=True, results=MARKED, state="failed", count=1),
    Group("deferred_success", deferrable=True, results=MARKED, count=1, short=0),
    Group("deferred_cleared", deferrable=True, results=CLEARED, count=1),
    Group("done", results=("SUCCESS", "SUCCESS"), count=1),
)
def user_kills(scene: Scene) -> Steps:
    """Tasks that run and tasks that are deferred are marked and cleared, and one that has succeeded is cleared."""
    killed = [task_id for task_id, group in scene.groups.items() if group.results[0] == "CANCELED"]
    scene.trigger()
    scene.open_gates("done")
    for done in (yield from scene.every("to succeed", lambda task: task.state == "success", "done")):
        scene.airflow.api.clear(done)
    tasks = yield from scene.watched(*killed)
    for task in tasks:
        action = task.task_id.partition("_")[2]
        if action == "cleared":
            scene.airflow.api.clear(task)
        else:
            scene.airflow.api.set_state(task, action)
        scene.say(f"{task.name}: {action}")

    def is_cancelled(task: TaskInstance) -> bool:
        return bool(scene.runs_of(task)[0]["state"].get("result_state") == "CANCELED")

    yield from scene.every("to have its first run cancelled", is_cancelled, *killed)
    again = [task_id for task_id in killed if task_id.endswith("cleared")]
    yield from scene.every("to have a second run", lambda task: len(scene.runs_of(task)) > 1, *again)
    scene.open_gates()


@scenario(
    "workspace killed and started again",
    Group("sync"),
    Group("deferred", deferrable=True, count=1),
    Group("job", kind="job", count=1, short=0),
)
def workspace_killed(scene: Scene) -> Steps:
    """One DAG run waits for its runs meanwhile, another wants to launch."""
    scene.trigger()
    yield from scene.watched()
    scene.say("killing the workspace")
    scene.workspace.kill()
    (first,) = scene.dag_runs
    scene.trigger()

    def is_refused(task: TaskInstance) -> bool:
        running = task.state == "running"
        return task.run_id == first.run_id or (running and "cannot reach" in scene.log_of(task))

    yield from scene.every("of the second DAG run to be refused a connection", is_refused)
    scene.workspace.start()
    scene.say("the workspace is up again")
    yield from scene.launched()
    scene.open_gates()


def deferred_to(scene: Scene, triggerer: str, *task_ids: str) -> Steps:
    """Wait until all tasks, or those of these groups, are deferred and this triggerer has their triggers."""
    job_id = scene.airflow.job(triggerer).job_id
    what = f"to be deferred to {triggerer}"
    yield from scene.every(what, lambda task: (task.state, task.triggerer) == ("deferred", job_id), *task_ids)


MANY_DEFERRED = (
    Group("submitted", deferrable=True, count=40, short=6),
    Group("job", kind="job", deferrable=True, count=10, short=2),
)


@scenario("triggerer killed, another started", *MANY_DEFERRED)
def triggerer_killed(scene: Scene) -> Steps:
    scene.trigger()
    yield from scene.launched()
    yield from deferred_to(scene, "triggerer")
    scene.say("killing the triggerer")
    scene.airflow.kill("triggerer")
    scene.airflow.start("triggerer")
    yield from deferred_to(scene, "triggerer")
    scene.open_gates()


@scenario("triggerer killed while it ends tasks", *MANY_DEFERRED)
def triggerer_killed_while_ending(scene: Scene) -> Steps:
    """The runs have succeeded, and the triggerer dies asking for their results. The next one ends the tasks."""
    scene.trigger()
    yield from scene.launched()
    yield from deferred_to(scene, "triggerer")
    scene.hold_replies("runs/get-output")
    scene.open_gates()
    yield Wait("the triggerer to ask", lambda: scene.workspace.requests().get("runs/get-output", 0))
    yield from scene.every("to be deferred still", lambda task: task.state == "deferred")
    scene.say("killing the triggerer")
    scene.airflow.kill("triggerer")
    scene.workspace.clear_faults()
    scene.airflow.start("triggerer")


@scenario(
    "triggerer suspended and back",
    Group("submitted", deferrable=True, count=8),
    Group("job", kind="job", deferrable=True),
)
def triggerer_suspended(scene: Scene) -> Steps:
    """Another triggerer takes over; then both have the triggers, until the first has looked at the database."""
    scene.trigger()
    yield from scene.launched()
    yield from deferred_to(scene, "triggerer")
    scene.airflow.start("triggerer-2")
    scene.say("suspending the triggerer")
    scene.airflow.pause("triggerer")
    yield from deferred_to(scene, "triggerer-2")
    scene.say("the other one has taken over; letting the first go on")
    scene.airflow.processes.resume()
    back = datetime.now(UTC)

    def has_looked() -> bool:
        # It lets go of its triggers a second after its heartbeat, and calls their on_kill then.
        return bool((beat := scene.airflow.job("triggerer").heartbeat) and beat > back + timedelta(seconds=4))

    yield Wait("the first triggerer to find that its triggers are gone", has_looked)
    yield from scene.every("to be deferred still", lambda task: task.state == "deferred")
    scene.open_gates()
    yield from scene.every("to succeed", lambda task: task.state == "success")
    # It comes back for who is next.
    scene.airflow.stop("triggerer-2")


@scenario("scheduler killed with its workers", Group("sync", count=4), Group("deferred", deferrable=True))
def scheduler_killed(scene: Scene) -> Steps:
    scene.trigger()
    tasks = yield from scene.watched()
    scene.say("killing the scheduler")
    scene.airflow.kill("scheduler")
    scene.airflow.start("scheduler")
    yield from scene.tried_again([task for task in tasks if task.task_id == "sync"])
    yield from scene.watched()
    scene.open_gates()


@scenario("worker suspended and back", Group("sync"), Group("job", kind="job", count=1))
def worker_suspended(scene: Scene) -> Steps:
    """Airflow gives the task to another worker, which joins the run; then the first comes back, and Airflow kills it.

    The task is still running for Airflow, in its next try: the run is that one's.
    """
    scene.trigger()
    tasks = yield from scene.watched()
    scene.say("suspending the workers")
    processes = [scene.airflow.pause_task(task) for task in tasks]
    yield from scene.tried_again(tasks)
    yield from scene.watched()
    scene.say("others have taken over; letting the first go on")
    scene.airflow.processes.resume()
    yield Wait("the first workers to end", lambda: not any(process.is_running() for process in processes))
    scene.open_gates()


FAILS_AT_GATE: dict[str, Any] = {"kind": "workflow", "program": "fails_at_gate", "results": ("FAILED", "SUCCESS")}


@scenario(
    "workers and triggerer of workflow groups killed",
    Group("sync", **FAILS_AT_GATE),
    Group("deferred", deferrable=True, **FAILS_AT_GATE),
)
def workflow_group_killed(scene: Scene) -> Steps:
    """While members wait for their tasks, and again while they have these repaired: the reply never arrives."""
    scene.trigger()
    yield from deferred_to(scene, "triggerer", "deferred")
    tasks = yield from scene.watched("sync")
    scene.kill(tasks)
    scene.say("killing the triggerer")
    scene.airflow.kill("triggerer")
    scene.airflow.start("triggerer")
    yield from scene.tried_again(tasks)
    yield from scene.watched()
    scene.hold_replies("runs/repair")
    scene.open_gates()
    tasks = yield from scene.every("to have a second attempt", lambda task: len(scene.runs_of(task)) > 1)
    scene.kill(task for task in tasks if task.state == "running")
    scene.workspace.clear_faults()


# What is in one wave is played at the same time. The tasks of a wave that occupy a worker until their scenario ends
# must be no more than there are workers, and what kills a component of Airflow must not disturb the others' steps.
WAVES: tuple[tuple[str, ...], ...] = (
    ("killed_at_launch",),
    ("killed_while_waiting", "genuine_failures"),
    ("killed_while_finishing", "killed_while_resuming"),
    ("lost_replies", "killed_while_failing"),
    ("user_kills",),
    ("workspace_killed",),
    ("triggerer_killed",),
    ("triggerer_killed_while_ending",),
    ("triggerer_suspended",),
    ("scheduler_killed",),
    ("worker_suspended",),
    ("workflow_group_killed",),
)
SHORT_WAVES = (
    ("killed_at_launch", "user_kills", "genuine_failures"),
    ("killed_while_finishing", "triggerer_killed"),
)

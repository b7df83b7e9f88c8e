"""Creates runs of a job or a one-time payload, iterations, and further attempts at tasks: retries and repairs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.records import Episode, Iteration, Job, Run, State, TaskRun
from airflow_dbjobs.local_workspace.state.settings import OVERRIDES, is_flat, tasks_of, upstream_keys, without_tasks

from . import parameters
from .loops import latest_iterations
from .scheduler import latest_attempts

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from airflow_dbjobs.local_workspace.state.store import Store

#: Tasks with these results do not run again in a repair of all failed tasks.
_NOT_FAILED = frozenset({"SUCCESS", "EXCLUDED", "DISABLED", "SUCCESS_WITH_FAILURES"})


def launch_job(
    store: Store, job: Job, args: Json, now_ms: int, *, parent: Run | None = None, only: Sequence[str] = ()
) -> Run:
    """Create a run of `job`.

    `args` are those of run-now; `parent` is the run whose run_job task launches this one. `only` restricts the run to
    some tasks: "key", or "+key" and "key+" to include the tasks upstream and downstream of it.

    :raises ApiError: `only` names a task that the job does not have.
    """
    tasks = _selected(tasks_of(job.settings), only)
    job.runs_started += 1
    run_id = store.new_id()
    run = Run(
        run_id=run_id,
        job_id=job.job_id,
        number_in_job=job.runs_started,
        run_type="JOB_RUN",
        run_name=job.settings.get("name", "Untitled"),
        creator=job.creator,
        trigger="RUN_JOB_TASK" if parent else "ONE_TIME",
        settings=without_tasks(job.settings),
        flat=is_flat(job.settings),
        start_ms=now_ms,
        clock_ms=now_ms,
        overrides={name: args[name] for name in OVERRIDES & args.keys()},
        job_parameters=parameters.job_parameters(job.settings, args.get("job_parameters", {})),
        trigger_run_id=parent.run_id if parent else None,
    )
    if not has_slot(store, run):
        # The cloud enables queueing by default for jobs created with API 2.2. Here it is off by default, so that it
        # shows when a DAG starts more runs than its job allows.
        queue: Json = args.get("queue") or job.settings.get("queue", {})
        if queue.get("enabled"):
            run.state = State("QUEUED", message="Waiting for another run of this job to end.")
        else:
            message = "The job already has max_concurrent_runs active runs, so this run was skipped."
            run.state = State("SKIPPED", "MAXIMUM_CONCURRENT_RUNS_REACHED", message)
            run.end_ms = now_ms
            tasks = []
    store.save(job)
    return _create(store, run, tasks)


def _selected(tasks: list[Json], only: Sequence[str]) -> list[Json]:
    """Return the tasks that `only` selects; all of them if it is empty."""
    if not only:
        return tasks
    upstream = {task["task_key"]: upstream_keys(task) for task in tasks}
    downstream = {key: [other for other, keys in upstream.items() if key in keys] for key in upstream}
    selected: set[str] = set()
    for word in only:
        key = word.removeprefix("+").removesuffix("+")
        if key not in upstream:
            raise ApiError(f"Field 'only' has {word!r}, which is not a task of this job.")
        selected.add(key)
        if word.startswith("+"):
            selected |= _reachable(key, upstream)
        if word.endswith("+"):
            selected |= _reachable(key, downstream)
    return [task for task in tasks if task["task_key"] in selected]


def _reachable(key: str, neighbours: Mapping[str, Sequence[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [key]
    while ahead:
        new = [other for other in neighbours[ahead.pop()] if other not in found]
        found.update(new)
        ahead += new
    return found


def launch_one_time(store: Store, settings: Json, creator: str, now_ms: int) -> Run:
    """Create a one-time run of valid settings."""
    run = Run(
        run_id=store.new_id(),
        job_id=store.new_id(),
        number_in_job=1,
        run_type="SUBMIT_RUN",
        run_name=settings.get("run_name", "Untitled"),
        creator=creator,
        trigger="ONE_TIME",
        settings=without_tasks(settings),
        flat=is_flat(settings),
        start_ms=now_ms,
        clock_ms=now_ms,
    )
    return _create(store, run, tasks_of(settings))


def has_slot(store: Store, run: Run) -> bool:
    """Return whether the job of `run` may have another active run."""
    others = sum(
        other.job_id == run.job_id and other.run_id != run.run_id and other.state.life != "QUEUED"
        for other in store.active_runs.values()
    )
    return others < int(run.settings.get("max_concurrent_runs", 1))


def _create(store: Store, run: Run, specs: list[Json]) -> Run:
    tasks = [_attempt(store, run, spec, run.start_ms) for spec in specs]
    ids = [task.run_id for task in tasks]
    run.episodes.append(Episode(None, run.start_ms, ids, end_ms=run.end_ms, state=run.state))
    store.save(run, *tasks)
    return run


def _attempt(
    store: Store,
    run: Run,
    spec: Json,
    now_ms: int,
    *,
    earlier: TaskRun | None = None,
    iteration: Iteration | None = None,
) -> TaskRun:
    return TaskRun(
        run_id=store.new_id(),
        parent_id=run.run_id,
        task_key=spec["task_key"],
        spec=spec,
        start_ms=now_ms,
        attempt=earlier.attempt + 1 if earlier else 0,
        iteration=iteration,
    )


def start_iterations(store: Store, run: Run, loop: TaskRun, inputs: Sequence[Any], now_ms: int) -> None:
    """Create the iterations of a for_each task that has just started.

    If it is repaired, iterations that succeeded with the same input count as done. If it had succeeded as a whole, all
    of them run again.
    """
    spec = loop.spec["for_each_task"]["task"]
    before = [task for task in store.tasks_of(run) if task.work == loop.work and task.iteration_ids]
    earlier = {item.work: item for task in before for item in latest_iterations(task, store.task_runs)}
    repeated = not before or before[-1].state.result == "SUCCESS"
    for number, value in enumerate(inputs):
        iteration = Iteration(loop.task_key, number, json.dumps(value))
        task = earlier.get((spec["task_key"], iteration))
        if task is None or repeated or task.state.result not in _NOT_FAILED:
            task = _attempt(store, run, spec, now_ms, earlier=task, iteration=iteration)
            store.save(task)
        loop.iteration_ids.append(task.run_id)
    store.save(loop)


def retry(store: Store, run: Run, failed: TaskRun, not_before_ms: int, now_ms: int) -> TaskRun:
    """Add another attempt at a failed task or iteration."""
    task = _attempt(store, run, failed.spec, now_ms, earlier=failed, iteration=failed.iteration)
    task.retries = failed.retries + 1
    task.not_before_ms = not_before_ms
    task.state = State("WAITING_FOR_RETRY" if not_before_ms > now_ms else "PENDING")
    if failed.iteration:
        loop = latest_attempts(store.tasks_of(run))[failed.iteration.loop]
        loop.iteration_ids.append(task.run_id)
        store.save(loop, task)
    else:
        run.episodes[-1].task_run_ids.append(task.run_id)
        store.save(run, task)
    return task


def repair(store: Store, run: Run, args: Json, now_ms: int) -> Episode:
    """Run tasks of a finished run again, as new attempts in the same run.

    :raises ApiError: The run is active, `latest_repair_id` is not the latest, or the choice of tasks is invalid.
    """
    if run.active:
        raise ApiError(f"Run {run.run_id} is still in progress; only a finished run can be repaired.")
    latest_id = run.episodes[-1].repair_id
    if args.get("latest_repair_id") != latest_id:
        expected = f"be {latest_id}, the latest repair" if latest_id else "be absent before the first repair"
        raise ApiError(f"Field 'latest_repair_id' must {expected} of run {run.run_id}.")
    tasks = latest_attempts(store.tasks_of(run))
    chosen = _chosen(tasks, args)
    job = store.jobs.get(run.job_id)
    if job is not None:
        # A repair uses the job's current settings, and does not inherit the parameters of the run.
        run.settings = without_tasks(job.settings)
        run.job_parameters = parameters.job_parameters(job.settings, args.get("job_parameters", {}))
        specs = {spec["task_key"]: spec for spec in tasks_of(job.settings)}
    else:
        specs = {}
    run.overrides = {name: args[name] for name in OVERRIDES & args.keys()}
    attempts = [
        _attempt(store, run, specs.get(key, task.spec), now_ms, earlier=task)
        for key, task in tasks.items()
        if key in chosen
    ]
    episode = Episode(store.new_id(), now_ms, [task.run_id for task in attempts])
    run.episodes.append(episode)
    run.state, run.stop, run.end_ms, run.clock_ms = State("PENDING"), None, 0, now_ms
    store.save(run, *attempts)
    return episode


def _chosen(tasks: dict[str, TaskRun], args: Json) -> set[str]:
    named = args.get("rerun_tasks", [])
    if bool(named) == bool(args.get("rerun_all_failed_tasks")):
        raise ApiError("Exactly one of the fields 'rerun_tasks' and 'rerun_all_failed_tasks' is needed.")
    if len(set(named)) != len(named):
        raise ApiError("Field 'rerun_tasks' must not contain duplicates.")
    if unknown := sorted(set(named) - tasks.keys()):
        raise ApiError(f"Field 'rerun_tasks' names {unknown[0]!r}, which is not a task of this run.")
    chosen = set(named) or {key for key, task in tasks.items() if task.state.result not in _NOT_FAILED}
    if not chosen:
        raise ApiError("Field 'rerun_all_failed_tasks' selects nothing: no task failed.")
    while args.get("rerun_dependent_tasks"):
        more = {key for key, task in tasks.items() if chosen.intersection(upstream_keys(task.spec))} - chosen
        if not more:
            break
        chosen |= more
    return chosen

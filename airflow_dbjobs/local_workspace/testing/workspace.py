"""A workspace whose runs follow the scripts of a test, with assertions about what was launched in it."""

from __future__ import annotations

import json
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from airflow_dbjobs.local_workspace.engine import launch, parameters
from airflow_dbjobs.local_workspace.engine.scheduler import latest_attempts
from airflow_dbjobs.local_workspace.engine.scripts import Script, ScriptedExecutor
from airflow_dbjobs.local_workspace.engine.simulation import named_parameters
from airflow_dbjobs.local_workspace.faults import Fault
from airflow_dbjobs.local_workspace.http import routes
from airflow_dbjobs.local_workspace.jobs_files.loading import JobsFiles, save
from airflow_dbjobs.local_workspace.state.records import Job
from airflow_dbjobs.local_workspace.state.settings import payload_fields
from airflow_dbjobs.local_workspace.workspace import LocalWorkspace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_dbjobs.local_workspace.messages import Json, Reply, Request
    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun

    Parameters = Mapping[str, Any] | Sequence[Any]

#: The operations for which a job that nobody created is made up.
_OF_A_JOB: Final = ("run-now", "get")


class UnusedScriptWarning(UserWarning):
    """No task followed a script of the test: its name may be misspelt."""


@dataclass(frozen=True)
class LaunchedRun:
    """A run. `state` is "SUCCESS", "FAILED", "RUNNING" ..., `tasks` has that of each task by its key.

    `parameters` are what the task got: a dict, or the list of a Python file's arguments. If several tasks have the run,
    they are those of the run itself.
    """

    run_id: int
    job_id: int
    name: str
    state: str
    message: str
    seconds: float
    parameters: Any
    tasks: dict[str, str]

    def __str__(self) -> str:
        tasks = f", tasks {self.tasks}" if len(self.tasks) > 1 else ""
        message = f" ({self.message})" if self.message else ""
        return f"run {self.run_id} of {self.name!r}: {self.state}{message}, parameters {self.parameters!r}{tasks}"


@dataclass
class _Outage(Fault):
    times: int | None = None
    begins: float = field(default_factory=lambda: time.time())  # noqa: PLW0108 - the function is replaced in tests
    seconds: float = 0.0

    def takes(self, operation: str) -> bool:
        """Return whether this request fails."""
        return self.begins <= time.time() < self.begins + self.seconds and super().takes(operation)


class ScriptedWorkspace(LocalWorkspace):
    """A Databricks workspace in the process of a test. Each task succeeds at once unless a script says otherwise.

    It has no thread: each request brings it up to date. `faults` and `requests` are those of `LocalWorkspace`.

    :param root: An empty folder.
    """

    _executor: ScriptedExecutor

    def __init__(self, root: Path) -> None:
        super().__init__(root, token="token-of-the-test", clock=lambda: time.time(), simulate=0.0)  # noqa: PLW0108, S106
        #: What the connections that lead here have in their `extra`, for example `{"retry_budget": 60}`.
        self.connection_extra: dict[str, Any] = {}

    # --- what a test says beforehand ---

    def task(
        self,
        name: str | int,
        *,
        returns: Any = None,
        error: str = "",
        termination_code: str = "",
        canceled: bool = False,
        seconds: float = 0.0,
        logs: str = "",
        times: int | None = None,
    ) -> None:
        """Say how tasks end: successfully, unless `error`, `termination_code` or `canceled` is given.

        Several scripts of one name are followed one after the other; one without `times` replaces the one without
        before it.

        :param name: The key of a task, or the name of a one-time run or a job, or the id of a job.
        :param returns: What a notebook passes to `dbutils.notebook.exit`: a text, or anything that becomes JSON; or
            what a decorated function returns.
        :param error: The message with which the task fails.
        :param termination_code: Why it fails, such as "CLUSTER_ERROR"; "RUN_EXECUTION_ERROR" by default.
        :param canceled: Whether a person cancels the run of the task, after its `seconds`.
        :param seconds: How long it takes.
        :param logs: What a Python file prints.
        :param times: How many attempts follow this script; all by default.
        :raises ValueError: No task ends like that.
        """
        script = Script(name, returns, error, termination_code, seconds, logs, times, canceled=canceled)
        scripts = self._executor.scripts
        if times is None:
            scripts[:] = [script for script in scripts if script.name != name or script.times is not None]
        scripts.append(script)

    def job(
        self, name: str, *, job_id: int | None = None, tasks: Iterable[str | Json] = ("main",), **settings: Any
    ) -> int:
        """Create a job, and return its id. Of a task that is just a key, a notebook is made.

        A job that is run by its id need not be created.
        """
        with self._lock, self._store.changes():
            job = Job(
                self._store.new_id() if job_id is None else job_id,
                {"name": name, "tasks": [_task(task) for task in tasks], **settings},
                self._user,
                self._now_ms(),
            )
            self._store.save(job)
        return job.job_id

    def load_jobs(self, path: str | Path, *, target: str = "", ids: Mapping[str, int] | None = None) -> None:
        """Create the jobs of a bundle, or of files with a job each, as the server does with `--jobs`.

        :param target: The target of the bundle; its default one if empty.
        :param ids: The ids of jobs by their keys, for DAGs that run them by id.
        :raises WorkspaceError: A file cannot be read, or a job is invalid.
        """
        files = JobsFiles([Path(path)], target, ids or {})
        jobs, _ = files.read(files.root or Path(path).resolve(), user=self._user, host=self.base_url)
        with self._lock, self._store.changes():
            save(jobs, files.sources, self._context)

    def launch(self, job: str | int, **job_parameters: str) -> int:
        """Start a run of a job as if somebody else did, for sensors to wait for; return its id."""
        with self._lock, self._store.changes():
            jobs = {item.settings["name"]: item for item in self._store.jobs.values()} | self._store.jobs
            found = jobs.get(job)
            if found is None:
                raise LookupError(f"There is no job {job!r}; create it with job().")
            run = launch.launch_job(self._store, found, {"job_parameters": job_parameters}, self._now_ms())
        self._settle()
        return run.run_id

    def fault(self, operation: str = "*", **how: Any) -> None:
        """Let requests fail, as docs/testing.md describes: `status`, `cut`, `times`, `skip` and so on."""
        self.faults.append(Fault(operation, **how))

    def outage(self, seconds: float, operation: str = "*", *, after: float = 0.0, status: int = 503) -> None:
        """Let requests fail for some time, which begins `after` seconds from now."""
        self.faults.append(_Outage(operation, status, begins=time.time() + after, seconds=seconds))

    # --- what a test asks afterwards ---

    @property
    def runs(self) -> list[LaunchedRun]:
        """All runs, oldest first."""
        return [self._shown(run) for run in self._all_runs()]

    def assert_launched(
        self, name: str | int, *, times: int | None = None, parameters: Parameters | None = None
    ) -> LaunchedRun:
        """Check that runs were launched, and return the latest.

        :param name: As for `task`.
        :param times: How many; at least one by default.
        :param parameters: Count runs with these: arguments that are equal, or names that have these values.
        """
        launched = self._named(name)
        found = [run for run in launched if _has(run, parameters)]
        if len(found) != times if times is not None else not found:
            wanted = f"{name!r}" if parameters is None else f"{name!r} with parameters {parameters!r}"
            expected = "launches" if times is None else f"{times} launch{'es' * (times != 1)}"
            raise AssertionError(f"Expected {expected} of {wanted}, found {len(found)}.{self._listing(launched)}")
        return found[-1] if found else None  # type: ignore[return-value] # only with times=0

    def assert_canceled(self, name: str | int) -> LaunchedRun:
        """Check that the latest run of this name was cancelled, and return it."""
        run = self.assert_launched(name)
        if run.state != "CANCELED":
            raise AssertionError(f"{name!r} was not cancelled.{self._listing([run])}")
        return run

    def assert_nothing_active(self) -> None:
        """Check that all runs have ended."""
        self._settle()
        active = [self._shown(run) for run in self._all_runs() if run.active]
        if active:
            raise AssertionError(f"{len(active)} of {len(self.runs)} runs are still active.{self._listing(active)}")

    def warn_of_unused_scripts(self) -> None:
        """Warn of scripts that no task followed."""
        for script in self._executor.scripts:
            if not script.used:
                ran = sorted({key for run in self.runs for key in (run.name, *run.tasks)})
                message = f"No task followed the script of {script.name!r}. Tasks and runs were: {ran}."
                warnings.warn(message, UnusedScriptWarning, stacklevel=2)

    # --- how it works ---

    def start(self) -> None:
        """Do nothing: requests advance the runs."""

    def handle(self, request: Request) -> Reply:
        """Bring the runs up to date, answer a request, and start what it launched."""
        self._settle()
        reply = super().handle(request)
        if request.method == "POST":
            self._settle()
        return reply

    def _settle(self) -> None:
        """Tick until nothing changes: a task that takes no time ends in the tick after its start."""
        states = None
        while states != (states := self._states()):
            self.tick()

    def _states(self) -> list[str]:
        with self._lock:
            active = self._store.active_runs.values()
            return [task.state.life for run in active for task in self._store.tasks_of(run)]

    def _new_executor(self, folder: Path) -> ScriptedExecutor:  # noqa: ARG002 - as in the base class
        return ScriptedExecutor(self._now_ms, self._cancel_run_of)

    def _cancel_run_of(self, task: TaskRun) -> None:
        self._context("2.2", {}).cancel(self._store.runs[task.parent_id])

    def _call_api(self, request: Request) -> Reply:
        if routes.operation_of(request.path) in _OF_A_JOB:
            job_id = routes.arguments(request).get("job_id")
            if job_id and job_id not in self._store.jobs:
                # Nothing is known of its limit.
                self.job(f"Job {job_id}", job_id=job_id, max_concurrent_runs=1000)
        return super()._call_api(request)

    def _all_runs(self) -> list[Run]:
        return sorted(self._store.runs.values(), key=lambda run: run.run_id)

    def _named(self, name: str | int) -> list[LaunchedRun]:
        self._settle()
        runs = [(run, latest_attempts(self._store.tasks_of(run))) for run in self._all_runs()]
        return [
            self._shown(run, tasks.get(str(name)))
            for run, tasks in runs
            if name in (run.run_name, run.job_id) or name in tasks
        ]

    def _shown(self, run: Run, task: TaskRun | None = None) -> LaunchedRun:
        tasks = latest_attempts(self._store.tasks_of(run))
        if task is None and len(tasks) == 1:
            (task,) = tasks.values()
        named = {name: item["value"] for name, item in run.job_parameters.items()}
        return LaunchedRun(
            run_id=run.run_id,
            job_id=run.job_id,
            name=run.run_name,
            state=run.state.result or run.state.life,
            message=run.state.message,
            seconds=((run.end_ms or self._now_ms()) - run.start_ms) / 1000,
            parameters=named if task is None else _parameters(run, task),
            tasks={key: item.state.result or item.state.life for key, item in tasks.items()},
        )

    def _listing(self, runs: list[LaunchedRun]) -> str:
        others = sorted({run.name for run in self.runs} - {run.name for run in runs})
        lines = [*map(str, runs), *([f"other runs were of {', '.join(map(repr, others))}"] if others else [])]
        return "".join(f"\n  {line}" for line in lines or ["Nothing was launched."])


def _task(task: str | Json) -> Json:
    return {"task_key": task, "notebook_task": {"notebook_path": f"/{task}"}} if isinstance(task, str) else task


def _parameters(run: Run, task: TaskRun) -> Any:
    spec = parameters.resolved_spec(run, task)
    payload = spec[payload_fields(spec)[0]]
    arguments = run.overrides.get("python_params") or payload.get("parameters")
    return arguments if isinstance(arguments, list) else named_parameters(run, spec)


def _has(run: LaunchedRun, wanted: Parameters | None) -> bool:
    if isinstance(wanted, dict):
        given = run.parameters if isinstance(run.parameters, dict) else {}
        # The API makes text of numbers and booleans.
        return all(name in given and given[name] == _text(value) for name, value in wanted.items())
    return wanted is None or list(wanted) == run.parameters


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)

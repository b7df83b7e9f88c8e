"""HTML pages of a run and of a task run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.engine.loops import latest_iterations
from airflow_dbjobs.local_workspace.engine.scheduler import latest_attempts
from airflow_dbjobs.local_workspace.state.settings import OVERRIDES, payload_fields

from .document import document, plain
from .graph_picture import picture, run_node
from .markup import (
    counts,
    duration_of,
    facts,
    folded,
    json_block,
    mark,
    name_text,
    state_label,
    table,
    text,
    time_text,
)
from .timeline import timeline

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_dbjobs.local_workspace.engine.simulation import AnyExecutor
    from airflow_dbjobs.local_workspace.messages import Json, Reply, Request
    from airflow_dbjobs.local_workspace.state.records import Run, TaskRun
    from airflow_dbjobs.local_workspace.state.store import Store

    from .links import Links

#: The fields of a task's payload that hold parameters.
_PARAMETERS = frozenset({"base_parameters", "parameters", "named_parameters", "job_parameters"}) | OVERRIDES
#: How many bytes of a log a page shows; as text alone it is shown whole.
_LOG_TAIL = 100_000
_WHOLE_LOG = 1 << 30


class RunPages:
    """The pages of runs and task runs."""

    def __init__(self, store: Store, executor: AnyExecutor, links: Links, now_ms: Callable[[], int]) -> None:
        self._store = store
        self._executor = executor
        self._links = links
        self._now_ms = now_ms

    def page(self, run_id: int, request: Request) -> Reply:
        """Return the page of a run or task run, or the log of a task run as text."""
        task = self._store.task_runs.get(run_id)
        run = self._store.runs.get(task.parent_id if task else run_id)
        if run is None or run.deleted:
            body = f"<p>Run {run_id} does not exist.</p>"
            return document("No such run", body, trail=self._links.front(), status=404)
        if task and "log" in request.query:
            return plain(self._executor.output(task, max_log_bytes=_WHOLE_LOG).log)
        return self._of_task(run, task) if task else self._of_run(run)

    def _of_run(self, run: Run) -> Reply:
        now_ms = self._now_ms()
        attempts = [task for task in self._store.tasks_of(run) if task.iteration is None]
        newest = list(latest_attempts(attempts).values())
        parameters = run.overrides | {name: item["value"] for name, item in run.job_parameters.items()}
        body = facts(
            [
                ("State", state_label(run.state)),
                ("Message", text(run.state.message)),
                ("Started", time_text(run.start_ms) + self._started_by(run)),
                ("Duration", duration_of(run, now_ms)),
                ("Job", self._job(run)),
                ("Parameters", json_block(parameters)),
                ("Spark", text(self._executor.spark_label())),
            ]
        )
        if len(newest) > 1:
            total = counts(task.state for task in newest)
            nodes = [run_node(task, self._path(run, task), now_ms) for task in newest]
            body += f'<h2>Graph</h2><p class="counts">{total}</p>{picture(nodes)}'
        if len(attempts) > 1:
            body += f"<h2>Timeline</h2>{timeline(run, attempts, now_ms, lambda task: self._path(run, task))}"
        if attempts:
            body += f"<h2>Tasks</h2>{self._attempts(run, attempts, now_ms, parameters=len(newest) > 1)}"
        if len(run.episodes) > 1:
            body += f"<h2>Repairs</h2>{self._repairs(run, attempts)}"
        if len(newest) == 1:
            # The page of the only task would add nothing else.
            body += self._output(run, newest[0])
        name = f"Run {run.run_id}: "
        return document(
            f"{mark(run.state).sign} {name}{run.run_name}",
            body,
            heading=name + name_text(run.run_name),
            trail=self._trail(run),
            live=run.active,
            active=run.active,
        )

    def _of_task(self, run: Run, task: TaskRun) -> Reply:
        child = self._store.runs.get(task.child_run_id or 0)
        body = facts(
            [
                ("State", state_label(task.state)),
                ("Message", text(task.state.message)),
                ("Part of", self._links.run(run, run.run_id, f"run {run.run_id}: {run.run_name}")),
                ("Iteration of", self._loop_link(run, task)),
                ("Input", text(task.iteration.input) if task.iteration else ""),
                ("Attempt", self._attempt_links(run, task)),
                ("Started", time_text(task.start_ms) if task.started else ""),
                ("Duration", duration_of(task, self._now_ms())),
                ("Outcome", text(task.outcome or "")),
                ("Started run", self._links.run(child, child.run_id) if child else ""),
            ]
        )
        return document(
            f"{mark(task.state).sign} Task {task.task_key}",
            body + self._output(run, task),
            heading=f"Task {name_text(task.task_key)}",
            trail=self._trail(run, task),
            live=run.active,
            active=run.active,
        )

    def _attempts(self, run: Run, attempts: Sequence[TaskRun], now_ms: int, *, parameters: bool) -> str:
        rows = []
        for task in attempts:
            message = text(self._error(task) or task.state.message) + self._iteration_counts(task)
            if task.iteration:
                message += f"<div>Input: {text(task.iteration.input)}</div>"
            elif parameters:
                message += folded("Parameters", json_block(_parameters(task)))
            attempt = f' <span class="dim">attempt {task.attempt + 1}</span>' if task.attempt else ""
            link = f'<span class="key">{self._links.run(run, task.run_id, task.task_key)}</span>{attempt}'
            rows.append((task.run_id, [link, state_label(task.state), duration_of(task, now_ms), message]))
        return table(["Task", "State", "Duration", "Message"], rows, wide="Message")

    def _loop_link(self, run: Run, task: TaskRun) -> str:
        if task.iteration is None:
            return ""
        loop = latest_attempts(self._store.tasks_of(run))[task.iteration.loop]
        return self._links.run(run, loop.run_id, loop.task_key)

    def _iteration_counts(self, task: TaskRun) -> str:
        iterations = latest_iterations(task, self._store.task_runs)
        total = counts(item.state for item in iterations)
        return f'<p class="counts">{len(iterations)} iterations: {total}</p>' if iterations else ""

    def _error(self, task: TaskRun) -> str | None:
        """Return the error of a task's program. Only tasks that failed are looked up, as it is in a file."""
        failed = task.started and task.state.terminal and task.state.result != "SUCCESS"
        return self._executor.output(task, max_log_bytes=0).error if failed else None

    def _repairs(self, run: Run, attempts: Sequence[TaskRun]) -> str:
        """Return a table of the original run and its repairs, with links to the tasks that ran in each."""
        rows = []
        for number, episode in enumerate(run.episodes):
            name = f"Repair {number}" if number else "Original run"
            # An episode's own state is only set when it ends; until then it is the run's.
            state = run.state if episode is run.episodes[-1] else episode.state
            ids = set(episode.task_run_ids)
            links = [self._links.run(run, task.run_id, task.task_key) for task in attempts if task.run_id in ids]
            rows.append((f"e{number}", [name, state_label(state), time_text(episode.start_ms), ", ".join(links)]))
        return table(["Part", "State", "Started", "Tasks"], rows, wide="Tasks")

    def _output(self, run: Run, task: TaskRun) -> str:
        """Return what a task returned and printed, its iterations, and its definition."""
        output = self._executor.output(task, max_log_bytes=_LOG_TAIL)
        parts = [("Exit value", output.exit_value), ("Error", output.error), ("Traceback", output.error_trace)]
        body = "".join(f"<h2>{title}</h2><pre>{text(part)}</pre>" for title, part in parts if part)
        if output.log:
            body += f"<h2>Log</h2>{self._log(run, task, output.log, truncated=output.log_truncated)}"
        if task.iteration_ids:
            iterations = [self._store.task_runs[run_id] for run_id in task.iteration_ids]
            listed = self._attempts(run, iterations, self._now_ms(), parameters=False)
            body += f"<h2>Iterations</h2>{self._iteration_counts(task)}{listed}"
        used = f"<h2>Resolved parameters</h2>{json_block(_parameters(task))}" if task.resolved else ""
        return f"{body}{used}<h2>Definition</h2>{json_block(task.spec)}"

    def _log(self, run: Run, task: TaskRun, log: str, *, truncated: bool) -> str:
        note = ""
        if truncated:
            # Without the rest of the line that has been cut.
            log = log.partition("\n")[2] or log
            link = f'<a href="{text(self._links.log_path(run.job_id, task.run_id))}">whole log</a>'
            note = f"<p>These are its last {_LOG_TAIL // 1000} kB. Open the {link} as text.</p>"
        # HTML drops the first newline, so a log that begins with one keeps it.
        return f'{note}<div class="log" tabindex="0" role="region" aria-label="Log"><pre>\n{text(log)}</pre></div>'

    def _attempt_links(self, run: Run, task: TaskRun) -> str:
        """Return the number of an attempt, among links to the others at the same task."""
        attempts = [item for item in self._store.tasks_of(run) if item.work == task.work]
        links = [self._links.run(run, item.run_id, item.attempt + 1) for item in attempts]
        links[task.attempt] = str(task.attempt + 1)
        return ", ".join(links)

    def _trail(self, run: Run, task: TaskRun | None = None) -> str:
        job = self._store.jobs.get(run.job_id)
        links = [self._links.front(), self._links.job(job) if job else ""]
        if task:
            links.append(self._links.run(run, run.run_id, f"Run {run.run_id}"))
        return " / ".join(filter(None, links))

    def _job(self, run: Run) -> str:
        job = self._store.jobs.get(run.job_id)
        if job:
            return f"{run.job_id}: {self._links.job(job)}"
        return f"{run.job_id} (one-time run)" if run.run_type == "SUBMIT_RUN" else str(run.job_id)

    def _started_by(self, run: Run) -> str:
        parent = self._store.runs.get(run.trigger_run_id or 0)
        return f" by a task of run {self._links.run(parent, parent.run_id)}" if parent else ""

    def _path(self, run: Run, task: TaskRun) -> str:
        return self._links.path(run.job_id, task.run_id)


def _parameters(task: TaskRun) -> Json:
    """Return the parameters of a task: those that it got if it has started, else those in its definition."""
    kind = payload_fields(task.spec)[0]
    payload: Json = task.spec[kind]
    return task.resolved.get(kind) or {name: value for name, value in payload.items() if name in _PARAMETERS}

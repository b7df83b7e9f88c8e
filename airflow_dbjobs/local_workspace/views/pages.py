"""HTML pages: of the workspace, which lists jobs and runs, and of a job; those of runs are in `run_page`."""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import islice
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.state.settings import tasks_of

from .document import document
from .graph_picture import job_node, mark_link, picture
from .links import Links
from .markup import (
    duration_of,
    facts,
    job_name,
    json_block,
    mark,
    name_text,
    state_label,
    state_name,
    table,
    text,
    time_text,
)
from .run_page import RunPages

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from airflow_dbjobs.local_workspace.engine.simulation import AnyExecutor
    from airflow_dbjobs.local_workspace.messages import Reply, Request
    from airflow_dbjobs.local_workspace.state.records import Job, Run
    from airflow_dbjobs.local_workspace.state.store import Store

_PATH = re.compile(r"/jobs/(\d{1,19})(?:/runs/(\d{1,19}))?/?")
_RECENT = 100
#: How many results of a job its own page and the list of jobs show.
_STRIP, _SHORT_STRIP = 50, 12
_NO_KEY = (
    "<p>Open these pages with the link that the server printed when it started, "
    "or with the <code>run_page_url</code> of a run: both contain the key.</p>"
)
_NO_RUNS = "<p>There are no runs yet.</p>"


class Pages:
    """The pages of a workspace."""

    def __init__(
        self, store: Store, executor: AnyExecutor, *, base_url: str, key: str, now_ms: Callable[[], int]
    ) -> None:
        self._store = store
        self._now_ms = now_ms
        self._links = Links(base_url, key)
        self._runs = RunPages(store, executor, self._links, now_ms)
        self.front_url = self._links.front_url
        self.url = self._links.url

    def find(self, request: Request) -> Reply | None:
        """Return the page at the path of a request; None if there is none."""
        found = _PATH.fullmatch(request.path)
        if request.method != "GET" or (found is None and request.path != "/"):
            return None
        if not self._links.open(request):
            return document("The link has no valid key", _NO_KEY, status=403)
        if found is None:
            return self._front()
        return self._runs.page(int(found[2]), request) if found[2] else self._of_job(int(found[1]))

    def _front(self) -> Reply:
        # Newest first, as ids rise.
        runs = [run for run in reversed(self._store.runs.values()) if not run.deleted]
        body = ""
        if self._store.jobs:
            by_job: dict[int, list[Run]] = defaultdict(list)
            for run in runs:
                by_job[run.job_id].append(run)
            jobs = islice(reversed(self._store.jobs.values()), _RECENT)
            rows = [(job.job_id, self._job_cells(job, by_job[job.job_id])) for job in jobs]
            names = ["Job", "Tasks", "Latest results", "Latest run"]
            body = f"<h2>Jobs{_newest(len(self._store.jobs))}</h2>{table(names, rows, wide='Job')}"
        body += f"<h2>Runs{_newest(len(runs))}</h2>{self._runs_table(runs)}"
        return document("Local workspace", body, live=True, active=bool(self._store.active_runs))

    def _job_cells(self, job: Job, runs: Sequence[Run]) -> list[str]:
        count = len(tasks_of(job.settings))
        tasks = f"{count} task" if count == 1 else f"{count} tasks"
        latest = time_text(runs[0].start_ms) if runs else ""
        return [self._links.job(job), tasks, self._strip(runs[:_SHORT_STRIP]), latest]

    def _of_job(self, job_id: int) -> Reply:
        job = self._store.jobs.get(job_id)
        if job is None:
            body = f"<p>Job {job_id} does not exist, or is that of a one-time run.</p>"
            return document("No such job", body, trail=self._links.front(), status=404)
        runs = [run for run in reversed(self._store.runs_of(job_id)) if not run.deleted]
        tasks = tasks_of(job.settings)
        body = facts(
            [
                ("Description", text(job.settings.get("description", ""))),
                ("Created", f"{time_text(job.created_ms)} by {name_text(job.creator)}"),
            ]
        )
        strip = f"<p>Oldest first: {self._strip(runs[:_STRIP])}</p>" if runs else ""
        body += f"<h2>Runs{_newest(len(runs))}</h2>{strip}{self._runs_table(runs)}"
        if len(tasks) > 1:
            body += f"<h2>Tasks</h2>{picture([job_node(task) for task in tasks])}"
        body += f"<h2>Settings</h2>{json_block(job.settings)}"
        name = job_name(job)
        return document(
            f"Job {job_id}: {name}",
            body,
            heading=f"Job {job_id}: {name_text(name)}",
            trail=self._links.front(),
            live=True,
            active=any(run.active for run in runs),
        )

    def _strip(self, runs: Sequence[Run]) -> str:
        """Return the results of runs, given from the newest to the oldest, in the other order."""
        now_ms = self._now_ms()
        return "".join(
            mark_link(
                self._links.path(run.job_id, run.run_id),
                mark(run.state),
                f"Run {run.run_id}: {state_name(run.state)}, {duration_of(run, now_ms)}, {time_text(run.start_ms)}",
            )
            for run in reversed(runs)
        )

    def _runs_table(self, runs: Sequence[Run]) -> str:
        if not runs:
            return _NO_RUNS
        now_ms = self._now_ms()
        rows = [
            (
                run.run_id,
                [
                    self._links.run(run, run.run_id),
                    name_text(run.run_name),
                    state_label(run.state),
                    time_text(run.start_ms),
                    duration_of(run, now_ms),
                ],
            )
            for run in runs[:_RECENT]
        ]
        return table(["Run", "Name", "State", "Started", "Duration"], rows, wide="Name")


def _newest(total: int) -> str:
    return f' <span class="dim">the newest {_RECENT} of {total}</span>' if total > _RECENT else ""

"""HTML pages of the recent runs, of a run, and of a task run. They have no scripts and load nothing."""

from __future__ import annotations

import hmac
import html
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from airflow_dbjobs.local_workspace.engine.scheduler import latest_attempts
from airflow_dbjobs.local_workspace.messages import Json, Reply, Request
from airflow_dbjobs.local_workspace.state.records import Run, State, TaskRun
from airflow_dbjobs.local_workspace.state.settings import OVERRIDES, payload_fields

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.engine.simulation import AnyExecutor
    from airflow_dbjobs.local_workspace.state.store import Store

_RUN_PATH = re.compile(r"/jobs/\d{1,19}/runs/(\d{1,19})/?")
#: The fields of a task's payload that hold parameters.
_PARAMETERS = frozenset({"base_parameters", "parameters", "named_parameters", "job_parameters"}) | OVERRIDES
_RECENT = 100
#: How many bytes of a log a page shows.
_LOG_TAIL = 20_000
_REFRESH_SECONDS = 2
_NO_KEY = (
    "<p>Open these pages with the link that the server printed when it started, "
    "or with the <code>run_page_url</code> of a run: both contain the key.</p>"
)
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --dim: #777;
  --good: #1a7f37; --bad: #cf222e; --busy: #0969da }
@media (prefers-color-scheme: dark) { :root { --dim: #999; --good: #3fb950; --bad: #f85149; --busy: #58a6ff } }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 68rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
a { color: var(--busy); text-decoration: none } a:hover { text-decoration: underline }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .8rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { color: var(--dim); font-weight: 500 }
pre { background: var(--soft); border: 1px solid var(--line); border-radius: 6px; padding: .8rem;
  overflow: auto; max-height: 32rem; font: 13px/1.45 ui-monospace, monospace;
  white-space: pre-wrap; overflow-wrap: anywhere }
td pre { margin: 0; padding: .2rem .5rem; max-height: 16rem }
.state { font-weight: 600; white-space: nowrap }
.good { color: var(--good) } .bad { color: var(--bad) }
.busy { color: var(--busy) }
.dim { color: var(--dim) } .facts th { width: 11rem }
"""


class Pages:
    """The pages of a workspace. Their URLs contain a key, as a browser cannot send the API's token.

    The key is not in a cookie, because a browser sends cookies to every port of a host, and so to servers of other
    users of this machine.
    """

    def __init__(self, store: Store, executor: AnyExecutor, *, base_url: str, key: str) -> None:
        self._store = store
        self._executor = executor
        self._base_url = base_url
        self._key = key

    @property
    def front_url(self) -> str:
        """The URL of the page that lists the recent runs."""
        return f"{self._base_url}/?key={self._key}"

    def url(self, job_id: int, run_id: int) -> str:
        """Return the URL of the page of a run or task run."""
        return self._base_url + self._path(job_id, run_id)

    def find(self, request: Request) -> Reply | None:
        """Return the page at the path of a request; None if there is none."""
        found = _RUN_PATH.fullmatch(request.path)
        if request.method != "GET" or (found is None and request.path != "/"):
            return None
        if not hmac.compare_digest(request.query.get("key", "").encode(), self._key.encode()):
            return _page("The link has no valid key", _NO_KEY, status=403)
        return self._of_run(int(found[1])) if found else self._recent()

    def _of_run(self, run_id: int) -> Reply:
        task = self._store.task_runs.get(run_id)
        run = self._store.runs.get(task.parent_id if task else run_id)
        if run is None or run.deleted:
            return _page("No such run", f"<p>Run {run_id} does not exist.</p>", status=404)
        return self._task_page(run, task) if task else self._run_page(run)

    def _recent(self) -> Reply:
        shown = (run for run in self._store.runs.values() if not run.deleted)
        runs = sorted(shown, key=lambda run: -run.run_id)[:_RECENT]
        rows = [
            [self._link(run, run.run_id), _text(run.run_name), _state(run.state), _time(run.start_ms), _duration(run)]
            for run in runs
        ]
        names = ["Run", "Name", "State", "Started", "Duration"]
        body = _table(names, rows) if runs else "<p>There are no runs yet.</p>"
        return _page("Runs", body, refresh=any(run.active for run in runs))

    def _run_page(self, run: Run) -> Reply:
        parameters = run.overrides | {name: item["value"] for name, item in run.job_parameters.items()}
        facts = [
            ("State", _state(run.state)),
            ("Message", _text(run.state.message)),
            ("Started", _time(run.start_ms)),
            ("Duration", _duration(run)),
            ("Job", _text(run.job_id) + (" (one-time run)" if run.run_type == "SUBMIT_RUN" else "")),
            ("Parameters", _json(parameters)),
            ("Spark", _text(self._executor.spark_label())),
        ]
        attempts = self._store.tasks_of(run)
        newest = list(latest_attempts(attempts).values())
        names = ["Task", "Attempt", "State", "Message", "Duration", "Parameters"]
        rows = [
            [
                self._link(run, task.run_id, task.task_key),
                str(task.attempt + 1),
                _state(task.state),
                _text(self._executor.output(task, max_log_bytes=0).error or task.state.message),
                _duration(task),
                _json(_parameters(task)),
            ]
            for task in attempts
        ]
        if len(newest) == 1:
            # The definition and output of the only task are shown below, so that this page has it all.
            names, rows = names[:-1], [row[:-1] for row in rows]
        all_runs = f'<p><a href="/?key={self._key}">All runs</a></p>'
        body = all_runs + _facts(facts) + "<h2>Tasks</h2>" + _table(names, rows)
        if len(run.episodes) > 1:
            body += "<h2>Repairs</h2>" + self._repairs(run, attempts)
        if len(newest) == 1:
            body += f"<h2>Definition</h2>{_json(newest[0].spec)}" + _output(self._executor, newest[0])
        return _page(f"Run {run.run_id}: {run.run_name}", body, refresh=run.active)

    def _task_page(self, run: Run, task: TaskRun) -> Reply:
        facts = [
            ("State", _state(task.state)),
            ("Message", _text(task.state.message)),
            ("Part of", self._link(run, run.run_id, f"run {run.run_id}: {run.run_name}")),
            ("Attempt", str(task.attempt + 1)),
            ("Started", _time(task.start_ms) if task.started else ""),
            ("Duration", _duration(task)),
            ("Outcome", _text(task.outcome or "")),
            ("Task", _json(task.spec)),
        ]
        return _page(f"Task {task.task_key}", _facts(facts) + _output(self._executor, task), refresh=run.active)

    def _repairs(self, run: Run, attempts: list[TaskRun]) -> str:
        """Return a table of the original run and its repairs, with links to the tasks that ran in each."""
        rows = []
        for number, episode in enumerate(run.episodes):
            name = f"Repair {number}" if number else "Original run"
            tasks = [task for task in attempts if task.run_id in episode.task_run_ids]
            links = [self._link(run, task.run_id, task.task_key) for task in tasks]
            rows.append([name, _state(episode.state), _time(episode.start_ms), ", ".join(links)])
        return _table(["", "State", "Started", "Tasks"], rows)

    def _link(self, run: Run, run_id: int, text: object = None) -> str:
        return f'<a href="{_text(self._path(run.job_id, run_id))}">{_text(text or run_id)}</a>'

    def _path(self, job_id: int, run_id: int) -> str:
        return f"/jobs/{job_id}/runs/{run_id}?o=0&key={self._key}"


def _parameters(task: TaskRun) -> Json:
    payload: Json = task.spec[payload_fields(task.spec)[0]]
    return {name: value for name, value in payload.items() if name in _PARAMETERS}


def _output(executor: AnyExecutor, task: TaskRun) -> str:
    output = executor.output(task, max_log_bytes=_LOG_TAIL)
    parts = [("Exit value", output.exit_value), ("Error", output.error), ("Traceback", output.error_trace)]
    parts.append((f"Log (last {_LOG_TAIL} bytes)" if output.log_truncated else "Log", output.log))
    return "".join(f"<h2>{title}</h2><pre>{_text(text)}</pre>" for title, text in parts if text)


def _page(title: str, body: str, *, status: int = 200, refresh: bool = False) -> Reply:
    meta = f'<meta http-equiv="refresh" content="{_REFRESH_SECONDS}">' if refresh else ""
    document = (
        f'<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">{meta}'
        f'<meta name="viewport" content="width=device-width"><title>{_text(title)}</title><style>{_STYLE}</style>'
        f"</head><body><h1>{_text(title)}</h1>{body}</body></html>"
    )
    headers = {
        "Content-Type": "text/html; charset=utf-8",
        "Cache-Control": "no-store",
        # No page links to another site; if one did, the key would not be sent there.
        "Referrer-Policy": "no-referrer",
        # Everything is escaped; if something were not, it still could not run or load anything.
        "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'",
    }
    return Reply(status, document.encode(errors="replace"), headers)


def _facts(facts: list[tuple[str, str]]) -> str:
    rows = "".join(f"<tr><th>{name}</th><td>{value}</td></tr>" for name, value in facts if value)
    return f'<table class="facts">{rows}</table>'


def _table(names: list[str], rows: list[list[str]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in names)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _state(state: State) -> str:
    color = "busy" if not state.terminal else "good" if state.result == "SUCCESS" else "bad"
    return f'<span class="state {color}">{_text(state.result or state.life)}</span>'


def _json(value: Json) -> str:
    return f"<pre>{_text(json.dumps(value, indent=2, ensure_ascii=False))}</pre>" if value else ""


def _time(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _duration(item: Run | TaskRun) -> str:
    if isinstance(item, TaskRun) and not item.started:
        return ""
    return f"{(item.end_ms - item.start_ms) / 1000:.1f} s" if item.end_ms else '<span class="dim">running</span>'


def _text(value: object) -> str:
    return html.escape(str(value))

"""One call of an API operation: what its function is given, and what several of them need."""

from __future__ import annotations

import bisect
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.operations.fields import MAX_TOKEN_LENGTH
from airflow_dbjobs.local_workspace.state.records import Job, Run, State, TaskRun
from airflow_dbjobs.local_workspace.views.json_view import Renderer, decode_token, encode_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow_dbjobs.local_workspace.engine.simulation import AnyExecutor
    from airflow_dbjobs.local_workspace.state.store import Store

Item = TypeVar("Item", Job, Run)


@dataclass(frozen=True)
class Call:
    """A call. `args` are the decoded query and body; `user` is who calls; `max_page` bounds the lists of runs."""

    store: Store
    executor: AnyExecutor
    render: Renderer
    version: str
    args: Json
    user: str
    now_ms: int
    max_page: int

    @property
    def modern(self) -> bool:
        """Whether this is API 2.1 or later."""
        return self.version != "2.0"

    def job(self) -> Job:
        """Return the job that the call names."""
        job_id = self.args.get("job_id", 0)
        if job_id not in self.store.jobs:
            raise ApiError(f"Job {job_id} does not exist.")
        return self.store.jobs[job_id]

    def run(self) -> tuple[Run, TaskRun | None]:
        """Return the run that the call names; when it names a task run, that one and its run."""
        run_id = self.args.get("run_id", 0)
        task = self.store.task_runs.get(run_id)
        run = self.store.runs.get(task.parent_id if task else run_id)
        if run is None or run.deleted:
            raise ApiError(f"Run {run_id} does not exist.")
        return run, task

    def run_of_token(self) -> Run | None:
        """Return the run that the call's idempotency token stands for, if it was used before.

        One namespace for run-now and submit; whatever else the call says is not compared.
        """
        token = self.args.get("idempotency_token", "")
        if len(token) > MAX_TOKEN_LENGTH:
            raise ApiError(f"Field 'idempotency_token' must have at most {MAX_TOKEN_LENGTH} characters.")
        run_id = self.store.token_run_id(token) if token else None
        if run_id is None:
            return None
        run = self.store.runs.get(run_id)
        if run is None or run.deleted:
            raise ApiError(f"Field 'idempotency_token' was used for run {run_id}, which has been deleted.")
        return run

    def claim_token(self, run: Run) -> None:
        """Let the call's idempotency token, if it has one, stand for `run`."""
        if token := self.args.get("idempotency_token"):
            self.store.claim_token(token, run.run_id)

    def limit(self, default: int, maximum: int, *, least: int = 0) -> int:
        """Return the page size: 0, where it is allowed, means the maximum."""
        limit: int = self.args.get("limit", min(default, maximum))
        if not least <= limit <= maximum:
            raise ApiError(f"Field 'limit' must be between {least} and {maximum}.")
        return limit or maximum

    def stop(self, run: Run) -> None:
        """Begin to cancel a run; one that ended is left alone."""
        if run.active and run.stop is None:
            run.stop = "CANCELED"
            run.state = State("TERMINATING", message="Being cancelled.")
            self.store.save(run)


def page(call: Call, items: Sequence[Item], limit: int) -> tuple[list[Item], Json]:
    """Return one page of `items` (newest first), and the fields that lead to the others.

    A token holds the id at which its page begins or ends, so that new items do not shift what is still to be read.
    """
    offset: int = call.args.get("offset", 0)
    if offset < 0:
        raise ApiError("Field 'offset' must not be negative.")
    if call.modern and (token := call.args.get("page_token")):
        content = decode_token(token)
        if "before" in content:
            offset = bisect.bisect_right(items, -content["before"], key=_newest_first)
        else:
            offset = max(0, bisect.bisect_left(items, -content.get("after", 0), key=_newest_first) - limit)
    shown = list(items[offset : offset + limit])
    more = offset + limit < len(items)
    if not call.modern:
        return shown, {"has_more": more}
    # 2.2 may leave top-level has_more out, and clients must do without it; this one makes sure that they do.
    links: Json = {"has_more": more} if call.version == "2.1" else {}
    if shown and more:
        links["next_page_token"] = encode_token({"before": _id(shown[-1])})
    if shown and offset:
        links["prev_page_token"] = encode_token({"after": _id(shown[0])})
    return shown, links


def _newest_first(item: Job | Run) -> int:
    return -_id(item)


def _id(item: Job | Run) -> int:
    return item.job_id if isinstance(item, Job) else item.run_id

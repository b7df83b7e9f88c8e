"""The context of one API request: what an operation works with, and what several operations need."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

from airflow_dbjobs.local_workspace.messages import ApiError, Json
from airflow_dbjobs.local_workspace.state.records import Job, Run, State, TaskRun
from airflow_dbjobs.local_workspace.views.page_tokens import decode_token, encode_token

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from airflow_dbjobs.local_workspace.engine.simulation import AnyExecutor
    from airflow_dbjobs.local_workspace.messages import Request
    from airflow_dbjobs.local_workspace.state.store import Store
    from airflow_dbjobs.local_workspace.views.json_view import JsonView

Item = TypeVar("Item", Job, Run)

_MAX_TOKEN_LENGTH: Final = 64


@dataclass
class Memory:
    """What requests leave for later ones until the server ends.

    `uploads` are the files that `dbfs/create` has opened, by handle. `terminated` are the ids of clusters.
    """

    uploads: dict[int, Path] = field(default_factory=dict)
    terminated: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class RequestContext:
    """A request. `args` are its decoded query and body, `user` is the caller, `max_page` bounds the lists of runs.

    `request` is the request as it came. `root` is the folder of the workspace.
    """

    request: Request
    memory: Memory

    store: Store
    executor: AnyExecutor
    root: Path
    view: JsonView
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
        """Return the job that the request names."""
        job_id = self.args.get("job_id", 0)
        if job_id not in self.store.jobs:
            raise ApiError(f"Job {job_id} does not exist.")
        return self.store.jobs[job_id]

    def run(self) -> tuple[Run, TaskRun | None]:
        """Return the run that the request names; if it names a task run, return its run and the task run itself."""
        run_id = self.args.get("run_id", 0)
        task = self.store.task_runs.get(run_id)
        run = self.store.runs.get(task.parent_id if task else run_id)
        if run is None or run.deleted:
            raise ApiError(f"Run {run_id} does not exist.")
        return run, task

    def run_of_token(self) -> Run | None:
        """Return the run that the request's idempotency token was used for; None if it is new, or there is none.

        run-now and submit share one namespace of tokens, and the other arguments are not compared.
        """
        token = self.args.get("idempotency_token", "")
        if len(token) > _MAX_TOKEN_LENGTH:
            raise ApiError(f"Field 'idempotency_token' must have at most {_MAX_TOKEN_LENGTH} characters.")
        run_id = self.store.token_run_id(token) if token else None
        if run_id is None:
            return None
        run = self.store.runs.get(run_id)
        if run is None or run.deleted:
            raise ApiError(f"Field 'idempotency_token' was used for run {run_id}, which has been deleted.")
        return run

    def claim_token(self, run: Run) -> None:
        """Assign the request's idempotency token, if it has one, to `run`."""
        if token := self.args.get("idempotency_token"):
            self.store.claim_token(token, run.run_id)

    def limit(self, default: int, maximum: int, *, least: int = 0) -> int:
        """Return the page size; 0, where allowed, means the maximum."""
        limit: int = self.args.get("limit", min(default, maximum))
        if not least <= limit <= maximum:
            raise ApiError(f"Field 'limit' must be between {least} and {maximum}.")
        return limit or maximum

    def cancel(self, run: Run) -> None:
        """Start to cancel a run; do nothing if it has ended or is being stopped."""
        if run.active and run.stop is None:
            run.stop = "CANCELED"
            run.state = State("TERMINATING", message="Being cancelled.")
            self.store.save(run)


def page(context: RequestContext, items: Sequence[Item], limit: int) -> tuple[list[Item], Json]:
    """Return one page of `items` (newest first), and the fields that lead to the other pages.

    A page token holds the id at which its page begins or ends, so new items do not shift the pages still to be read.
    """
    offset: int = context.args.get("offset", 0)
    if offset < 0:
        raise ApiError("Field 'offset' must not be negative.")
    if context.modern and (token := context.args.get("page_token")):
        content = decode_token(token)
        if "before" in content:
            offset = bisect.bisect_right(items, -content["before"], key=_newest_first)
        else:
            offset = max(0, bisect.bisect_left(items, -content.get("after", 0), key=_newest_first) - limit)
    shown = list(items[offset : offset + limit])
    more = offset + limit < len(items)
    if not context.modern:
        return shown, {"has_more": more}
    # API 2.2 may omit the top-level has_more. This server always does, so that no client comes to depend on it.
    links: Json = {"has_more": more} if context.version == "2.1" else {}
    if shown and more:
        links["next_page_token"] = encode_token({"before": _id(shown[-1])})
    if shown and offset:
        links["prev_page_token"] = encode_token({"after": _id(shown[0])})
    return shown, links


def _newest_first(item: Job | Run) -> int:
    return -_id(item)


def _id(item: Job | Run) -> int:
    return item.job_id if isinstance(item, Job) else item.run_id

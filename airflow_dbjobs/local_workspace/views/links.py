"""The URLs of pages. They contain a key, as a browser cannot send the API's token.

The key is not in a cookie, because a browser sends cookies to every port of a host, and so to servers of other users
of this machine.
"""

from __future__ import annotations

import hmac
from typing import TYPE_CHECKING

from .markup import job_name, name_text, text

if TYPE_CHECKING:
    from airflow_dbjobs.local_workspace.messages import Request
    from airflow_dbjobs.local_workspace.state.records import Job, Run


class Links:
    """Makes URLs of pages, and links to them. Jobs and runs have URLs as in the cloud, but for the key."""

    def __init__(self, base_url: str, key: str) -> None:
        self._base_url = base_url
        self._key = key

    @property
    def front_url(self) -> str:
        """The URL of the page that lists jobs and recent runs."""
        return f"{self._base_url}/?key={self._key}"

    def url(self, job_id: int, run_id: int) -> str:
        """Return the URL of the page of a run or task run."""
        return self._base_url + self.path(job_id, run_id)

    def path(self, job_id: int, run_id: int | None = None) -> str:
        """Return the URL of the page of a job, run or task run without the server."""
        of_run = f"/runs/{run_id}" if run_id else ""
        return f"/jobs/{job_id}{of_run}?o=0&key={self._key}"

    def log_path(self, job_id: int, run_id: int) -> str:
        """Return the URL of the whole log of a task run."""
        return f"{self.path(job_id, run_id)}&log=1"

    def open(self, request: Request) -> bool:
        """Return whether a request has the key."""
        return hmac.compare_digest(request.query.get("key", "").encode(), self._key.encode())

    def front(self) -> str:
        """Return a link to the front page."""
        return f'<a href="/?key={text(self._key)}">Local workspace</a>'

    def job(self, job: Job) -> str:
        """Return a link to the page of a job."""
        return f'<a href="{text(self.path(job.job_id))}">{name_text(job_name(job))}</a>'

    def run(self, run: Run, run_id: int, shown: object = None) -> str:
        """Return a link to the page of a run, or of one of its task runs."""
        return f'<a href="{text(self.path(run.job_id, run_id))}">{name_text(shown or run_id)}</a>'

"""The local workspace on a socket, and the two clients that ask it the same things."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import uvicorn
from databricks.sdk import WorkspaceClient
from databricks.sdk.clock import RealClock
from databricks.sdk.config import Config
from databricks.sdk.service import jobs as sdk

from airflow_dbjobs.client import JobsClient
from airflow_dbjobs.client.wait import wait_for_run
from airflow_dbjobs.local_workspace import Fault, LocalWorkspace
from airflow_dbjobs.local_workspace.http import server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from airflow_dbjobs.client.models import Run
    from airflow_dbjobs.local_workspace.messages import Reply, Request

    Json = dict[str, Any]

TOKEN = "a-token"

# --- what is not compared, and why ---

#: Fields that the API answers and the SDK's classes do not have.
NOT_OF_RUNS = {"+format"}
NOT_OF_LISTED_JOBS = {"+run_as_user_name"}
#: The SDK reads the run of a task as a job's run: of the task itself it keeps nothing.
NOT_OF_TASK_RUNS = {"+format", "+task", "+task_key", "+run_if"}
#: What tells one of two equal jobs or runs from the other.
_OWN = frozenset(
    {
        "job_id", "run_id", "job_run_id", "number_in_job", "original_attempt_run_id", "id", "task_run_ids",
        "run_page_url", "created_time", "start_time", "end_time", "execution_duration", "run_duration",
    }
)  # fmt: skip


def differences(ours: Any, theirs: Any, place: str = "") -> set[str]:
    """Return the places where two answers differ: "+place" where only we have a value, "-place" where only the SDK has.

    An empty array is as good as none: the SDK's `as_dict` leaves it out.
    """
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        pairs = zip(ours, theirs, strict=True)
        return {found for mine, other in pairs for found in differences(mine, other, f"{place}[]")}
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return set() if ours == theirs and type(ours) is type(theirs) else {place}
    found: set[str] = set()
    for name in ours.keys() | theirs.keys():
        inner = f"{place}.{name}".lstrip(".")
        if name in ours and name in theirs:
            found |= differences(ours[name], theirs[name], inner)
        elif [] not in (ours.get(name), theirs.get(name)):
            found.add(f"+{inner}" if name in ours else f"-{inner}")
    return found


def in_each(places: set[str]) -> set[str]:
    """Return the places as they are called in a list of answers."""
    return {f"{place[0]}[].{place[1:]}" if place[0] in "+-" else f"[].{place}" for place in places}


def likeness(answer: Any) -> Any:
    """Return an answer without what tells one of two equal jobs or runs from the other."""
    if isinstance(answer, list):
        return [likeness(item) for item in answer]
    if isinstance(answer, dict):
        return {name: likeness(value) for name, value in answer.items() if name not in _OWN}
    return answer


class _NoWaiting(RealClock):
    """The SDK's clock: it sleeps only before it repeats a request, and none here has to be repeated."""

    def sleep(self, seconds: float) -> None:
        raise AssertionError(f"the SDK wants to wait for {seconds} s and ask again")


class _Recording(LocalWorkspace):
    """A workspace that remembers what it was asked."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.asked: list[Request] = []

    def handle(self, request: Request) -> Reply:
        self.asked.append(request)
        return super().handle(request)


class Scene:
    """A workspace, whose folder is `root`, and its clients: `ours` speaks 2.2, as `theirs` does."""

    def __init__(self, workspace: _Recording, root: Path) -> None:
        self.root = root
        self._workspace = workspace
        self._ours = {version: self.our_client(TOKEN, version) for version in ("2.0", "2.1", "2.2")}
        self.ours = self._ours["2.2"]
        self._their_client = self.their_client(TOKEN)
        self.theirs = self._their_client.jobs

    def our_client(self, token: str, version: str = "2.2") -> JobsClient:
        return JobsClient(self._workspace.base_url, token=token, api_version=version)

    def their_client(self, token: str) -> WorkspaceClient:
        # With auth_type the SDK looks for no other credentials.
        config = Config(host=self._workspace.base_url, token=token, auth_type="pat", clock=_NoWaiting())
        return WorkspaceClient(config=config)

    def close(self) -> None:
        for client in self._ours.values():
            client.close()
        close_sdk(self._their_client)

    def speaking(self, version: str) -> JobsClient:
        """Return our client of a version."""
        return self._ours[version]

    def sent(self, call: Callable[[], Any]) -> list[tuple[str, str, Json]]:
        """Return what a call sends: method, path without its version, and body. All is granted, and nothing is done."""
        before = len(self._workspace.asked)
        granted = Fault(status=200, body={"job_id": 1, "run_id": 1, "repair_id": 1})
        self._workspace.faults.append(granted)
        call()
        assert granted.times == 0
        self._workspace.faults.remove(granted)
        return [
            (request.method, request.path.split("/", 3)[3], json.loads(request.body))
            for request in self._workspace.asked[before:]
        ]

    def finished(self, run_id: int) -> Run:
        return wait_for_run(self.ours, run_id, period=0.01)

    # The SDK's calls take fields, each an object of its own classes.

    def their_job(self, settings: Mapping[str, Any]) -> int:
        return self.theirs.create(**sdk.JobSettings.from_dict(settings).as_shallow_dict()).job_id

    def their_run(self, body: Mapping[str, Any]) -> int:
        tasks = [sdk.SubmitTask.from_dict(task) for task in body["tasks"]]
        return self.theirs.submit(**{**body, "tasks": tasks}).run_id

    # What is read back after a change is read by one client, so that only the change is compared.

    def job(self, job_id: int) -> Json:
        return likeness(self.theirs.get(job_id).as_dict())

    def run(self, run_id: int) -> Json:
        self.finished(run_id)
        return likeness(self.theirs.get_run(run_id, include_history=True).as_dict())


def close_sdk(client: WorkspaceClient) -> None:
    """Close the connections of an SDK's client, which has no call for it."""
    client.api_client._api_client._session.close()


@contextmanager
def open_scene(root: Path) -> Iterator[Scene]:
    """Serve a workspace on a free port, in a thread of this process."""
    listener = server.bind("127.0.0.1", 0)
    with _Recording(root, token=TOKEN, base_url=server.url(listener)) as workspace:
        app = server._App(workspace)
        config = uvicorn.Config(app, ws="none", lifespan="off", log_level="warning", access_log=False)
        http = uvicorn.Server(config)
        thread = threading.Thread(target=http.run, kwargs={"sockets": [listener]}, name="sdk-agreement-server")
        thread.start()
        try:
            scene = Scene(workspace, root)
            yield scene
            scene.close()
        finally:
            http.should_exit = True
            thread.join()

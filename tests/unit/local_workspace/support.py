"""Shared by the tests of the local workspace: a client that uses plain requests, and waiting with a deadline."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import requests

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.local_workspace import LocalWorkspace

T = TypeVar("T")

TOKEN = "a-token"
TERMINAL = ("TERMINATED", "SKIPPED", "INTERNAL_ERROR")
DEADLINE = 20.0
#: How long a simulated task takes by default.
SIMULATED_SECONDS = 10
NOTEBOOK = {"notebook_task": {"notebook_path": "/no/such/notebook"}}


def documented(first_line: str) -> str:
    """Return the example in docs/local-notebooks.md that begins with a line, without that line."""
    page = (Path(__file__).parents[3] / "docs" / "local-notebooks.md").read_text()
    (example,) = re.findall(rf"^```\w+\n{re.escape(first_line)}\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return str(example)


def eventually(condition: Callable[[], T], what: str = "the condition") -> T:
    """Return the first true value of `condition`; fail after a deadline far beyond the expected time."""
    end = time.monotonic() + DEADLINE
    while not (value := condition()):
        assert time.monotonic() < end, f"{what} did not come true within {DEADLINE} s"
        time.sleep(0.01)
    return value


class Client:
    """Calls the API of a workspace, and returns the JSON of its replies."""

    def __init__(self, base_url: str, version: str = "2.2", token: str = TOKEN) -> None:
        self.base_url = base_url
        self.version = version
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.headers["Authorization"] = f"Bearer {token}"

    def send(self, method: str, operation: str, *, version: str | None = None, **kwargs: Any) -> requests.Response:
        path = operation if operation.startswith("/") else f"/api/{version or self.version}/jobs/{operation}"
        kwargs.setdefault("timeout", DEADLINE)
        return self.session.request(method, self.base_url + path, **kwargs)

    def get(self, operation: str, /, *, version: str | None = None, **query: Any) -> Any:
        response = self.send("GET", operation, version=version, params=query)
        assert response.status_code == 200, response.text
        return response.json()

    def post(self, operation: str, body: Any = None, /, *, version: str | None = None, **fields: Any) -> Any:
        response = self.send("POST", operation, version=version, json=body if body is not None else fields)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, method: str, operation: str, fields: Any, *, version: str | None = None) -> dict[str, Any]:
        """Return the error of a request that must be answered with status 400."""
        kwargs = {"params": fields} if method == "GET" else {"json": fields}
        response = self.send(method, operation, version=version, **kwargs)
        assert response.status_code == 400, response.text
        error: dict[str, Any] = response.json()
        return error

    def submit(self, **fields: Any) -> int:
        run_id: int = self.post("runs/submit", **fields)["run_id"]
        return run_id

    def life(self, run_id: int) -> str:
        life: str = self.get("runs/get", run_id=run_id)["state"]["life_cycle_state"]
        return life

    def wait_for(self, run_id: int, *lives: str) -> dict[str, Any]:
        """Return the run once its life-cycle state is one of `lives`, by default a terminal one."""
        expected = lives or TERMINAL

        def check() -> dict[str, Any] | None:
            run: dict[str, Any] = self.get("runs/get", run_id=run_id)
            return run if run["state"]["life_cycle_state"] in expected else None

        found = eventually(check, f"run {run_id} being {' or '.join(expected)}")
        assert found is not None
        return found

    def finish(self, **fields: Any) -> dict[str, Any]:
        """Submit a run, and return it after its end."""
        return self.wait_for(self.submit(**fields))

    def output(self, run: dict[str, Any], key: str | None = None) -> dict[str, Any]:
        """Return the output of the latest attempt at a task of a run; without `key`, of its only task."""
        tasks = [task for task in run["tasks"] if key in (None, task["task_key"])]
        output: dict[str, Any] = self.get("runs/get-output", run_id=tasks[-1]["run_id"])
        return output


def results(run: dict[str, Any]) -> dict[str, str]:
    """Return the result state of the latest attempt at each task."""
    return {task["task_key"]: task["state"].get("result_state", "") for task in run["tasks"]}


def condition(left: str, right: str) -> dict[str, Any]:
    """Return the payload of a task that compares two values."""
    return {"condition_task": {"op": "EQUAL_TO", "left": left, "right": right}}


def simulated_task(seconds: float | str, result: str = "SUCCESS") -> dict[str, Any]:
    """Return the payload of a simulated task with this duration and result."""
    parameters = {"simulated_seconds": seconds, "simulated_result": result}
    return {"notebook_task": {"notebook_path": "/any", "base_parameters": parameters}}


def settle(ws: LocalWorkspace) -> None:
    """Tick until nothing changes: stopping a task takes two ticks, and a run_job task notices one tick later."""
    for _ in range(3):
        ws.tick()


def state(client: Client, run_id: int) -> tuple[str, str | None]:
    """Return the life-cycle state and the result state of a run."""
    shown = client.get("runs/get", run_id=run_id)["state"]
    return shown["life_cycle_state"], shown.get("result_state")

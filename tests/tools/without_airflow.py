"""A script, not a pytest file: the client, the poller and the results work where there is no Airflow.

Run it with an interpreter that has requests and tenacity, and this package installed without dependencies.
It serves the few Jobs API calls that one run needs on the loopback interface, and loses the reply to the first launch.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import threading
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

TOKEN = "a-token"
TASK_RUN_ID = 8
STATES = [{"life_cycle_state": state} for state in ("PENDING", "PENDING", "RUNNING")]
OVER = {"life_cycle_state": "TERMINATED", "result_state": "SUCCESS"}


class Workspace(BaseHTTPRequestHandler):
    """As much of a Jobs API as one run needs."""

    runs: dict[str, int] = {}  # noqa: RUF012 (one server, one script)
    posts = 0
    states = iter(STATES)

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Launch one run for each token; drop the connection after the first."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        Workspace.posts += 1
        run_id = self.runs.setdefault(body["idempotency_token"], 100 + len(self.runs))
        if self.posts > 1:
            self.answer({"run_id": run_id} if self.path == "/api/2.2/jobs/runs/submit" else None)

    def do_GET(self) -> None:
        """Tell of the run, which is over at the fourth question, or what its task returned."""
        url = urlsplit(self.path)
        run_id = int(parse_qs(url.query)["run_id"][0])
        if url.path == "/api/2.2/jobs/runs/get":
            task = {"task_key": "one", "run_id": TASK_RUN_ID, "notebook_task": {}, "state": OVER}
            self.answer({"run_id": run_id, "state": next(self.states, OVER), "tasks": [task]})
        elif url.path == "/api/2.2/jobs/runs/get-output" and run_id == TASK_RUN_ID:
            self.answer({"notebook_output": {"result": '{"rows": 3}'}})
        else:
            self.answer(None)

    def answer(self, body: object) -> None:
        """Send `body`, or 404."""
        signed = self.headers["Authorization"] == f"Bearer {TOKEN}"
        self.send_response((200 if body else 404) if signed else 403)
        self.end_headers()
        self.wfile.write(json.dumps(body or {"error_code": "RESOURCE_DOES_NOT_EXIST"}).encode())


def round_trip() -> None:
    """Submit a run, wait for it, and take its result."""
    for name in ("airflow", "starlette", "uvicorn"):
        assert importlib.util.find_spec(name) is None, f"{name} is installed here, so this proves nothing"

    from airflow_dbjobs.client import JobsClient
    from airflow_dbjobs.client.wait import wait_for_run
    from airflow_dbjobs.errors import NotFound
    from airflow_dbjobs.runs.launch import Launcher, LaunchIdentity
    from airflow_dbjobs.runs.result import run_result

    server = ThreadingHTTPServer(("127.0.0.1", 0), Workspace)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = JobsClient(f"http://127.0.0.1:{server.server_address[1]}", token=TOKEN)
    task = {"task_key": "one", "notebook_task": {"notebook_path": "/one"}}
    launcher = Launcher(client, "runs/submit", {"tasks": [task]}, LaunchIdentity("nightly", "manual__1", "load"))
    run_id = launcher.launch().run.run_id
    assert (Workspace.posts, len(Workspace.runs)) == (2, 1), "the request without a reply is sent again: one run"
    seen: list[str] = []
    run = wait_for_run(client, run_id, period=0.01, on_change=lambda state: seen.append(str(state)))
    assert seen == ["PENDING", "RUNNING", "TERMINATED/SUCCESS"], seen
    assert run_result(client, run) == {"rows": 3}
    try:
        client.get_run_output(run_id)
    except NotFound:
        pass
    else:
        raise AssertionError("the server answers 404 for the output of a run with tasks")
    client.close()
    server.shutdown()


if __name__ == "__main__":
    try:
        round_trip()
    except Exception:  # noqa: BLE001 (whatever it is, it is reported, and the exit code says so)
        traceback.print_exc()
        print("0 passed, 1 failed")
        sys.exit(1)
    print("1 passed, 0 failed")

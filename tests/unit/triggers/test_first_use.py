"""The first trigger of a triggerer imports the HTTP client and much else, which must not block the event loop."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS

TRIGGERS = {
    "run": "DatabricksRunTrigger(7, 'first_use', polling_period_seconds=0.1)",
    "sensor": "DatabricksSensorTrigger(CONDITION, 'first_use', poke_interval=0.1)",
    "watcher": "DatabricksJobRunTrigger('first_use', job_id=7, poll_interval=1)",
}
if not AIRFLOW_V_3_0_PLUS:
    # Airflow 3 introduced asset watchers.
    del TRIGGERS["watcher"]

# The second poll comes after the answer to the first, and after the metrics that the poller sends with it.
SCRIPT = """
import asyncio, json, os, sys, threading

from rude_server import RudeServer, reply

from airflow_dbjobs.triggers.condition import DatabricksSensorTrigger
from airflow_dbjobs.triggers.job_run import DatabricksJobRunTrigger
from airflow_dbjobs.triggers.run import DatabricksRunTrigger

CONDITION = {"kind": "run", "chosen": 7, "states": ["TERMINATED"]}
opened = {"loop": [], "threads": []}

def record(event, arguments):
    if event in {"import", "open"}:
        in_loop = threading.current_thread() is threading.main_thread()
        opened["loop" if in_loop else "threads"].append(str(arguments[0]))

async def main(trigger):
    # What asyncio and Airflow use for the first time is theirs.
    await asyncio.to_thread(trigger.log.info, "A trigger")
    sys.addaudithook(record)
    waiting = asyncio.ensure_future(anext(trigger.run()))
    while len(server.requests) < 2 and not waiting.done():
        await asyncio.sleep(0.01)
    print(json.dumps(opened | {"requests": len(server.requests)}), flush=True)
    # Nothing else is of interest.
    os._exit(0)

server = RudeServer(lambda _: [reply({"run_id": 7, "state": {"life_cycle_state": "RUNNING"}})])
os.environ["AIRFLOW_CONN_FIRST_USE"] = json.dumps(
    {"conn_type": "databricks_jobs", "host": server.url, "password": "the-token"}
)
asyncio.run(main(@TRIGGER@))
"""


@pytest.mark.parametrize("trigger", TRIGGERS)
def test_the_event_loop_imports_nothing_and_reads_no_file(trigger: str) -> None:
    script = SCRIPT.replace("@TRIGGER@", TRIGGERS[trigger])
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, check=False, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    opened = json.loads(done.stdout.splitlines()[-1])
    assert opened["requests"] >= 2
    assert "airflow_dbjobs.client.transport" in opened["threads"]
    assert opened["loop"] == []

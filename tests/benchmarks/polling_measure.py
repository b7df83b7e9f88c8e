"""One case of polling.py: a workspace of its own, a process that watches its runs, and what is seen from outside."""

from __future__ import annotations

import json
import queue
import random
import statistics
import subprocess
import sys
import threading
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from airflow_stack import clean_environment
from polling_case import connection_id
from polling_workspace import SimulatedWorkspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

CONN_TYPES = {"official": "databricks", "ours": "databricks_jobs"}

RSS_EVERY_SECONDS = 0.1
CONNECTIONS_EVERY_SECONDS = 1.0
# For a process that starts, and for one that does not do what it should.
PATIENCE_SECONDS = 120
# So many of a case's runs, or all of them, end at the same moment.
ENDING = 1000
# The Jobs API allows about so many requests in a second: until each run was asked for once, all is beginning.
REQUESTS_PER_SECOND = 100
LONGEST_BEGINNING_SECONDS = 20


class CaseFailed(RuntimeError):
    """A case could not be measured; the message says why."""


@dataclass(frozen=True)
class Case:
    """Who watches how many runs, and how many of them fit on a page of a listing."""

    provider: str
    runs: int
    page_size: int = 1000

    def __str__(self) -> str:
        return f"{self.provider}, {self.runs} runs, pages of {self.page_size}"


class Timing(NamedTuple):
    """How long is measured. The polling period is the interval in which everything is counted.

    `warm_up` is in seconds, and longer the more runs there are.
    """

    period: int = 5
    warm_up: float = 8.0
    steady_intervals: int = 6
    lateness_intervals: int = 2


def measure(case: Case, timing: Timing, folder: Path) -> dict[str, Any]:
    """Return all that is measured of a case, with the names under which the report and the plot look for it."""
    folder.mkdir()
    with SimulatedWorkspace(folder, case.page_size) as workspace:
        run_ids = workspace.launch(case.runs)
        with _child(case, workspace, folder) as child:
            child.tell(
                {
                    "provider": case.provider,
                    "run_ids": run_ids,
                    "port": workspace.port,
                    "period": timing.period,
                    "steady_seconds": timing.steady_intervals * timing.period,
                    "lateness_seconds": timing.lateness_intervals * timing.period,
                    "ending": min(ENDING, case.runs),
                    "patience": PATIENCE_SECONDS,
                    "log": str(folder / "triggers.log"),
                }
            )
            child.report()
            beginning = _warm_up(case, timing, workspace, child)
            steady = _steady(case, timing, workspace, child)
            return asdict(case) | beginning | steady | _ending(workspace, child, run_ids, timing)


def _warm_up(case: Case, timing: Timing, workspace: SimulatedWorkspace, child: _Child) -> dict[str, Any]:
    """Wait until each trigger has asked for its run, once or more."""
    enough = case.runs if case.provider == "official" else 1
    deadline = time.monotonic() + PATIENCE_SECONDS
    time.sleep(timing.warm_up + min(case.runs / REQUESTS_PER_SECOND, LONGEST_BEGINNING_SECONDS))
    while (polls := workspace.polls()) < enough:
        if time.monotonic() > deadline:
            raise CaseFailed(f"only {polls} polls came in {PATIENCE_SECONDS} s. {child.errors()}")
        time.sleep(1)
    return {"first_requests": polls}


def _steady(case: Case, timing: Timing, workspace: SimulatedWorkspace, child: _Child) -> dict[str, Any]:
    polls, server_cpu, start = workspace.polls(), workspace.cpu_seconds(), time.monotonic()
    child.go()
    told, seen = child.report_observed(workspace.port)
    # Counted here, and by our clock: a process that is late reports late, too.
    intervals = (time.monotonic() - start) / timing.period
    cpu = told["cpu"] / (told["seconds"] / timing.period)
    return {
        "requests": (workspace.polls() - polls) / intervals,
        "cpu_seconds": cpu,
        "cpu_us_per_run": cpu / case.runs * 1e6,
        # By chance: the workspace closes connections that were idle for 5 s, which is about one period.
        "connections_opened": told["opened"] / intervals,
        "connections": seen.connections,
        "rss_kb": seen.rss_median / 1024,
        "peak_rss_kb": seen.rss_peak / 1024,
        "server_busy": (workspace.cpu_seconds() - server_cpu) / (intervals * timing.period),
    }


def _ending(workspace: SimulatedWorkspace, child: _Child, run_ids: Sequence[int], timing: Timing) -> dict[str, Any]:
    child.go()
    steady = child.report()
    time.sleep(random.uniform(0, timing.period))
    polls = workspace.polls()
    ending = random.sample(run_ids, min(ENDING, len(run_ids)))
    end = workspace.end(ending)
    told, seen = child.report_observed(workspace.port)
    if told["wrong"] or len(told["fired_at"]) != len(ending):
        problem = f"{len(told['fired_at'])} of {len(ending)} triggers have fired; wrong: {told['wrong']}"
        raise CaseFailed(f"{problem}. {child.errors()}")
    delays = [fired - end for fired in told["fired_at"]]
    return {
        "late_worst": max(steady["late"]),
        "late_p99": percentile(steady["late"], 99),
        "longest_collection": steady["longest_collection"],
        "delay_median": statistics.median(delays),
        "delay_p95": percentile(delays, 95),
        "delay_max": max(delays),
        "end_late_worst": max(told["late"]),
        "end_late_p99": percentile(told["late"], 99),
        "end_longest_collection": told["longest_collection"],
        "end_requests": workspace.polls() - polls,
        "end_connections": seen.connections,
        "end_cpu_seconds": told["cpu"],
        "end_peak_rss_kb": seen.rss_peak / 1024,
    }


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that is not below `percent` of all."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


class _Seen(NamedTuple):
    rss_median: float
    rss_peak: float
    connections: int


@contextmanager
def _child(case: Case, workspace: SimulatedWorkspace, folder: Path) -> Iterator[_Child]:
    environment = clean_environment() | {
        "AIRFLOW_HOME": str(folder),
        f"AIRFLOW_CONN_{connection_id(case.provider).upper()}": workspace.connection_for(CONN_TYPES[case.provider]),
    }
    errors = folder / "errors.log"
    with errors.open("wb") as stderr:
        process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("polling_case.py"))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
        )
    try:
        yield _Child(process, errors)
    finally:
        process.kill()
        process.wait()


class _Child:
    """The watching process: told by lines, and read in a thread so that it can be observed meanwhile."""

    def __init__(self, process: subprocess.Popen[str], errors: Path) -> None:
        self._stdin, self._stdout = process.stdin, process.stdout
        self._process = psutil.Process(process.pid)
        self._errors = errors
        self._reports: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    def tell(self, case: dict[str, Any]) -> None:
        self._stdin.write(json.dumps(case) + "\n")
        self._stdin.flush()

    def go(self) -> None:
        self._stdin.write("\n")
        self._stdin.flush()

    def report(self) -> dict[str, Any]:
        """Return what the process tells next."""
        try:
            return self._next_report(2 * PATIENCE_SECONDS)
        except queue.Empty:
            raise CaseFailed(f"the watching process does not answer. {self.errors()}") from None

    def errors(self) -> str:
        """Return the last of what the process has complained of."""
        return f"{self._errors} ends so:\n{self._errors.read_text(errors='replace')[-2000:]}"

    def report_observed(self, port: int) -> tuple[dict[str, Any], _Seen]:
        """Return the next report, and what was seen of the process until then."""
        rss, connections, look_again, deadline = [], 0, 0.0, time.monotonic() + 2 * PATIENCE_SECONDS
        while time.monotonic() < deadline:
            # A process that is gone is told of by the report that does not come.
            with suppress(psutil.NoSuchProcess):
                rss.append(self._process.memory_info().rss)
                if time.monotonic() >= look_again:
                    connections = max(connections, self._connections(port))
                    look_again = time.monotonic() + CONNECTIONS_EVERY_SECONDS
            with suppress(queue.Empty):
                return self._next_report(RSS_EVERY_SECONDS), _Seen(statistics.median(rss), max(rss), connections)
        raise CaseFailed(f"the watching process does not answer. {self.errors()}")

    def _next_report(self, timeout: float) -> dict[str, Any]:
        told = self._reports.get(timeout=timeout)
        if told is None:
            raise CaseFailed(f"the watching process has ended. {self.errors()}")
        return told

    def _connections(self, port: int) -> int:
        established = [c for c in self._process.net_connections("tcp") if c.status == psutil.CONN_ESTABLISHED]
        return sum(connection.raddr.port == port for connection in established)

    def _read(self) -> None:
        for line in self._stdout:
            self._reports.put(json.loads(line))
        self._reports.put(None)

"""One case of polling.py: a workspace of its own, a process that watches its runs, and what is seen from outside."""

from __future__ import annotations

import json
import math
import queue
import random
import statistics
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import psutil
from airflow_stack import clean_environment
from polling_case import connection_id
from polling_workspace import SimulatedWorkspace

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

CONN_TYPES = {"official": "databricks", "ours": "databricks_jobs"}

RSS_EVERY_SECONDS = 0.1
CONNECTIONS_EVERY_SECONDS = 1.0
# For a process that starts, and for one that does not do what it should.
PATIENCE_SECONDS = 120
# So many of a case's runs, or all of them, end one after the other within so many seconds.
ENDING = 1000
ENDING_SECONDS = 2
ENDING_STEPS = 20
# Of how many periods a run's life has, where the cost of its end is divided among them.
PERIODS_OF_A_RUN = 10
# A poller that shares a workspace with others reads its list in every fourth period, or more often.
LIST_PERIODS = 4
# The Jobs API allows about so many requests in a second: until each run was asked for once, all is beginning.
REQUESTS_PER_SECOND = 100
LONGEST_BEGINNING_SECONDS = 20


class CaseFailed(RuntimeError):
    """A case could not be measured; the message says why."""


@dataclass(frozen=True)
class Case:
    """Who watches how many runs, in how many triggerers, how many runs fit on a page of a listing, and the period."""

    provider: str
    runs: int
    page_size: int = 1000
    triggerers: int = 1
    period: int = 2

    def __str__(self) -> str:
        shared = f" over {self.triggerers} triggerers" if self.triggerers > 1 else ""
        return f"{self.provider}, {self.runs} runs{shared}, pages of {self.page_size}"


class Timing(NamedTuple):
    """For how many seconds to measure at least, which is rounded up to periods."""

    warm_up: float = 4.0
    steady: float = 16.0
    lateness: float = 4.0


def measure(case: Case, timing: Timing, folder: Path) -> dict[str, Any]:
    """Return all that is measured of a case, with the names under which the report and the plot look for it.

    Of several triggerers only what watching takes is measured.
    """
    folder.mkdir()
    with ExitStack() as stack:
        workspace = stack.enter_context(SimulatedWorkspace(folder, case.page_size))
        run_ids = workspace.launch(case.runs)
        steady_periods = 2 if case.triggerers == 1 else 2 * LIST_PERIODS
        children = [stack.enter_context(_child(case, workspace, folder / str(i))) for i in range(case.triggerers)]
        for i, child in enumerate(children):
            child.tell(
                {
                    "provider": case.provider,
                    "run_ids": run_ids[i :: len(children)],
                    "port": workspace.port,
                    "period": case.period,
                    "steady_seconds": _whole_periods(case, timing.steady, steady_periods),
                    "lateness_seconds": _whole_periods(case, timing.lateness, 1),
                    "ending": min(ENDING, case.runs),
                    "patience": PATIENCE_SECONDS,
                    "log": str(folder / str(i) / "triggers.log"),
                }
            )
        for child in children:
            child.report()
        found = asdict(case) | _beginning(case, timing, workspace, children)
        found |= _steady(case, workspace, children)
        if case.triggerers == 1:
            found |= _ending(case, workspace, children[0], run_ids)
            per_end = found["ends_cpu_seconds"] / min(ENDING, case.runs) * 1e6
            found["cpu_us_per_run_and_end"] = found["cpu_us_per_run"] + per_end / PERIODS_OF_A_RUN
        return found


def _whole_periods(case: Case, seconds: float, at_least: int) -> int:
    return max(at_least, math.ceil(seconds / case.period)) * case.period


def _beginning(case: Case, timing: Timing, workspace: SimulatedWorkspace, children: Sequence[_Child]) -> dict[str, Any]:
    """Wait until each trigger has asked for its run, once or more."""
    enough = case.runs if case.provider == "official" else len(children)
    deadline = time.monotonic() + PATIENCE_SECONDS
    time.sleep(timing.warm_up + case.period + min(case.runs / REQUESTS_PER_SECOND, LONGEST_BEGINNING_SECONDS))
    while (polls := workspace.polls()) < enough:
        if time.monotonic() > deadline:
            raise CaseFailed(f"only {polls} polls came in {PATIENCE_SECONDS} s. {children[0].errors()}")
        time.sleep(1)
    for child in children:
        child.go()
    told = [child.report() for child in children]
    return {"first_requests": polls} | _lateness("first_", told)


def _steady(case: Case, workspace: SimulatedWorkspace, children: Sequence[_Child]) -> dict[str, Any]:
    polls, server_cpu, start = workspace.polls(), workspace.cpu_seconds(), time.monotonic()
    busy = _busy_seconds()
    for child in children:
        child.go()
    told, seen = zip(*(child.report_observed(workspace.port) for child in children), strict=True)
    # Counted here, and by our clock: a process that is late reports late, too.
    seconds = time.monotonic() - start
    intervals = seconds / case.period
    server_cpu = workspace.cpu_seconds() - server_cpu
    others = _busy_seconds() - busy - server_cpu - sum(each["cpu"] for each in told)
    cpu = sum(each["cpu"] / (each["seconds"] / case.period) for each in told)
    return {
        "requests": (workspace.polls() - polls) / intervals,
        "cpu_seconds": cpu,
        "cpu_us_per_run": cpu / case.runs * 1e6,
        # By chance: the workspace closes connections that were idle for 5 s.
        "connections_opened": sum(each["opened"] for each in told) / intervals,
        "connections": sum(each.connections for each in seen),
        "rss_kb": sum(each.rss_median for each in seen) / 1024,
        "peak_rss_kb": sum(each.rss_peak for each in seen) / 1024,
        "server_busy": server_cpu / seconds,
        "others_busy": max(0.0, others / seconds / psutil.cpu_count()),
    }


def _ending(case: Case, workspace: SimulatedWorkspace, child: _Child, run_ids: Sequence[int]) -> dict[str, Any]:
    child.go()
    steady = child.report()
    time.sleep(random.uniform(0, case.period))
    polls, server_cpu, start = workspace.polls(), workspace.cpu_seconds(), time.monotonic()
    ending = random.sample(run_ids, min(ENDING, len(run_ids)))
    with ThreadPoolExecutor(1) as pool:
        ends = pool.submit(_end_one_after_the_other, workspace, ending)
        told, seen = child.report_observed(workspace.port)
        ended_at = ends.result()
    fired_at = {int(run_id): fired for run_id, fired in told["fired_at"].items()}
    if told["wrong"] or fired_at.keys() != ended_at.keys():
        problem = f"{len(fired_at)} of {len(ended_at)} triggers have fired; wrong: {told['wrong']}"
        raise CaseFailed(f"{problem}. {child.errors()}")
    delays = [fired_at[run_id] - ended for run_id, ended in ended_at.items()]
    return {
        "delay_median": statistics.median(delays),
        "delay_p95": percentile(delays, 95),
        "delay_max": max(delays),
        "end_requests": workspace.polls() - polls,
        "end_connections": seen.connections,
        "end_server_busy": (workspace.cpu_seconds() - server_cpu) / (time.monotonic() - start),
        "ends_cpu_seconds": told["ends_cpu"],
        "end_peak_rss_kb": seen.rss_peak / 1024,
        **_lateness("", [steady]),
        **_lateness("end_", [told]),
    }


def _busy_seconds() -> float:
    """Return the processor time that everything on this machine has taken."""
    times = psutil.cpu_times()
    return sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0)


def _lateness(stage: str, told: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return the worst that the watching processes have told of their event loops in a stage."""
    names = ("late_worst", "late_p99", "late_beyond_collections", "longest_collection")
    return {f"{stage}{name}": max(each[name] for each in told) for name in names}


def _end_one_after_the_other(workspace: SimulatedWorkspace, run_ids: Sequence[int]) -> dict[int, float]:
    """Let runs end, evenly spread; return when each of them ended."""
    ended_at, start = {}, time.monotonic()
    for i in range(ENDING_STEPS):
        time.sleep(max(0.0, start + i * ENDING_SECONDS / ENDING_STEPS - time.monotonic()))
        if group := run_ids[i::ENDING_STEPS]:
            ended_at |= dict.fromkeys(group, workspace.end(group))
    return ended_at


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the smallest value that is not below `percent` of all."""
    return sorted(values)[max(0, -(-len(values) * percent // 100) - 1)]


class _Seen(NamedTuple):
    rss_median: float
    rss_peak: float
    connections: int


@contextmanager
def _child(case: Case, workspace: SimulatedWorkspace, folder: Path) -> Iterator[_Child]:
    folder.mkdir()
    environment = clean_environment() | {
        "AIRFLOW_HOME": str(folder),
        f"AIRFLOW_CONN_{connection_id(case.provider).upper()}": workspace.connection_for(CONN_TYPES[case.provider]),
    }
    # A provider that pip has installed has bytecode caches: ours needs them, too.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
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

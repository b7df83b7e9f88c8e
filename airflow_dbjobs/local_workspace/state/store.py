"""The state of the workspace: records in memory, and in a SQLite file before a request that changed them returns."""

from __future__ import annotations

import contextlib
import json
import sqlite3
from typing import TYPE_CHECKING, Any

from .folder import WorkspaceError
from .records import Episode, Iteration, Job, Run, State, TaskRun

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS task_runs (id INTEGER PRIMARY KEY, record TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS tokens (token TEXT PRIMARY KEY, run_id INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS sequence (one INTEGER PRIMARY KEY CHECK (one = 1), next_id INTEGER NOT NULL);
"""
#: Ids are as long as the cloud's, and small enough (< 2**53) for JSON parsers that read numbers as doubles.
_FIRST_ID = 100_000_000_000_001

Record = Job | Run | TaskRun


class Store:
    """Jobs, runs and task runs by id.

    Change a record and `save` it; `commit`, or the end of `changes`, makes all saved changes durable in one
    transaction. Not thread-safe: the workspace holds its lock around every use.

    :raises WorkspaceError: The file cannot be opened, or has other content.
    """

    def __init__(self, file: Path | str) -> None:
        try:
            self._db = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
            with contextlib.ExitStack() as on_failure:
                on_failure.callback(self._db.close)
                self._open()
                on_failure.pop_all()
        except (sqlite3.Error, ValueError, TypeError, KeyError, AttributeError) as error:
            # Records that are not JSON, or have unknown fields, count as damage too.
            hint = "if it is damaged, move it away to start with an empty workspace"
            raise WorkspaceError(f"The local workspace cannot use {file} ({error}); {hint}.") from None

    def _open(self) -> None:
        # With WAL and NORMAL a commit survives a kill of this process without waiting for the disk; only a power cut
        # may lose the last commits.
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        row = self._db.execute("SELECT next_id FROM sequence").fetchone()
        self._next_id: int = row[0] if row else _FIRST_ID
        self._load()

    def new_id(self) -> int:
        """Return an id that was never used before."""
        self._next_id += 1
        # Jobs of files, and of tests, may have chosen ids.
        while self._next_id - 1 in self.jobs:
            self._next_id += 1
        return self._next_id - 1

    def tasks_of(self, run: Run) -> list[TaskRun]:
        """Return all attempts at all tasks of `run` and their iterations, oldest first."""
        return self._tasks_of.get(run.run_id, [])

    def runs_of(self, job_id: int) -> list[Run]:
        """Return the runs of a job, oldest first."""
        return [run for run in self.runs.values() if run.job_id == job_id]

    def take_changed_runs(self) -> set[int]:
        """Return the ids of the runs that changed, or whose task runs did, since the last call."""
        changed = self._changed_runs.copy()
        self._changed_runs.clear()
        return changed

    def mark_all_changed(self) -> None:
        """Mark all active runs as changed."""
        self._changed_runs.update(self.active_runs)

    def save(self, *records: Record) -> None:
        """Add or replace records."""
        for record in records:
            self._index(record)
            if not isinstance(record, Job):
                self._changed_runs.add(record.parent_id if isinstance(record, TaskRun) else record.run_id)
            self._dirty[_key(record)] = record

    def remove_job(self, job: Job) -> None:
        """Remove a job."""
        del self.jobs[job.job_id]
        self._dirty["jobs", job.job_id] = None

    def remove_run(self, run: Run) -> None:
        """Remove a run and its task runs. Its idempotency token cannot be used again."""
        for task in self._tasks_of.pop(run.run_id, []):
            del self.task_runs[task.run_id]
            self._dirty["task_runs", task.run_id] = None
        del self.runs[run.run_id]
        self.active_runs.pop(run.run_id, None)
        self._dirty["runs", run.run_id] = None

    def claim_token(self, token: str, run_id: int) -> None:
        """Assign an idempotency token to a run, permanently."""
        self._tokens[token] = self._new_tokens[token] = run_id

    def token_run_id(self, token: str) -> int | None:
        """Return the id of the run that an idempotency token was used for; that run may have been deleted."""
        return self._tokens.get(token)

    @contextlib.contextmanager
    def changes(self) -> Iterator[None]:
        """Commit the changes made in the block; if it raises, roll back what is not committed, in memory too."""
        try:
            yield
            self.commit()
        except BaseException:
            if self._dirty or self._new_tokens:
                self._load()
            raise

    def commit(self) -> None:
        """Make all changes since the last commit durable."""
        if not self._dirty and not self._new_tokens:
            return
        self._db.execute("BEGIN IMMEDIATE")
        try:
            for (table, record_id), record in self._dirty.items():
                if record is None:
                    self._db.execute(f"DELETE FROM {table} WHERE id = ?", (record_id,))  # noqa: S608 - a constant
                else:
                    self._db.execute(
                        f"INSERT OR REPLACE INTO {table} VALUES (?, ?)",  # noqa: S608 - a constant
                        (record_id, json.dumps(vars(record), default=vars)),
                    )
            self._db.executemany("INSERT INTO tokens VALUES (?, ?)", self._new_tokens.items())
            self._db.execute("INSERT OR REPLACE INTO sequence VALUES (1, ?)", (self._next_id,))
            self._db.execute("COMMIT")
        except BaseException:
            # After some errors, such as a full disk, SQLite has already rolled back.
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        self._dirty.clear()
        self._new_tokens.clear()

    def close(self) -> None:
        """Commit, and release the file."""
        try:
            self.commit()
        finally:
            self._db.close()

    def _load(self) -> None:
        """Replace the records in memory by those in the file."""
        # Read everything first, as reading may fail: then memory stays as it was.
        jobs, runs, task_runs = (self._records(table) for table in ("jobs", "runs", "task_runs"))
        self._tokens: dict[str, int] = dict(self._db.execute("SELECT token, run_id FROM tokens"))
        self._dirty: dict[tuple[str, int], Record | None] = {}
        self._new_tokens: dict[str, int] = {}
        self.jobs: dict[int, Job] = {}
        self.runs: dict[int, Run] = {}
        self.task_runs: dict[int, TaskRun] = {}
        self.active_runs: dict[int, Run] = {}
        self._changed_runs: set[int] = set()
        self._tasks_of: dict[int, list[TaskRun]] = {}
        for fields in jobs:
            self._index(Job(**fields))
        for fields in runs:
            episodes = [Episode(**{**item, "state": State(**item["state"])}) for item in fields["episodes"]]
            self._index(Run(**{**fields, "state": State(**fields["state"]), "episodes": episodes}))
        for fields in task_runs:
            iteration = Iteration(**fields["iteration"]) if fields.get("iteration") else None
            self._index(TaskRun(**{**fields, "state": State(**fields["state"]), "iteration": iteration}))
        self.mark_all_changed()

    def _records(self, table: str) -> list[dict[str, Any]]:
        rows = self._db.execute(f"SELECT record FROM {table} ORDER BY id")  # noqa: S608 - a constant
        return [json.loads(record) for (record,) in rows]

    def _index(self, record: Record) -> None:
        match record:
            case Job():
                self.jobs[record.job_id] = record
            case Run():
                self.runs[record.run_id] = record
                if record.active:
                    self.active_runs[record.run_id] = record
                else:
                    self.active_runs.pop(record.run_id, None)
            case TaskRun() if record.run_id not in self.task_runs:
                self.task_runs[record.run_id] = record
                self._tasks_of.setdefault(record.parent_id, []).append(record)


def _key(record: Record) -> tuple[str, int]:
    match record:
        case Job():
            return "jobs", record.job_id
        case Run():
            return "runs", record.run_id
        case TaskRun():
            return "task_runs", record.run_id

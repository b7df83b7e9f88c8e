"""Airflow as it is deployed: PostgreSQL, Redis, and Celery's workers, with two of each component that may be two."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Self

from airflow_stack import AirflowStack, Processes, variables_of
from backing_services import Postgres, Redis

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from airflow_stack import TaskInstance

# How often a component may end by itself: when its database is killed it does, and once more if it comes back too soon.
_MOST_RESTARTS = 5


class RestartedProcesses(Processes):
    """Processes that are started again when they end by themselves, as systemd and Kubernetes do."""

    def __init__(self, logs: Path, environment: Mapping[str, str], **options: Any) -> None:
        super().__init__(logs, environment, **options)
        # How often each was.
        self.restarts: dict[str, int] = {}
        self._started: dict[str, tuple[tuple[str, ...], str | None]] = {}

    def start(self, name: str, *command: str, user: str | None = None) -> None:
        """Start a command that is to run until somebody stops or kills it."""
        self._started[name] = command, user
        super().start(name, *command, user=user)

    def check(self) -> None:
        """Start again what has ended; what ends again and again raises an error."""
        for name, process in list(self._running.items()):
            if process.poll() is None:
                continue
            self.restarts[name] = self.restarts.get(name, 0) + 1
            if self.restarts[name] > _MOST_RESTARTS:
                raise self._died(name, process.returncode)
            command, user = self._started[name]
            self.start(name, *command, user=user)


class DeploymentStack(AirflowStack):
    """Airflow 3 on PostgreSQL with a CeleryExecutor: two schedulers, two triggerers, two workers.

    `kill` and `start` take the services too: "postgres" and "redis".
    """

    processes_type = RestartedProcesses
    processes: RestartedProcesses
    worker_kind = "worker"

    def __init__(self, home: Path, dags_folder: Path, **options: Any) -> None:
        self._postgres = Postgres()
        self._redis = Redis(home.resolve() / "redis")
        super().__init__(home, dags_folder, **options)
        # Tasks need no API server of their own here: nobody waits for SQLite's lock.
        del self._commands["execution-api-server"]
        port = self.api.url.rpartition(":")[2]
        self._commands["api-server"] = ("api-server", "--host", "127.0.0.1", "--port", port)
        self._execution_port = int(port)
        self._commands["worker"] = ("celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle")

    def _settings(self) -> dict[str, str]:
        settings = {
            "core.executor": "CeleryExecutor",
            # Of each scheduler: so that tasks wait in Redis, too.
            "core.parallelism": "8",
            "core.execution_api_server_url": f"{self.api.url}/execution/",
            "database.sql_alchemy_conn": self._postgres.url,
            "celery.broker_url": self._redis.url,
            "celery.result_backend": "db+" + self._postgres.url.replace("+psycopg2", ""),
            "celery.worker_concurrency": "4",
            "celery.sync_parallelism": "1",
            # On a busy machine the default, a second, is too short to send a task to Redis.
            "celery.operation_timeout": "10",
            # Redis gives nobody else the messages of a worker that was killed, for hours: send these tasks again.
            "scheduler.task_queued_timeout": "60",
            "scheduler.task_queued_timeout_check_interval": "5",
            # Else a task that this happens to three times fails without another try.
            "scheduler.num_stuck_in_queued_retries": "100",
        }
        return super()._settings() | variables_of(settings)

    def __enter__(self) -> Self:
        super().__enter__()
        try:
            # Not with the first: nothing shows which is which of two that start together.
            self.start("scheduler-2", "triggerer-2", "worker-2")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            super().__exit__()
        finally:
            self._postgres.remove()

    def _start_services(self) -> None:
        self._postgres.create(self.processes)
        self.start("postgres", "redis")

    def start(self, *components: str, timeout: float = 120) -> None:
        """Start services and components and wait until each is up; a worker is when it answers."""
        for service in self._postgres, self._redis:
            if service.name in components:
                service.start(self.processes)
        if rest := [name for name in components if name not in (self._postgres.name, self._redis.name)]:
            super().start(*rest, timeout=timeout)
        for name in rest:
            if name.startswith(self.worker_kind):
                self.wait_for(f"{name} to answer", partial(self._answers, f"celery@{name}"), timeout)

    def _answers(self, node: str) -> bool | None:
        import kombu.pools
        from celery import Celery

        # They belong to the process, and keep connections to a Redis that was killed.
        kombu.pools.reset()
        with Celery(broker=self._redis.url) as app:
            return bool(app.control.ping([node], timeout=2)) or None

    def _command(self, component: str) -> tuple[str, ...]:
        command = super()._command(component)
        return (*command, "--celery-hostname", component) if component.startswith(self.worker_kind) else command

    def _database_is_locked(self) -> bool:
        return False

    def lose_worker(self, task: TaskInstance) -> None:
        """Kill the worker that runs a task, with all its tasks, as when its machine dies; then start it again."""
        worker = self.worker_of(task)
        self.kill(worker)
        self.start(worker)

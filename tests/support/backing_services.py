"""PostgreSQL and Redis, as Debian packages them: started for a test on loopback, in folders of their own."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from airflow_stack import free_port

if TYPE_CHECKING:
    from airflow_stack import Processes

# Where Debian puts the programs of each version; only the clients are on the PATH.
_POSTGRES_FOLDERS = "/usr/lib/postgresql"


def missing_programs() -> list[str]:
    """Return those of Debian's packages that are needed and not installed."""
    found = {"postgresql": _postgres_folder(), "redis-server": shutil.which("redis-server")}
    return [package for package, place in found.items() if place is None]


def _postgres_folder() -> Path | None:
    """Return the folder of the newest PostgreSQL's programs, or None if there is none."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    folders = [program.parent for program in Path(_POSTGRES_FOLDERS).glob("*/bin/initdb")]
    return max(folders, key=lambda folder: float(folder.parent.name), default=None)


def _unprivileged_user() -> str | None:
    """Return the user that PostgreSQL runs as: it refuses to be run by root."""
    if os.geteuid() != 0:
        return None
    with suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    return "nobody"


class Postgres:
    """A database that is lost when its folder is removed (`remove`), but survives that its server is killed."""

    name = "postgres"

    def __init__(self) -> None:
        folder = _postgres_folder()
        if folder is None:
            raise FileNotFoundError("PostgreSQL is not installed (Debian's package postgresql)")
        self._programs = folder
        self._user = _unprivileged_user()
        self._port = free_port()
        self._password = secrets.token_hex(16)
        self._home: Path | None = None

    @property
    def url(self) -> str:
        """Where the database is, for SQLAlchemy without the driver."""
        return f"postgresql+psycopg2://airflow:{self._password}@127.0.0.1:{self._port}/postgres"

    def create(self, processes: Processes) -> None:
        """Create an empty database."""
        # Not below a test's folder, which other users may not enter.
        self._home = Path(tempfile.mkdtemp(prefix="airflow_dbjobs-postgres-"))
        password = self._home / "password"
        password.write_text(self._password)
        if self._user:
            for path in (self._home, password):
                shutil.chown(path, self._user)
        options = ("--username=airflow", "--auth=scram-sha-256", f"--pwfile={password}", "--encoding=UTF8")
        command = (str(self._programs / "initdb"), *options, "--locale=C", "--no-sync", f"--pgdata={self._home}/data")
        processes.run("initdb", *command, timeout=60, user=self._user)

    def start(self, processes: Processes) -> None:
        """Start the server, again after it was killed, and wait until it lets somebody in."""
        settings = {
            "listen_addresses": "127.0.0.1",
            "port": str(self._port),
            "unix_socket_directories": "",
            "max_connections": "300",
            # The processes are killed here, not the machine: the kernel keeps what they have written.
            "fsync": "off",
            # As for Redis below.
            "update_process_title": "off",
        }
        options = [f"--{name}={value}" for name, value in settings.items()]
        command = (str(self._programs / "postgres"), "-D", f"{self._home}/data", *options)
        processes.start(self.name, *command, user=self._user)
        processes.wait_for("PostgreSQL", self._answers, timeout=60)

    def _answers(self) -> bool | None:
        import psycopg2

        with suppress(psycopg2.OperationalError):
            where = {"host": "127.0.0.1", "port": self._port, "dbname": "postgres"}
            psycopg2.connect(user="airflow", password=self._password, connect_timeout=5, **where).close()
            return True
        return None

    def remove(self) -> None:
        """Remove all that was stored."""
        if self._home:
            shutil.rmtree(self._home)


class Redis:
    """A broker that has every message still after its server was killed."""

    name = "redis"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._port = free_port()
        self._password = secrets.token_hex(16)

    @property
    def url(self) -> str:
        """Where it is, for Celery."""
        return f"redis://:{self._password}@127.0.0.1:{self._port}/0"

    def start(self, processes: Processes) -> None:
        """Start the server, again after it was killed, and wait until it answers."""
        self._folder.mkdir(exist_ok=True)
        settings = {
            "bind": "127.0.0.1",
            "port": self._port,
            # In a file: everybody can read the options of a process.
            "requirepass": self._password,
            "dir": self._folder,
            "appendonly": "yes",
            "save": '""',
            # A title would be written over the environment, by which `Processes` finds what it has started.
            "set-proc-title": "no",
        }
        configuration = self._folder / "redis.conf"
        configuration.touch(mode=0o600)
        configuration.write_text("".join(f"{name} {value}\n" for name, value in settings.items()))
        processes.start(self.name, "redis-server", str(configuration))
        processes.wait_for("Redis", self._answers, timeout=30)

    def _answers(self) -> bool | None:
        import redis

        with suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=5) as client:
            return bool(client.ping()) or None
        return None

"""The schemas, tables and views that all Spark sessions of a workspace share, also those of later runs.

Sail has a catalog for each session, in memory. So the workspace keeps, in a file, the statements that define what a
session has created, and runs them in all other sessions. The data are files, which stay where they are.
"""

from __future__ import annotations

import re
import sys
import threading
from typing import TYPE_CHECKING, Any

from .runtime.sql import literal
from .task_files import read_json, write_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

#: SQL that may define something. The byte before it, in a request, may be a letter: it is the length of the text.
_DEFINES = re.compile(rb"(create|drop|alter|replace)\b", re.IGNORECASE)
_NEW_SCHEMA = re.compile(rb"create\s+(?:schema|database)\s+(?:if\s+not\s+exists\s+)?`?(\w+)`?\s*\.", re.IGNORECASE)
#: What Sail's parser does not take: `USE sales`, `USE main.sales`, `USE IDENTIFIER('sales')`, `USE CATALOG 'main'`.
_USE = re.compile(
    r"""\s* USE \s+ (?: (?P<kind>CATALOG|SCHEMA|DATABASE|NAMESPACE) \s+ )?
    (?: IDENTIFIER \s* \( \s* )? (?P<name> [`'"\w.]+ ) (?: \s* \) )? [\s;]*""",
    re.VERBOSE | re.IGNORECASE,
)
_PROPERTY = re.compile(r"option\.(\w+)=(.*?)(?=, [\w.]+=|\]$)")

#: The statements, by what they define: "SCHEMA `main`.`sales`", "TABLE …" or "VIEW …".
Definitions = dict[str, str]


class SharedCatalog:
    """What all sessions share, kept in a file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._definitions: Definitions = read_json(file)
        self._lock = threading.Lock()

    def update(self, session: SessionCatalog) -> None:
        """Define in a session what others have defined since."""
        session.apply(self._definitions)

    def record(self, session: SessionCatalog, command: bytes) -> None:
        """Note what a command has changed in the catalog of its session."""
        try:
            before, after = session.reread(command)
        except Exception as error:  # noqa: BLE001 - the command has succeeded, and its program is to know that
            sys.stderr.write(
                f"Other sessions will not see what a command has changed: reading the catalog failed: {error}\n"
            )
            return
        changed = {key: statement for key, statement in after.items() if before.get(key) != statement}
        gone = before.keys() - after.keys()
        if not changed and not gone:
            return
        with self._lock:
            self._definitions = {key: text for key, text in self._definitions.items() if key not in gone} | changed
            write_json(self._file, self._definitions)


def may_define(command: bytes) -> bool:
    """Return whether SQL, as the bytes of a request, may define or drop something that sessions share."""
    return _DEFINES.search(command) is not None


def use_statements(statement: str) -> list[str]:
    """Return what Sail takes for a USE statement; nothing if it is another one."""
    found = _USE.fullmatch(statement)
    names = re.findall(r"\w+", found["name"]) if found else []
    if found and (found["kind"] or "").upper() == "CATALOG":
        return [f"USE CATALOG {_quoted(name)}" for name in names]
    return [f"USE {kind} {_quoted(name)}" for kind, name in zip(("SCHEMA", "CATALOG"), names[::-1], strict=False)][::-1]


def unknown_catalog(command: bytes, use: Sequence[str], names: Sequence[str]) -> str | None:
    """Return the catalog, none of `names`, that a command uses; `use` is what Sail takes for its USE statement.

    The catalog of `CREATE SCHEMA catalog.schema` is a schema to Sail.
    """
    found = [name.decode() for name in _NEW_SCHEMA.findall(command)] + re.findall(r"USE CATALOG `(\w+)`", " ".join(use))
    return next((name for name in map(str.lower, found) if name not in names), None)


class SessionCatalog:
    """The catalogs with these names of one session; `spark` is a SparkSession for it."""

    def __init__(self, spark: Any, names: Sequence[str]) -> None:
        self._spark = spark
        self._names = names
        self._lock = threading.Lock()
        #: What it holds beyond an empty catalog, as far as is known.
        self._definitions: Definitions = {}

    def apply(self, wanted: Definitions) -> None:
        """Change the catalog so that it holds `wanted`."""
        with self._lock:
            if wanted == self._definitions:
                return
            for key in [key for key, statement in self._definitions.items() if wanted.get(key) != statement]:
                kind, _, name = key.partition(" ")
                self._run(f"DROP {kind} IF EXISTS {name}{' CASCADE' if kind == 'SCHEMA' else ''}")
            # Schemas before tables before views; views in their order, as they may read each other.
            for key in sorted(wanted, key=lambda key: key.partition(" ")[0]):
                if self._definitions.get(key) != wanted[key]:
                    self._run(wanted[key])
            self._definitions = wanted

    def close(self) -> None:
        """Close the connection of the session."""
        self._spark.client.close()

    def execute(self, statement: str) -> None:
        """Run a statement in the session."""
        self._spark.sql(statement)

    def _run(self, statement: str) -> None:
        try:
            self.execute(statement)
        except Exception as error:  # noqa: BLE001 - the files of a table may be gone; the other tables are not
            sys.stderr.write(f"{statement} failed: {error}\n")

    def reread(self, command: bytes) -> tuple[Definitions, Definitions]:
        """Return what the catalog held before `command`, and what it holds now."""
        text = command.lower()
        with self._lock:
            before = self._definitions
            schemas = dict(self._schemas())
            tables = [item for key in schemas for item in self._tables(key.partition(" ")[2], text)]
            self._definitions = schemas | dict(tables)
            return before, self._definitions

    def _schemas(self) -> Iterator[tuple[str, str]]:
        for catalog in self._names:
            for row in self._spark.sql(f"SHOW SCHEMAS IN {_quoted(catalog)}").collect():
                name = f"{_quoted(catalog)}.{_quoted(row.name)}"
                yield f"SCHEMA {name}", f"CREATE SCHEMA IF NOT EXISTS {name}"

    def _tables(self, schema: str, text: bytes) -> Iterator[tuple[str, str]]:
        for table in self._spark.catalog.listTables(schema):
            if table.isTemporary:
                continue
            name = f"{schema}.{_quoted(table.name)}"
            key = f"{'VIEW' if table.tableType == 'VIEW' else 'TABLE'} {name}"
            # Describing a table takes milliseconds, and most have not changed.
            known = None if table.name.lower().encode() in text else self._definitions.get(key)
            yield key, known or self._definition(name)

    def _definition(self, name: str) -> str:
        """Return the statement that defines a table or view again."""
        facts = {row.col_name: row.data_type for row in self._spark.sql(f"DESCRIBE EXTENDED {name}").collect()}
        if facts["Type"] == "VIEW":
            return f"CREATE OR REPLACE VIEW {name} AS {facts['View Text']}"
        statement = f"CREATE TABLE {name}"
        columns = self._spark.catalog.listColumns(name)
        # A Delta table's own log has its columns.
        if facts["Provider"] != "delta":
            statement += f" ({', '.join(f'{_quoted(column.name)} {column.dataType}' for column in columns)})"
        statement += f" USING {facts['Provider']}"
        options = dict(_PROPERTY.findall(facts.get("Table Properties", "")))
        if options and facts["Provider"] != "delta":
            statement += f" OPTIONS ({', '.join(f'{name} {literal(value)}' for name, value in options.items())})"
        partitions = [_quoted(column.name) for column in columns if column.isPartition]
        if partitions and facts["Provider"] != "delta":
            statement += f" PARTITIONED BY ({', '.join(partitions)})"
        return f"{statement} LOCATION {literal(facts['Location'])}"


def _quoted(name: str) -> str:
    return f"`{name}`"

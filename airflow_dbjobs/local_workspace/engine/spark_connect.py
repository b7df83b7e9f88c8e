"""A Spark Connect server for the programs of a workspace, by Sail or by Apache Spark."""

from __future__ import annotations

import itertools
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from .spark_catalog import SessionCatalog, SharedCatalog, may_define, unknown_catalog, use_statements

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from socket import socket

#: A call occupies a thread while it lasts; threads start when they are needed.
_MAX_CALLS = 512
_OPTIONS = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1), ("grpc.so_reuseport", 0))
#: After how long Sail forgets an idle session. Its own 15 minutes are less than a task may compute between two queries.
_SESSION_SECONDS = 7 * 24 * 3600
_LOST = (
    "[INVALID_HANDLE.SESSION_CHANGED] The Spark server of the local workspace has been restarted, and the session of "
    "this program ended with it: its temporary views and settings are lost, saved tables are not. Run the task again."
)
_NO_CATALOG = (
    "[NO_SUCH_CATALOG_EXCEPTION] The local workspace has no catalog {0!r}. Start it with --spark-catalogs {0}."
)


def serve(engine: str, folder: Path, listener: socket, catalogs: Sequence[str]) -> None:
    """Serve in place of a listening socket, with the tables in `folder`; does not return.

    Programs that have connected to the socket wait, and connect again when it is closed. The first of `catalogs` is the
    default one.
    """
    if engine == "sail":
        _serve_sail(folder, listener, catalogs)
    else:
        _serve_apache_spark(folder, listener)


def _serve_apache_spark(folder: Path, listener: socket) -> None:
    """Start a JVM with Spark Connect, which ends with this process."""
    os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
    from pyspark.sql import SparkSession

    port = _port_of(listener)
    settings = {
        "spark.plugins": "org.apache.spark.sql.connect.SparkConnectPlugin",
        "spark.connect.grpc.binding.address": "127.0.0.1",
        "spark.connect.grpc.binding.port": port,
        "spark.ui.enabled": "false",
        "spark.sql.warehouse.dir": folder / "warehouse",
        # Otherwise in the folder in which the workspace was started.
        "spark.driver.extraJavaOptions": f"-Dderby.stream.error.file={folder / 'derby.log'}",
        # Where the names of tables are kept.
        "spark.hadoop.javax.jdo.option.ConnectionURL": f"jdbc:derby:;databaseName={folder / 'metastore'};create=true",
    }
    builder = SparkSession.builder.master("local[*]").enableHiveSupport()
    for name, value in settings.items():
        builder = builder.config(name, str(value))
    builder.getOrCreate()
    threading.Event().wait()


def _serve_sail(folder: Path, listener: socket, catalogs: Sequence[str]) -> None:
    """Start Sail, and a proxy in front of it.

    The proxy does what Sail leaves to others: sessions share their tables, tables are Delta tables by default, as on
    Databricks, and a session that ended with an earlier server is reported as lost.
    """
    empty = (f'{{name="{name}", type="memory", initial_database=["default"]}}' for name in catalogs)
    os.environ["SAIL_CATALOG__LIST"] = f"[{', '.join(empty)}]"
    os.environ["SAIL_CATALOG__DEFAULT_CATALOG"] = catalogs[0]
    os.environ["SAIL_SPARK__SESSION_TIMEOUT_SECS"] = str(_SESSION_SECONDS)
    import grpc
    from pysail.spark import SparkConnectServer

    sail = SparkConnectServer()
    sail.start(background=True)
    server = grpc.server(ThreadPoolExecutor(_MAX_CALLS), options=_OPTIONS)
    server.add_generic_rpc_handlers([Proxy(folder, "{}:{}".format(*sail.listening_address), catalogs)])
    server.add_insecure_port(f"127.0.0.1:{_port_of(listener)}")
    server.start()
    server.wait_for_termination()


def _port_of(listener: socket) -> int:
    """Return the port of a socket, which is closed so that the port is free."""
    port: int = listener.getsockname()[1]
    listener.close()
    return port


class Proxy:
    """Passes calls on to the server at `address`: a handler of gRPC."""

    def __init__(self, folder: Path, address: str, catalogs: Sequence[str]) -> None:
        import grpc
        from pyspark.sql.connect.proto import base_pb2

        methods = base_pb2.DESCRIPTOR.services_by_name["SparkConnectService"].methods
        self._requests = {method.name: getattr(base_pb2, method.input_type.name) for method in methods}
        self._warehouse = folder / "warehouse"
        self._address = address
        self._names = catalogs
        self._channel = grpc.insecure_channel(address, options=_OPTIONS)
        self._shared = SharedCatalog(folder / "catalog.json")
        self._sessions: dict[str, SessionCatalog] = {}
        self._lock = threading.Lock()

    def service(self, call: Any) -> Any:
        """Return what handles a call."""
        import grpc

        name = call.method.rpartition("/")[2]
        if name not in self._requests:
            return None

        def handle(messages: Iterator[bytes], context: Any) -> Iterator[bytes]:
            first = next(messages)
            request = self._requests[name].FromString(first)
            catalog = self._catalog(name, request, context)
            if name == "ExecutePlan":
                first = self._adapted(request, first, catalog, context)
            # On the wire, a call with one message or answer is a stream of one.
            upstream = self._channel.stream_stream(call.method)(itertools.chain([first], messages))
            context.add_callback(upstream.cancel)
            try:
                if name == "ExecutePlan" and _may_define(request):
                    answers = list(upstream)
                    self._shared.record(catalog, first)
                    yield from answers
                else:
                    yield from upstream
            except grpc.RpcError as error:
                context.set_trailing_metadata(error.trailing_metadata())
                context.abort(error.code(), error.details())
            if name == "ReleaseSession":
                self._sessions.pop(request.session_id).close()

        return grpc.stream_stream_rpc_method_handler(handle)

    def _adapted(self, request: Any, data: bytes, catalog: SessionCatalog, context: Any) -> bytes:
        """Return a request, whose bytes are `data`, as Sail takes it."""
        import grpc

        sql: Any = request.plan.command.sql_command.input.sql
        use = use_statements(sql.query)
        if unknown := unknown_catalog(data, use, self._names):
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, _NO_CATALOG.format(unknown))
        if use:
            # Of several statements that Sail takes instead, the request becomes the last.
            for statement in use[:-1]:
                catalog.execute(statement)
            sql.query = use[-1]
            data = request.SerializeToString()
        return data

    def _catalog(self, name: str, request: Any, context: Any) -> SessionCatalog:
        """Return the catalog of the session that a request belongs to, with what other sessions have defined."""
        import grpc

        with self._lock:
            catalog = self._sessions.get(request.session_id)
            if catalog is None:
                # A release does not say that it belongs to a session, and may come first after a restart.
                if name == "ReleaseExecute" or request.client_observed_server_side_session_id:
                    context.abort(grpc.StatusCode.FAILED_PRECONDITION, _LOST)
                catalog = self._sessions[request.session_id] = self._new_session(request)
        self._shared.update(catalog)
        return catalog

    def _new_session(self, request: Any) -> SessionCatalog:
        from pyspark.sql import SparkSession

        session = SparkSession.builder.remote(f"sc://{self._address}/;session_id={request.session_id}").create()
        session.conf.set("spark.sql.warehouse.dir", str(self._warehouse))
        session.conf.set("spark.sql.sources.default", "delta")
        return SessionCatalog(session, self._names)


def _may_define(request: Any) -> bool:
    """Return whether a plan may define or drop what sessions share: a query does not."""
    plan = request.plan
    if plan.HasField("root"):
        return bool(plan.root.HasField("catalog"))
    if plan.command.WhichOneof("command_type") == "sql_command":
        return may_define(plan.SerializeToString())
    return True

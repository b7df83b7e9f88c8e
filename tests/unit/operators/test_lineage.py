"""What OpenLineage needs to know, in the payloads of launches; the provider's part is played here, or its own."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from airflow_context import Scene, run_now, submit

from airflow_dbjobs.airflow_compat import lineage as compat
from airflow_dbjobs.airflow_compat import redact
from airflow_dbjobs.errors import BadRequest
from airflow_dbjobs.local_workspace import Fault
from airflow_dbjobs.operators import lineage
from airflow_dbjobs.operators.lineage import with_job_context, with_lineage
from airflow_dbjobs.payloads.job_parameters import size_of
from airflow_dbjobs.payloads.rules.parameters import MAX_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow_dbjobs.client import JobsClient

CONTEXT = "OPENLINEAGE_CONTEXT"
KEY = "the-key-of-the-lineage-server"
SPARK_PARENT = {"spark.openlineage.parentRunId": "try-1", "spark.openlineage.rootParentRunId": "dag-run"}
API_KEY = "spark.openlineage.transport.auth.apiKey"
SPARK_TRANSPORT = {"spark.openlineage.transport.type": "http", API_KEY: f"Bearer {KEY}"}
PARENT = {"openlineage_inject_parent_job_info": True}
BOTH = {**PARENT, "openlineage_inject_transport_info": True}


def context_of(try_number: int) -> str:
    return json.dumps({"parent": {"job": {"name": "nightly.load"}, "run": {"runId": f"try-{try_number}"}}})


@pytest.fixture(autouse=True)
def _provider(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the provider be there, and know what it would."""
    monkeypatch.setattr(lineage, "is_openlineage_listening", lambda: True)
    monkeypatch.setattr(lineage, "parent_context", lambda context: context_of(context["ti"].try_number))
    monkeypatch.setattr(lineage, "parent_properties", lambda _: SPARK_PARENT)
    monkeypatch.setattr(lineage, "transport_properties", lambda _: (SPARK_TRANSPORT, (KEY,)))


@pytest.fixture
def add(scene: Scene, client: JobsClient) -> Callable[..., dict[str, Any]]:
    """Return what adds the parent to the body of a submit, and the transport if a test wants that."""

    def added(payload: dict[str, Any], *, parent: bool = True, transport: bool = False) -> dict[str, Any]:
        return with_lineage(payload, client, scene.context, parent=parent, transport=transport)

    return added


class TestParameters:
    @pytest.mark.parametrize(
        ("kind", "field"),
        [
            ("notebook_task", "base_parameters"),
            ("python_wheel_task", "named_parameters"),
            ("sql_task", "parameters"),
            ("run_job_task", "job_parameters"),
        ],
    )
    def test_get_the_context_next_to_what_they_hold(self, add: Any, kind: str, field: str) -> None:
        task = {"task_key": "a", kind: {field: {"day": "monday"}}}
        filled = {"task_key": "a", kind: {field: {"day": "monday", CONTEXT: context_of(1)}}}
        assert add({kind: {}}) == {kind: {field: {CONTEXT: context_of(1)}}}
        assert add({"tasks": [task]}) == {"tasks": [filled]}
        loop = {"task_key": "loop", "for_each_task": {"inputs": "[1]", "task": task}}
        assert add({"tasks": [loop]})["tasks"][0]["for_each_task"] == {"inputs": "[1]", "task": filled}

    @pytest.mark.parametrize(
        "task",
        [
            {"spark_python_task": {"python_file": "/a.py", "parameters": ["x"]}},
            {"python_wheel_task": {"parameters": ["x"]}},
            {"run_job_task": {"job_id": 1, "notebook_params": {"x": "y"}}},
            {"notebook_task": {"base_parameters": {CONTEXT: "my own"}}},
            {"notebook_task": {"base_parameters": {"spark.openlineage.context": "my own"}}},
            {"notebook_task": {"base_parameters": "{{job.parameters.all}}"}},
            {"notebook_task": "{{ not.a.mapping }}"},
        ],
        ids=str,
    )
    def test_that_leave_no_room_for_it_are_kept(self, add: Any, task: dict[str, Any]) -> None:
        assert add({"tasks": [task]}) == {"tasks": [task]}

    def test_of_a_job_are_kept_if_they_would_be_too_large(self, add: Any, caplog: pytest.LogCaptureFixture) -> None:
        large = {"x": "y" * (MAX_BYTES - 100)}
        assert size_of(large) < MAX_BYTES
        task = {"run_job_task": {"job_id": 1, "job_parameters": large}}
        assert add(task) == task
        assert "No OpenLineage parent is added to job_parameters" in caplog.text
        notebook = {"notebook_task": {"base_parameters": large}}
        assert CONTEXT in add(notebook)["notebook_task"]["base_parameters"]


class TestClusters:
    def test_get_properties_wherever_a_new_one_is(self, add: Any) -> None:
        def payload(cluster: dict[str, Any]) -> dict[str, Any]:
            inner = {"task_key": "inner", "new_cluster": cluster}
            return {
                "new_cluster": cluster,
                "tasks": [{"new_cluster": cluster}, {"for_each_task": {"task": inner}}, {"existing_cluster_id": "1"}],
                "job_clusters": [{"job_cluster_key": "small", "new_cluster": cluster}],
            }

        given = payload({"num_workers": 1, "spark_conf": {"spark.x": "y"}})
        expected = payload({"num_workers": 1, "spark_conf": {"spark.x": "y", **SPARK_PARENT, **SPARK_TRANSPORT}})
        before = json.dumps(given)
        assert add(given, transport=True) == expected
        assert json.dumps(given) == before

    def test_keep_what_they_say_of_the_parent_or_of_the_transport(self, add: Any) -> None:
        parent, transport = {"spark.openlineage.parentJobName": "mine"}, {"spark.openlineage.transport.type": "console"}

        def properties(own: dict[str, str]) -> Any:
            return add({"new_cluster": {"spark_conf": own}}, transport=True)["new_cluster"]["spark_conf"]

        assert properties(parent) == {**parent, **SPARK_TRANSPORT}
        assert properties(transport) == {**transport, **SPARK_PARENT}
        assert properties({**parent, **transport}) == {**parent, **transport}

    def test_get_only_the_transport_of_a_kept_job(self, add: Any) -> None:
        notebook = {"notebook_path": "/a"}
        job = {"tasks": [{"notebook_task": notebook}], "job_clusters": [{"new_cluster": {"num_workers": 1}}]}
        made = add(job, parent=False, transport=True)
        assert made["tasks"] == [{"notebook_task": notebook}]
        assert made["job_clusters"] == [{"new_cluster": {"num_workers": 1, "spark_conf": SPARK_TRANSPORT}}]

    @pytest.mark.parametrize("cluster", [{"num_workers": 1}, {"spark_conf": "{{ a.template }}"}, "{{ a.template }}"])
    def test_are_kept_if_there_is_nothing_to_add_or_nowhere(self, add: Any, cluster: Any) -> None:
        assert add({"new_cluster": cluster}, parent=False) == {"new_cluster": cluster}
        if "num_workers" not in cluster:
            assert add({"new_cluster": cluster}) == {"new_cluster": cluster}


class TestRunNow:
    def test_gets_the_context_among_its_job_parameters(self, scene: Scene, client: JobsClient) -> None:
        made = with_job_context({"job_id": 1, "job_parameters": {"day": "monday"}}, client, scene.context)
        assert made == {"job_id": 1, "job_parameters": {"day": "monday", CONTEXT: context_of(1)}}

    @pytest.mark.parametrize(
        "given",
        [{"notebook_params": {"x": "y"}}, {"dbt_commands": ["dbt run"]}, {"job_parameters": {CONTEXT: "my own"}}],
        ids=lambda given: next(iter(given)),
    )
    def test_is_unchanged_where_it_has_other_parameters(self, scene: Scene, client: JobsClient, given: Any) -> None:
        assert with_job_context(given, client, scene.context) == given

    def test_is_unchanged_with_api_2_0(self, scene: Scene, client: JobsClient) -> None:
        client.api_version = "2.0"
        assert with_job_context({"job_id": 1}, client, scene.context) == {"job_id": 1}


class TestProvider:
    def test_that_does_not_listen_changes_nothing_and_is_named_once(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr(lineage, "is_openlineage_listening", compat.is_openlineage_listening)
        scene.run_task(lambda: submit(notebook_task=scene.notebook(gated=False), **BOTH))
        (sent,) = scene.sent
        assert CONTEXT not in json.dumps(sent)
        assert caplog.text.count("apache-airflow-providers-openlineage") == 1

    def test_that_fails_prevents_no_launch(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def fail(_: Any) -> None:
            raise KeyError("namespace")

        for name in ("parent_context", "parent_properties", "transport_properties"):
            monkeypatch.setattr(lineage, name, fail)
        cluster = {"spark_version": "15.4.x-scala2.12", "num_workers": 1, "node_type_id": "i3.xlarge"}
        notebook = scene.notebook(gated=False)
        scene.run_task(lambda: submit(notebook_task=notebook, new_cluster=cluster, **BOTH))
        (sent,) = scene.sent
        assert (sent["notebook_task"], sent["new_cluster"]) == (notebook, cluster)
        assert "the transport is not added to the payload: KeyError('namespace')" in caplog.text

    def test_is_not_needed_by_a_task_without_the_flags(self, scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lineage, "is_openlineage_listening", lambda: pytest.fail("asked"))
        scene.run_task(lambda: submit(notebook_task=scene.notebook(gated=False)))
        assert len(scene.sent) == 1


class TestOperators:
    def test_keep_their_own_fields_which_airflow_shows(self, scene: Scene, deferrable: bool) -> None:
        cluster = {"spark_version": "15.4.x-scala2.12", "num_workers": 1, "node_type_id": "i3.xlarge"}
        notebook, made = scene.notebook(gated=False), []

        def make() -> Any:
            made.append(submit(notebook_task=notebook, new_cluster=cluster, deferrable=deferrable, **BOTH))
            return made[-1]

        scene.run_task(make)
        (sent,) = scene.sent
        assert sent["new_cluster"]["spark_conf"] == {**SPARK_PARENT, **SPARK_TRANSPORT}
        assert sent["notebook_task"]["base_parameters"] == {CONTEXT: context_of(1)}
        assert [(operator.notebook_task, operator.new_cluster) for operator in made] == [(notebook, cluster)] * len(
            made
        )

    def test_show_no_secret_of_the_transport_if_the_api_repeats_it(self, scene: Scene) -> None:
        body = {"error_code": "INVALID_PARAMETER_VALUE", "message": f"spark_conf: {KEY} is not allowed"}
        scene.workspace.faults.append(Fault("runs/submit", status=400, body=body))
        with pytest.raises(BadRequest) as refusal:
            scene.run_task(lambda: submit(notebook_task=scene.notebook(gated=False), **BOTH))
        assert "spark_conf: *** is not allowed" in str(refusal.value)
        assert KEY not in repr(refusal.value)

    def test_send_the_parent_again_with_a_repair(self, scene: Scene, client: JobsClient) -> None:
        code = f"print(dbutils.widgets.get('{CONTEXT}'), file=open('parents', 'a')); raise ValueError"
        tasks = [{"task_key": "a", "notebook_task": scene.notebook(code, gated=False)}]
        job_id = client.create_job({"name": "nightly", "tasks": tasks})
        with pytest.raises(Exception, match="ValueError"):
            scene.run_task(lambda: run_now(job_id=job_id, repair_run=True, **PARENT))
        assert (scene.root / "parents").read_text().splitlines() == [context_of(1)] * 2

    @pytest.mark.parametrize("flags", [PARENT, {}], ids=["on", "off"])
    def test_say_whose_parent_a_joined_run_carries(
        self, scene: Scene, caplog: pytest.LogCaptureFixture, flags: Any
    ) -> None:
        caplog.set_level(logging.INFO)
        scene.ti.max_tries = 1
        notebook = scene.notebook()
        run_id = scene.lose_worker(lambda: submit(notebook_task=notebook, **PARENT))
        scene.next_try()
        scene.open_gate()
        scene.run_task(lambda: submit(notebook_task=notebook, **flags))
        assert scene.ti.xcom["run_id"] == run_id
        expected = f"Run {run_id} names as its OpenLineage parent nightly.load (try-1), the try that launched it."
        assert (expected in caplog.text) == bool(flags)

    def test_say_it_of_a_joined_run_of_a_job_too(
        self, scene: Scene, client: JobsClient, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        scene.ti.max_tries = 1
        tasks = [{"task_key": "a", "notebook_task": scene.notebook()}]
        job_id = client.create_job({"name": "nightly", "tasks": tasks})
        scene.lose_worker(lambda: run_now(job_id=job_id, **PARENT))
        scene.next_try()
        scene.open_gate()
        scene.run_task(lambda: run_now(job_id=job_id, **PARENT))
        assert "nightly.load (try-1), the try that launched it." in caplog.text


class TestCompat:
    """The part that calls the provider, with the provider's own functions."""

    @pytest.fixture(autouse=True)
    def _provider(self) -> None:
        pytest.importorskip("airflow.providers.openlineage", reason="The OpenLineage provider is not installed")

    @pytest.mark.parametrize(
        ("conf", "facets"),
        [
            ({}, "DAG"),
            ({"parentRunId": "x", "rootParentJobType": {"jobType": "FLOW"}}, "FLOW"),
            ({"parentRunId": "x"}, None),
        ],
    )
    def test_the_type_of_the_root_is_as_the_conf_of_the_dag_run_tells(
        self, conf: dict[str, Any], facets: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.providers.openlineage.plugins import macros

        inherited = bool(conf)
        names = {
            "lineage_job_namespace": lambda: "production",
            "lineage_job_name": lambda ti: f"{ti.dag_id}.{ti.task_id}",
            "lineage_run_id": lambda _: "task-run",
            "lineage_root_job_namespace": lambda _: "elsewhere" if inherited else "production",
            "lineage_root_job_name": lambda ti: "flow" if inherited else ti.dag_id,
            "lineage_root_run_id": lambda _: "root-run",
        }
        for name, macro in names.items():
            monkeypatch.setattr(macros, name, macro, raising=False)
        ti = SimpleNamespace(dag_id="nightly", task_id="load")
        context: Any = {"ti": ti, "dag_run": SimpleNamespace(conf={"openlineage": conf} if conf else None)}
        parent = json.loads(compat.parent_context(context))["parent"]
        assert parent["run"] == {"runId": "task-run"}
        assert parent["job"]["name"] == "nightly.load"
        root = parent["root"]
        assert root["run"] == {"runId": "root-run"}
        found = root["job"].get("facets", {}).get("jobType", {}).get("jobType")
        assert found == facets

    def test_secrets_of_the_transport_are_masked_and_have_no_repr(
        self, scene: Scene, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from airflow.providers.openlineage.utils import spark

        nested = "spark.openlineage.transport.transports.main"
        properties = {
            f"{nested}.type": "http",
            f"{nested}.url": "https://user:pass-of-the-url@lineage.example",
            f"{nested}.auth.type": "api_key",
            f"{nested}.auth.apiKey": f"Bearer {KEY}",
            f"{nested}.headers.X-Tenant-Key": "key-of-the-tenant",
        }
        monkeypatch.setattr(spark, "inject_transport_information_into_spark_properties", lambda *_: dict(properties))
        found, secrets = compat.transport_properties(scene.context)
        assert json.loads(json.dumps(found)) == properties
        assert set(secrets) >= {KEY, f"Bearer {KEY}", "key-of-the-tenant", "pass-of-the-url"}
        for secret in (KEY, "key-of-the-tenant", "pass-of-the-url"):
            assert secret not in repr((found, secrets))
            assert redact(f"spark_conf has {secret}") == "spark_conf has ***"
        assert redact("api_key http") == "api_key http"

    def test_a_run_is_the_external_query_of_its_task(self, scene: Scene, deferrable: bool) -> None:
        made: list[Any] = []

        def make() -> Any:
            made.append(submit(notebook_task=scene.notebook(gated=False), deferrable=deferrable))
            return made[-1]

        scene.run_task(make)
        query = made[-1].get_openlineage_facets_on_complete(None).run_facets["externalQuery"]
        assert (query.externalQueryId, query.source) == (str(scene.ti.xcom["run_id"]), scene.ti.xcom["run_page_url"])

    def test_a_task_without_a_run_has_none(self) -> None:
        operator = submit(notebook_task={"notebook_path": "/a"})
        assert operator.get_openlineage_facets_on_complete(None).run_facets == {}

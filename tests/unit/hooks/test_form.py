"""The connection's form: made of the table of fields, valid for Airflow, and read as it is filled in."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_dbjobs.airflow_compat import AIRFLOW_V_3_0_PLUS
from airflow_dbjobs.hooks import DatabricksJobsHook
from airflow_dbjobs.hooks.extra import remarks, scheme_of
from airflow_dbjobs.hooks.fields import FIELDS, SCHEMES, SECTIONS, Field
from airflow_dbjobs.hooks.form import conn_fields, form_widgets

if TYPE_CHECKING:
    from airflow_dbjobs.client import JobsClient

SHOWN = [field for field in FIELDS if field.kind != "flag"]
BY_NAME = {field.name: field for field in FIELDS}
_YAML_SCHEMA = Path(airflow.__file__).parent / "provider.yaml.schema.json"
# Airflow 3.2 is the first that knows `conn-fields`.
HAS_CONN_FIELDS = _YAML_SCHEMA.exists() and "conn-fields" in _YAML_SCHEMA.read_text()
needs_conn_fields = pytest.mark.skipif(not HAS_CONN_FIELDS, reason="this Airflow asks the hook for the form")

SECRET = "dapi-a-very-secret-token"
LOGIN = {"login": "an-id", "password": SECRET}
# What is typed into the form, where the kind of the field does not tell it.
TYPED: dict[str, Any] = {
    "workspace_id": "605",
    "k8s_api_url": "https://something-else",
    "auth_type": "token",
    "api_version": "2.1",
    "host": "adb-2.example",
    "federated_token_provider": "a.b",
    "azure_ad_endpoint": "https://login.microsoftonline.us",
    "verify": "no",
    "proxies": {"https": "http://proxy.example:3128"},
    "sdk_config": {"profile": "production"},
}
# What else must be given for a field to be read.
BESIDE = {"client_key": {"client_cert": "/a.pem"}}


class TestForm:
    def test_has_all_fields_but_flags_that_auth_type_replaces(self) -> None:
        assert list(conn_fields()) == [field.name for field in SHOWN]
        marks = {scheme.mark for scheme in SCHEMES}
        assert {field.name for field in FIELDS if field.kind == "flag"} <= marks

    def test_begins_with_the_most_used_fields(self) -> None:
        assert list(conn_fields())[:4] == ["auth_type", "api_version", "token", "host"]
        sections = [entry["schema"]["section"] for entry in conn_fields().values()]
        assert list(dict.fromkeys(sections)) == list(SECTIONS)

    @needs_conn_fields
    def test_is_valid_by_airflows_schema(self) -> None:
        kinds = json.loads(_YAML_SCHEMA.read_text())["properties"]["connection-types"]["items"]["properties"]
        jsonschema.validate(conn_fields(), kinds["conn-fields"])

    @pytest.mark.parametrize("field", SHOWN, ids=lambda field: field.name)
    def test_has_a_label_help_and_default_for_each_field(self, field: Field) -> None:
        entry = conn_fields()[field.name]
        assert entry["label"] == field.title
        assert field.help in entry["description"]
        schema = entry["schema"]
        assert schema["type"][1] == "null"
        assert (schema.get("format") == "password") == (field.kind == "secret")
        # A value that is there from the start would be saved by whoever saves the form.
        assert ("default" in schema) == field.empty_counts
        shown_default = schema.get("default") or entry["description"].partition(" Default: ")[2].removesuffix(".")
        assert shown_default == field.default

    def test_hides_the_token(self) -> None:
        assert conn_fields()["token"]["schema"]["format"] == "password"

    def test_offers_each_authentication_scheme_with_its_meaning(self) -> None:
        schema = conn_fields()["auth_type"]["schema"]
        assert set(schema["values_display"]) == set(schema["enum"])
        for name in schema["enum"]:
            assert schema["values_display"][name].startswith(f"{name}: ")
            assert scheme_of(
                "an-id", SECRET, {"auth_type": name, "client_id": "c", "azure_tenant_id": ""} | _needs(name)
            )

    @needs_conn_fields
    def test_is_shown_by_airflow(self) -> None:
        widgets = ProvidersManager().connection_form_widgets
        ours = {name: widget for name, widget in widgets.items() if name.startswith("extra__databricks_jobs__")}
        assert [widget.field_name for widget in ours.values()] == [field.name for field in SHOWN]
        assert [widget.field_name for widget in ours.values() if widget.is_sensitive] == ["token"]
        assert ours["extra__databricks_jobs__aws_conn_id"].field["value"] == "aws_default"


# Airflow 2's libraries warn when they are imported.
warns = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def forms(monkeypatch: pytest.MonkeyPatch) -> str:
    """Let there be the libraries that Airflow 2 has for forms, or what Airflow 3 puts in their place."""
    if not AIRFLOW_V_3_0_PLUS:
        return "wtforms"
    from airflow.api_fastapi.core_api.services.ui.connections import HookMetaService as Standing

    def module(name: str, **content: Any) -> None:
        made = ModuleType(name)
        vars(made).update(content)
        monkeypatch.setitem(sys.modules, name, made)

    module("flask_appbuilder")
    module(
        "flask_appbuilder.fieldwidgets",
        BS3TextFieldWidget=Standing.MockAnyWidget,
        BS3PasswordFieldWidget=Standing.MockAnyWidget,
    )
    module("wtforms", StringField=Standing.MockStringField, PasswordField=Standing.MockPasswordField)
    module("wtforms.validators", Optional=Standing.MockOptional, any_of=Standing.MockEnum)
    return "stand-ins"


LEFT_TO_THE_JSON = {
    "proxies", "sdk_config", "aws_conn_id", "verify", "retry_budget", "server_error_wait", "outage_tolerance",
    "denied_tolerance",
}  # fmt: skip


# What Airflow 2's view of connections does with a form.
_EDITING = """
import html, json, re, sys
from types import SimpleNamespace
from airflow.hooks.base import BaseHook
from airflow.www.views import ConnectionModelView
from airflow_dbjobs.hooks.form import form_widgets
from werkzeug.datastructures import MultiDict
from wtforms import Form, StringField

extra, edits = json.loads(sys.stdin.read())
BaseHook.get_connection = classmethod(lambda *_: SimpleNamespace(extra_dejson=extra))
prefix = "extra__databricks_jobs__"
ours = {prefix + name: field for name, field in form_widgets().items()}
Edit = type("Edit", (Form,), {name: StringField() for name in ("conn_id", "conn_type", "extra")} | ours)
metadata = [(key, key.removeprefix(prefix), key == prefix + "token") for key in ours]
view = SimpleNamespace(_iter_extra_field_names_and_sensitivity=lambda: iter(metadata))

def page(form):
    return "".join(str(field()) for field in form)

def sent(page, typed):
    inputs = [dict(re.findall('(name|value)="([^"]*)"', shown)) for shown in re.findall("<input.*?>", page)]
    values = {shown["name"]: html.unescape(shown["value"]) for shown in inputs}
    return Edit(MultiDict(values | {prefix + name: value for name, value in typed.items()}))

done = []
for typed in edits:
    form = Edit(data={"conn_id": "x", "conn_type": "databricks_jobs", "extra": json.dumps(extra)})
    ConnectionModelView.prefill_form(view, form, 1)
    first = page(form)
    form = sent(first, typed)
    if not form.validate():
        # It is shown again.
        form = sent(page(form), {"api_version": "2.1"})
    assert form.validate(), form.errors
    ConnectionModelView.process_form(view, form, False)
    done.append([first, json.loads(form.extra.data)])
print(json.dumps(done))
"""


def _needs(name: str) -> dict[str, str]:
    scheme = next((scheme for scheme in SCHEMES if scheme.name == name), None)
    return {field: "a.b" for field in scheme.needs if field in BY_NAME} if scheme else {}


def _beside(field: Field) -> dict[str, Any]:
    """Return the other fields with which this one is read."""
    given: dict[str, Any] = dict(BESIDE.get(field.name, {}))
    scheme = next((scheme for scheme in SCHEMES if field.name in scheme.extras), None)
    if scheme:
        given |= {"auth_type": scheme.name, **_needs(scheme.name)}
    given.pop(field.name, None)
    return given


def _typed(field: Field, *, as_text: bool) -> Any:
    value = TYPED.get(field.name, 7.5 if field.kind == "number" else "something-else")
    return json.dumps(value) if as_text and not isinstance(value, str) else value


def _client(extra: dict[str, Any]) -> JobsClient:
    written = {"extra": json.dumps(extra), "extra_dejson": extra, **LOGIN}
    connection = SimpleNamespace(conn_type="databricks_jobs", host="adb-1.example", schema="", port=None, **written)
    aws = SimpleNamespace(login=None, password=None, extra_dejson={})
    hook = DatabricksJobsHook()
    hook.get_connection = {hook.databricks_conn_id: connection, "aws_default": aws}.get  # type: ignore[method-assign]
    return hook.get_conn()


def _told(client: JobsClient) -> tuple[Any, ...]:
    rules = client.transport.policy, client.patience, client.max_requests_per_second
    return client.transport.identity, client.api_version, *rules


class TestFilledForm:
    @pytest.mark.parametrize("as_text", [False, True], ids=["as from 3.2 on", "as before"])
    @pytest.mark.parametrize(
        "field", [field for field in SHOWN if not field.empty_counts], ids=lambda field: field.name
    )
    def test_reaches_the_client_without_a_warning(self, field: Field, *, as_text: bool) -> None:
        beside = _beside(field)
        empty: Any = "" if as_text else None
        untouched = {other.name: empty for other in SHOWN if not other.empty_counts}
        extra = {**untouched, **beside, field.name: _typed(field, as_text=as_text)}
        if field.name in _needs(str(extra["auth_type"])):
            # Without it the client cannot be had.
            beside = {}
        assert _told(_client(extra)) != _told(_client(untouched | beside))
        assert remarks(scheme_of(**LOGIN, extra=extra), extra) == []

    @pytest.mark.parametrize(("empty", "empty_json"), [(None, None), ("", ""), (None, []), (None, {})], ids=repr)
    def test_ignores_empty_fields(self, empty: Any, empty_json: Any) -> None:
        untouched = {field.name: empty_json if field.kind == "object" else empty for field in SHOWN}
        untouched |= {field.name: field.default for field in SHOWN if field.empty_counts}
        assert _told(_client(untouched)) == _told(_client({}))
        assert remarks(scheme_of(**LOGIN, extra=untouched), untouched) == []

    @pytest.mark.parametrize("name", [scheme.name for scheme in SCHEMES])
    def test_ignores_empty_fields_in_every_scheme(self, name: str) -> None:
        given = {"auth_type": name, **_needs(name)}
        untouched = {field.name: field.default if field.empty_counts else None for field in SHOWN}
        assert _told(_client(untouched | given)) == _told(_client(given))


class TestFormOfAirflow2:
    @warns
    def test_has_the_same_fields_unless_it_would_spoil_them(self, forms: str) -> None:
        assert list(form_widgets()) == [field.name for field in SHOWN if field.name not in LEFT_TO_THE_JSON]
        assert list(DatabricksJobsHook.get_connection_form_widgets()) == list(form_widgets())

    @warns
    def test_lists_the_choices_and_hides_the_token(self, forms: str) -> None:
        widgets = form_widgets()
        if forms == "wtforms":
            from werkzeug.datastructures import MultiDict
            from wtforms import Form

            made = type("OurForm", (Form,), widgets)
            empty, wrong = made(MultiDict(dict.fromkeys(widgets, ""))), made(MultiDict({"api_version": "3.0"}))
            assert empty.validate()
            assert not wrong.validate()
            assert list(wrong.errors) == ["api_version"]
            assert empty["auth_type"].label.text == "Databricks: Auth type"
            assert "One of: token, azure_managed_identity, " in empty["auth_type"].description
            assert empty["token"].type == "PasswordField"
        else:
            shown = {name: widget.param.dump() for name, widget in widgets.items()}
            assert shown["api_version"]["schema"]["enum"] == ["2.0", "2.1", "2.2"]
            assert shown["auth_type"]["schema"]["title"] == "Databricks: Auth type"
            assert shown["token"]["schema"]["format"] == "password"
            assert {entry["value"] for entry in shown.values()} == {None}

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 2's form")
    def test_is_shown_by_airflow(self) -> None:
        # In a process of its own: the libraries warn, and Airflow remembers a hook that it could not import.
        code = (
            "from airflow.providers_manager import ProvidersManager\n"
            "widgets = ProvidersManager().connection_form_widgets.items()\n"
            "ours = [widget for name, widget in widgets if name.startswith('extra__databricks_jobs__')]\n"
            "print('\\n', *((widget.field_name, widget.is_sensitive) for widget in ours), sep=';')"
        )
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code], check=True, capture_output=True, text=True, timeout=120
        )
        shown = done.stdout.splitlines()[-1].removeprefix(";").split(";")
        assert shown == [
            str((field.name, field.name == "token")) for field in SHOWN if field.name not in LEFT_TO_THE_JSON
        ]

    @pytest.mark.skipif(AIRFLOW_V_3_0_PLUS, reason="Airflow 2's form")
    def test_saves_untouched_fields_unchanged(self) -> None:
        extra = {
            "token": SECRET,
            "host": "adb-1.example",
            "verify": False,
            "retry_budget": 0,
            "server_error_wait": 0,
            "outage_tolerance": 0,
            "denied_tolerance": 0,
            "read_timeout": "9",
            "proxies": {"https": "http://proxy.example:3128"},
            "aws_conn_id": "",
        }
        without_token = {name: value for name, value in extra.items() if name != "token"}
        edits: list[tuple[dict[str, str], dict[str, Any]]] = [
            ({}, extra),
            ({"host": "adb-2.example"}, {**extra, "host": "adb-2.example"}),
            ({"token": "another"}, {**extra, "token": "another"}),
            ({"token": ""}, without_token),
            # With a mistake first.
            ({"api_version": "3"}, {**extra, "api_version": "2.1"}),
            ({"api_version": "3", "token": "another"}, {**extra, "api_version": "2.1", "token": "another"}),
        ]
        # In a process of its own: the libraries warn.
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _EDITING],
            input=json.dumps([extra, [typed for typed, _ in edits]]),
            check=True,
            capture_output=True,
            text=True,
            timeout=120,
        )
        pages, saved = zip(*json.loads(done.stdout.splitlines()[-1]), strict=True)
        assert list(saved) == [expected for _, expected in edits]
        assert SECRET not in "".join(pages)

    def test_test_button_sends_fields_twice_without_a_warning(self) -> None:
        extra = {"retry_budget": "90", "extra__databricks_jobs__retry_budget": "90"}
        assert remarks(scheme_of(**LOGIN, extra=extra), extra) == []

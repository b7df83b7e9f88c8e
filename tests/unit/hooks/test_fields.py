"""fields: what a connection may say, which way to sign in its fields ask for, and what is said of the others."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from documentation import examples, table, text_of

from airflow_dbjobs.client.retry import MAX_REQUESTS_PER_SECOND, Patience, RetryPolicy
from airflow_dbjobs.client.workspace import API_VERSIONS, DEFAULT_API_VERSION
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.hooks.credentials import choose_auth
from airflow_dbjobs.hooks.extra import SETTINGS, is_on, remarks, scheme_of
from airflow_dbjobs.hooks.fields import BY_NAME, FIELDS, SCHEMES, SDK_AUTH_TYPES

SECRET = "dapi-very-secret"
PAIR: dict[str, Any] = {"login": "an-id", "password": SECRET}
NOBODY: dict[str, Any] = {"login": None, "password": None}
# What each scheme needs, at least.
LEAST: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "token": ({"login": None, "password": SECRET}, {}),
    "azure_managed_identity": (NOBODY, {"use_azure_managed_identity": True}),
    "azure_service_principal": (PAIR, {"azure_tenant_id": "t"}),
    "azure_default": (NOBODY, {"use_default_azure_credential": True}),
    "oauth": (PAIR, {"service_principal_oauth": True}),
    "federated_token_provider": (NOBODY, {"federated_token_provider": "a.b"}),
    "federated_aws": (NOBODY, {"federated_aws": True}),
    "federated_k8s": (NOBODY, {"federated_k8s": True, "client_id": "c"}),
    "federated_file": (NOBODY, {"federated_token_file": "/a"}),
    "federated_env": (NOBODY, {"federated_token_env": "A"}),
    "sdk": (NOBODY, {"auth_type": "sdk"}),
    "basic": (PAIR, {}),
}


class TestScheme:
    def test_has_an_example_in_this_test(self) -> None:
        assert list(LEAST) == [scheme.name for scheme in SCHEMES]

    @pytest.mark.parametrize("name", LEAST)
    def test_is_chosen_by_its_fields(self, name: str) -> None:
        fields, extra = LEAST[name]
        assert scheme_of(**fields, extra=extra).name == name
        assert remarks(BY_NAME[name], extra) == []

    @pytest.mark.parametrize("name", LEAST)
    def test_is_chosen_by_auth_type(self, name: str) -> None:
        fields, extra = LEAST[name]
        for asked in (name, *BY_NAME[name].aliases):
            assert scheme_of(**fields, extra={**extra, "auth_type": asked}).name == name
        # The mark, where it is nothing but one, may be left out.
        marks = {
            "use_azure_managed_identity",
            "use_default_azure_credential",
            "service_principal_oauth",
            "federated_aws",
        }
        bare = {field: value for field, value in extra.items() if field not in marks | {"federated_k8s"}}
        assert scheme_of(**fields, extra={**bare, "auth_type": name}).name == name

    @pytest.mark.parametrize(
        ("login", "password", "extra", "name"),
        [
            # The official provider's order, one step after the other.
            ("u", "p", {"token": "t", "azure_tenant_id": "t"}, "token"),
            (None, "p", {"azure_tenant_id": "t", "use_azure_managed_identity": True}, "token"),
            ("u", "p", {"azure_tenant_id": "t", "use_azure_managed_identity": True}, "azure_managed_identity"),
            (
                "u",
                "p",
                {"use_azure_managed_identity": True, "use_default_azure_credential": True},
                "azure_managed_identity",
            ),
            ("u", "p", {"use_default_azure_credential": True, "service_principal_oauth": True}, "azure_default"),
            ("u", "p", {"service_principal_oauth": True, "federated_token_provider": "a.b"}, "oauth"),
            ("u", "p", {"federated_token_provider": "a.b", "federated_aws": True}, "federated_token_provider"),
            ("federated_aws", None, {"federated_k8s": True, "client_id": "c"}, "federated_aws"),
            ("u", "p", {"federated_aws": True, "federated_k8s": True}, "federated_aws"),
            ("federated_k8s", None, {"client_id": "c"}, "federated_k8s"),
            ("u", "p", {"federated_k8s": True, "client_id": "c"}, "federated_k8s"),
            # What the official provider does not know comes before its last resort.
            ("u", "p", {"federated_token_file": "/a"}, "federated_file"),
            ("u", "p", {}, "basic"),
            # Nothing, as a form may write it.
            ("u", "p", {"azure_tenant_id": "", "service_principal_oauth": "false", "federated_k8s": False}, "basic"),
            ("u", "p", {"azure_tenant_id": None, "service_principal_oauth": "True"}, "oauth"),
        ],
    )
    def test_of_several_is_the_official_providers_first(
        self, login: str | None, password: str | None, extra: dict[str, Any], name: str
    ) -> None:
        assert scheme_of(login, password, extra).name == name

    @pytest.mark.parametrize(
        ("login", "password", "extra", "words"),
        [
            (None, None, {}, "no credentials: leave its login empty"),
            ("u", None, {}, "no credentials"),
            ("u", None, {"auth_type": "token"}, "no credentials"),
            (None, SECRET, {"auth_type": "basic"}, "authenticates by basic, but it lacks the login (a user's name)."),
            (
                None,
                None,
                {"service_principal_oauth": True},
                "lacks the login (the service principal's client id) and the password (an OAuth secret of it).",
            ),
            (
                "id",
                "",
                {"azure_tenant_id": "t"},
                "by azure_service_principal, but it lacks the password (a client secret",
            ),
            ("id", SECRET, {"auth_type": "azure_service_principal"}, "but it lacks extra azure_tenant_id."),
            (None, None, {"federated_k8s": True}, "by federated_k8s, but it lacks extra client_id."),
            (None, None, {"auth_type": "federated_file"}, "but it lacks extra federated_token_file."),
            (
                "id",
                SECRET,
                {"auth_type": "oath"},
                "auth_type is 'oath' (is oauth meant?); it must be one of token, azure_",
            ),
            (None, None, {"auth_type": "?"}, "auth_type is '?'; it must be one of"),
            (
                "id",
                SECRET,
                {"auth_type": "oauth", "azure_tenant_id": "t", "token": SECRET},
                "auth_type is 'oauth', which contradicts token and azure_tenant_id: remove one of them.",
            ),
            (None, SECRET, {"auth_type": "token", "federated_aws": True}, "'token', which contradicts federated_aws"),
        ],
    )
    def test_names_contradicting_and_missing_fields(
        self, login: str | None, password: str | None, extra: dict[str, Any], words: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            scheme_of(login, password, extra)
        assert words in str(caught.value)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize("name", SDK_AUTH_TYPES)
    def test_is_chosen_by_its_name_in_databricks_sdk(self, name: str) -> None:
        assert scheme_of(None, None, {"auth_type": name}).name == "sdk"


class TestFields:
    @pytest.mark.parametrize(
        ("name", "extra", "said"),
        [
            ("token", {"token": "t", "verify": False, "api_version": "2.1", "retry_budget": 5}, []),
            ("token", {"service_principal_oauth": True},
             ["it authenticates by token, and service_principal_oauth has no effect."]),
            ("token", {"service_principal_oauth": False, "azure_tenant_id": ""}, []),
            ("oauth", {"service_principal_oauth": True, "client_id": "c", "azure_resource_id": "/s"},
             ["it authenticates by oauth, and client_id and azure_resource_id have no effect."]),
            ("token", {"retry_limit": 3, "verifi": True, "retry_budgets": 3},
             ["extra retry_limit is unknown and ignored.", "extra verifi is unknown and ignored. Is verify meant?",
              "extra retry_budgets is unknown and ignored. Is retry_budget meant?"]),
            # Of the official provider's other hooks.
            ("token", {"http_path": "/sql", "session_configuration": {}}, []),
        ],
    )  # fmt: skip
    def test_without_effect_are_named(self, name: str, extra: dict[str, Any], said: list[str]) -> None:
        assert remarks(BY_NAME[name], extra) == said

    @pytest.mark.parametrize(
        ("value", "on"),
        [
            (True, True),
            ("true", True),
            ("1", True),
            (1, True),
            (False, False),
            ("False", False),
            ("", False),
            (None, False),
            (" no ", False),
            ("0", False),
        ],
    )
    def test_take_flags_as_json_or_as_the_form_writes_them(self, value: object, on: bool) -> None:
        assert is_on(value) is on

    def test_are_unique_and_have_a_title_and_help(self) -> None:
        names = [field.name for field in FIELDS]
        assert len(set(names)) == len(names)
        assert [field.name for field in FIELDS if not (field.title and field.help.endswith((".", "…")))] == []
        assert {extra for scheme in SCHEMES for extra in scheme.extras} <= set(names)
        assert {*SETTINGS, "max_requests_per_second", "api_version", "auth_type", "host"} <= set(names)

    def test_state_the_defaults_in_use(self) -> None:
        defaults = {field.name: field.default for field in FIELDS}
        for settings in (RetryPolicy(), Patience()):
            for name in SETTINGS.keys() & set(settings.__slots__):
                assert float(defaults[name]) == getattr(settings, name), name
        assert float(defaults["max_requests_per_second"]) == MAX_REQUESTS_PER_SECOND
        (version,) = [field for field in FIELDS if field.name == "api_version"]
        assert (version.choices, version.default) == (API_VERSIONS, DEFAULT_API_VERSION)

    def test_include_every_extra_of_the_official_provider(self) -> None:
        # `extra_parameters` of BaseDatabricksHook in the official provider 7.23.0, and what else it reads.
        official = """token host use_azure_managed_identity use_default_azure_credential
        azure_managed_identity_client_id azure_ad_endpoint azure_resource_id azure_tenant_id proxies
        service_principal_oauth federated_k8s federated_token_provider federated_aws aws_conn_id
        aws_jwt_audience aws_web_identity_token_duration k8s_token_path k8s_namespace_path
        k8s_projected_volume_token_path client_id audience expiration_seconds"""
        assert set(official.split()) <= {field.name for field in FIELDS}

    def test_load_nothing_heavy(self) -> None:
        heavy = {"requests", "pydantic", "tenacity", "airflow"}
        code = f"import sys, airflow_dbjobs.hooks.fields; print(*(set(sys.modules) & {heavy}))"
        done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
        assert done.stdout.strip() == ""


class TestDocumentation:
    def test_has_a_row_with_all_fields_for_each_scheme(self) -> None:
        rows = table("authentication", "`auth_type` |")
        assert [row[0].partition("`")[2].partition("`")[0] for row in rows] == [scheme.name for scheme in SCHEMES]
        for scheme, row in zip(SCHEMES, rows, strict=True):
            fields = scheme.extras - {scheme.name}
            assert {field for field in fields if f"`{field}`" not in " ".join(row[1:])} == set(), scheme.name
            assert (bool(row[2]), bool(row[3])) == (bool(scheme.login), bool(scheme.password)), scheme.name

    def test_connections_authenticate_and_have_no_unused_field(self) -> None:
        signs_in_by = []
        for block in (example for example in examples() if example.language == "json"):
            connection = json.loads(block.code)
            assert connection.keys() <= {"conn_type", "host", "login", "password", "extra"}
            login, password, extra = connection.get("login"), connection.get("password"), connection["extra"]
            scheme = scheme_of(login, password, extra)
            signs_in_by.append(scheme.name)
            assert remarks(scheme, extra) == []
            choose_auth(login=login, password=password, extra=extra, workspace=connection["host"])
        assert signs_in_by == ["oauth", "azure_service_principal", "federated_k8s", "federated_aws", "sdk"]

    def test_names_the_sdks_own_methods(self) -> None:
        page = text_of("authentication")
        assert [name for name in SDK_AUTH_TYPES if f"`{name}`" not in page] == []

"""auth: which fields mean which scheme, what is signed, and that no refusal shows a secret."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests

from airflow_dbjobs.auth import BasicAuth, BearerAuth, choose_auth
from airflow_dbjobs.errors import ConfigurationError

SECRET = "dapi-very-secret"


def header(auth: requests.auth.AuthBase) -> str:
    return str(requests.Request("GET", "https://x.example", auth=auth).prepare().headers["Authorization"])


@pytest.mark.parametrize(
    ("login", "password", "extra", "signed"),
    [
        (None, "p", {}, "Bearer p"),
        ("", " p\n", {}, "Bearer p"),
        (None, None, {"token": "t"}, "Bearer t"),
        ("user", "p", {"token": "t"}, "Bearer t"),
        ("user", "p", {}, "Basic " + base64.b64encode(b"user:p").decode()),
        # The official provider's order: a bare password is a token, whatever else the extra says.
        (None, "p", {"azure_tenant_id": "x"}, "Bearer p"),
        ("user", "p", {"service_principal_oauth": False}, "Basic " + base64.b64encode(b"user:p").decode()),
    ],
)
def test_the_fields_choose_the_scheme(
    login: str | None, password: str | None, extra: dict[str, Any], signed: str
) -> None:
    assert header(choose_auth(login=login, password=password, extra=extra)) == signed


@pytest.mark.parametrize(
    ("login", "password", "extra", "names"),
    [
        (None, None, {}, "no credentials"),
        ("user", None, {}, "no credentials"),
        ("", "", {"token": ""}, "no credentials"),
        ("client-id", SECRET, {"service_principal_oauth": True}, "service_principal_oauth"),
        ("client-id", SECRET, {"azure_tenant_id": "t"}, "azure_tenant_id"),
        (None, None, {"use_azure_managed_identity": True, "federated_k8s": True}, "_identity, federated_k8s"),
        (None, f"{SECRET}\nmore", {}, "the connection's password"),
        (None, f"{SECRET}ü", {}, "the connection's password"),
        ("us\ner", SECRET, {}, "the connection's login"),
        (None, None, {"token": f"{SECRET}\r\nX-Other: 1"}, "`token` in the connection's extra"),
    ],
)
def test_unusable_fields_are_refused_by_name_and_never_quoted(
    login: str | None, password: str | None, extra: dict[str, Any], names: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        choose_auth(login=login, password=password, extra=extra)
    assert names in str(caught.value)
    assert SECRET not in str(caught.value)


def test_equal_credentials_are_one_key_and_others_another() -> None:
    same = {BearerAuth("a"), BearerAuth("a"), BasicAuth("u", "a"), BasicAuth("u", "a")}
    assert len(same) == 2
    assert BearerAuth("a") != BearerAuth("b")
    assert BearerAuth("a") != BasicAuth("", "a")
    assert BasicAuth("u", "a") != BasicAuth("u", "b")

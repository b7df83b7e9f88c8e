"""auth: which fields mean which scheme, what is signed, and that no refusal shows a secret."""

from __future__ import annotations

import base64
from typing import Any

import pytest
import requests

from airflow_dbjobs.client.auth import BasicAuth, BearerAuth
from airflow_dbjobs.client.session import Network
from airflow_dbjobs.errors import ConfigurationError
from airflow_dbjobs.hooks.credentials import AwsConnection, choose_auth
from airflow_dbjobs.hooks.extra import network_from

SECRET = "dapi-very-secret"


def header(auth: requests.auth.AuthBase) -> str:
    return str(requests.Request("GET", "https://x.example", auth=auth).prepare().headers["Authorization"])


class TestScheme:
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
    def test_is_chosen_by_the_fields(
        self, login: str | None, password: str | None, extra: dict[str, Any], signed: str
    ) -> None:
        assert header(choose_auth(login=login, password=password, extra=extra)) == signed

    @pytest.mark.parametrize(
        ("login", "password", "extra", "names"),
        [
            (None, None, {}, "no credentials"),
            ("user", None, {}, "no credentials"),
            ("", "", {"token": ""}, "no credentials"),
            ("", "", {"auth_type": "token"}, "no credentials"),
            ("client-id", f"{SECRET}\n!", {"service_principal_oauth": True}, "the connection's password"),
            (None, SECRET, {"auth_type": "oauth"}, "lacks the login"),
            (
                "id",
                SECRET,
                {"azure_tenant_id": "t", "azure_ad_endpoint": "http://x"},
                "azure_ad_endpoint must be an https",
            ),
            (
                "id",
                SECRET,
                {"azure_tenant_id": "t", "azure_ad_endpoint": "https://"},
                "azure_ad_endpoint must be an https",
            ),
            (
                "id",
                SECRET,
                {"azure_tenant_id": "t", "azure_ad_endpoint": "https://[x"},
                "azure_ad_endpoint must be an https",
            ),
            (
                "id",
                SECRET,
                {"azure_tenant_id": "t", "azure_resource_id": "a\nb"},
                "extra azure_resource_id has a line break",
            ),
            (
                None,
                None,
                {"federated_k8s": True, "client_id": "c", "expiration_seconds": "1 h"},
                "expiration_seconds is '1 h'",
            ),
            (
                None,
                None,
                {"federated_aws": True, "aws_web_identity_token_duration": True},
                "_duration is True; it must be a",
            ),
            (None, None, {"auth_type": "sdk", "sdk_config": f"{{{SECRET}"}, "sdk_config must be a JSON object"),
            (None, None, {"auth_type": "sdk", "sdk_config": [SECRET]}, "sdk_config must be a JSON object"),
            (None, f"{SECRET}\nmore", {}, "the connection's password"),
            (None, f"{SECRET}ü", {}, "the connection's password"),
            ("us\ner", SECRET, {}, "the connection's login"),
            (None, None, {"token": f"{SECRET}\r\nX-Other: 1"}, "`token` in the connection's extra"),
        ],
    )
    def test_refusal_names_unusable_fields_and_quotes_no_secret(
        self, login: str | None, password: str | None, extra: dict[str, Any], names: str
    ) -> None:
        with pytest.raises(ConfigurationError) as caught:
            choose_auth(login=login, password=password, extra=extra)
        assert names in str(caught.value)
        assert SECRET not in str(caught.value)

    @pytest.mark.parametrize(
        ("login", "password", "extra", "source"),
        [
            (
                "id",
                SECRET,
                {"service_principal_oauth": True},
                "ClientCredentials(issuer=Issuer(workspace='https://x', ",
            ),
            ("id", SECRET, {"azure_tenant_id": "t"}, "client_id='id', tenant_id='t', authority='', resource_id='')"),
            (None, None, {"use_azure_managed_identity": True}, "EntraToken(who='managed identity'"),
            (None, None, {"use_default_azure_credential": True}, "EntraToken(who='default credential'"),
            (None, None, {"federated_token_provider": "a.b"}, "subject=a.b(), client_id=''"),
            (None, None, {"federated_token_file": "/a", "client_id": "c"}, "subject=the file /a, client_id='c'"),
            (None, None, {"federated_token_env": "A"}, "subject=the environment variable A"),
            (
                "federated_k8s",
                None,
                {"client_id": "c"},
                "audience='https://kubernetes.default.svc', seconds=3600, service_acc",
            ),
            (
                "federated_k8s",
                None,
                {"client_id": "c", "k8s_projected_volume_token_path": "/p"},
                "subject=the file /p",
            ),
            (None, None, {"federated_aws": True}, "seconds=300, region='', keys=None, profile='', role_arn='')"),
            (None, None, {"auth_type": "github-oidc"}, "SdkToken(workspace='https://x', auth_type='github-oidc')"),
            (
                None,
                None,
                {"auth_type": "sdk", "sdk_config": {"token": SECRET}},
                "SdkToken(workspace='https://x', auth_type='')",
            ),
        ],
    )
    def test_requests_its_token_where_the_fields_say(
        self, login: str | None, password: str | None, extra: dict[str, Any], source: str
    ) -> None:
        auth = choose_auth(login=login, password=password, extra=extra, workspace="https://x")
        assert source in repr(auth)
        assert SECRET not in repr(auth)
        again = choose_auth(login=login, password=password, extra=dict(extra), workspace="https://x")
        assert (auth, hash(auth)) == (again, hash(again))
        # A token of Entra's is good for all workspaces.
        elsewhere = choose_auth(login=login, password=password, extra=extra, workspace="https://y")
        assert (auth == elsewhere) is ("Entra" in repr(auth))


class TestKey:
    def test_is_equal_only_for_equal_credentials(self) -> None:
        same = {BearerAuth("a"), BearerAuth("a"), BasicAuth("u", "a"), BasicAuth("u", "a")}
        assert len(same) == 2
        assert BearerAuth("a") != BearerAuth("b")
        assert BearerAuth("a") != BasicAuth("", "a")
        assert BasicAuth("u", "a") != BasicAuth("u", "b")

    def test_differs_for_another_secret(self) -> None:
        def key(secret: str) -> requests.auth.AuthBase:
            return choose_auth(
                login="id", password=secret, extra={"service_principal_oauth": True}, workspace="https://x"
            )

        assert key("a") != key("b")
        assert len({key("a"), key("b"), key("a")}) == 2


class TestNetwork:
    @pytest.mark.parametrize(
        ("extra", "network"),
        [
            ({}, Network()),
            ({"verify": None, "proxies": None, "client_cert": ""}, Network()),
            ({"verify": "FALSE"}, Network(verify=False)),
            *(({"verify": off}, Network(verify=False)) for off in (False, 0, "0", "no", "off")),
            # Nothing but what says so turns the check off.
            *(({"verify": on}, Network()) for on in (True, 1, "", " ", {}, [])),
            ({"verify": "/ca.pem"}, Network(verify="/ca.pem")),
            ({"proxies": " http://p:3128"}, Network(proxies=(("http", "http://p:3128"), ("https", "http://p:3128")))),
            ({"proxies": {"https": "http://p"}}, Network(proxies=(("https", "http://p"),))),
            *(
                ({"proxies": {"https": url}}, Network(proxies=(("https", url),)))
                for url in (
                    "p",
                    "p:1",
                    "me:you@p:1",
                    "HTTP://p/",
                    "http://me:p%23%2F%40@p_x.y:1",
                    "socks5h://[::1]:1",
                    "http://me:a@b@p:1",
                )
            ),
            ({"client_cert": "/c.pem"}, Network(cert="/c.pem")),
            ({"client_cert": "/c.pem", "client_key": "/k.pem"}, Network(cert=("/c.pem", "/k.pem"))),
        ],
    )
    def test_is_read_from_the_extra(self, extra: dict[str, Any], network: Network) -> None:
        assert network_from(extra) == network
        assert hash(network_from(extra)) == hash(network)

    @pytest.mark.parametrize(
        ("extra", "words"),
        [
            ({"proxies": [f"http://me:{SECRET}@p"]}, "proxies must be a URL, or an object"),
            ({"proxies": {"ftp": f"http://me:{SECRET}@p"}}, "proxies must be a URL, or an object"),
            ({"proxies": {"http": ""}}, "proxies has no URL for http"),
            *(
                (
                    {"proxies": {"https": url}},
                    "extra proxies: the URL for https is not valid. It must be http://host:port",
                )
                for url in (
                    f"http://me:{SECRET}@p:port",
                    f"http://me:1/{SECRET}@p:1",
                    f"http://me:{SECRET}#1@p:1",
                    f"http://me:1?{SECRET}@p:1",
                    f"http://me:{SECRET}@",
                    f"http://me:{SECRET}@[::1",
                    f"http://me:{SECRET}@p:0",
                    f"htp://me:{SECRET}@p",
                    f"http://me:{SECRET}@p:99999",
                    f"me:/{SECRET}@p",
                )
            ),
            ({"client_key": "/k.pem"}, "client_key is set, but client_cert is not"),
            *(
                ({"verify": value}, f"extra verify is {value!r}; it must be true, false, or the path of a CA bundle.")
                for value in (2, 0.5, ["/ca.pem"], {"path": "/ca.pem"})
            ),
        ],
    )
    def test_names_an_invalid_field(self, extra: dict[str, Any], words: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            network_from(extra)
        assert words in str(caught.value)
        assert SECRET not in str(caught.value)

    def test_does_not_show_the_proxys_password(self) -> None:
        assert SECRET not in repr(network_from({"proxies": f"http://me:{SECRET}@p"}))


class TestAwsConnection:
    @pytest.mark.parametrize(
        ("aws", "source"),
        [
            (AwsConnection("K", SECRET), "keys=AwsKeys(access_key='K'), profile='', role_arn='')"),
            (
                AwsConnection(extra={"aws_access_key_id": "K", "aws_secret_access_key": SECRET}),
                "AwsKeys(access_key='K')",
            ),
            (AwsConnection(), "keys=None"),
            (AwsConnection("K", ""), "keys=None"),
            (
                AwsConnection(extra={"role_arn": "arn:r", "region_name": "r-1"}),
                "region='r-1', keys=None, profile='', role_arn='arn:r')",
            ),
            (AwsConnection(extra={"profile_name": "prod"}), "profile='prod'"),
        ],
    )
    def test_determines_who_requests_the_token(self, aws: AwsConnection, source: str) -> None:
        auth = choose_auth(login=None, password=None, extra={"federated_aws": True}, aws=aws)
        assert source in repr(auth)
        assert SECRET not in repr(auth) + repr(aws)

    def test_with_another_way_to_assume_a_role_is_refused(self) -> None:
        aws = AwsConnection(extra={"assume_role_method": "assume_role_with_saml"})
        with pytest.raises(
            ConfigurationError, match=r"AWS connection's assume_role_method is .*federated_token_provider"
        ):
            choose_auth(login=None, password=None, extra={"federated_aws": True}, aws=aws)

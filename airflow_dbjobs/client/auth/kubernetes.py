"""Request a token of a Kubernetes service account from the cluster's TokenRequest API.

Source: Kubernetes API reference, "TokenRequest v1 authentication.k8s.io". (For a token that is
projected into the pod, see ``databricks.TokenFile``.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_dbjobs.client.auth.databricks import read_text
from airflow_dbjobs.client.auth.token_requests import unreadable
from airflow_dbjobs.client.session import Network

if TYPE_CHECKING:
    from airflow_dbjobs.client.auth.token_requests import TokenRequests

API_URL = "https://kubernetes.default.svc"
_MOUNTED = "/var/run/secrets/kubernetes.io/serviceaccount"
TOKEN_PATH = f"{_MOUNTED}/token"
NAMESPACE_PATH = f"{_MOUNTED}/namespace"
CA_PATH = f"{_MOUNTED}/ca.crt"
_NOT_IN_A_POD = "This is not a pod with a service account token"


@dataclass(frozen=True)
class TokenRequest:
    """Requests a token of `service_account` for `audience`, valid for `seconds`, authorized by the pod's own token."""

    audience: str = API_URL
    seconds: int = 3600
    service_account: str = "default"
    token_path: str = TOKEN_PATH
    namespace_path: str = NAMESPACE_PATH
    api_url: str = API_URL
    ca_path: str = CA_PATH

    def __str__(self) -> str:
        return f"Kubernetes' TokenRequest for the service account {self.service_account} and audience {self.audience}"

    def read(self, requests: TokenRequests) -> str:
        """Request a token from the cluster."""
        mine = read_text(self.token_path, "k8s_token_path", _NOT_IN_A_POD)
        namespace = read_text(self.namespace_path, "k8s_namespace_path", _NOT_IN_A_POD)
        account = f"namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(self.service_account, safe='')}"
        url = f"{self.api_url.rstrip('/')}/api/v1/{account}/token"
        reply = requests.json(
            "POST",
            url,
            # The cluster has its own certificate authority, and is reached without a proxy.
            Network(verify=self.ca_path, direct=True),
            body={
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {"audiences": [self.audience], "expirationSeconds": self.seconds},
            },
            headers={"Authorization": f"Bearer {mine}"},
            secrets=(mine,),
            remedy=f"Check that {namespace} has the service account {self.service_account}, and that the pod's own"
            " account may `create` its `serviceaccounts/token`",
            reach_remedy="Check that the task runs in the cluster, or set `k8s_api_url` in the connection's extra",
        )
        status: Any = reply.get("status")
        token = status.get("token") if isinstance(status, dict) else None
        if not isinstance(token, str) or not token:
            raise unreadable(f"POST {url}", "no status.token")
        return token

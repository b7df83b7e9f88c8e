"""The fields of a connection's extra, and the authentication schemes that they belong to.

Plain data, which all processes of Airflow load: the form is made from it. ``hooks.extra`` reads the values.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

CONNECTION_TYPE = "databricks_jobs"
HOOK_NAME = "Databricks Jobs"

UI_FIELD_BEHAVIOUR: dict[str, object] = {
    "hidden-fields": [],
    "relabeling": {
        "host": "Workspace URL",
        "login": "Login (empty with a token)",
        "password": "Token or password",
        "schema": "Schema (http or https)",
    },
    "placeholders": {
        "host": "https://adb-1234567890123456.7.azuredatabricks.net",
        "login": "",
        "password": "dapi…",
        "schema": "https",
        "port": "443",
    },
}


class Field(NamedTuple):
    """A field of the extra: its name, its title and help in the form, and its default.

    An empty value counts as not given, unless `empty_counts`; 0 and false are refused, unless `zero_counts`. A "flag"
    chooses a scheme, as `auth_type` does.
    """

    name: str
    title: str
    help: str
    kind: Literal["text", "secret", "flag", "number", "choice", "object"] = "text"
    default: str = ""
    choices: tuple[str, ...] = ()
    empty_counts: bool = False
    zero_counts: bool = False


class Scheme(NamedTuple):
    """An authentication scheme.

    `auth_type` chooses it by `name` or one of `aliases`. Without `auth_type`, the field `mark` of the extra chooses it
    (or, with `login_marks`, the scheme's name as login). `login` and `password` say what these hold; "" if the scheme
    does not use them. The fields `needs` must be given, `takes` may be.
    """

    name: str
    help: str
    login: str = ""
    password: str = ""
    mark: str = ""
    login_marks: bool = False
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()

    @property
    def extras(self) -> frozenset[str]:
        """The fields of the extra that it reads."""
        return frozenset({self.mark, *self.needs, *self.takes} - {"", "login", "password"})


_ENTRA = ("azure_ad_endpoint", "azure_resource_id")

# In the order in which the official provider chooses; what it does not know comes before its last resort.
SCHEMES = (
    Scheme(
        "token",
        "A personal access token.",
        password="the token",  # noqa: S106 (a label)
        mark="token",
        aliases=("pat",),
    ),
    # Before the service principal: where a connection has a tenant as well, its flag decides.
    Scheme(
        "azure_managed_identity",
        "The managed identity of the machine on Azure.",
        mark="use_azure_managed_identity",
        takes=("azure_managed_identity_client_id", *_ENTRA),
        aliases=("azure-msi",),
    ),
    Scheme(
        "azure_service_principal",
        "A service principal of Microsoft Entra.",
        login="the application's client id",
        password="a client secret of it",  # noqa: S106 (a label)
        mark="azure_tenant_id",
        needs=("login", "password", "azure_tenant_id"),
        takes=_ENTRA,
        aliases=("azure-client-secret",),
    ),
    Scheme(
        "azure_default",
        "What azure-identity's DefaultAzureCredential finds, such as a workload identity.",
        mark="use_default_azure_credential",
        takes=_ENTRA,
    ),
    Scheme(
        "oauth",
        "OAuth client credentials of a service principal of Databricks.",
        login="the service principal's client id",
        password="an OAuth secret of it",  # noqa: S106 (a label)
        mark="service_principal_oauth",
        needs=("login", "password"),
        aliases=("oauth-m2m",),
    ),
    Scheme(
        "federated_token_provider",
        "Token federation: a token that a Python function returns.",
        mark="federated_token_provider",
        needs=("federated_token_provider",),
        takes=("client_id",),
    ),
    Scheme(
        "federated_aws",
        "Token federation: a token of AWS's Security Token Service.",
        mark="federated_aws",
        login_marks=True,
        takes=(
            "client_id",
            "aws_conn_id",
            "aws_jwt_audience",
            "aws_region",
            "aws_web_identity_token_duration",
        ),
    ),
    Scheme(
        "federated_k8s",
        "Token federation: a token of a Kubernetes service account.",
        mark="federated_k8s",
        login_marks=True,
        needs=("client_id",),
        takes=(
            "k8s_projected_volume_token_path",
            "audience",
            "expiration_seconds",
            "k8s_token_path",
            "k8s_namespace_path",
            "k8s_service_account",
            "k8s_api_url",
            "k8s_ca_path",
        ),
    ),
    Scheme(
        "federated_file",
        "Token federation: a token in a file.",
        mark="federated_token_file",
        needs=("federated_token_file",),
        takes=("client_id",),
        aliases=("file-oidc",),
    ),
    Scheme(
        "federated_env",
        "Token federation: a token in an environment variable.",
        mark="federated_token_env",
        needs=("federated_token_env",),
        takes=("client_id",),
        aliases=("env-oidc",),
    ),
    Scheme(
        "sdk",
        "What databricks-sdk's unified authentication finds.",
        takes=("sdk_config",),
    ),
    Scheme(
        "basic",
        "Login and password.",
        login="a user's name",
        password="the user's password",  # noqa: S106 (a label)
        needs=("login", "password"),
    ),
)
BY_NAME = {name: scheme for scheme in SCHEMES for name in (scheme.name, *scheme.aliases)}

# Further values of `auth_type`: schemes of databricks-sdk, which then authenticates.
SDK_AUTH_TYPES = (
    "azure-cli",
    "azure-devops-oidc",
    "databricks-cli",
    "github-oidc",
    "github-oidc-azure",
    "google-credentials",
    "google-id",
    "metadata-service",
    "runtime",
)

# The fields of the form under their headings, the most used first.
SECTIONS: dict[str, tuple[Field, ...]] = {
    "Databricks": (
        Field("auth_type", "Auth type", "The authentication scheme. Empty: chosen by the other fields.", "choice",
              choices=(*(scheme.name for scheme in SCHEMES), *SDK_AUTH_TYPES)),
        Field("api_version", "API version", "The version of the Jobs API.", "choice", "2.2", ("2.0", "2.1", "2.2")),
        Field("token", "Token", "A personal access token, if the password does not hold it.", "secret"),
        Field("host", "Host", "The workspace's URL. It wins over the connection's own field for it."),
        Field("workspace_id", "Workspace id", "The workspace, if several share a URL: the number after ?o= in it."
              " Empty: the one in the host."),
        Field("service_principal_oauth", "Databricks OAuth",
              "Login and password are a service principal's id and secret.", "flag"),
        Field("sdk_config", "SDK configuration", "Arguments of databricks-sdk's Config, as a JSON object.", "object"),
    ),
    "Token federation": (
        Field("client_id", "Client id", "The service principal to authenticate as. Empty: the account's federation"
              " policy decides."),
        Field("federated_token_file", "Token file", "The path of a file that holds the token to exchange."),
        Field("federated_token_env", "Token variable", "An environment variable that holds the token to exchange."),
        Field("federated_token_provider", "Token provider",
              "A Python function that returns the token to exchange: package.module.function."),
        Field("federated_aws", "AWS", "Authenticate with a token of AWS's Security Token Service.", "flag"),
        Field("aws_conn_id", "AWS connection", "The Airflow connection with the key, profile or role to use. Empty, or"
              " if aws_default is not defined: the credentials that botocore finds.", default="aws_default",
              empty_counts=True),
        Field("aws_region", "AWS region", "The region whose service issues the token. Empty: the AWS connection's,"
              " AWS_REGION, the profile's or the instance's."),
        Field("aws_jwt_audience", "AWS audience", "Audience of the token requested from AWS.", default="databricks"),
        Field("aws_web_identity_token_duration", "AWS token's seconds", "Lifetime of the token requested from AWS.",
              "number", "300"),
        Field("federated_k8s", "Kubernetes", "Authenticate with a token of a Kubernetes service account.", "flag"),
        Field("k8s_projected_volume_token_path", "Projected token",
              "The path of a token that is projected into the pod. Empty: one is requested from the cluster."),
        Field("audience", "Kubernetes audience", "Audience of the token requested from the cluster.",
              default="https://kubernetes.default.svc"),
        Field("expiration_seconds", "Kubernetes token's seconds", "Lifetime of the token requested from the cluster.",
              "number", "3600"),
        Field("k8s_service_account", "Service account", "The account whose token is requested.", default="default"),
        Field("k8s_token_path", "Pod's token", "The path of the pod's own token, which authorizes the request.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/token"),
        Field("k8s_namespace_path", "Pod's namespace", "The path of the file that holds the pod's namespace.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        Field("k8s_api_url", "Cluster's URL", "The URL of the cluster's API.", default="https://kubernetes.default.svc"),
        Field("k8s_ca_path", "Cluster's CA", "The path of the CA bundle that verifies the cluster.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
    ),
    "Microsoft Entra": (
        Field("azure_tenant_id", "Entra tenant",
              "Login and password are an application's id and secret in this tenant."),
        Field("use_azure_managed_identity", "Managed identity", "Authenticate with the machine's managed identity.",
              "flag"),
        Field("azure_managed_identity_client_id", "Managed identity's client id",
              "The managed identity to use, if the machine has several."),
        Field("use_default_azure_credential", "Default Azure credential", "Use what azure-identity finds.",
              "flag"),
        Field("azure_ad_endpoint", "Entra endpoint", "The login URL of another cloud.",
              default="https://login.microsoftonline.com"),
        Field("azure_resource_id", "Workspace's resource id", "The workspace's id in Azure, if the identity is not a"
              " user of the workspace: /subscriptions/…/workspaces/…"),
    ),
    "Network": (
        Field("verify", "Verify", "false turns off the check of TLS certificates; a path names a CA bundle.",
              default="true", zero_counts=True),
        Field("proxies", "Proxies", 'The URL of a proxy (in the form: in quotes), or {"http": "…", "https": "…"}.'
              " Empty: the environment's.", "object"),
        Field("client_cert", "Client certificate", "The path of a client certificate (PEM)."),
        Field("client_key", "Client key", "The path of its key, if the certificate's file does not hold it."),
    ),
    "Retries and waiting": (
        Field("retry_budget", "Retry budget", "For how many seconds one call is retried.", "number", "600",
              zero_counts=True),
        Field("server_error_wait", "Wait after a 5xx", "The minimum seconds between attempts after a 5xx.", "number",
              "30", zero_counts=True),
        Field("connect_timeout", "Connect timeout", "The seconds to connect.", "number", "10"),
        Field("read_timeout", "Read timeout", "The seconds until the whole response has arrived.", "number", "60"),
        Field("outage_tolerance", "Outage tolerance", "For how many seconds a waiting task tolerates an API that is"
              " down.", "number", "3600", zero_counts=True),
        Field("denied_tolerance", "Denied tolerance", "For how many seconds a waiting task tolerates credentials that"
              " are refused.", "number", "600", zero_counts=True),
        Field("max_requests_per_second", "Requests per second", "The limit for all deferred tasks of one triggerer"
              " together, per workspace.", "number", "100"),
    ),
}  # fmt: skip
FIELDS = tuple(field for fields in SECTIONS.values() for field in fields)
NAMES = frozenset(field.name for field in FIELDS)

"""The fields of a connection's extra, and the authentication schemes that they belong to.

Plain data, which all processes of Airflow load. ``hooks.form`` makes the form from it; ``hooks.extra`` reads values.
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

    An empty field has no value unless `empty_counts`; 0 and false are invalid unless `zero_counts`. A "flag" selects an
    authentication scheme, as `auth_type` does.
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

    `auth_type` selects it by `name` or one of `aliases`. Without `auth_type`, a value in the field `mark` of the extra
    selects it (or, with `login_marks`, the scheme's name as login). `login` and `password` describe the values of these
    fields; "" if the scheme does not use them. `needs` are its required fields, `takes` the optional ones.
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

# In the order in which the official provider selects. Schemes that it does not have come before its last one.
SCHEMES = (
    Scheme(
        "token",
        "A personal access token.",
        password="the token",  # noqa: S106 (a label)
        mark="token",
        aliases=("pat",),
    ),
    # Before the service principal: if a connection also has a tenant, the flag takes precedence.
    Scheme(
        "azure_managed_identity",
        "The managed identity of the Azure machine.",
        mark="use_azure_managed_identity",
        takes=("azure_managed_identity_client_id", *_ENTRA),
        aliases=("azure-msi",),
    ),
    Scheme(
        "azure_service_principal",
        "A Microsoft Entra service principal.",
        login="the application's client id",
        password="a client secret of it",  # noqa: S106 (a label)
        mark="azure_tenant_id",
        needs=("login", "password", "azure_tenant_id"),
        takes=_ENTRA,
        aliases=("azure-client-secret",),
    ),
    Scheme(
        "azure_default",
        "The credentials that azure-identity's DefaultAzureCredential finds, such as a workload identity.",
        mark="use_default_azure_credential",
        takes=_ENTRA,
    ),
    Scheme(
        "oauth",
        "OAuth client credentials of a Databricks service principal.",
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
        "Token federation: a token from AWS's Security Token Service.",
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
        "The credentials that databricks-sdk's unified authentication finds.",
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
        Field("auth_type", "Auth type", "The authentication scheme. If empty, the other fields determine it.", "choice",
              choices=(*(scheme.name for scheme in SCHEMES), *SDK_AUTH_TYPES)),
        Field("api_version", "API version", "The version of the Jobs API.", "choice", "2.2", ("2.0", "2.1", "2.2")),
        Field("token", "Token", "A personal access token, unless it is the password.", "secret"),
        Field("host", "Host", "The workspace's URL. It overrides the connection's field Workspace URL."),
        Field("workspace_id", "Workspace id", "The workspace, if several share a URL: the number after ?o= in it."
              " If empty, it is read from the host."),
        Field("service_principal_oauth", "Databricks OAuth",
              "Login and password are a service principal's client id and secret.", "flag"),
        Field("sdk_config", "SDK configuration", "Arguments of databricks-sdk's Config, as a JSON object.", "object"),
    ),
    "Token federation": (
        Field("client_id", "Client id", "The client id of the service principal to authenticate as. If empty, the"
              " account's federation policy determines it."),
        Field("federated_token_file", "Token file", "The path of the file with the token to exchange."),
        Field("federated_token_env", "Token variable", "The environment variable with the token to exchange."),
        Field("federated_token_provider", "Token provider",
              "A Python function that returns the token to exchange: package.module.function."),
        Field("federated_aws", "AWS", "Authenticate with a token from AWS's Security Token Service.", "flag"),
        Field("aws_conn_id", "AWS connection", "The Airflow connection with the key, profile or role to use. If empty,"
              " or if aws_default is not defined, botocore finds the credentials.", default="aws_default",
              empty_counts=True),
        Field("aws_region", "AWS region", "The region whose Security Token Service issues the token. If empty, that of"
              " the AWS connection, of AWS_REGION, of the profile or of the instance."),
        Field("aws_jwt_audience", "AWS audience", "The audience of the token requested from AWS.",
              default="databricks"),
        Field("aws_web_identity_token_duration", "AWS token lifetime",
              "The lifetime of the token requested from AWS, in seconds.",
              "number", "300"),
        Field("federated_k8s", "Kubernetes", "Authenticate with a token of a Kubernetes service account.", "flag"),
        Field("k8s_projected_volume_token_path", "Projected token",
              "The path of a token projected into the pod. If empty, a token is requested from the cluster."),
        Field("audience", "Kubernetes audience", "The audience of the token requested from the cluster.",
              default="https://kubernetes.default.svc"),
        Field("expiration_seconds", "Kubernetes token lifetime",
              "The lifetime of the token requested from the cluster, in seconds.",
              "number", "3600"),
        Field("k8s_service_account", "Service account", "The service account whose token is requested.",
              default="default"),
        Field("k8s_token_path", "Pod token", "The path of the pod's own token, which authorizes the request.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/token"),
        Field("k8s_namespace_path", "Pod namespace", "The path of the file with the pod's namespace.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        Field("k8s_api_url", "Cluster URL", "The URL of the Kubernetes API.", default="https://kubernetes.default.svc"),
        Field("k8s_ca_path", "Cluster CA", "The path of the CA bundle to verify the cluster.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
    ),
    "Microsoft Entra": (
        Field("azure_tenant_id", "Entra tenant",
              "Login and password are the client id and secret of an application in this tenant."),
        Field("use_azure_managed_identity", "Managed identity", "Authenticate with the machine's managed identity.",
              "flag"),
        Field("azure_managed_identity_client_id", "Managed identity client id",
              "The client id of the managed identity to use, if the machine has several."),
        Field("use_default_azure_credential", "Default Azure credential",
              "Use the credentials that azure-identity finds.", "flag"),
        Field("azure_ad_endpoint", "Entra endpoint", "The login URL, if the tenant is in another Azure cloud.",
              default="https://login.microsoftonline.com"),
        Field("azure_resource_id", "Azure resource id", "The workspace's Azure resource id, if the identity is not a"
              " user of the workspace: /subscriptions/…/workspaces/…"),
    ),
    "Network": (
        Field("verify", "Verify", "false disables the verification of TLS certificates; a path names a CA bundle.",
              default="true", zero_counts=True),
        Field("proxies", "Proxies", 'The URL of a proxy (in this form in quotes), or {"http": "…", "https": "…"}.'
              " If empty, the environment's proxies apply.", "object"),
        Field("client_cert", "Client certificate", "The path of a client certificate (PEM)."),
        Field("client_key", "Client key", "The path of its key, unless the certificate's file contains it."),
    ),
    "Retries and waiting": (
        Field("retry_budget", "Retry budget", "How long a failed call is retried, in seconds.", "number", "600",
              zero_counts=True),
        Field("server_error_wait", "Wait after a 5xx", "The minimum wait after a 5xx response, in seconds.", "number",
              "30", zero_counts=True),
        Field("connect_timeout", "Connect timeout", "The time limit for connecting, in seconds.", "number", "10"),
        Field("read_timeout", "Read timeout", "The time limit for the whole response, in seconds.", "number", "60"),
        Field("outage_tolerance", "Outage tolerance", "How long a waiting task tolerates an API that is down, in"
              " seconds.", "number", "3600", zero_counts=True),
        Field("denied_tolerance", "Denied tolerance", "How long a waiting task tolerates refused credentials, in"
              " seconds.", "number", "600", zero_counts=True),
        Field("max_requests_per_second", "Requests per second", "The limit for all deferred tasks of one triggerer"
              " together, per workspace.", "number", "100"),
    ),
}  # fmt: skip
FIELDS = tuple(field for fields in SECTIONS.values() for field in fields)
NAMES = frozenset(field.name for field in FIELDS)

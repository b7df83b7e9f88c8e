"""What a connection may say: every field of its extra, and which of them belong to which way to sign in.

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
    """A field of the extra: its name, what the form says of it, and what is meant where it is not given.

    Empty is not given, unless `empty_counts`. One of which `zero_counts` may be 0, or false. A "flag" only says in
    another word what `auth_type` can.
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
    """A way to sign in.

    `name` is what `auth_type` may say, and one of `aliases`. Where it says nothing, `mark` is the field of the extra by
    which the scheme is asked for (or, with `login_marks`, the scheme's name as login). `login` and `password` say what
    these hold, and are "" where the scheme has no use for them. `needs` must be given, `takes` may.
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
        "Whatever azure-identity's DefaultAzureCredential finds, workload identity among it.",
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
        "Whatever databricks-sdk's unified authentication finds.",
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

# What `auth_type` may say beside: names of databricks-sdk's, which signs in then.
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

# What a form shows under which heading, in the order of use.
SECTIONS: dict[str, tuple[Field, ...]] = {
    "Databricks": (
        Field("auth_type", "Auth type", "How to sign in. Empty: the other fields tell.", "choice",
              choices=(*(scheme.name for scheme in SCHEMES), *SDK_AUTH_TYPES)),
        Field("api_version", "API version", "The version of the Jobs API.", "choice", "2.2", ("2.0", "2.1", "2.2")),
        Field("token", "Token", "A personal access token, where the password does not hold it.", "secret"),
        Field("host", "Host", "The workspace's URL. It wins over the connection's own field for it."),
        Field("workspace_id", "Workspace id", "Which workspace, where several share a URL: the number after ?o= in it."
              " Empty: the host says."),
        Field("service_principal_oauth", "Databricks OAuth",
              "Login and password are a service principal's id and secret.", "flag"),
        Field("sdk_config", "SDK configuration", "Arguments of databricks-sdk's Config, as a JSON object.", "object"),
    ),
    "Token federation": (
        Field("client_id", "Client id", "The service principal to be. Empty: the account's federation policy says."),
        Field("federated_token_file", "Token file", "The path of a file that holds the token to exchange."),
        Field("federated_token_env", "Token variable", "The name of a variable that holds the token to exchange."),
        Field("federated_token_provider", "Token provider",
              "A Python function that returns the token to exchange: package.module.function."),
        Field("federated_aws", "AWS", "Sign in with a token of AWS's Security Token Service.", "flag"),
        Field("aws_conn_id", "AWS connection", "The Airflow connection that has the key or the role to ask with. Empty,"
              " or where aws_default is not defined: the machine's credentials.", default="aws_default",
              empty_counts=True),
        Field("aws_region", "AWS region", "The region whose service is asked. Empty: the AWS connection's, AWS_REGION,"
              " or the instance's."),
        Field("aws_jwt_audience", "AWS audience", "Whom AWS is to make the token for.", default="databricks"),
        Field("aws_web_identity_token_duration", "AWS token's seconds", "For how long AWS's token is to be good.",
              "number", "300"),
        Field("federated_k8s", "Kubernetes", "Sign in with a token of a Kubernetes service account.", "flag"),
        Field("k8s_projected_volume_token_path", "Projected token",
              "The path of a token that is projected into the pod. Empty: the cluster is asked for one."),
        Field("audience", "Kubernetes audience", "Whom the cluster is to make the token for.",
              default="https://kubernetes.default.svc"),
        Field("expiration_seconds", "Kubernetes token's seconds", "For how long the cluster's token is to be good.",
              "number", "3600"),
        Field("k8s_service_account", "Service account", "Whose token the cluster is asked for.", default="default"),
        Field("k8s_token_path", "Pod's token", "The path of the token to ask the cluster with.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/token"),
        Field("k8s_namespace_path", "Pod's namespace", "The path of the file that holds the pod's namespace.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/namespace"),
        Field("k8s_api_url", "Cluster's URL", "Where the cluster's API is.", default="https://kubernetes.default.svc"),
        Field("k8s_ca_path", "Cluster's CA", "The path of the CA bundle to trust the cluster by.",
              default="/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"),
    ),
    "Microsoft Entra": (
        Field("azure_tenant_id", "Entra tenant",
              "Login and password are an application's id and secret in this tenant."),
        Field("use_azure_managed_identity", "Managed identity", "Sign in with the machine's managed identity.", "flag"),
        Field("azure_managed_identity_client_id", "Managed identity's client id",
              "Which managed identity, where the machine has several."),
        Field("use_default_azure_credential", "Default Azure credential", "Sign in with what azure-identity finds.",
              "flag"),
        Field("azure_ad_endpoint", "Entra endpoint", "The URL at which another cloud signs in.",
              default="https://login.microsoftonline.com"),
        Field("azure_resource_id", "Workspace's resource id", "The workspace's id in Azure, where the identity is no"
              " user of the workspace: /subscriptions/…/workspaces/…"),
    ),
    "Network": (
        Field("verify", "Verify", "false turns the check of TLS certificates off; a path names a CA bundle.",
              default="true", zero_counts=True),
        Field("proxies", "Proxies", 'The URL of a proxy (in the form: in quotes), or {"http": "…", "https": "…"}.'
              " Empty: the environment says.", "object"),
        Field("client_cert", "Client certificate", "The path of a certificate to show to the servers (PEM)."),
        Field("client_key", "Client key", "The path of its key, where the certificate's file does not hold it."),
    ),
    "Retries and waiting": (
        Field("retry_budget", "Retry budget", "For how many seconds one call is repeated.", "number", "600",
              zero_counts=True),
        Field("server_error_wait", "Wait after a 5xx", "The least seconds between two attempts after a 5xx.", "number",
              "30", zero_counts=True),
        Field("connect_timeout", "Connect timeout", "The seconds that a connection may take.", "number", "10"),
        Field("read_timeout", "Read timeout", "The seconds that an answer may take.", "number", "60"),
        Field("outage_tolerance", "Outage tolerance", "For how many seconds a task that waits puts up with an API that"
              " is down.", "number", "3600", zero_counts=True),
        Field("denied_tolerance", "Denied tolerance", "For how many seconds a task that waits puts up with credentials"
              " that are refused.", "number", "600", zero_counts=True),
        Field("max_requests_per_second", "Requests per second", "What all deferred tasks of one triggerer may ask of"
              " the workspace.", "number", "100"),
    ),
}  # fmt: skip
FIELDS = tuple(field for fields in SECTIONS.values() for field in fields)
NAMES = frozenset(field.name for field in FIELDS)

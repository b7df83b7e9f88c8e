"""A server that gives tokens as Databricks, Kubernetes, AWS and Entra do, and a workspace that wants the first of them.

One server plays all of them, on the loopback interface. Its clock is a parameter, so that tokens expire when a test
says so. What goes wrong is data: a `Trouble` for a path.

Sources: Databricks' OAuth and token federation pages, RFC 6749 and 8693; Kubernetes' "TokenRequest v1"; AWS's "STS API
reference" and "Retrieve instance metadata"; Microsoft's "How to use managed identities on an Azure VM" and "OAuth 2.0
client credentials flow".
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
import re
import ssl
import threading
import time
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CLIENT_ID = "11111111-2222-3333-4444-555555555555"
CLIENT_SECRET = "dose-the-clients-own-secret"
TENANT = "99999999-8888-7777-6666-555555555555"
POD_TOKEN = "the-token-that-is-mounted-in-the-pod"
AWS_KEY, AWS_SECRET, AWS_SESSION = "AKIDEXAMPLE", "the-secret-access-key-of-aws", "the-session-token-of-aws"
ROLE_ARN, ROLE_KEY, ROLE_SECRET = "arn:aws:iam::123456789012:role/airflow", "ASIAROLE", "the-secret-key-of-the-role"
DATABRICKS_APPLICATION = "2ff814a6-3304-4ab8-85cb-cd0e6f879c1d"
MANAGEMENT = "https://management.core.windows.net/"

# Of the keys that AWS gives.
_EXPIRATION = "2126-01-01T00:00:00Z"

TOKEN_PATH = "/oidc/v1/token"
STS_PATH = "/"


@dataclass
class Trouble:
    """What becomes of the next requests whose path begins with `path`; `times` None means all of them."""

    path: str
    status: int = 503
    body: object = field(default_factory=lambda: {"error": "temporarily_unavailable"})
    headers: dict[str, str] = field(default_factory=dict)
    times: int | None = 1
    cut: bool = False
    delay: float = 0.0
    drip: float = 0.0  # seconds between two bytes of the answer
    goes_on: bool = False  # after the delay, it is answered as ever
    echo: bool = False  # the answer repeats the request, as some servers do


@dataclass
class Seen:
    """A request as it arrived."""

    method: str
    path: str
    headers: dict[str, str]
    body: str

    @property
    def form(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(self.body).items()}


class TokenServer(ThreadingHTTPServer):
    """Gives tokens that are good for `lifetime` seconds of `clock`, and remembers what it `seen`."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, clock: Callable[[], float] = time.monotonic, *, tls: Path | None = None, ca: Path | None = None):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "https" if tls else "http"
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(tls)
            if ca:
                context.verify_mode = ssl.CERT_REQUIRED
                context.load_verify_locations(ca)
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)
        self.clock = clock
        self.lifetime = 3600.0
        #: Of tokens for Entra's management API, where it is another one.
        self.management_lifetime: float | None = None
        self.client_secret = CLIENT_SECRET
        #: Of a unified host: the account whose workspaces share it.
        self.account_id = ""
        self.aws_keys = {AWS_KEY: AWS_SECRET, ROLE_KEY: ROLE_SECRET}
        #: The subject tokens that are accepted in exchange: those given here, and those of a test.
        self.subjects: set[str] = set()
        self.troubles: list[Trouble] = []
        self.seen: list[Seen] = []
        #: The tokens of the workspace and of Entra that are good, and until when; all tokens that were ever given.
        self.good: dict[str, float] = {}
        self.given: list[str] = []
        #: Whether the run of this workspace is over, and how.
        self.is_over = True
        self.result = "SUCCESS"
        self._numbers = itertools.count(1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=partial(self.serve_forever, poll_interval=0.01), daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_address[1]}"

    def stop(self) -> None:
        self._ended.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, *_: object) -> None:
        """Say nothing: clients here hang up on purpose."""

    def wait(self, seconds: float) -> None:
        self._ended.wait(seconds)

    def asked(self, path: str) -> list[Seen]:
        """Return the requests for exactly this path, whatever its query."""
        return [seen for seen in self.seen if seen.path.partition("?")[0] == path]

    def give(self, what: str) -> str:
        """Return a new token, which holds until it expires."""
        token = f"{what}-token-{next(self._numbers)}-of-the-server"
        self.given.append(token)
        self.good[token] = self.clock() + self.lifetime_of(what)
        return token

    def lifetime_of(self, what: str) -> float:
        own = self.management_lifetime if what == "management" else None
        return self.lifetime if own is None else own

    def trouble_for(self, path: str) -> Trouble | None:
        for trouble in self.troubles:
            if path.startswith(trouble.path) and (trouble.path != STS_PATH or path == STS_PATH):
                if trouble.times is not None:
                    trouble.times -= 1
                    if not trouble.times:
                        self.troubles.remove(trouble)
                return trouble
        return None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: TokenServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
        headers = {name.lower(): value for name, value in self.headers.items()}
        # Through a proxy the whole URL is requested.
        path = re.sub(r"^http://[^/]+", "", self.path)
        seen = Seen(self.command, path, headers, body)
        self.server.seen.append(seen)
        trouble = self.server.trouble_for(path)
        if trouble and trouble.delay:
            self.server.wait(trouble.delay)
        if trouble and trouble.cut:
            self.close_connection = True
        elif trouble and trouble.echo:
            kind, _, value = headers.get("authorization", "").partition(" ")
            plain = base64.b64decode(value).decode() if kind == "Basic" else value
            text = f"what is {value}, {plain} and {seen.form}?"
            page = f"<html>{text}</html>"
            refusal = {"error": "invalid_request", "error_description": text}
            self._send(trouble.status, page if trouble.status == 200 else refusal)
        elif trouble and not trouble.goes_on:
            self._send(trouble.status, trouble.body, trouble.headers, drip=trouble.drip)
        else:
            self._send(*self._answer(seen))

    do_POST = do_PUT = do_GET  # noqa: N815 (the names that http.server looks for)

    def _send(self, status: int, body: object, headers: dict[str, str] | None = None, *, drip: float = 0.0) -> None:
        content = (body if isinstance(body, str) else json.dumps(body)).encode()
        kind = "text/html" if isinstance(body, str) else "application/json"
        self.send_response(status)
        for name, value in {"Content-Type": kind, "Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        for part in (bytes([byte]) for byte in content) if drip else (content,):
            self.wfile.write(part)
            self.server.wait(drip)

    def _answer(self, seen: Seen) -> tuple[int, object]:
        path = seen.path.partition("?")[0]
        for pattern, answer in _ANSWERS.items():
            if match := re.fullmatch(pattern, path):
                return answer(self.server, seen, *match.groups())
        return 404, {"error": f"Bad Target: {path}"}


# --- Databricks ---


def _databricks_token(server: TokenServer, seen: Seen, account_id: str = "") -> tuple[int, object]:
    if account_id == server.account_id:
        return _granted(server, seen)
    return 404, {"error": "not_found", "error_description": "no such token endpoint"}


def _granted(server: TokenServer, seen: Seen) -> tuple[int, object]:
    form = seen.form
    if form.get("scope") != "all-apis":
        return 400, {"error": "invalid_scope", "error_description": "no scope"}
    if form.get("grant_type") == "client_credentials":
        kind, _, value = seen.headers.get("authorization", "").partition(" ")
        client = base64.b64decode(value).decode() if kind == "Basic" else ""
        if client != f"{CLIENT_ID}:{server.client_secret}":
            # As some servers do, it repeats what it was given.
            return 401, {"error": "invalid_client", "error_description": f"Client authentication failed for {client}"}
    elif form.get("grant_type") == "urn:ietf:params:oauth:grant-type:token-exchange":
        if form.get("subject_token_type") != "urn:ietf:params:oauth:token-type:jwt":
            return 400, {"error": "invalid_request", "error_description": "subject_token_type"}
        subject = form.get("subject_token", "")
        if subject not in server.subjects:
            return 400, {"error": "invalid_grant", "error_description": f"no federation policy matches {subject}"}
    else:
        return 400, {"error": "unsupported_grant_type", "error_description": "which?"}
    return 200, {"access_token": server.give("dbx"), "token_type": "Bearer", "expires_in": server.lifetime}


def _jobs_api(server: TokenServer, seen: Seen, operation: str) -> tuple[int, object]:
    kind, _, token = seen.headers.get("authorization", "").partition(" ")
    if kind != "Bearer":
        return 401, {"error_code": "UNAUTHENTICATED", "message": "no credentials"}
    # The platform refuses tokens with 30 s left or less.
    if server.good.get(token, 0.0) - server.clock() <= 30:
        return 403, {"error_code": 403, "message": "Invalid access token."}
    over = {"life_cycle_state": "TERMINATED", "result_state": server.result}
    run_id = int(parse_qs(urlsplit(seen.path).query).get("run_id", ["7"])[0])
    run = {
        "run_id": run_id,
        "start_time": int(time.time() * 1000),
        "state": over if server.is_over else {"life_cycle_state": "RUNNING"},
        "tasks": [],
    }
    if operation == "runs/cancel":
        server.is_over, server.result = True, "CANCELED"
    # The list shows nothing, so that each run is polled.
    replies = {"runs/get": run, "runs/submit": {"run_id": 7}, "runs/list": {"runs": []}, "runs/cancel": {}}
    return 200, replies.get(operation, {"jobs": []})


def _host_metadata(server: TokenServer, _: Seen) -> tuple[int, object]:
    if server.account_id:
        return 200, {"oidc_endpoint": f"{server.url}/oidc/accounts/{{account_id}}", "account_id": server.account_id}
    return 200, {"oidc_endpoint": f"{server.url}/oidc", "workspace_id": "1"}


def _oidc_endpoints(server: TokenServer, _: Seen, of: str) -> tuple[int, object]:
    return 200, {
        "authorization_endpoint": f"{server.url}/oidc{of}/v1/authorize",
        "token_endpoint": f"{server.url}/oidc{of}/v1/token",
    }


# --- Kubernetes ---


def _kubernetes(server: TokenServer, seen: Seen, namespace: str, account: str) -> tuple[int, object]:
    if seen.headers.get("authorization") != f"Bearer {POD_TOKEN}":
        return 401, {"kind": "Status", "reason": "Unauthorized", "message": "Unauthorized", "code": 401}
    if (namespace, account) != ("airflow", "default"):
        text = f'serviceaccounts "{account}" is forbidden: cannot create resource "serviceaccounts/token"'
        return 403, {"kind": "Status", "reason": "Forbidden", "message": text, "code": 403}
    spec = json.loads(seen.body)["spec"]
    token = server.give("pod")
    server.subjects.add(token)
    return 201, {"kind": "TokenRequest", "spec": spec, "status": {"token": token}}


# --- AWS ---


def _sts(server: TokenServer, seen: Seen) -> tuple[int, object]:
    form = seen.form
    action = form["Action"]
    if action == "AssumeRoleWithWebIdentity":
        if form["WebIdentityToken"] not in server.subjects:
            return 400, _sts_error("InvalidIdentityToken", f"not accepted: {form['WebIdentityToken']}")
    elif (refusal := _signature_refusal(server, seen)) is not None:
        return 403, refusal
    if action.startswith("AssumeRole"):
        keys = f"<AccessKeyId>{ROLE_KEY}</AccessKeyId><SecretAccessKey>{ROLE_SECRET}</SecretAccessKey>"
        keys += f"<SessionToken>{AWS_SESSION}</SessionToken><Expiration>{_EXPIRATION}</Expiration>"
        return 200, _sts_reply(action, f"<Credentials>{keys}</Credentials>")
    if action != "GetWebIdentityToken" or form.get("SigningAlgorithm") != "RS256" or "Audience.member.1" not in form:
        return 400, _sts_error("ValidationError", "what?")
    token = server.give("aws")
    server.subjects.add(token)
    return 200, _sts_reply(action, f"<WebIdentityToken>{token}</WebIdentityToken>")


def _sts_reply(action: str, result: str) -> str:
    namespace = "https://sts.amazonaws.com/doc/2011-06-15/"
    return f'<{action}Response xmlns="{namespace}"><{action}Result>{result}</{action}Result></{action}Response>'


def _sts_error(code: str, message: str) -> str:
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return f'<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">{error}</ErrorResponse>'


def _signature_refusal(server: TokenServer, seen: Seen) -> str | None:
    """Check a Signature Version 4 from what arrived, in a way of its own."""
    match = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/sts/aws4_request, SignedHeaders=([\w;-]+),"
        r" Signature=([0-9a-f]{64})",
        seen.headers.get("authorization", ""),
    )
    if not match:
        return _sts_error("MissingAuthenticationToken", "Request is missing Authentication Token")
    access, day, region, names, signature = match.groups()
    secret = server.aws_keys.get(access, "")
    lines = [seen.method, seen.path, ""]
    lines += [f"{name}:{seen.headers[name]}" for name in names.split(";")]
    request = "\n".join([*lines, "", names, hashlib.sha256(seen.body.encode()).hexdigest()])
    scope = f"{day}/{region}/sts/aws4_request"
    text = f"AWS4-HMAC-SHA256\n{seen.headers['x-amz-date']}\n{scope}\n{hashlib.sha256(request.encode()).hexdigest()}"
    key = ("AWS4" + secret).encode()
    for part in (*scope.split("/"), text):
        key = hmac.new(key, part.encode(), "sha256").digest()
    if access == ROLE_KEY and seen.headers.get("x-amz-security-token") != AWS_SESSION:
        return _sts_error("InvalidClientTokenId", "The security token included in the request is invalid.")
    return None if key.hex() == signature else _sts_error("SignatureDoesNotMatch", f"The key {access} does not match")


def _instance_session(_: TokenServer, seen: Seen) -> tuple[int, object]:
    return (200, "imds-session") if seen.method == "PUT" else (405, "")


def _instance(server: TokenServer, seen: Seen, path: str) -> tuple[int, object]:
    if seen.headers.get("x-aws-ec2-metadata-token") != "imds-session":
        return 401, "Unauthorized"
    if path == "placement/availability-zone/":
        return 200, "eu-central-1a"
    if path == "iam/security-credentials/":
        return 200, "the-role"
    return 200, {"Code": "Success", **_role_keys()} if path.endswith("/the-role") else {}


def _container(_: TokenServer, seen: Seen) -> tuple[int, object]:
    return (200, _role_keys()) if seen.headers.get("authorization") == POD_TOKEN else (401, {"message": "no"})


def _role_keys() -> dict[str, str]:
    return {"AccessKeyId": ROLE_KEY, "SecretAccessKey": ROLE_SECRET, "Token": AWS_SESSION, "Expiration": _EXPIRATION}


# --- Microsoft Entra ---


def _entra_metadata(server: TokenServer, _: Seen, tenant: str) -> tuple[int, object]:
    base = f"{server.url}/{tenant}"
    return 200, {
        "token_endpoint": f"{base}/oauth2/v2.0/token",
        "authorization_endpoint": f"{base}/oauth2/v2.0/authorize",
        "issuer": f"{base}/v2.0",
    }


def _entra_token(server: TokenServer, seen: Seen, tenant: str) -> tuple[int, object]:
    form = seen.form
    if tenant != TENANT or form.get("client_secret") != server.client_secret or form.get("client_id") != CLIENT_ID:
        text = "AADSTS7000215: Invalid client secret provided. Ensure the secret being sent is the client secret value."
        return 401, {"error": "invalid_client", "error_description": text}
    token = _entra(server, form["scope"])
    return 200, {"token_type": "Bearer", "expires_in": int(server.lifetime), "access_token": token}


def _entra(server: TokenServer, scope: str) -> str:
    resources = {f"{DATABRICKS_APPLICATION}/.default": "entra", f"{MANAGEMENT}/.default": "management"}
    return server.give(next((what for known, what in resources.items() if known in scope), "useless"))


def _managed_identity(server: TokenServer, seen: Seen) -> tuple[int, object]:
    query = {name: values[0] for name, values in parse_qs(urlsplit(seen.path).query).items()}
    if seen.headers.get("metadata") != "true":
        return 400, {"error": "invalid_request"}
    if query.get("client_id", CLIENT_ID) != CLIENT_ID:
        return 400, {"error": "invalid_request", "error_description": "Identity not found"}
    resource = {DATABRICKS_APPLICATION: "entra", MANAGEMENT: "management"}.get(query["resource"], "useless")
    seconds = int(server.lifetime_of(resource))
    expires = int(time.time()) + seconds
    return 200, {"access_token": server.give(resource), "expires_on": str(expires), "resource": query["resource"],
                 "token_type": "Bearer", "expires_in": str(seconds)}  # fmt: skip


_ANSWERS: dict[str, Callable[..., tuple[int, object]]] = {
    TOKEN_PATH: _databricks_token,
    r"/oidc/accounts/([^/]+)/v1/token": _databricks_token,
    r"/api/2\.\d/jobs/(.*)": _jobs_api,
    r"/\.well-known/databricks-config": _host_metadata,
    r"/oidc(|/accounts/[^/]+)/\.well-known/oauth-authorization-server": _oidc_endpoints,
    r"/api/v1/namespaces/([^/]+)/serviceaccounts/([^/]+)/token": _kubernetes,
    "/": _sts,
    "/latest/api/token": _instance_session,
    "/latest/meta-data/(.*)": _instance,
    "/container": _container,
    r"/([^/]+)/v2\.0/\.well-known/openid-configuration": _entra_metadata,
    r"/([^/]+)/oauth2/v2\.0/token": _entra_token,
    "/metadata/identity/oauth2/token": _managed_identity,
}

"""How to reach and trust servers (proxies, certificates, sessions), and the error if there was no reply.

Shared by the calls of the Jobs API (``client.transport``) and the requests for tokens (``client.auth``).
"""

from __future__ import annotations

import ipaddress
import platform
import re
import ssl
import time
from dataclasses import dataclass, field
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import requests
from requests.utils import select_proxy
from urllib3.exceptions import NameResolutionError, NewConnectionError, ProtocolError, ProxyError, SSLError
from urllib3.exceptions import TimeoutError as HTTPTimeout
from urllib3.util import parse_url

from airflow_dbjobs import __version__
from airflow_dbjobs.client.http_connection import TimedAdapter, connect
from airflow_dbjobs.errors import ConfigurationError, Unreachable, UnreadableReply, UntrustedCertificate, WrongProtocol

HOST_REMEDY = "Check the connection's host and port"

# OpenSSL's errors, in different versions, if the server does not speak TLS.
_NOT_TLS_ERRORS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
# The beginning of a TLS alert.
_TLS_ALERT = r"\x15\x03"
_PROBE_SECONDS = 0.5
_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})


def user_agent(product: str = "") -> str:
    """Return the User-Agent: space-separated ``key/value`` pairs, as Databricks requires of partners."""
    parts = (
        f"airflow-dbjobs/{__version__}",
        f"python/{platform.python_version()}",
        f"os/{platform.system().lower()}",
        product,
    )
    return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach and trust servers. Clients with equal networks can share tokens and pollers.

    `verify` is as in requests: True, False, or the path of a CA bundle. `proxies` are pairs of scheme and URL; if there
    are none, those of the environment apply, unless `direct`. `cert` is the path of a client certificate, or a pair of
    paths: the certificate and its key.
    """

    verify: bool | str = True
    # A proxy's URL may hold its password.
    proxies: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    cert: str | tuple[str, str] | None = None
    direct: bool = False

    def session(self, url: str) -> requests.Session:
        """Return a session for requests to the server of `url`.

        Raises ConfigurationError if a proxy's URL is wrong, UntrustedCertificate if a file is missing.
        """
        session = requests.Session()
        session.trust_env = not self.direct
        # Read the environment (proxies, CA bundle) once per session, as all its requests go to one host: requests would
        # read it for each of them, which takes a third of a request's time.
        try:
            # Older versions of urllib3 would retry to resolve a host name with a space in it.
            is_valid = host_is_unambiguous(url, urlsplit(url).hostname)
            environment = session.merge_environment_settings(url, dict(self.proxies), None, self.verify, self.cert)
        except ValueError:
            is_valid = False
        if not is_valid:
            raise ConfigurationError(f"{url} is not a valid URL")
        session.proxies, session.verify = environment["proxies"], environment["verify"]
        session.cert = environment["cert"]
        # Requests must not read a netrc file, which might authenticate as another user.
        session.trust_env = False
        if proxy := select_proxy(url, session.proxies):
            check_proxy(proxy, "the proxy URL from the connection or the environment")
            if proxy.startswith("socks") and find_spec("socks") is None:
                raise ConfigurationError("a SOCKS proxy needs the package PySocks: pip install 'requests[socks]'")
        if url.startswith("https:"):
            _check_files(session)
        for scheme in ("https://", "http://"):
            session.mount(scheme, TimedAdapter())
        return session

    def check(self, url: str) -> None:
        """Check the settings for the server of `url`. Raises what `session` raises."""
        self.session(url).close()


def host_is_unambiguous(url: str, name: str | None) -> bool:
    """Return True if all libraries read the same host, `name`, from a URL.

    With unusual characters they disagree about where the name ends, and some treat a backslash as a slash.
    """
    is_name = re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", name or "", re.IGNORECASE)
    return bool(is_name) and "\\" not in url


def is_loopback_host(name: str) -> bool:
    """Return True if a host name or address is the loopback of this machine."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def is_safe_for_secrets(url: str) -> bool:
    """Return True if a secret may be sent to a URL: over https, or to this machine."""
    try:
        parts = urlsplit(url)
        name = parts.hostname or ""
    except ValueError:
        return False
    return host_is_unambiguous(url, name) and (
        parts.scheme == "https" or (parts.scheme == "http" and is_loopback_host(name))
    )


def check_proxy(url: str, what: str) -> None:
    """Raise ConfigurationError if a proxy's URL is invalid: a library's error would quote it with its password."""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        # An "@" after the host shows that the password has a "/", "?" or "#" that is not encoded and ended the host.
        is_cut = "@" in parts.path + parts.query + parts.fragment
        is_valid = parts.scheme in _PROXY_SCHEMES and parse_url(whole).host and parts.port != 0 and not is_cut
        is_valid = is_valid and host_is_unambiguous(url, parts.hostname)
    except ValueError:
        is_valid = False
    if not is_valid:
        raise ConfigurationError(
            f"{what} is not valid. It must be http://host:port or http://user:password@host:port, with the user"
            " and the password percent-encoded (%40 for @, %2F for /, %23 for #)."
        )


def _check_files(session: requests.Session) -> None:
    """Raise UntrustedCertificate if a CA bundle or a client certificate cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    bundle, cert = session.verify, session.cert
    what, where = f"CA bundle {bundle}", "`verify` in the connection's extra (or `k8s_ca_path`), and REQUESTS_CA_BUNDLE"
    try:
        if isinstance(bundle, str):
            context.load_verify_locations(**{"capath" if Path(bundle).is_dir() else "cafile": bundle})
        if cert:
            path, key = (cert, None) if isinstance(cert, str) else cert
            what, where = "client certificate", "`client_cert` and `client_key` in the connection's extra"
            # Without a password, OpenSSL would prompt for one at the terminal.
            context.load_cert_chain(path, key, password="")
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        text = f"The {what} cannot be used on this worker or triggerer: {why}. Check {where}"
        raise UntrustedCertificate(text, sent=False) from None


def no_reply_error(
    call: str,
    server: str,
    error: Exception,
    read_seconds: float,
    *,
    sent: bool,
    deadline: float,
    remedy: str,
) -> Exception:
    """Return the error for a request to `server` (a URL) that got no complete reply.

    `sent` is True if the request was sent as far as the caller knows; some errors prove the opposite. A probe for the
    cause ends before `deadline` (monotonic seconds).
    """
    if any(reason in str(error) for reason in _NOT_TLS_ERRORS):
        return wrong_protocol(call, server, "speaks plain HTTP, not HTTPS")
    # http.client's error quotes the alert as a bad status line.
    if _TLS_ALERT in str(error) or (sent and _speaks_tls(server, error, deadline)):
        return wrong_protocol(call, server, "speaks HTTPS, not plain HTTP")
    # requests raises a plain OSError if a CA bundle or a client certificate does not exist.
    if isinstance(error, requests.exceptions.SSLError | SSLError) or type(error) is OSError:
        return _tls_error(call, server, error, sent=sent)
    if _is_timeout(error):
        connected = sent and not isinstance(error, requests.ConnectTimeout)
        action = f"answer within {read_seconds:.3g} s" if connected else "accept a connection in time"
        return Unreachable(f"{call}: {server} did not {action}", sent=connected)
    is_os_error = isinstance(error, OSError) and not isinstance(error, requests.RequestException)
    is_broken = isinstance(error, requests.ConnectionError) or is_os_error
    if is_broken and not _is_garbled(error):
        why, may_have_arrived = _connection_failure(error)
        return Unreachable(f"{call}: cannot reach {server}: {why}. {remedy}", sent=sent and may_have_arrived)
    return _unsendable_or_unreadable(call, server, error, sent=sent)


def _unsendable_or_unreadable(call: str, server: str, error: Exception, *, sent: bool) -> Exception:
    if isinstance(error, ProtocolError) or _is_garbled(error):
        return UnreadableReply(f"{call}: the reply of {server} was cut short or garbled")
    if isinstance(error, ConfigurationError):
        return ConfigurationError(f"{call}: {error}")
    # The text is not quoted, as it may contain a header. An error after the request was sent concerns the reply.
    if sent and not isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return UnreadableReply(f"{call}: the reply of {server} cannot be read: {type(error).__name__}")
    return ConfigurationError(f"{call}: {server} is not a valid URL: {type(error).__name__}")


def wrong_protocol(call: str, server: str, how: str) -> WrongProtocol:
    """Return the error for a server that speaks plain HTTP instead of HTTPS, or the reverse."""
    return WrongProtocol(f"{call}: {server} {how}. Check the connection's schema (http or https), host and port")


def _speaks_tls(server: str, error: Exception, deadline: float) -> bool:
    """Probe whether a server that closed a plain HTTP connection without a reply answers a TLS handshake."""
    parts = urlsplit(server)
    if parts.scheme != "http" or not isinstance(_root_cause(error), ConnectionError):
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        deadline = min(deadline, time.monotonic() + _PROBE_SECONDS)
        with connect(parts.hostname or "", parts.port or 80, deadline) as connection:
            context.wrap_socket(connection).close()
    except (OSError, ValueError):
        return False
    return True


def _is_timeout(error: Exception) -> bool:
    return isinstance(error, requests.Timeout) or isinstance(_root_cause(error), TimeoutError | HTTPTimeout)


def _is_garbled(error: Exception) -> bool:
    """Return True if the reply is not HTTP; a connection closed without a reply raises a similar error."""
    reason = _root_cause(error)
    return isinstance(reason, HTTPException) and not isinstance(reason, ConnectionError)


def _root_cause(error: Exception) -> object:
    """Return the error of the operating system or http.client that the libraries above have wrapped."""
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else error
    return cause.args[-1] if isinstance(cause, ProtocolError) and cause.args else cause


def _tls_error(call: str, server: str, error: Exception, *, sent: bool) -> Exception:
    if type(error) is OSError:
        return UntrustedCertificate(
            f"{call}: cannot verify or authenticate to {server}: {error}. Check `verify` in the connection's extra (or"
            " `client_cert` and `client_key`), and REQUESTS_CA_BUNDLE.",
            sent=False,
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UntrustedCertificate(
            f"{call}: the certificate of {server} is not trusted. Check the connection's host, or give the path of a CA"
            " bundle as `verify` in its extra.",
            sent=False,
        )
    why = "the TLS connection failed. Check the connection's schema (https or http), its port and extra `client_cert`"
    return Unreachable(f"{call}: {server}: {why}", sent=sent)


def _connection_failure(error: Exception) -> tuple[str, bool]:
    """Return why connecting failed or the connection broke, and whether the request may have reached the server."""
    cause: object = error.args[0] if error.args and isinstance(error, requests.RequestException) else error
    reason, prefix = getattr(cause, "reason", cause), ""
    if isinstance(reason, ProxyError):
        reason, prefix = reason.original_error, "the proxy: "
    if isinstance(reason, NameResolutionError):
        return f"{prefix}its name does not resolve", False
    # A proxy that refuses to connect to the server ("Tunnel connection failed: 407 ...").
    if isinstance(reason, NewConnectionError) or str(reason).startswith("Tunnel connection failed: "):
        return f"{prefix}{str(reason).rpartition(': ')[2]}", False
    return f"{prefix}the connection broke ({type(reason).__name__})", True

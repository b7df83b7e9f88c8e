"""How servers are reached and trusted: proxies, certificates, sessions, and why there was no reply.

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
from airflow_dbjobs.client.http_connection import TimedAdapter, connected
from airflow_dbjobs.errors import ConfigurationError, Unreachable, UnreadableReply, UntrustedCertificate, WrongProtocol

HOST_REMEDY = "Check the connection's host and port"

# How OpenSSL says that the other side does not speak TLS; it depends on the version.
_HTTP_WHERE_TLS_IS_SPOKEN = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG")
# The beginning of a TLS alert.
_TLS_ALERT = r"\x15\x03"
_PROBE_SECONDS = 0.5
_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})


def user_agent(product: str = "") -> str:
    """Return the User-Agent: space-separated ``key/value`` pairs, as the platform asks of partners."""
    parts = (
        f"airflow-dbjobs/{__version__}",
        f"python/{platform.python_version()}",
        f"os/{platform.system().lower()}",
        product,
    )
    return " ".join(part for part in parts if part)


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach and trust servers; equal ones share tokens and pollers.

    `verify` is as in requests: True, False, or the path of a CA bundle. `proxies` are pairs of scheme and URL; without
    any, the environment's apply, unless `direct`. `cert` is the path of a client certificate, or a pair with its key's.
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
        # The environment (proxies, a CA bundle) is read once: reading it takes a third of a request's time, and all
        # requests go to one host.
        try:
            # Older versions of urllib3 would look for a host with a space in its name again and again.
            can_be_called = names_one_host(url, urlsplit(url).hostname)
            environment = session.merge_environment_settings(url, dict(self.proxies), None, self.verify, self.cert)
        except ValueError:
            can_be_called = False
        if not can_be_called:
            raise ConfigurationError(f"{url} is not a URL that can be called")
        session.proxies, session.verify = environment["proxies"], environment["verify"]
        session.cert = environment["cert"]
        # Nor is a netrc file read, which might authenticate as another user.
        session.trust_env = False
        if proxy := select_proxy(url, session.proxies):
            check_proxy(proxy, "the URL of the proxy, of the connection or the environment,")
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


def names_one_host(url: str, name: str | None) -> bool:
    """Return whether all libraries find the same host in a URL: the name, or the address, that was read from it.

    They differ in where other names end, and some read a backslash as a slash.
    """
    is_name = re.fullmatch(r"[\w.-]+|[0-9a-f:.]+(%\w+)?", name or "", re.IGNORECASE)
    return bool(is_name) and "\\" not in url


def is_this_machine(name: str) -> bool:
    """Return whether a host's name or address is that of this machine."""
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def keeps_secrets(url: str) -> bool:
    """Return whether a secret may be sent to a URL: encrypted, or to this machine."""
    try:
        parts = urlsplit(url)
        name = parts.hostname or ""
    except ValueError:
        return False
    return names_one_host(url, name) and (parts.scheme == "https" or (parts.scheme == "http" and is_this_machine(name)))


def check_proxy(url: str, what: str) -> None:
    """Raise ConfigurationError if a library could not read a proxy's URL: it would quote it, and its password."""
    whole = url if "://" in url else f"http://{url}"
    try:
        parts = urlsplit(whole)
        # What follows the host has no "@", unless a "/", "?" or "#" of a password was taken for the host's end.
        is_cut = "@" in parts.path + parts.query + parts.fragment
        is_right = parts.scheme in _PROXY_SCHEMES and parse_url(whole).host and parts.port != 0 and not is_cut
        is_right = is_right and names_one_host(url, parts.hostname)
    except ValueError:
        is_right = False
    if not is_right:
        raise ConfigurationError(
            f"{what} cannot be read. It must be http://host:port or http://user:password@host:port, the user and the"
            " password percent-encoded (%40 for @, %2F for /, %23 for #)."
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
            # With no password, one would be asked for at the terminal.
            context.load_cert_chain(path, key, password="")
    except OSError as error:
        why = getattr(error, "reason", None) or error.strerror or type(error).__name__
        said = f"The {what} cannot be used on this worker or triggerer: {why}. Check {where}"
        raise UntrustedCertificate(said, sent=False) from None


def no_reply(
    call: str,
    server: str,
    error: Exception,
    read_seconds: float,
    *,
    sent: bool,
    until: float,
    remedy: str = HOST_REMEDY,
) -> Exception:
    """Return our error for a request to a server (its URL) that got no whole reply.

    `sent` says that the request has left, as far as anybody knows; some errors tell that it has not. What is looked at
    to find out why takes no longer than `until` (monotonic seconds).
    """
    if any(reason in str(error) for reason in _HTTP_WHERE_TLS_IS_SPOKEN):
        return wrong_protocol(call, server, "answers in plain HTTP, and not in HTTPS")
    # http.client quotes it as the status line.
    if _TLS_ALERT in str(error) or (sent and _speaks_tls(server, error, until)):
        return wrong_protocol(call, server, "speaks HTTPS, and not plain HTTP")
    # That is how requests tells of a CA bundle, or a client certificate, that is not there.
    if isinstance(error, requests.exceptions.SSLError | SSLError) or type(error) is OSError:
        return _no_tls(call, server, error, sent=sent)
    if _is_late(error):
        accepted = sent and not isinstance(error, requests.ConnectTimeout)
        late = f"answer within {read_seconds:.3g} s" if accepted else "accept a connection in time"
        return Unreachable(f"{call}: {server} did not {late}", sent=accepted)
    is_bare = isinstance(error, OSError) and not isinstance(error, requests.RequestException)
    is_broken = isinstance(error, requests.ConnectionError) or is_bare
    if is_broken and not _is_garbled(error):
        why, left = _connection_failure(error)
        return Unreachable(f"{call}: cannot reach {server}: {why}. {remedy}", sent=sent and left)
    return _unsendable_or_unreadable(call, server, error, sent=sent)


def _unsendable_or_unreadable(call: str, server: str, error: Exception, *, sent: bool) -> Exception:
    if isinstance(error, ProtocolError) or _is_garbled(error):
        return UnreadableReply(f"{call}: the reply of {server} was cut short or garbled")
    if isinstance(error, ConfigurationError):
        return ConfigurationError(f"{call}: {error}")
    # Their texts may quote a header. What comes after the request has left is about the reply.
    if sent and not isinstance(error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema):
        return UnreadableReply(f"{call}: the reply of {server} cannot be read: {type(error).__name__}")
    return ConfigurationError(f"{call}: {server} is not a URL that can be called: {type(error).__name__}")


def wrong_protocol(call: str, server: str, how: str) -> WrongProtocol:
    """Return the error for HTTPS spoken where plain HTTP is, or the reverse."""
    return WrongProtocol(f"{call}: {server} {how}. Check the connection's schema (http or https), host and port")


def _speaks_tls(server: str, error: Exception, until: float) -> bool:
    """Whether a server that broke off a request in plain HTTP, with no word, would have answered to a TLS handshake."""
    parts = urlsplit(server)
    if parts.scheme != "http" or not isinstance(_reason_of_break(error), ConnectionError):
        return False
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    try:
        until = min(until, time.monotonic() + _PROBE_SECONDS)
        with connected(parts.hostname or "", parts.port or 80, until) as connection:
            context.wrap_socket(connection).close()
    except (OSError, ValueError):
        return False
    return True


def _is_late(error: Exception) -> bool:
    return isinstance(error, requests.Timeout) or isinstance(_reason_of_break(error), TimeoutError | HTTPTimeout)


def _is_garbled(error: Exception) -> bool:
    """Whether what came is no HTTP; a connection that is closed instead of an answer looks much like it."""
    reason = _reason_of_break(error)
    return isinstance(reason, HTTPException) and not isinstance(reason, ConnectionError)


def _reason_of_break(error: Exception) -> object:
    """Return what the operating system or http.client said, where the libraries above have wrapped it."""
    cause = error.args[0] if isinstance(error, requests.ConnectionError) and error.args else error
    return cause.args[-1] if isinstance(cause, ProtocolError) and cause.args else cause


def _no_tls(call: str, server: str, error: Exception, *, sent: bool) -> Exception:
    if type(error) is OSError:
        return UntrustedCertificate(
            f"{call}: nothing to trust {server} by: {error}. Check `verify` in the connection's extra (or"
            " `client_cert` and `client_key`), and REQUESTS_CA_BUNDLE.",
            sent=False,
        )
    if "CERTIFICATE_VERIFY_FAILED" in str(error):
        return UntrustedCertificate(
            f"{call}: the certificate of {server} is not trusted. Check the connection's host, or give the path of a CA"
            " bundle as `verify` in its extra.",
            sent=False,
        )
    why = "no secure connection. Check the connection's schema (https or http) and port, and `client_cert` in its extra"
    return Unreachable(f"{call}: {server}: {why}", sent=sent)


def _connection_failure(error: Exception) -> tuple[str, bool]:
    """Return why there was no connection, or why it broke, and whether the request may have reached the server."""
    cause: object = error.args[0] if error.args and isinstance(error, requests.RequestException) else error
    reason, whose = getattr(cause, "reason", cause), ""
    if isinstance(reason, ProxyError):
        reason, whose = reason.original_error, "the proxy: "
    if isinstance(reason, NameResolutionError):
        return f"{whose}its name does not resolve", False
    # A proxy that refuses to connect to the server ("Tunnel connection failed: 407 ...").
    if isinstance(reason, NewConnectionError) or str(reason).startswith("Tunnel connection failed: "):
        return f"{whose}{str(reason).rpartition(': ')[2]}", False
    return f"{whose}the connection broke ({type(reason).__name__})", True

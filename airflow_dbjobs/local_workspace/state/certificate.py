"""The certificate by which the server speaks TLS: made here, valid for this machine only, kept in the state folder."""

from __future__ import annotations

import ipaddress
import os
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from airflow_dbjobs.local_workspace.state.folder import TLS_KEY, WorkspaceError

if TYPE_CHECKING:
    from pathlib import Path

#: Clients on some systems take no certificate for longer than 398 days.
_LIFETIME: Final = timedelta(days=397)
#: A certificate that expires sooner is made again at the start.
_LEAST: Final = timedelta(days=30)


def kept_certificate(folder: Path, now: datetime | None = None) -> tuple[Path, Path]:
    """Return the files of a state folder's certificate and private key, which are made if needed.

    :raises WorkspaceError: They cannot be written.
    """
    certificate, key = folder / "tls-certificate.pem", folder / TLS_KEY
    now = now or datetime.now(UTC)
    try:
        if not _is_valid(certificate, key, now):
            _make(certificate, key, now)
    except OSError as error:
        raise WorkspaceError(f"The certificate for TLS cannot be kept in {folder}: {error.strerror}.") from None
    return certificate, key


def _is_valid(certificate: Path, key: Path, now: datetime) -> bool:
    """Return whether the two files belong together, and are not about to expire."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        kept = x509.load_pem_x509_certificate(certificate.read_bytes())
        private = load_pem_private_key(key.read_bytes(), password=None)
    except (FileNotFoundError, TypeError, ValueError):
        return False
    return kept.public_key() == private.public_key() and kept.not_valid_after_utc - now > _LEAST


def _make(certificate: Path, key: Path, now: datetime) -> None:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

    private = ec.generate_private_key(ec.SECP256R1())
    public = private.public_key()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "airflow_dbjobs local workspace")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(public)
    addresses = [x509.IPAddress(ipaddress.ip_address(address)) for address in ("127.0.0.1", "::1")]
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.SubjectAlternativeName([x509.DNSName("localhost"), *addresses]), False),
        # Not an authority: who has the key cannot make certificates for other names with it.
        (x509.BasicConstraints(ca=False, path_length=None), True),
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), False),
        (identifier, False),
        (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), False),
    ]
    builder = x509.CertificateBuilder(name, name, public, x509.random_serial_number())
    # Clocks may differ.
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + _LIFETIME - timedelta(days=1))
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    made = builder.sign(private, hashes.SHA256())
    _write_private(key, private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    certificate.write_bytes(made.public_bytes(Encoding.PEM))


def _write_private(file: Path, content: bytes) -> None:
    """Write a file that only its owner can read, from its first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as private:
        private.write(content)

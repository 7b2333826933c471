"""A private certificate authority and server certificates, for programs that find each other by address.

Knows no program and no protocol. A hospital that has certificates of its own puts them in the same places. Invariants:
private keys are written once, readable by their owner alone; a server certificate names every host it is for and is
good for nothing but serving; the authority signs no other authority.

Sources: RFC 5280 (profile), RFC 9525 (names in certificates of services).
"""

import ipaddress
import os
import ssl
import warnings
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.utils import CryptographyDeprecationWarning
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from policies.errors import NotFoundError, StorageError, TrustError, UsageError

CA_LIFE = timedelta(days=3650)
SERVER_LIFE = timedelta(days=825)
"""The longest that common TLS clients take from a private authority."""

_CLOCK_SLACK = timedelta(minutes=5)
_USAGES = (
    "digital_signature",
    "content_commitment",
    "key_encipherment",
    "data_encipherment",
    "key_agreement",
    "key_cert_sign",
    "crl_sign",
    "encipher_only",
    "decipher_only",
)


@dataclass(frozen=True, slots=True)
class CertificateAuthority:
    """A self-signed authority, with its key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def certificate_pem(self) -> bytes:
        """What peers pin."""
        return self.certificate.public_bytes(Encoding.PEM)

    def write(self, certificate_path: Path, key_path: Path) -> None:
        """Write both files.

        Raises:
            UsageError: one exists already: an authority is never overwritten.
            StorageError: they cannot be written.
        """
        _write_new(key_path, _private_pem(self.key), 0o600)
        _write_new(certificate_path, self.certificate_pem, 0o644)

    @classmethod
    def read(cls, certificate_path: Path, key_path: Path) -> "CertificateAuthority":
        """Read what `write` wrote.

        Raises:
            NotFoundError: one of the files is missing.
            TrustError: they are damaged, or do not belong together.
        """
        certificate, key = read_certificate(certificate_path), _read_key(key_path)
        if certificate.public_key() != key.public_key():
            raise TrustError(f"{key_path.name} is not the key of {certificate_path.name}")
        return cls(certificate, key)


@dataclass(frozen=True, slots=True)
class ServerCertificate:
    """A certificate for a TLS server, with its key, as PEM."""

    certificate_pem: bytes
    key_pem: bytes

    def write(self, certificate_path: Path, key_path: Path) -> None:
        """Write both files, each atomically, in place of earlier ones.

        Raises:
            StorageError: they cannot be written.
        """
        for path, content, mode in (
            (key_path, self.key_pem, 0o600),
            (certificate_path, self.certificate_pem, 0o644),
        ):
            fresh = path.with_name(path.name + ".new")
            fresh.unlink(missing_ok=True)
            _write_new(fresh, content, mode)
            fresh.replace(path)


def create_ca(name: str, *, now: datetime | None = None, life: timedelta = CA_LIFE) -> CertificateAuthority:
    """Make a new authority.

    Args:
        name: its common name, shown to people who look at the certificate.
        now: the moment it starts to count, with a time zone.
        life: how long it counts.
    """
    moment = now or datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])
    certificate = (
        _builder(subject, subject, key.public_key(), moment, life)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage("key_cert_sign", "crl_sign"), critical=True)
        .sign(key, hashes.SHA256())
    )
    return CertificateAuthority(certificate, key)


def issue_server_certificate(
    authority: CertificateAuthority,
    hosts: list[str],
    *,
    now: datetime | None = None,
    life: timedelta = SERVER_LIFE,
) -> ServerCertificate:
    """Make a server certificate, with a new key, for all of `hosts`.

    Args:
        authority: who signs.
        hosts: DNS names and IP addresses by which clients reach the server.
        now: the moment it starts to count, with a time zone.
        life: how long it counts; never beyond the authority's own end.

    Raises:
        UsageError: no host, or one that is neither a name nor an address.
    """
    moment = now or datetime.now(UTC)
    if not hosts:
        raise UsageError("a server certificate names at least one host", hint="Give --host.")
    key = ec.generate_private_key(ec.SECP256R1())
    life = min(life, authority.certificate.not_valid_after_utc - moment)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, hosts[0][:64])])
    certificate = (
        _builder(subject, authority.certificate.subject, key.public_key(), moment, life)
        .add_extension(x509.SubjectAlternativeName([_general_name(host) for host in hosts]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage("digital_signature"), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
        )
        .sign(authority.key, hashes.SHA256())
    )
    return ServerCertificate(certificate.public_bytes(Encoding.PEM), _private_pem(key))


def read_certificate(path: Path) -> x509.Certificate:
    """Read the first certificate of a PEM file.

    Raises:
        NotFoundError: there is no such file.
        TrustError: it holds no certificate.
    """
    try:
        return x509.load_pem_x509_certificate(path.read_bytes())
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.name}: there is no such certificate file") from error
    except OSError as error:
        raise StorageError(f"{path.name}: the certificate cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise TrustError(f"{path.name}: holds no PEM certificate") from error


def check_certificate(path: Path, *, now: datetime | None = None, hint: str = "") -> datetime:
    """Return when a certificate ends, if it counts now.

    Raises:
        NotFoundError: there is no such file.
        TrustError: it is not a certificate, not valid yet, or expired; the message says which and when.
    """
    moment = now or datetime.now(UTC)
    certificate = read_certificate(path)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if moment >= end:
        raise TrustError(f"{path.name}: the certificate expired on {end:%Y-%m-%d %H:%M} UTC", hint=hint)
    if moment < start:
        raise TrustError(
            f"{path.name}: the certificate is valid only from {start:%Y-%m-%d %H:%M} UTC",
            hint="Check this machine's clock.",
        )
    return end


def client_context(ca_path: Path) -> ssl.SSLContext:
    """Return a TLS client context that trusts the authorities of one file and no other.

    The file may hold several, such as the hospital's own where its proxy opens TLS; one of them that ended is no fault.

    Raises:
        NotFoundError: there is no such file.
        TrustError: it holds no certificate, or none that counts now.
    """
    _check_any(ca_path, hint="Ask the consortium's operator for the current authority.")
    try:
        return ssl.create_default_context(cafile=str(ca_path))
    except (ssl.SSLError, OSError) as error:
        raise TrustError(f"{ca_path.name}: cannot be used as a certificate authority") from error


def _check_any(path: Path, *, hint: str) -> None:
    read_certificate(path)
    try:
        with warnings.catch_warnings():
            # A bundle of public authorities has some of which a serial number is not positive: OpenSSL takes them.
            warnings.simplefilter("ignore", CryptographyDeprecationWarning)
            found = x509.load_pem_x509_certificates(path.read_bytes())
    except ValueError as error:
        raise TrustError(f"{path.name}: holds something beside PEM certificates") from error
    now = datetime.now(UTC)
    if not any(each.not_valid_before_utc <= now < each.not_valid_after_utc for each in found):
        check_certificate(path, hint=hint)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, life: timedelta
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _CLOCK_SLACK)
        .not_valid_after(now + life)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _key_usage(*wanted: str) -> x509.KeyUsage:
    return x509.KeyUsage(**{usage: usage in wanted for usage in _USAGES})


def _general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return x509.DNSName(host)
    except ValueError as error:
        raise UsageError(f"{host!r} is neither a host name nor an address") from error


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_key(path: Path) -> ec.EllipticCurvePrivateKey:
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except FileNotFoundError as error:
        raise NotFoundError(f"{path.name}: there is no such key file") from error
    except OSError as error:
        raise StorageError(f"{path.name}: the key cannot be read ({error.strerror})") from error
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise TrustError(f"{path.name}: cannot be read as a private key") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise TrustError(f"{path.name}: is not an elliptic curve key")
    return key


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError as error:
        raise UsageError(f"{path.name}: a file of this name is there already") from error
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be written ({error.strerror})") from error

"""X.509 certificates of the links between members: the operator's CA and one certificate a member.

A certificate is believed for two reasons, and both must hold:

* this cluster's CA signed it. TLS checks that, and its dates;
* the member signed its TLS key with the Ed25519 key that genesis has for it, together with chain
  id, name and address. Peers check that (`check_identity`). So whoever holds the CA's key alone
  cannot pass for a member, and a certificate is of no use in another cluster.

The member's signature, the *binding*, is in an extension that every other reader may skip. It does
not cover the dates: the operator can extend a certificate without the member's keys.

    subject      O = chain id in hex, CN = name of the member
    SAN          DNS name of the member; DNS or IP of its host
    extension    2.25.<UUID>, not critical, DER OCTET STRING of the 64 bytes of the binding
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from vcp_cluster.cluster.addresses import split_address
from vcp_cluster.ledger.domains import DOMAIN_TLS
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.keys import is_signed, sign

CERTIFICATE_DAYS = 1826
"""Five years."""
AUTHORITY_DAYS = 7305
"""Twenty years: a new CA has to be brought to every member."""
CERTIFICATE_DAYS_MAX = 3652

BINDING_OID: Final = x509.ObjectIdentifier(f"2.25.{0x53862006_DDE8_5D4D_BAE4_FC40D8DE713E}")
BINDING_BYTES = 64
_OCTET_STRING = bytes([0x04, BINDING_BYTES])
_EARLIER = timedelta(days=1)
"""Certificates are valid a little before they are made: clocks of machines differ."""


class CertificateError(ValueError):
    """A certificate, request or key is not what it must be. The message says which rule it breaks,
    as what is said of "it": "it has expired"."""


@dataclass(frozen=True)
class MemberIdentity:
    """What genesis says of a member: its `address` is HOST:PORT, its `key` the Ed25519 public key
    with which it signs in the ledger."""

    chain_id: bytes
    name: str
    address: str
    key: bytes


@dataclass(frozen=True)
class Authority:
    """The CA of a cluster: 32 bytes of seed of its Ed25519 key, and its certificate."""

    seed: bytes
    certificate: x509.Certificate


def make_authority(chain_id: bytes, seed: bytes, *, now: datetime) -> Authority:
    """A new CA, valid for `AUTHORITY_DAYS`.

    Its name has the beginning of its key: TLS tells two CAs of one cluster apart by their names.
    """
    key = Ed25519PrivateKey.from_private_bytes(seed)
    number = key.public_key().public_bytes_raw().hex()[:12]
    name = _subject(chain_id, f"vcp-cluster CA {number}")
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + timedelta(days=AUTHORITY_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_key_usage(is_authority=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, None)
    )
    return Authority(seed, certificate)


def make_binding(member: MemberIdentity, member_seed: bytes, tls_key: bytes) -> bytes:
    """The member's signature over its TLS public key (32 bytes): 64 bytes."""
    return sign(member_seed, DOMAIN_TLS, _bound(member, tls_key))


def make_request(
    member: MemberIdentity, member_seed: bytes, tls_key: Ed25519PrivateKey
) -> x509.CertificateSigningRequest:
    """A certificate signing request with the binding in it, for a CA on another machine."""
    binding = make_binding(member, member_seed, tls_key.public_key().public_bytes_raw())
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(member.chain_id, member.name))
        .add_extension(_binding_extension(binding), critical=False)
        .sign(tls_key, None)
    )


def issue_certificate(
    authority: Authority,
    member: MemberIdentity,
    source: x509.CertificateSigningRequest | x509.Certificate,
    *,
    now: datetime,
    days: int = CERTIFICATE_DAYS,
) -> x509.Certificate:
    """Certify the TLS key of a request, or that of an older certificate once more.

    Raises `CertificateError` when the key is not bound to the member, when `days` is not from 1 to
    `CERTIFICATE_DAYS_MAX`, and when the certificate would outlive the CA's.
    """
    _check_days(days)
    if isinstance(source, x509.CertificateSigningRequest) and not source.is_signature_valid:
        raise CertificateError("the signature of the request is not valid")
    if _names(source.subject) != (member.chain_id.hex(), member.name):
        raise CertificateError(f"it is not for member {member.name} of this cluster")
    binding = _check_binding(source, member)
    ends = now + timedelta(days=days)
    if ends > authority.certificate.not_valid_after_utc:
        raise CertificateError(
            f"it would outlive the CA, which ends on {authority.certificate.not_valid_after_utc:%F}"
        )
    key = Ed25519PrivateKey.from_private_bytes(authority.seed)
    tls_key = Ed25519PublicKey.from_public_bytes(tls_public_key(source))
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(member.chain_id, member.name))
        .issuer_name(authority.certificate.subject)
        .public_key(tls_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(ends)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(is_authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(x509.SubjectAlternativeName(_alternative_names(member)), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(tls_key), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False
        )
        .add_extension(_binding_extension(binding), critical=False)
        .sign(key, None)
    )


def claimed_member(certificate: x509.Certificate) -> tuple[str, str]:
    """(chain id in hex, member name) that a certificate claims; raise `CertificateError`."""
    return _names(certificate.subject)


def check_identity(certificate: x509.Certificate, member: MemberIdentity) -> None:
    """Raise `CertificateError` unless the certificate is this member's.

    Who signed it and its dates are not looked at: TLS does that, or `check_issued`.
    """
    chain_id, name = claimed_member(certificate)
    if chain_id != member.chain_id.hex():
        raise CertificateError(f"it is of another cluster, {chain_id[:32]!r}")
    if name != member.name:
        raise CertificateError(f"it is of member {name[:32]!r}, not of {member.name}")
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except (x509.ExtensionNotFound, ValueError) as error:
        raise CertificateError(f"it has no alternative names: {error}") from None
    missing = [one.value for one in _alternative_names(member) if one not in extension.value]
    if missing:
        raise CertificateError(f"it does not name {' and '.join(map(str, missing))}")
    _check_binding(certificate, member)


def check_issued(
    certificate: x509.Certificate, authorities: Sequence[x509.Certificate], *, now: datetime
) -> None:
    """Raise `CertificateError` unless one of the CAs signed the certificate and it is valid now."""
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        break
    else:
        raise CertificateError("it is not of this cluster's CA")
    if now < certificate.not_valid_before_utc:
        raise CertificateError(
            f"it is not valid before {certificate.not_valid_before_utc:%F}: compare the clocks"
        )
    if now >= certificate.not_valid_after_utc:
        raise CertificateError(f"it expired on {certificate.not_valid_after_utc:%F}")


def tls_public_key(source: x509.CertificateSigningRequest | x509.Certificate) -> bytes:
    """The certified key, 32 bytes; raise `CertificateError` when it is not an Ed25519 key."""
    try:
        key = source.public_key()
    except (ValueError, TypeError) as error:
        raise CertificateError(f"its key is not known: {error}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise CertificateError("its key is not an Ed25519 key")
    return key.public_bytes_raw()


def fingerprint(certificate: x509.Certificate) -> str:
    """SHA-256 of a certificate in hex, as `openssl x509 -fingerprint -sha256` shows it."""
    return certificate.fingerprint(SHA256()).hex()


def to_pem(item: x509.Certificate | x509.CertificateSigningRequest) -> bytes:
    """PEM text of a certificate or a request."""
    return item.public_bytes(Encoding.PEM)


def private_to_pem(key: Ed25519PrivateKey) -> bytes:
    """PEM text of a TLS key: PKCS #8, not encrypted."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def utc_now() -> datetime:
    """The time of this machine."""
    return datetime.now(UTC)


def _check_days(days: int) -> None:
    if not 1 <= days <= CERTIFICATE_DAYS_MAX:
        raise CertificateError(
            f"it would be valid for {days} days, which is not from 1 to {CERTIFICATE_DAYS_MAX}"
        )


def _bound(member: MemberIdentity, tls_key: bytes) -> bytes:
    return encode((member.chain_id, member.name, member.address, tls_key))


def _check_binding(
    source: x509.CertificateSigningRequest | x509.Certificate, member: MemberIdentity
) -> bytes:
    """The binding; raise `CertificateError` unless the member made it for this TLS key."""
    try:
        value = source.extensions.get_extension_for_oid(BINDING_OID).value
    except (x509.ExtensionNotFound, ValueError):
        raise CertificateError(f"member {member.name} has not signed its TLS key") from None
    assert isinstance(value, x509.UnrecognizedExtension), "nobody else uses the number"
    binding = value.value.removeprefix(_OCTET_STRING)
    if not is_signed(member.key, DOMAIN_TLS, _bound(member, tls_public_key(source)), binding):
        raise CertificateError(
            f"its TLS key is not signed by the key that genesis has for member {member.name}"
        )
    return binding


def _binding_extension(binding: bytes) -> x509.UnrecognizedExtension:
    return x509.UnrecognizedExtension(BINDING_OID, _OCTET_STRING + binding)


def _alternative_names(member: MemberIdentity) -> list[x509.GeneralName]:
    host, _ = split_address(member.address)
    names: list[x509.GeneralName] = [x509.DNSName(member.name)]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(host.strip("[]"))))
    except ValueError:
        names.append(x509.DNSName(host))
    return names


def _subject(chain_id: bytes, name: str) -> x509.Name:
    return x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, chain_id.hex()),
            x509.NameAttribute(NameOID.COMMON_NAME, name),
        ]
    )


def _names(subject: x509.Name) -> tuple[str, str]:
    organisations = subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)
    names = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    if len(organisations) != 1 or len(names) != 1:
        raise CertificateError("it does not name a cluster and a member")
    return str(organisations[0].value), str(names[0].value)


def _key_usage(*, is_authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not is_authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_authority,
        crl_sign=is_authority,
        encipher_only=False,
        decipher_only=False,
    )

"""The files of the links between members.

    DIR/ca.key              the CA's Ed25519 seed, one line of hex; stays with the operator
    DIR/ca.crt              the CA's certificate, PEM; several while a CA is being replaced
    DIR/<member>/ca.crt     a copy
                 tls.pem    the member's TLS key (PKCS #8) and its certificate, PEM, mode 0600
                 tls.next   a TLS key whose certificate is still asked for, mode 0600

Key and certificate are in one file because they change together: a running member that looks
never sees one without the other.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from vcp_cluster.cluster.certificates import (
    CERTIFICATE_DAYS,
    Authority,
    CertificateError,
    MemberIdentity,
    check_identity,
    check_issued,
    issue_certificate,
    make_authority,
    make_request,
    private_to_pem,
    tls_public_key,
    to_pem,
    utc_now,
)
from vcp_cluster.cluster.config_files import read_file, read_secret_file, write_new, wrong_file
from vcp_cluster.cluster.directory import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    SEED_BYTES,
    TLS_FILE,
    load_seed,
    write_seed,
)
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.genesis import Genesis, compute_chain_id

TLS_NEXT_FILE = "tls.next"
PEM_BYTES_MAX = 64 << 10

ROTATE_LINE = "vcp-cluster cert rotate --dir DIR/NAME --ca DIR"


@dataclass(frozen=True)
class TlsFile:
    """The content of a `tls.pem`."""

    key: Ed25519PrivateKey
    certificate: x509.Certificate


def identities_of(genesis: Genesis) -> dict[str, MemberIdentity]:
    """The members of a cluster by name."""
    chain_id = compute_chain_id(genesis)
    return {
        member.name: MemberIdentity(chain_id, member.name, member.address, member.key)
        for member in genesis.members
    }


def write_certificates(
    path: Path, genesis: Genesis, seeds: Mapping[str, bytes], *, days: int | None = None
) -> None:
    """Make a CA in `path` and a certificate in the directory of each member; raise `ConfigError`.

    `seeds` are the members' ledger keys by name; `days` how long certificates are valid.
    """
    now, members = utc_now(), identities_of(genesis)
    days = CERTIFICATE_DAYS if days is None else days
    seed = secrets.token_bytes(SEED_BYTES)
    try:
        authority = make_authority(compute_chain_id(genesis), seed, now=now)
        files = {
            name: make_tls(authority, members[name], member_seed, now=now, days=days)
            for name, member_seed in seeds.items()
        }
    except CertificateError as error:
        raise ConfigError(
            str(error), key="certificates", origin="init", hint="choose another number of days"
        ) from None
    for name, data in files.items():
        write_new(path / name / TLS_FILE, data, 0o600)
        write_new(path / name / AUTHORITY_FILE, to_pem(authority.certificate), 0o644)
    write_seed(path / AUTHORITY_KEY_FILE, seed)
    write_new(path / AUTHORITY_FILE, to_pem(authority.certificate), 0o644)


def load_authority(path: Path) -> Authority:
    """The CA in the directory that `init` made; raise `ConfigError`."""
    seed = load_seed(path / AUTHORITY_KEY_FILE)
    key = Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()
    for certificate in load_authorities(path / AUTHORITY_FILE):
        if tls_public_key(certificate) == key:
            return Authority(seed, certificate)
    raise wrong_file(
        path / AUTHORITY_FILE,
        f"it is not the certificate of {AUTHORITY_KEY_FILE}",
        "put the two files of one `vcp-cluster init` together again",
    )


def load_authorities(path: Path) -> list[x509.Certificate]:
    """The certificates of a `ca.crt`; raise `ConfigError`."""
    hint = "copy ca.crt from the directory that `vcp-cluster init` made"
    data, _ = read_file(path, PEM_BYTES_MAX, if_missing=hint)
    try:
        return x509.load_pem_x509_certificates(data)
    except ValueError as error:
        raise wrong_file(path, f"it holds no certificates: {error}", hint) from None


def load_tls(path: Path) -> TlsFile:
    """Read a `tls.pem`; raise `ConfigError`, also for a file that others can read."""
    hint = f"make it again: {ROTATE_LINE}"
    data = read_secret_file(path, PEM_BYTES_MAX, if_missing=hint)
    key = _parse_key(path, data, hint)
    try:
        certificate = x509.load_pem_x509_certificate(data)
        is_pair = tls_public_key(certificate) == key.public_key().public_bytes_raw()
    except ValueError as error:
        raise wrong_file(path, f"it holds no certificate: {error}", hint) from None
    if not is_pair:
        raise wrong_file(path, "key and certificate do not belong together", hint)
    return TlsFile(key, certificate)


def load_next_key(path: Path) -> Ed25519PrivateKey:
    """Read a `tls.next`; raise `ConfigError`."""
    hint = "ask for a certificate first: vcp-cluster cert rotate --dir DIR --request FILE"
    data = read_secret_file(path, PEM_BYTES_MAX, if_missing=hint)
    return _parse_key(path, data, hint)


def load_certificate(path: Path) -> x509.Certificate:
    """Read one certificate, PEM; raise `ConfigError`."""
    hint = "give the file that `vcp-cluster cert issue` wrote"
    data, _ = read_file(path, PEM_BYTES_MAX, if_missing=hint)
    try:
        return x509.load_pem_x509_certificate(data)
    except ValueError as error:
        raise wrong_file(path, f"it is not a certificate: {error}", hint) from None


def load_request(path: Path) -> x509.CertificateSigningRequest:
    """Read a request, PEM; raise `ConfigError`."""
    hint = "give the file that `vcp-cluster cert rotate --request` wrote"
    data, _ = read_file(path, PEM_BYTES_MAX, if_missing=hint)
    try:
        return x509.load_pem_x509_csr(data)
    except ValueError as error:
        raise wrong_file(path, f"it is not a request: {error}", hint) from None


def make_tls(
    authority: Authority,
    member: MemberIdentity,
    member_seed: bytes,
    *,
    now: datetime,
    days: int = CERTIFICATE_DAYS,
) -> bytes:
    """Content of a `tls.pem` with a new key and a certificate for it; raise `CertificateError`."""
    key = Ed25519PrivateKey.generate()
    request = make_request(member, member_seed, key)
    return private_to_pem(key) + to_pem(
        issue_certificate(authority, member, request, now=now, days=days)
    )


def check_tls(
    path: Path,
    certificate: x509.Certificate,
    authorities: list[x509.Certificate],
    member: MemberIdentity,
    *,
    now: datetime,
) -> None:
    """Raise `ConfigError` unless peers would accept a certificate, read from `path`, as a member's."""
    try:
        check_identity(certificate, member)
        check_issued(certificate, authorities, now=now)
    except CertificateError as error:
        raise wrong_file(
            path, f"its certificate is refused: {error}", f"make a new one: {ROTATE_LINE}"
        ) from None


def _parse_key(path: Path, data: bytes, hint: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise wrong_file(path, f"it holds no key: {error}", hint) from None
    if not isinstance(key, Ed25519PrivateKey):
        raise wrong_file(path, "its key is not an Ed25519 key", hint)
    return key

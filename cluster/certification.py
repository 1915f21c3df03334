"""Showing, issuing and replacing certificates in the directories that `init` made.

A new TLS key and its certificate, with the CA in reach:

    replace_certificate

With the CA on another machine, the key never leaves the member's:

    begin_replacement (member) ─ request ─► issue (CA) ─ certificate ─► finish_replacement (member)

A running member takes the new file within a second or two; see `raft/transport/security.py`.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vcp_cluster.cluster.certificate_files import (
    TLS_NEXT_FILE,
    check_tls,
    identities_of,
    load_authorities,
    load_authority,
    load_certificate,
    load_next_key,
    load_request,
    load_tls,
    make_tls,
)
from vcp_cluster.cluster.certificates import (
    Authority,
    CertificateError,
    MemberIdentity,
    check_identity,
    check_issued,
    fingerprint,
    issue_certificate,
    make_authority,
    make_request,
    private_to_pem,
    tls_public_key,
    to_pem,
    utc_now,
)
from vcp_cluster.cluster.config_files import replace_file, wrong_file
from vcp_cluster.cluster.directory import (
    AUTHORITY_FILE,
    AUTHORITY_KEY_FILE,
    GENESIS_FILE,
    MEMBER_KEY_FILE,
    SEED_BYTES,
    TLS_FILE,
    MemberDirectory,
    load_genesis,
)
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.genesis import compute_chain_id

EXPIRES_SOON = timedelta(days=30)


@dataclass(frozen=True)
class CertificateRow:
    """A certificate as it is shown. `status` is `valid`, `expiring` or why it is refused."""

    name: str
    path: Path
    fingerprint: str | None
    not_before: datetime | None
    not_after: datetime | None
    status: str


def describe_certificates(path: Path) -> list[CertificateRow]:
    """The certificates of a member's directory, or of all that `init` made; raise `ConfigError`.

    One that cannot be read is a row that says why.
    """
    identities = identities_of(load_genesis(path / GENESIS_FILE))
    if (path / MEMBER_KEY_FILE).exists():
        places = {MemberDirectory.load(path).name: path}
    else:
        places = {name: path / name for name in identities}
    authorities = load_authorities(path / AUTHORITY_FILE)
    now = utc_now()
    rows = [
        _describe("CA", path / AUTHORITY_FILE, one, _judge_dates(one, now)) for one in authorities
    ]
    for name, place in places.items():
        try:
            certificate = load_tls(place / TLS_FILE).certificate
        except ConfigError as error:
            rows.append(CertificateRow(name, place / TLS_FILE, None, None, None, error.message))
            continue
        try:
            check_identity(certificate, identities[name])
            check_issued(certificate, authorities, now=now)
            status = _judge_dates(certificate, now)
        except CertificateError as error:
            status = f"refused: {error}"
        rows.append(_describe(name, place / TLS_FILE, certificate, status))
    return rows


def check_member(member: MemberDirectory) -> None:
    """Raise `ConfigError` unless the other members would accept a member's certificate."""
    certificate = load_tls(member.tls_path).certificate
    authorities = load_authorities(member.authority_path)
    check_tls(member.tls_path, certificate, authorities, _identity(member), now=utc_now())


def issue(authority_path: Path, name: str, request: Path | None, *, days: int) -> x509.Certificate:
    """Certify the TLS key of a request, or that of the member's present certificate once more.

    `authority_path` is the directory that `init` made. Raises `ConfigError`.
    """
    authority = load_authority(authority_path)
    member = identities_of(load_genesis(authority_path / GENESIS_FILE)).get(name)
    if member is None:
        raise ConfigError(
            f"there is no member {name!r} in {authority_path / GENESIS_FILE}",
            key="NAME",
            origin="the command line",
            hint="vcp-cluster cert show lists the members",
        )
    source: x509.Certificate | x509.CertificateSigningRequest
    if request is None:
        path = authority_path / name / TLS_FILE
        source = load_tls(path).certificate
    else:
        path, source = request, load_request(request)
    try:
        return issue_certificate(authority, member, source, now=utc_now(), days=days)
    except CertificateError as error:
        raise wrong_file(
            path,
            str(error),
            "give other --days, or make the request again: vcp-cluster cert rotate",
        ) from None


def replace_authority(path: Path) -> x509.Certificate:
    """Make a new CA in the directory that `init` made; raise `ConfigError`.

    The old CA's certificate stays in `ca.crt`, in front of the new one, so that members that are
    given this file believe both. Its key is gone.
    """
    genesis = load_genesis(path / GENESIS_FILE)
    present = load_authorities(path / AUTHORITY_FILE)
    load_authority(path)
    seed = secrets.token_bytes(SEED_BYTES)
    certificate = make_authority(compute_chain_id(genesis), seed, now=utc_now()).certificate
    # In this order: `ca.key` has its certificate at any moment.
    bundle = b"".join(map(to_pem, [*present, certificate]))
    replace_file(path / AUTHORITY_FILE, bundle, 0o644)
    replace_file(path / AUTHORITY_KEY_FILE, f"{seed.hex()}\n".encode(), 0o600)
    return certificate


def replace_certificate(member: MemberDirectory, authority_path: Path, *, days: int) -> Path:
    """Give a member a new TLS key and a certificate for it; raise `ConfigError`.

    Returns the file that was replaced.
    """
    authority = load_authority(authority_path)
    identity = _identity(member)
    try:
        data = make_tls(authority, identity, member.seed, now=utc_now(), days=days)
    except CertificateError as error:
        raise wrong_file(member.tls_path, str(error), "choose another number of days") from None
    _check_authority(member, authority)
    replace_file(member.tls_path, data, 0o600)
    return member.tls_path


def begin_replacement(member: MemberDirectory) -> x509.CertificateSigningRequest:
    """Make a TLS key that is not used yet, and the request for its certificate.

    Raises `ConfigError`.
    """
    key = Ed25519PrivateKey.generate()
    replace_file(member.path / TLS_NEXT_FILE, private_to_pem(key), 0o600)
    return make_request(_identity(member), member.seed, key)


def finish_replacement(member: MemberDirectory, path: Path) -> Path:
    """Use a certificate that the CA issued: for the key that waits, or for the present one.

    Raises `ConfigError`, then nothing is changed. Returns the file that was replaced.
    """
    certificate = load_certificate(path)
    next_path = member.path / TLS_NEXT_FILE
    key = load_next_key(next_path) if next_path.exists() else load_tls(member.tls_path).key
    if tls_public_key(certificate) != key.public_key().public_bytes_raw():
        key = load_tls(member.tls_path).key
    if tls_public_key(certificate) != key.public_key().public_bytes_raw():
        raise wrong_file(
            path,
            "it is not for a TLS key of this member",
            "give the certificate for the last request of this directory",
        )
    authorities = load_authorities(member.authority_path)
    check_tls(path, certificate, authorities, _identity(member), now=utc_now())
    replace_file(member.tls_path, private_to_pem(key) + to_pem(certificate), 0o600)
    next_path.unlink(missing_ok=True)
    return member.tls_path


def _identity(member: MemberDirectory) -> MemberIdentity:
    return identities_of(member.genesis)[member.name]


def _check_authority(member: MemberDirectory, authority: Authority) -> None:
    """Raise `ConfigError` unless the member, and so its peers, know this CA."""
    if authority.certificate not in load_authorities(member.authority_path):
        raise wrong_file(
            member.authority_path,
            "it is not the certificate of the CA that was given",
            "give --ca the directory that `vcp-cluster init` made for this cluster",
        )


def _judge_dates(certificate: x509.Certificate, now: datetime) -> str:
    left = certificate.not_valid_after_utc - now
    if left <= timedelta(0):
        return "expired"
    return "expiring" if left < EXPIRES_SOON else "valid"


def _describe(name: str, path: Path, certificate: x509.Certificate, status: str) -> CertificateRow:
    return CertificateRow(
        name,
        path,
        fingerprint(certificate),
        certificate.not_valid_before_utc,
        certificate.not_valid_after_utc,
        status,
    )

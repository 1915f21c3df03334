"""Certificates: who is believed, who is not and why; the files and how they are replaced."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256

from vcp_cluster.cluster import certification
from vcp_cluster.cluster.certificate_files import (
    identities_of,
    load_authorities,
    load_authority,
    load_tls,
    make_tls,
)
from vcp_cluster.cluster.certificates import (
    BINDING_OID,
    CERTIFICATE_DAYS,
    Authority,
    CertificateError,
    MemberIdentity,
    check_identity,
    check_issued,
    issue_certificate,
    make_authority,
    make_binding,
    make_request,
    tls_public_key,
    to_pem,
)
from vcp_cluster.cluster.config_files import replace_file
from vcp_cluster.cluster.directory import MemberDirectory, initialise, load_seed
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.keys import public_key

NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
CHAIN_ID = bytes(range(16))
SEED, OTHER_SEED = bytes(31) + b"\1", bytes(31) + b"\2"
MEMBER = MemberIdentity(CHAIN_ID, "paris", "10.0.0.1:7100", public_key(SEED))


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority(CHAIN_ID, bytes(32), now=NOW)


def issue(
    authority: Authority, member: MemberIdentity = MEMBER, seed: bytes = SEED, days: int = 30
) -> x509.Certificate:
    request = make_request(member, seed, Ed25519PrivateKey.generate())
    return issue_certificate(authority, member, request, now=NOW, days=days)


def with_changes(member: MemberIdentity, **changes: object) -> MemberIdentity:
    fields = {"chain_id": member.chain_id, "name": member.name, "address": member.address}
    return MemberIdentity(**{**fields, "key": member.key, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "address", ["10.0.0.1:7100", "db.example.org:7100", "[::1]:7100", "under_score:7100"]
)
def test_a_member_is_believed_at_its_address(authority: Authority, address: str) -> None:
    member = with_changes(MEMBER, address=address)
    certificate = issue(authority, member)
    check_identity(certificate, member)
    check_issued(certificate, [authority.certificate], now=NOW)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"name": "rome"}, "it is of member 'paris', not of rome"),
        ({"chain_id": bytes(16)}, "it is of another cluster"),
        ({"address": "10.0.0.2:7100"}, "it does not name 10.0.0.2"),
        ({"address": "10.0.0.1:7101"}, "its TLS key is not signed by the key that genesis has"),
        ({"key": public_key(OTHER_SEED)}, "its TLS key is not signed by the key that genesis has"),
    ],
)
def test_a_certificate_is_of_one_member_only(
    authority: Authority, changes: dict[str, object], reason: str
) -> None:
    with pytest.raises(CertificateError, match=reason):
        check_identity(issue(authority), with_changes(MEMBER, **changes))


def test_who_holds_the_ca_cannot_pass_for_a_member(authority: Authority) -> None:
    """The CA certifies its own TLS key under a member's name, bound by a key of its own."""
    impostor = with_changes(MEMBER, key=public_key(OTHER_SEED))
    certificate = issue(authority, impostor, OTHER_SEED)
    check_issued(certificate, [authority.certificate], now=NOW)
    with pytest.raises(CertificateError, match="its TLS key is not signed by the key"):
        check_identity(certificate, MEMBER)


def test_a_binding_of_another_tls_key_is_refused(authority: Authority) -> None:
    stolen = make_binding(
        MEMBER, SEED, Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    )
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(issue(authority).subject)
        .add_extension(
            x509.UnrecognizedExtension(BINDING_OID, b"\x04\x40" + stolen), critical=False
        )
        .sign(Ed25519PrivateKey.generate(), None)
    )
    with pytest.raises(CertificateError, match="is not signed by the key"):
        issue_certificate(authority, MEMBER, request, now=NOW)


def test_the_ca_refuses_requests_that_no_peer_would_accept(authority: Authority) -> None:
    key = Ed25519PrivateKey.generate()
    subject = issue(authority).subject
    bare = x509.CertificateSigningRequestBuilder().subject_name(subject).sign(key, None)
    with pytest.raises(CertificateError, match="has not signed its TLS key"):
        issue_certificate(authority, MEMBER, bare, now=NOW)
    request = make_request(with_changes(MEMBER, name="rome"), SEED, key)
    with pytest.raises(CertificateError, match="it is not for member paris"):
        issue_certificate(authority, MEMBER, request, now=NOW)
    other = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(subject)
        .add_extension(
            x509.UnrecognizedExtension(BINDING_OID, b"\x04\x40" + bytes(64)), critical=False
        )
        .sign(generate_private_key(SECP256R1()), SHA256())
    )
    with pytest.raises(CertificateError, match="not an Ed25519 key"):
        issue_certificate(authority, MEMBER, other, now=NOW)


@pytest.mark.parametrize("days", [0, -1, 3653, 100_000])
def test_days_are_bounded(authority: Authority, days: int) -> None:
    with pytest.raises(CertificateError, match="days"):
        issue(authority, days=days)


def test_no_certificate_outlives_its_ca(authority: Authority) -> None:
    request = make_request(MEMBER, SEED, Ed25519PrivateKey.generate())
    late = authority.certificate.not_valid_after_utc - timedelta(days=10)
    with pytest.raises(CertificateError, match="it would outlive the CA"):
        issue_certificate(authority, MEMBER, request, now=late, days=11)
    issue_certificate(authority, MEMBER, request, now=late, days=10)


def test_dates_and_ca_are_checked(authority: Authority) -> None:
    certificate = issue(authority, days=30)
    known = [authority.certificate]
    check_issued(certificate, known, now=NOW + timedelta(days=29, hours=23))
    with pytest.raises(CertificateError, match="it expired on 2026-12-01"):
        check_issued(certificate, known, now=NOW + timedelta(days=30))
    with pytest.raises(CertificateError, match="not valid before 2026-10-31"):
        check_issued(certificate, known, now=NOW - timedelta(days=2))
    other = make_authority(CHAIN_ID, b"\1" * 32, now=NOW)
    with pytest.raises(CertificateError, match="not of this cluster's CA"):
        check_issued(certificate, [other.certificate], now=NOW)
    check_issued(certificate, [other.certificate, *known], now=NOW)


def test_an_old_certificate_is_enough_to_extend_it(authority: Authority) -> None:
    """The operator needs no key of the member for that."""
    old = issue(authority, days=1)
    new = issue_certificate(authority, MEMBER, old, now=NOW + timedelta(days=90), days=5)
    assert tls_public_key(new) == tls_public_key(old)
    check_identity(new, MEMBER)
    check_issued(new, [authority.certificate], now=NOW + timedelta(days=94))


# Files


@pytest.fixture
def cluster(tmp_path: Path) -> Path:
    members = [("a", "127.0.0.1", 7100), ("b", "localhost", 7110)]
    initialise(tmp_path / "c", members, cluster_name="test", created_ms=1)
    return tmp_path / "c"


def test_init_makes_a_ca_and_a_certificate_for_each_member(cluster: Path) -> None:
    assert not list(cluster.rglob("secret"))
    assert (cluster / "ca.key").stat().st_mode & 0o777 == 0o600
    assert not list(cluster.glob("*/ca.key"))
    for name in ("a", "b"):
        assert (cluster / name / "tls.pem").stat().st_mode & 0o777 == 0o600
        member = MemberDirectory.load(cluster / name)
        certification.check_member(member)
        tls = load_tls(member.tls_path)
        left = tls.certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(days=CERTIFICATE_DAYS - 1) < left <= timedelta(days=CERTIFICATE_DAYS)
    rows = certification.describe_certificates(cluster)
    assert [(row.name, row.status) for row in rows] == [
        ("CA", "valid"),
        ("a", "valid"),
        ("b", "valid"),
    ]


def test_a_certificate_of_another_member_in_the_directory_is_refused(cluster: Path) -> None:
    data = (cluster / "b" / "tls.pem").read_bytes()
    replace_file(cluster / "a" / "tls.pem", data, 0o600)
    with pytest.raises(ConfigError, match="it is of member 'b', not of a"):
        certification.check_member(MemberDirectory.load(cluster / "a"))
    statuses = {row.name: row.status for row in certification.describe_certificates(cluster)}
    assert statuses["a"] == "refused: it is of member 'b', not of a"
    assert statuses["b"] == "valid"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("missing", "it does not exist"),
        ("open", "others can read it"),
        ("garbage", "it holds no key"),
        ("no certificate", "it holds no certificate"),
        ("two halves", "do not belong together"),
        ("large", "it is larger than"),
    ],
)
def test_a_wrong_tls_file_is_named(cluster: Path, change: str, reason: str) -> None:
    path = cluster / "a" / "tls.pem"
    key, _, _ = path.read_bytes().partition(b"-----BEGIN CERTIFICATE")
    other = (cluster / "b" / "tls.pem").read_bytes()
    if change == "missing":
        path.unlink()
    elif change == "open":
        path.chmod(0o644)
    else:
        data = {
            "garbage": b"\xff" * 100,
            "no certificate": key,
            "two halves": key + other[other.index(b"-----BEGIN CERTIFICATE") :],
            "large": key * 1_000,
        }[change]
        replace_file(path, data, 0o600)
    with pytest.raises(ConfigError, match=reason) as refused:
        certification.check_member(MemberDirectory.load(cluster / "a"))
    assert refused.value.origin == str(path) and refused.value.next_step


def test_an_expired_certificate_is_refused_and_shown(cluster: Path) -> None:
    member = MemberDirectory.load(cluster / "a")
    long_ago = datetime.now(UTC) - timedelta(days=10)
    identity = identities_of(member.genesis)["a"]
    data = make_tls(load_authority(cluster), identity, member.seed, now=long_ago, days=5)
    replace_file(member.tls_path, data, 0o600)
    with pytest.raises(ConfigError, match="it expired on"):
        certification.check_member(member)
    (row,) = [row for row in certification.describe_certificates(cluster / "a") if row.name == "a"]
    assert row.status.startswith("refused: it expired on")


def test_a_new_key_with_the_ca_at_hand(cluster: Path) -> None:
    member = MemberDirectory.load(cluster / "a")
    before = load_tls(member.tls_path)
    certification.replace_certificate(member, cluster, days=7)
    after = load_tls(member.tls_path)
    assert tls_public_key(after.certificate) != tls_public_key(before.certificate)
    certification.check_member(member)
    (row,) = [row for row in certification.describe_certificates(cluster / "a") if row.name == "a"]
    assert row.status == "expiring"


def test_a_new_key_with_the_ca_elsewhere(cluster: Path, tmp_path: Path) -> None:
    member = MemberDirectory.load(cluster / "a")
    present = (cluster / "a" / "tls.pem").read_bytes()
    request, out = tmp_path / "a.csr", tmp_path / "a.crt"
    replace_file(request, to_pem(certification.begin_replacement(member)), 0o644)
    assert (cluster / "a" / "tls.pem").read_bytes() == present
    certificate = certification.issue(cluster, "a", request, days=400)
    replace_file(out, to_pem(certificate), 0o644)
    certification.finish_replacement(member, out)
    assert load_tls(member.tls_path).certificate == certificate
    assert not (cluster / "a" / "tls.next").exists()
    certification.check_member(member)
    with pytest.raises(ConfigError, match="it is not for member b"):
        certification.issue(cluster, "b", request, days=400)
    with pytest.raises(ConfigError, match="there is no member 'z'"):
        certification.issue(cluster, "z", request, days=400)


def test_an_extended_certificate_is_installed_while_a_new_key_waits(
    cluster: Path, tmp_path: Path
) -> None:
    member = MemberDirectory.load(cluster / "a")
    certification.begin_replacement(member)
    certificate = certification.issue(cluster, "a", None, days=400)
    replace_file(tmp_path / "a.crt", to_pem(certificate), 0o644)
    certification.finish_replacement(member, tmp_path / "a.crt")
    assert load_tls(member.tls_path).certificate == certificate


def test_what_does_not_fit_changes_nothing(cluster: Path, tmp_path: Path) -> None:
    other_path = tmp_path / "other"
    members = [("a", "127.0.0.1", 7100)]
    initialise(other_path, members, cluster_name="test", created_ms=1)
    member = MemberDirectory.load(cluster / "a")
    before = (cluster / "a" / "tls.pem").read_bytes()
    with pytest.raises(ConfigError, match="not the certificate of the CA that was given"):
        certification.replace_certificate(member, other_path, days=7)
    path = tmp_path / "b.crt"
    replace_file(path, to_pem(certification.issue(cluster, "b", None, days=5)), 0o644)
    with pytest.raises(ConfigError, match="it is not for a TLS key of this member"):
        certification.finish_replacement(member, path)
    replace_file(path, b"?", 0o644)
    with pytest.raises(ConfigError, match="it is not a certificate"):
        certification.finish_replacement(member, path)
    with pytest.raises(ConfigError, match="it is not a request"):
        certification.issue(cluster, "a", path, days=5)
    assert (cluster / "a" / "tls.pem").read_bytes() == before


def test_a_ca_is_replaced_by_way_of_two(cluster: Path) -> None:
    """Both are in `ca.crt` until every member has a certificate of the new one."""
    old = load_authority(cluster)
    certification.replace_authority(cluster)
    new = load_authority(cluster)
    assert new.seed != old.seed and (cluster / "ca.key").stat().st_mode & 0o777 == 0o600
    both = (cluster / "ca.crt").read_bytes()
    assert load_authorities(cluster / "ca.crt") == [old.certificate, new.certificate]
    member = MemberDirectory.load(cluster / "a")
    with pytest.raises(ConfigError, match="not the certificate of the CA that was given"):
        certification.replace_certificate(member, cluster, days=7)
    replace_file(member.authority_path, both, 0o644)
    certification.check_member(member)
    certification.replace_certificate(member, cluster, days=7)
    certification.check_member(member)
    replace_file(member.authority_path, to_pem(new.certificate), 0o644)
    certification.check_member(member)
    other = MemberDirectory.load(cluster / "b")
    replace_file(other.authority_path, to_pem(new.certificate), 0o644)
    with pytest.raises(ConfigError, match="it is not of this cluster's CA"):
        certification.check_member(other)


def test_the_key_of_another_ca_is_noticed(cluster: Path) -> None:
    assert load_authority(cluster).seed == load_seed(cluster / "ca.key")
    replace_file(cluster / "ca.key", b"00" * 32 + b"\n", 0o600)
    with pytest.raises(ConfigError, match=r"it is not the certificate of ca\.key"):
        load_authority(cluster)

"""Who may talk to this member: its certificates, the TLS contexts made from them, and the check of a
peer's. The files are looked at again while the member runs, so that a certificate is replaced
without a restart.
"""

from __future__ import annotations

import logging
import os
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from vcp_cluster.cluster.certificate_files import (
    ROTATE_LINE,
    check_tls,
    load_authorities,
    load_tls,
)
from vcp_cluster.cluster.certificates import (
    CertificateError,
    MemberIdentity,
    check_identity,
    claimed_member,
    fingerprint,
)
from vcp_cluster.cluster.config_files import wrong_file
from vcp_cluster.cluster.errors import ConfigError

RELOAD_S = 1.0
EXPIRES_SOON = timedelta(days=30)
REMIND_S = 24 * 3600.0

logger = logging.getLogger(__name__)

_Stamp = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Credentials:
    """What a member needs to know its peers: identities from genesis, and where its files are."""

    me: MemberIdentity
    peers: tuple[MemberIdentity, ...]
    tls_path: Path
    authority_path: Path


class Security:
    """The TLS contexts of a member. Call `refresh` now and then."""

    def __init__(
        self, credentials: Credentials, *, clock_s: Callable[[], float] = time.time
    ) -> None:
        """Load the certificates; raise `ConfigError` unless peers would accept them.

        `clock_s` gives seconds since 1970, by which certificates are judged.
        """
        self._credentials = credentials
        self._clock_s = clock_s
        self._members = {one.name: one for one in (credentials.me, *credentials.peers)}
        self._looked_s = self._reminded_s = float("-inf")
        self._stamp: _Stamp = ()
        self._load()

    @property
    def me(self) -> MemberIdentity:
        """This member."""
        return self._credentials.me

    @property
    def peers(self) -> tuple[MemberIdentity, ...]:
        """The other members."""
        return self._credentials.peers

    @property
    def now(self) -> datetime:
        """The time by which certificates are judged."""
        return datetime.fromtimestamp(self._clock_s(), UTC)

    def refresh(self, now_s: float) -> None:
        """Take over files that changed, and say when the certificate is about to expire.

        `now_s` is a monotonic clock. Files that are not right are reported once and not taken.
        """
        if now_s - self._looked_s < RELOAD_S:
            return
        self._looked_s = now_s
        if self._read_stamp() != self._stamp:
            try:
                self._load()
            except ConfigError as error:
                logger.error("went on with the certificate of before: %s", error)
            else:
                self._reminded_s = float("-inf")
                logger.info("new connections use certificate %s", fingerprint(self.certificate))
        if now_s - self._reminded_s >= REMIND_S:
            self._reminded_s = now_s
            self._remind()

    def identify(
        self, certificate: x509.Certificate, expected: MemberIdentity | None
    ) -> MemberIdentity:
        """The member whose certificate it is, `expected` if that is given.

        TLS has checked CA and dates. Raises `CertificateError`.
        """
        try:
            member = expected
            if member is None:
                chain_id, name = claimed_member(certificate)
                member = self._members.get(name)
                if chain_id != self.me.chain_id.hex():
                    raise CertificateError(f"it is of another cluster, {chain_id[:32]!r}")
                if member is None:
                    raise CertificateError(f"there is no member {name[:32]!r}")
            check_identity(certificate, member)
        except (ValueError, TypeError) as error:  # Those of the parser are ValueErrors too.
            raise CertificateError(f"its certificate is refused: {error}") from None
        if member == self.me:
            raise CertificateError("its certificate is our own")
        return member

    def _load(self) -> None:
        files = self._credentials
        self._stamp = self._read_stamp()
        authorities = load_authorities(files.authority_path)
        certificate = load_tls(files.tls_path).certificate
        check_tls(files.tls_path, certificate, authorities, self.me, now=self.now)
        try:
            server, client = (
                _make_context(side, files)
                for side in (ssl.PROTOCOL_TLS_SERVER, ssl.PROTOCOL_TLS_CLIENT)
            )
        except (OSError, ValueError) as error:
            raise wrong_file(
                files.tls_path, f"TLS cannot use it: {error}", f"make it again: {ROTATE_LINE}"
            ) from None
        self.server_context, self.client_context = server, client
        self.certificate = certificate

    def _read_stamp(self) -> _Stamp:
        stamps = []
        for path in (self._credentials.tls_path, self._credentials.authority_path):
            try:
                status = os.stat(path)
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(stamps)

    def _remind(self) -> None:
        ends = self.certificate.not_valid_after_utc
        if ends - self.now < EXPIRES_SOON:
            logger.warning(
                "the certificate of %s %s on %s; other members then refuse it. Next: %s",
                self.me.name,
                "expired" if ends <= self.now else "expires",
                f"{ends:%F}",
                ROTATE_LINE,
            )


def _make_context(side: int, files: Credentials) -> ssl.SSLContext:
    """TLS 1.3, certificates required on both sides. Names are checked by `identify`, since a member
    is not known by its host. There are no tickets: each connection shows its certificate."""
    context = ssl.SSLContext(side)
    context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_REQUIRED
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION
    if side == ssl.PROTOCOL_TLS_SERVER:
        context.num_tickets = 0
    context.load_verify_locations(files.authority_path)
    context.load_cert_chain(files.tls_path)
    return context

"""The transport of the Raft engine: one TLS connection between each two members.

Of two members, the one with the greater address dials. A connection counts from the moment when
both sides have shown a certificate and said hello; a newer one replaces an older one of the same
member, whose other end may be long gone. Everything runs in the thread that ticks the engine, from
the library's poller; nothing here waits.

Strangers cost little: so many connections may be without an identity at a time, each for so long,
and so many are taken in a second (`listener.py`). A peer that does not read is not fed beyond `FEED_BYTES_MAX`
(`is_full`), and is dropped when it stands still.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import time
from collections.abc import Iterable
from typing import Any

from pysyncobj.node import Node
from pysyncobj.poller import POLL_EVENT_TYPE
from pysyncobj.transport import Transport, TransportNotReadyError

from vcp_cluster.cluster.certificates import CertificateError, MemberIdentity
from vcp_cluster.cluster.raft.transport.addresses import Resolver
from vcp_cluster.cluster.raft.transport.channel import Channel, LinkFailed
from vcp_cluster.cluster.raft.transport.listener import Listener
from vcp_cluster.cluster.raft.transport.log import RationedLog
from vcp_cluster.cluster.raft.transport.messages import (
    PROTOCOL_VERSION,
    Hello,
    MessageError,
    Ping,
    decode_message,
    encode_frame,
    encode_message,
    to_library,
)
from vcp_cluster.cluster.raft.transport.security import Security

CHECK_S = 0.1
"""How often timers are looked at. A longer pause was our own, and counts as little as this."""

DIAL_AGAIN_S = 0.3
ADMISSION_S_MAX = 3.0
SILENCE_S_MAX = 3.0
STALL_S_MAX = 3.0
PING_AFTER_S = 0.5

STRANGERS_MAX = 64

FEED_BYTES_MAX = 4 << 20
QUEUE_BYTES_MAX = 16 << 20

_READ, _WRITE, _ERROR = POLL_EVENT_TYPE.READ, POLL_EVENT_TYPE.WRITE, POLL_EVENT_TYPE.ERROR

logger = logging.getLogger(__name__)


class MemberTransport(Transport):  # type: ignore[misc]  # the library has no types
    """Made by the library, as `transportClass(engine, own node, other nodes)`; see its base class."""

    def __init__(
        self, engine: Any, own_node: Node, other_nodes: Iterable[Node], *, security: Security
    ) -> None:
        """`security` knows the identity of each node by the node's id, HOST:PORT."""
        super().__init__(engine, own_node, other_nodes)
        self._poller = engine._poller
        self._security = security
        self._address = str(own_node.id)
        self._nodes: dict[str, Node] = {}
        self._identities: dict[str, MemberIdentity] = {}
        self._open: dict[str, Channel] = {}
        self._dialled: dict[str, Channel] = {}
        self._strangers: dict[Channel, None] = {}  # in the order of their arrival
        self._doomed: dict[Channel, str] = {}
        self._unsent: set[Channel] = set()
        self._dial_again_s: dict[str, float] = {}
        self._resolver = Resolver()
        self._listener: Listener | None = None
        self._checked_s = time.monotonic()
        self._has_room_again = False
        self._strangers_log = RationedLog(logger)
        self._members_log = RationedLog(logger)
        identities = {one.address: one for one in security.peers}
        for node in other_nodes:
            self._nodes[str(node.id)] = node
            self._identities[str(node.id)] = identities[str(node.id)]
        engine.addOnTickCallback(self._tick)

    # --- what the engine uses -------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the address is bound."""
        return self._listener is not None

    def tryGetReady(self) -> None:
        """Bind the address; raise `TransportNotReadyError`."""
        try:
            self._listener = Listener(
                self._address,
                self._poller,
                on_connection=self._greet,
                on_problem=lambda message: self._log_stranger(message, ""),
            )
        except OSError as error:
            raise TransportNotReadyError(str(error)) from error

    def send(self, node: Node, message: dict[str, Any]) -> bool:
        """Queue a message of the library; it leaves at the end of the tick.

        False when there is no connection: Raft says everything again that matters. Nothing is ever
        closed from here, since the library is in the middle of something.
        """
        channel = self._open.get(str(node.id))
        if channel is None:
            return False
        for frame in encode_message(message):
            channel.queue(frame)
        self._unsent.add(channel)
        if channel.queued_bytes > QUEUE_BYTES_MAX:
            self._doomed[channel] = f"it does not read: {channel.queued_bytes} bytes wait for it"
        return True

    def is_full(self, node: Node) -> bool:
        """Whether a peer has so much waiting for it that it should get no entries now."""
        channel = self._open.get(str(node.id))
        return channel is None or channel.queued_bytes >= FEED_BYTES_MAX

    def take_has_room_again(self) -> bool:
        """Whether a peer that was full has read since this was last asked."""
        has_room, self._has_room_again = self._has_room_again, False
        return has_room

    def destroy(self) -> None:
        """Send what can be sent and close everything."""
        for channel in list(self._open.values()):
            with contextlib.suppress(LinkFailed):
                channel.flush()
        for channel in [*self._open.values(), *self._dialled.values(), *self._strangers]:
            self._forget(channel)
        if self._listener is not None:
            self._listener.close()

    # --- time -----------------------------------------------------------------------------------

    def _tick(self) -> None:
        """Called by the library in every tick, just before it polls."""
        while self._unsent:
            channel = self._unsent.pop()
            if not channel.is_closed:
                self._flush(channel)
        now_s = time.monotonic()
        if now_s - self._checked_s < CHECK_S:
            return
        step_s = min(now_s - self._checked_s, 2 * CHECK_S)
        self._checked_s = now_s
        for channel, reason in self._doomed.items():
            self._drop(channel, reason)
        self._doomed.clear()
        for channel in [*self._open.values(), *self._dialled.values(), *self._strangers]:
            self._check_timers(channel, step_s)
        if self._listener is not None:
            self._listener.check(now_s, step_s)
        self._security.refresh(now_s)
        self._dial(now_s)
        self._strangers_log.flush(now_s)
        self._members_log.flush(now_s)

    def _check_timers(self, channel: Channel, step_s: float) -> None:
        timers = channel.timers
        timers.age_s += step_s
        timers.silence_s += step_s
        timers.stall_s = timers.stall_s + step_s if channel.queued_bytes else 0.0
        timers.quiet_s += step_s
        if not channel.is_open:
            if timers.age_s > ADMISSION_S_MAX:
                self._drop(channel, f"it did not say who it is within {ADMISSION_S_MAX:.0f} s")
            return
        certificate = channel.certificate
        if timers.silence_s > SILENCE_S_MAX:
            self._drop(channel, f"it said nothing for {SILENCE_S_MAX:.0f} s")
        elif timers.stall_s > STALL_S_MAX:
            self._drop(channel, f"it read nothing for {STALL_S_MAX:.0f} s")
        elif certificate is not None and certificate.not_valid_after_utc <= self._security.now:
            self._drop(channel, "its certificate has expired")
        elif timers.quiet_s > PING_AFTER_S:
            channel.queue(_PING)
            self._flush(channel)

    # --- connecting -----------------------------------------------------------------------------

    def _dial(self, now_s: float) -> None:
        """Connect to the members that this one dials and has no connection with."""
        for address, identity in self._identities.items():
            if (
                address > self._address
                or address in self._open
                or address in self._dialled
                or now_s < self._dial_again_s.get(address, 0.0)
            ):
                continue
            try:
                found = self._resolver.lookup(address)
                if found is None:
                    continue
                self._dial_again_s[address] = now_s + DIAL_AGAIN_S
                family, target = found
                context = self._security.client_context
                channel = Channel.connect(family, target, address, context, identity)
            except (OSError, LinkFailed) as error:
                self._dial_again_s[address] = now_s + DIAL_AGAIN_S
                self._members_log.report(
                    f"{address} {error}", f"member {identity.name} at {address}: {error}", now_s
                )
                continue
            self._dialled[address] = channel
            self._watch(channel)

    def _greet(self, peer: socket.socket, host: str) -> None:
        """Begin with a connection of somebody unknown; the oldest such makes room for it."""
        if len(self._strangers) >= STRANGERS_MAX:
            oldest = next(iter(self._strangers))
            self._drop(oldest, f"more than {STRANGERS_MAX} connections without an identity")
        try:
            channel = Channel.accept(peer, host, self._security.server_context)
        except LinkFailed as failure:
            self._log_stranger(str(failure), host)
            return
        self._strangers[channel] = None
        self._watch(channel)

    # --- one connection -------------------------------------------------------------------------

    def _handle(self, channel: Channel, events: int) -> None:
        """What the poller reports of a connection."""
        if channel.is_closed:  # Closed earlier in the same round of events.
            return
        try:
            if not channel.is_secure:
                if not channel.handshake():
                    self._watch(channel)
                    return
                self._identify(channel)
            if events & (_READ | _ERROR):
                self._receive(channel)
        except LinkFailed as failure:
            self._drop(channel, str(failure))
            return
        if not channel.is_closed:
            self._flush(channel)

    def _identify(self, channel: Channel) -> None:
        """Learn from the certificate who it is, and say hello."""
        assert channel.certificate is not None
        try:
            channel.member = self._security.identify(channel.certificate, channel.expected)
        except CertificateError as error:
            raise LinkFailed(str(error)) from None
        me = self._security.me
        channel.queue(encode_frame(Hello(PROTOCOL_VERSION, me.chain_id, me.name)))

    def _receive(self, channel: Channel) -> None:
        """Hand on what has come. What the engine raises is not ours to catch."""
        for body in channel.receive():
            try:
                message = decode_message(body)
                if isinstance(message, Hello):
                    self._admit(channel, message)
                    continue
                if not channel.is_open:
                    raise LinkFailed("it did not begin with a hello")
                if isinstance(message, Ping):
                    continue
                converted = to_library(message)
            except MessageError as error:
                raise LinkFailed(str(error)) from None
            assert channel.member is not None
            self._onMessageReceived(self._nodes[channel.member.address], converted)
            if channel.is_closed:
                return

    def _admit(self, channel: Channel, hello: Hello) -> None:
        """Check a hello, and make the connection the one with that member; raise `LinkFailed`."""
        member = channel.member
        assert member is not None
        if channel.is_open:
            raise LinkFailed("it said hello twice")
        if hello.version != PROTOCOL_VERSION:
            raise LinkFailed(
                f"it speaks version {hello.version} of the protocol, this member {PROTOCOL_VERSION}"
            )
        if hello.chain_id != member.chain_id:
            raise LinkFailed(f"it is of another cluster, {hello.chain_id.hex()}")
        if hello.name != member.name:
            raise LinkFailed(
                f"it calls itself {hello.name!r} with the certificate of {member.name}"
            )
        address = member.address
        if older := self._open.get(address):
            self._drop(older, "it connected again")
        self._strangers.pop(channel, None)
        self._dialled.pop(address, None)
        self._open[address] = channel
        channel.is_open = True
        channel.timers.silence_s = 0.0
        logger.info("connected with member %s at %s", member.name, address)
        self._onNodeConnected(self._nodes[address])

    def _flush(self, channel: Channel) -> None:
        was_full = channel.queued_bytes >= FEED_BYTES_MAX
        try:
            channel.flush()
        except LinkFailed as failure:
            self._drop(channel, str(failure))
            return
        self._has_room_again |= was_full and channel.queued_bytes < FEED_BYTES_MAX
        self._watch(channel)

    def _watch(self, channel: Channel) -> None:
        mask = _READ | _ERROR | (_WRITE if channel.wants_write else 0)
        if mask != channel.mask:
            channel.mask = mask
            self._poller.subscribe(
                channel.descriptor, lambda _, events: self._handle(channel, events), mask
            )

    def _drop(self, channel: Channel, reason: str) -> None:
        """Close a connection and say why."""
        if channel.is_closed:
            return
        member, was_open = channel.member or channel.expected, channel.is_open
        self._forget(channel)
        if member is None:
            self._log_stranger(reason, channel.where)
            return
        what = "lost" if was_open else "no connection with"
        self._members_log.report(
            f"{member.name} {reason}",
            f"{what} member {member.name} at {channel.where}: {reason}",
            time.monotonic(),
        )
        if was_open:
            self._onNodeDisconnected(self._nodes[member.address])

    def _forget(self, channel: Channel) -> None:
        self._strangers.pop(channel, None)
        self._unsent.discard(channel)
        member = channel.member or channel.expected
        if member is not None:
            for table in (self._open, self._dialled):
                if table.get(member.address) is channel:
                    del table[member.address]
        if channel.mask:
            self._poller.unsubscribe(channel.descriptor)
        channel.close()

    def _log_stranger(self, reason: str, where: str) -> None:
        message = f"refused a connection from {where}: {reason}" if where else reason
        self._strangers_log.report(f"{where} {reason}", message, time.monotonic())


_PING = encode_frame(Ping())

"""What the Raft process of a member does: it serves requests, groups transactions into entries,
and tells subscribers what was applied. Everything here runs in the tick of the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vcp_cluster.cluster.raft.engine import RaftEngine
from vcp_cluster.cluster.raft.frames import APPLIED, PUSH_ID, FrameError
from vcp_cluster.cluster.raft.journal import Journal
from vcp_cluster.cluster.raft.machine import StateMachine
from vcp_cluster.cluster.raft.pending import Outcome, Pending, Refused, not_leader
from vcp_cluster.cluster.raft.server import Connection, SocketServer
from vcp_cluster.cluster.raft.transport.security import Credentials

ENTRIES_IN_FLIGHT_MAX = 4
"""Entries of a leader on their way; transactions beyond wait and travel together."""

SUBMIT_TIMEOUT_MS_MAX = 600_000
GET_KEYS_MAX = 10_000
SCAN_ROWS_MAX = 10_000
READ_BYTES_MAX = 8 << 20
DUE_CHECK_S = 0.2
EXPIRY_CHECK_S = 0.05

_request = msgspec.msgpack.Decoder(tuple[int, str, msgspec.Raw])
_empty_params = msgspec.msgpack.Decoder(tuple[()])
_submit_params = msgspec.msgpack.Decoder(tuple[list[bytes], int])
_get_params = msgspec.msgpack.Decoder(tuple[list[bytes]])
_scan_params = msgspec.msgpack.Decoder(tuple[bytes, bytes | None, int, bool])


class RaftService:
    """Joins engine, machine, pending submissions and socket."""

    def __init__(
        self,
        *,
        name: str,
        address: str,
        peers: Mapping[str, str],
        credentials: Credentials,
        journal: Journal,
        socket_path: Path,
        machine: StateMachine,
        clock_ms: Callable[[], int],
    ) -> None:
        """Raises `EngineError` or `SocketError` when the member cannot start.

        `peers` are the other members, name to HOST:PORT.
        """
        self.is_stopping = False
        self._name = name
        self._peers = dict(peers)
        self._names = {address: name, **{peer: other for other, peer in peers.items()}}
        self._machine = machine
        self._clock_ms = clock_ms
        self._pending = Pending()
        self._has_applied = False
        self._due_check_s = 0.0
        self._expiry_check_s = 0.0
        self._methods: dict[str, Callable[[Connection, int, bytes], None]] = {
            "status": self._serve_status,
            "submit": self._serve_submit,
            "get": self._serve_get,
            "scan": self._serve_scan,
            "subscribe": self._serve_subscribe,
            "stop": self._serve_stop,
        }
        self._engine = RaftEngine(
            address=address,
            peers=list(self._peers.values()),
            credentials=credentials,
            journal=journal,
            machine=machine,
            on_applied=self._note_applied,
            on_tick=self._tick,
        )
        try:
            self._server = SocketServer(socket_path, self._engine.poller, self._handle_frame)
        except BaseException:
            self._engine.destroy()
            raise

    def tick(self, wait_s: float) -> None:
        """Do what is due, then wait at most `wait_s` for messages and take them."""
        self._engine.doTick(wait_s)

    def close(self) -> None:
        """Send what can be sent, then close sockets and journal."""
        self._server.close()
        self._engine.destroy()

    def _tick(self) -> None:
        now_s = time.monotonic()
        if now_s >= self._expiry_check_s:
            self._expiry_check_s = now_s + EXPIRY_CHECK_S
            self._pending.expire(now_s)
        if self._engine.is_leader:
            self._propose(now_s)
        elif self._pending.has_queued:
            self._pending.refuse_queued(self._leader_name())
        self._push()
        self._server.flush()

    def _propose(self, now_s: float) -> None:
        now_ms = max(self._clock_ms(), self._machine.ledger_time_ms)
        while self._engine.in_flight < ENTRIES_IN_FLIGHT_MAX:
            group = self._pending.take_group()
            if group is None:
                break
            entry = self._machine.pack(now_ms, group.transactions)
            self._pending.note_proposed(self._engine.propose(entry), entry, group)
        # With nothing in flight there is no empty entry on its way either.
        if self._engine.in_flight == 0 and now_s >= self._due_check_s:
            self._due_check_s = now_s + DUE_CHECK_S
            if self._machine.is_due(now_ms):
                self._engine.propose(self._machine.empty_entry(now_ms))

    def _note_applied(self, index: int, entry: bytes, receipts: list[bytes]) -> None:
        self._pending.note_applied(index, entry, receipts)
        self._has_applied = True

    def _push(self) -> None:
        """Tell subscribers the newest state; one who is slow gets the newest once it has read."""
        for connection in self._server.connections:
            connection.has_news |= self._has_applied and connection.is_subscribed
            if connection.has_news and not connection.is_polled_for_write:
                connection.has_news = False
                connection.send([PUSH_ID, APPLIED, self._applied()])
        self._has_applied = False

    def _applied(self) -> dict[str, Any]:
        machine = self._machine
        return {
            "height": machine.height,
            "root": machine.state_root,
            "time_ms": machine.ledger_time_ms,
        }

    def _leader_name(self) -> str | None:
        address = self._engine.leader_address
        return None if address is None else self._names.get(address)

    def _handle_frame(self, connection: Connection, body: bytes) -> None:
        try:
            request_id, name, params = _request.decode(body)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise FrameError(f"not a request: {error}") from error
        if request_id < 1:
            raise FrameError(f"request id {request_id}, at least 1")
        try:
            method = self._methods.get(name)
            if method is None:
                raise Refused("unknown_method", f"there is no method {name[:64]!r}")
            method(connection, request_id, bytes(params))
        except Refused as refusal:
            _answer(connection, request_id, refusal)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            _answer(connection, request_id, Refused("bad_request", f"{name}: {error}"))

    def _serve_status(self, connection: Connection, request_id: int, params: bytes) -> None:
        _empty_params.decode(params)
        engine, connected = self._engine, self._engine.connected
        status = {
            **self._machine.status(),
            "name": self._name,
            "role": engine.role,
            "is_current": engine.is_current,
            "leader": self._leader_name(),
            "term": int(engine.raftCurrentTerm),
            "raft_index": self._machine.raft_index,
            "commit_index": int(engine.raftCommitIndex),
            "peers": [
                {"name": name, "address": address, "connected": address in connected}
                for name, address in self._peers.items()
            ],
        }
        connection.send([request_id, "ok", status])

    def _serve_submit(self, connection: Connection, request_id: int, params: bytes) -> None:
        transactions, timeout_ms = _submit_params.decode(params)
        if not 1 <= timeout_ms <= SUBMIT_TIMEOUT_MS_MAX:
            raise Refused("bad_request", f"timeout_ms is from 1 to {SUBMIT_TIMEOUT_MS_MAX}")
        if not self._engine.is_leader:
            raise not_leader(self._leader_name())
        self._pending.submit(
            transactions,
            deadline_s=time.monotonic() + timeout_ms / 1000,
            answer=lambda outcome: _answer(connection, request_id, outcome),
        )

    def _serve_get(self, connection: Connection, request_id: int, params: bytes) -> None:
        (keys,) = _get_params.decode(params)
        if len(keys) > GET_KEYS_MAX:
            raise Refused("bad_request", f"{len(keys)} keys, at most {GET_KEYS_MAX}")
        values, size = [], 0
        for key in keys:
            value = self._machine.view.get(key)
            values.append(value)
            size += len(value or b"")
            if size > READ_BYTES_MAX:
                raise Refused("too_large", f"more than {READ_BYTES_MAX} bytes: ask for fewer keys")
        connection.send([request_id, "ok", [self._machine.height, values]])

    def _serve_scan(self, connection: Connection, request_id: int, params: bytes) -> None:
        prefix, start, limit, reverse = _scan_params.decode(params)
        if not 1 <= limit <= SCAN_ROWS_MAX:
            raise Refused("bad_request", f"limit is from 1 to {SCAN_ROWS_MAX}")
        rows: list[tuple[bytes, bytes]] = []
        size = 0
        for key, value in self._machine.view.iterate(prefix, start=start, reverse=reverse):
            size += len(key) + len(value)
            if rows and size > READ_BYTES_MAX:
                break
            rows.append((key, value))
            if len(rows) == limit:
                break
        connection.send([request_id, "ok", [self._machine.height, rows]])

    def _serve_subscribe(self, connection: Connection, request_id: int, params: bytes) -> None:
        _empty_params.decode(params)
        connection.send([request_id, "ok", None])
        connection.is_subscribed = connection.has_news = True

    def _serve_stop(self, connection: Connection, request_id: int, params: bytes) -> None:
        _empty_params.decode(params)
        connection.send([request_id, "ok", None])
        self.is_stopping = True


def _answer(connection: Connection, request_id: int, outcome: Outcome) -> None:
    if isinstance(outcome, Refused):
        error = {**outcome.details, "kind": outcome.kind, "message": str(outcome)}
        connection.send([request_id, "error", error])
    else:
        connection.send([request_id, "ok", outcome])

"""A member process with a state simple enough to judge: which transactions were applied, how often.

Run as `python raft_toy.py '{"name": …, "root": …, "members": {name: address}}'`.

A transaction `due:MS` asks for an entry at that time, `keep:X…` is kept whole under the
prefix `keep:X`, `poison` makes `apply` raise.
"""

from __future__ import annotations

import _pickle
import ctypes
import json
import logging
import os
import pickle  # noqa: TID251  # to poison it
import signal
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3

from vcp_cluster.cluster.certificates import MemberIdentity
from vcp_cluster.cluster.directory import AUTHORITY_FILE, TLS_FILE
from vcp_cluster.cluster.raft.process import run_raft_process
from vcp_cluster.cluster.raft.transport.security import Credentials
from vcp_cluster.cluster.store import Store
from vcp_cluster.ledger.keys import hash_content, public_key

TOY_CHAIN_ID = bytes(range(16))
PR_SET_PDEATHSIG = 1
PICKLE_EXIT = 77
_STATE = struct.Struct(">QQQ32s")


class ToyMachine:
    """Counts how often each transaction was applied: key 't' + digest, value the heights."""

    chain_id = b"toys of the test"

    def __init__(self, store: Store) -> None:
        self.view = store
        state = store.get(b"state") or _STATE.pack(0, 0, 0, bytes(32))
        self.height, self.ledger_time_ms, self._due_ms, self.state_root = _STATE.unpack(state)

    @property
    def raft_index(self) -> int:
        return self.view.raft_index

    @property
    def known_index(self) -> int:
        return self.view.known_index

    @property
    def durable_index(self) -> int:
        return self.view.durable_index

    def apply(self, index: int, entry: bytes) -> list[bytes]:
        time_ms, transactions = msgspec.msgpack.decode(entry, type=tuple[int, list[bytes]])
        self.height += 1
        self.ledger_time_ms = max(self.ledger_time_ms, time_ms)
        if self._due_ms and self._due_ms <= self.ledger_time_ms:
            self._due_ms = 0
        self.state_root = blake3(self.state_root + entry).digest()
        applied: dict[bytes, bytes] = {}
        receipts = []
        for transaction in transactions:
            if transaction == b"poison":
                raise RuntimeError("poison")
            if transaction.startswith(b"due:"):
                self._due_ms = int(transaction[4:])
            key = b"t" + blake3(transaction).digest()
            before = applied.get(key) or self.view.get(key) or b""
            applied[key] = before + self.height.to_bytes(8, "big")
            if transaction.startswith(b"keep:"):
                applied[transaction[:6] + key] = transaction
            receipts.append(applied[key])
        state = _STATE.pack(self.height, self.ledger_time_ms, self._due_ms, self.state_root)
        self.view.commit([*applied.items(), (b"state", state)], raft_index=index)
        return receipts

    def skip(self, index: int) -> None:
        self.view.commit([], raft_index=index)

    def is_due(self, now_ms: int) -> bool:
        return 0 < self._due_ms <= now_ms

    def empty_entry(self, time_ms: int) -> bytes:
        return self.pack(time_ms, [])

    def pack(self, time_ms: int, transactions: Sequence[bytes]) -> bytes:
        return msgspec.msgpack.encode((time_ms, list(transactions)))

    def status(self) -> dict[str, Any]:
        return {"height": self.height, "state_root": self.state_root}

    def flush(self) -> None:
        self.view.flush()

    def close(self) -> None:
        self.view.close()


def toy_identity(name: str, address: str) -> MemberIdentity:
    """A member whose ledger key follows from its name."""
    return MemberIdentity(TOY_CHAIN_ID, name, address, public_key(toy_seed(name)))


def toy_seed(name: str) -> bytes:
    """The ledger key of a toy member."""
    return hash_content(name.encode())


def toy_credentials(root: Path, name: str, members: dict[str, str]) -> Credentials:
    """Those of a member below `root`, with the files that `Cluster` made."""
    identities = {other: toy_identity(other, address) for other, address in members.items()}
    return Credentials(
        me=identities.pop(name),
        peers=tuple(identities.values()),
        tls_path=root / name / TLS_FILE,
        authority_path=root / name / AUTHORITY_FILE,
    )


def poison_pickle() -> None:
    """End the process, with a code of its own, when anything loads a pickle by whatever way."""

    def refuse(*_: object, **__: object) -> None:
        os.write(2, b"a pickle was loaded\n")
        os._exit(PICKLE_EXIT)

    for module in (pickle, _pickle):
        for name in ("load", "loads", "Unpickler"):
            setattr(module, name, refuse)
    for name in ("_load", "_loads", "_Unpickler"):
        setattr(pickle, name, refuse)
    sys.addaudithook(lambda event, _: refuse() if event == "pickle.find_class" else None)


def run(config: dict[str, Any], *, boot_id: str | None = None, **options: Any) -> int:
    """Run one member; it dies with the process that started it. `options` are the journal's."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(name)s %(message)s")
    if config["is_pickle_poisoned"]:
        poison_pickle()
    directory = Path(config["root"]) / config["name"]
    return run_raft_process(
        name=config["name"],
        address=config["members"][config["name"]],
        peers=config["members"],
        credentials=toy_credentials(Path(config["root"]), config["name"], config["members"]),
        journal_path=directory / "journal",
        socket_path=directory / "run" / "raft.sock",
        machine=ToyMachine(Store.open(directory / "store", boot_id=boot_id)),
        **options,
    )


if __name__ == "__main__":
    sys.exit(run(json.loads(sys.argv[1])))

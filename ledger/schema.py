"""Where each record lives in the store.

State, hashed into the state root:

    a account                Account            n node                  Node
    b batch8 leaf4           BatchLeaf          o account nonce8        NonceRecord
    c                        Supply             p proof                 Proof
    g                        Genesis            r backend 0 size8       Anchor
    h batch8                 BatchHeader bytes  s                       Settlement
    R backend                AnchorLane
    l index8                 LogLeaf            t task                  Task
    L                        LogState

Indexes, which decide nothing that the state does not say, and stay outside the root (they start
with `~`). All but `~e`, `~r` and the times in `~b` can be rebuilt from state and envelopes:

    ~a node task             the node runs the task             ~N                  number of slots
    ~c kind1 class1          how many tasks, nodes of a class
    ~b blob task             a task refers to the blob          ~p height8 proof    waits for its draw
    ~d due8 kind1 id         deadline, in active time           ~q height8 n4 task  open, not assigned
    ~e index8                envelope of a log leaf             ~r due8 task        blobs may go
    ~h level1 index8         node of the header log's tree      ~s slot4            node in a slot
    ~i tx_id                 index in the transaction log       ~t height8 n4 task  tasks in order
    ~l level1 index8         node of the transaction log's tree ~u proof            under audit
    ~w level1 index4         selection weights                  ~x until8 account nonce8 nonce to forget

`~u` is there exactly while a proof is AUDITED_BY_ONE or AUDITED_BY_ALL; its value is the key of the
member that must verify it, or empty when all must.

`~H` is the Head: it holds the root, and so cannot be hashed into it. Integers are big endian.
"""

from __future__ import annotations

import enum

GENESIS = b"g"
SUPPLY = b"c"
LOG_STATE = b"L"
SETTLEMENT = b"s"
HEAD = b"~H"
NODE_COUNT = b"~N"

ACCOUNT = b"a"
BATCH_LEAF = b"b"
HEADER = b"h"
LOG_LEAF = b"l"
NODE = b"n"
NONCE = b"o"
PROOF = b"p"
ANCHOR = b"r"
LANE = b"R"
TASK = b"t"

INDEX = b"~"
RUNNING = b"~a"
BLOB_REFERENCE = b"~b"
COUNT = b"~c"
DEADLINE = b"~d"
ENVELOPE = b"~e"
HEADER_TREE = b"~h"
TRANSACTION = b"~i"
LOG_TREE = b"~l"
DRAW = b"~p"
OPEN_TASK = b"~q"
RETENTION = b"~r"
SLOT = b"~s"
TASK_ORDER = b"~t"
AUDIT = b"~u"
WEIGHT = b"~w"
NONCE_EXPIRY = b"~x"


class DeadlineKind(enum.IntEnum):
    """What falls due."""

    ASSIGNMENT = 1
    TASK_OPEN = 2
    AUDIT_SILENCE = 3


class CountKind(enum.IntEnum):
    """What is counted by class: tasks by `TaskStatus`, nodes by `NodeClass`."""

    TASK = 1
    NODE = 2


def u64(value: int) -> bytes:
    """8 bytes, big endian: the order of keys is the order of numbers."""
    return value.to_bytes(8, "big")


def u32(value: int) -> bytes:
    """4 bytes, big endian."""
    return value.to_bytes(4, "big")


def nonce_key(account: bytes, nonce: int) -> bytes:
    """Key of the memory of one (account, nonce)."""
    return NONCE + account + u64(nonce)


def nonce_expiry_key(valid_until_ms: int, account: bytes, nonce: int) -> bytes:
    """Key under which a nonce is found when its validity has ended."""
    return NONCE_EXPIRY + u64(valid_until_ms) + account + u64(nonce)


def deadline_key(due_ms: int, kind: DeadlineKind, identity: bytes) -> bytes:
    """Key of something that falls due at an active time."""
    return DEADLINE + u64(due_ms) + bytes([kind]) + identity


def order_key(prefix: bytes, height: int, number: int, task: bytes) -> bytes:
    """Key of a task in submission order (`OPEN_TASK` and `TASK_ORDER`)."""
    return prefix + u64(height) + u32(number) + task


def batch_leaf_key(batch: int, leaf: int) -> bytes:
    """Key of a leaf of a batch."""
    return BATCH_LEAF + u64(batch) + u32(leaf)


def lane_key(backend: str) -> bytes:
    """Key of a backend's lane."""
    return LANE + backend.encode()


def anchor_prefix(backend: str) -> bytes:
    """What the keys of a backend's anchors start with; sizes follow in order."""
    return ANCHOR + backend.encode() + b"\0"


def anchor_key(backend: str, size: int) -> bytes:
    """Key of a backend's anchor at a size of the batch log."""
    return anchor_prefix(backend) + u64(size)


def tree_key(prefix: bytes, level: int, index: int) -> bytes:
    """Key of a complete subtree's hash (`LOG_TREE` and `HEADER_TREE`)."""
    return prefix + bytes([level]) + u64(index)


def count_key(kind: CountKind, class_: int) -> bytes:
    """Key of the number of tasks or nodes in a class."""
    return COUNT + bytes([kind, class_])


def weight_key(level: int, index: int) -> bytes:
    """Key of one node of the selection tree."""
    return WEIGHT + bytes([level]) + u32(index)

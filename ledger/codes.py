"""Outcome codes of transactions: one for each cause.

The numbers are part of the wire format and of the transaction log: a number is never reused.
Within an envelope or an operation the checks run in the order of these numbers, so that a
transaction with several faults gets the code with the smallest one. Three differ: SubmitProof
prefers ATTEMPT_STALE, which tells the worker more, to TASK_NOT_ASSIGNED and ASSIGNMENT_NOT_YOURS,
and looks at the attestations of the output last; AnchorIntent compares its payload first; and
AnchorBump compares its fee with those of the other variants last.
"""

from __future__ import annotations

import enum


class Code(enum.IntEnum):
    """What happened to a transaction. `OK` is 0; every other value is a rejection."""

    OK = 0

    # The envelope. These touch no account and no nonce, and may be sent again.
    TOO_LARGE = 1
    MALFORMED = 2
    CHAIN_MISMATCH = 3
    UNSIGNED = 4
    SIGNATURE_INVALID = 5
    ACCOUNT_NOT_FOUND = 6
    KEY_NOT_AUTHORISED = 7
    EXPIRED = 8
    VALIDITY_TOO_LONG = 9
    NONCE_REUSED = 10
    TOO_MANY_OPERATIONS = 11

    # Any operation.
    NOT_A_MEMBER = 20
    NOT_GOVERNANCE = 21
    INNER_SIGNATURE_INVALID = 22
    AMOUNT_ZERO = 23
    AMOUNT_OVERFLOW = 24
    BALANCE_INSUFFICIENT = 25
    STAKE_INSUFFICIENT = 26
    STAKE_LOCKED = 27

    # Compute nodes.
    NODE_EXISTS = 40
    NODE_NOT_FOUND = 41
    NODE_LIMIT = 42
    CAPACITY_INVALID = 43
    REPORT_NOT_FOR_NODE = 44
    REPORT_STALE = 45
    REPORTER_MISMATCH = 46

    # Tasks.
    LIMIT_INVALID = 60
    REPLICAS_UNSUPPORTED = 61
    ATTESTATION_INVALID = 62
    BLOB_NOT_AVAILABLE = 63
    TASK_NOT_FOUND = 64
    TASK_NOT_OWNED = 65
    TASK_NOT_OPEN = 66

    # Proofs and failures.
    TASK_NOT_ASSIGNED = 80
    ASSIGNMENT_NOT_YOURS = 81
    ATTEMPT_STALE = 82
    COMMITMENT_MISMATCH = 83
    PROFILE_NOT_ALLOWED = 84
    GAS_OVER_LIMIT = 85
    OUTPUT_OVER_LIMIT = 86
    RESULT_INVALID = 87

    # Verdicts.
    PROOF_NOT_FOUND = 100
    PROOF_NOT_IN_AUDIT = 101
    VERIFIER_NOT_DRAWN = 102
    VERDICT_EXISTS = 103
    VERDICT_INCONSISTENT = 104

    # Settlement and anchors.
    BATCH_NOT_OPEN = 120
    BATCH_EMPTY = 121
    ANCHOR_BACKEND_UNKNOWN = 122
    ANCHOR_HALTED = 123
    ANCHOR_LEASE_HELD = 124
    ANCHOR_LEASE_MISSING = 125
    ANCHOR_NETWORK_MISMATCH = 126
    ANCHOR_NODE_BEHIND = 127
    ANCHOR_PENDING = 128
    ANCHOR_NOT_PENDING = 129
    ANCHOR_STALE = 130
    ANCHOR_NOT_FINAL = 131
    ANCHOR_OBSERVED = 132
    ANCHOR_NOT_OBSERVED = 133
    ANCHOR_EVIDENCE_INVALID = 134
    ANCHOR_VARIANTS_LIMIT = 135
    ANCHOR_SEAL_ALIVE = 136
    ANCHOR_MALFORMED = 137
    ANCHOR_SEAL_MISMATCH = 138
    ANCHOR_NEXT_SEAL_MISMATCH = 139
    ANCHOR_INTENT_MISMATCH = 140
    ANCHOR_FEE_INVALID = 141
    ANCHOR_FEE_OVER_CAP = 142
    ANCHOR_SIGNATURE_INVALID = 143
    ANCHOR_LANE_CHANGED = 144


CODE_MEANINGS: dict[Code, str] = {
    Code.OK: "applied",
    Code.TOO_LARGE: "the transaction is larger than 262,144 bytes; split it",
    Code.MALFORMED: "not the canonical encoding of a transaction; encode it with the library",
    Code.CHAIN_MISMATCH: "made for another cluster; check the chain id of your genesis file",
    Code.UNSIGNED: "the transaction carries no signature; sign it",
    Code.SIGNATURE_INVALID: "a signature does not match its key and content; sign it again",
    Code.ACCOUNT_NOT_FOUND: "the account does not exist; fund it, or register a node with it",
    Code.KEY_NOT_AUTHORISED: "the account does not have this key; sign with the account's key",
    Code.EXPIRED: "its validity has ended; look it up by id, then sign a new one",
    Code.VALIDITY_TOO_LONG: "valid for more than the cluster allows; shorten valid_until",
    Code.NONCE_REUSED: "another transaction of this account used the nonce; draw a new one",
    Code.TOO_MANY_OPERATIONS: "more than 128 operations; split the transaction",
    Code.NOT_A_MEMBER: "only a member of the cluster may do this",
    Code.NOT_GOVERNANCE: "not signed by enough governance keys",
    Code.INNER_SIGNATURE_INVALID: "a signature inside the operation is wrong",
    Code.AMOUNT_ZERO: "the amount is zero",
    Code.AMOUNT_OVERFLOW: "the amount would exceed 2^63-1 units in total",
    Code.BALANCE_INSUFFICIENT: "the available balance is too small; fund the account",
    Code.STAKE_INSUFFICIENT: "the stake is too small",
    Code.STAKE_LOCKED: "stake is locked while assignments or proofs are undecided; wait for them",
    Code.NODE_EXISTS: "the compute node is registered already",
    Code.NODE_NOT_FOUND: "no compute node with this id; register it first",
    Code.NODE_LIMIT: "the cluster has as many compute nodes as it allows",
    Code.CAPACITY_INVALID: "capacity must be 1 to 64 tasks at a time",
    Code.REPORT_NOT_FOR_NODE: "the signed telemetry is not of this node and cluster",
    Code.REPORT_STALE: "the telemetry is older than the one on record, or from the future",
    Code.REPORTER_MISMATCH: "only the member that the node talks to may report it silent",
    Code.LIMIT_INVALID: "a limit of the task is zero or above the cluster's parameter",
    Code.REPLICAS_UNSUPPORTED: "this protocol version runs each task on one node: replicas = 1",
    Code.ATTESTATION_INVALID: "an attestation is not signed by a member, or is given twice",
    Code.BLOB_NOT_AVAILABLE: "no majority of members attests to a blob; upload it first",
    Code.TASK_NOT_FOUND: "no task with this id",
    Code.TASK_NOT_OWNED: "the task belongs to another account",
    Code.TASK_NOT_OPEN: "the task is assigned or finished; only an open task can be cancelled",
    Code.TASK_NOT_ASSIGNED: "the task waits for no result",
    Code.ASSIGNMENT_NOT_YOURS: "the task is assigned to another node",
    Code.ATTEMPT_STALE: "the result is of an earlier attempt; its deadline has passed",
    Code.COMMITMENT_MISMATCH: "the commitment names another module, input, entry point or limit",
    Code.PROFILE_NOT_ALLOWED: "the cluster does not accept this execution profile; check versions",
    Code.GAS_OVER_LIMIT: "the commitment claims more gas than the task allows",
    Code.OUTPUT_OVER_LIMIT: "the output is longer than the task allows",
    Code.RESULT_INVALID: "status, trap class, gas and output of the commitment do not agree",
    Code.PROOF_NOT_FOUND: "no proof with this id",
    Code.PROOF_NOT_IN_AUDIT: "the proof is not under audit",
    Code.VERIFIER_NOT_DRAWN: "another member was drawn to verify this proof",
    Code.VERDICT_EXISTS: "this member has given its verdict already",
    Code.VERDICT_INCONSISTENT: "the finding does not follow from the recomputed values",
    Code.BATCH_NOT_OPEN: "this batch is not the open one",
    Code.BATCH_EMPTY: "nothing was accepted since the last batch",
    Code.ANCHOR_BACKEND_UNKNOWN: "no anchor of this name",
    Code.ANCHOR_HALTED: "anchoring is halted; see why with `anchor status`, then `anchor resume`",
    Code.ANCHOR_LEASE_HELD: "another member holds the lease of this anchor; wait until it ends",
    Code.ANCHOR_LEASE_MISSING: "only the member that holds the lease of this anchor may do this",
    Code.ANCHOR_NETWORK_MISMATCH: "the member's node follows another chain than genesis names",
    Code.ANCHOR_NODE_BEHIND: "the member's node has seen less of the chain than the ledger has",
    Code.ANCHOR_PENDING: "another anchor is pending; wait until it is final",
    Code.ANCHOR_NOT_PENDING: "no anchor of this size is pending",
    Code.ANCHOR_STALE: "the size is not that of the batch log, or is anchored already",
    Code.ANCHOR_NOT_FINAL: "no recent anchor of this size was observed; there is none to retract",
    Code.ANCHOR_OBSERVED: "the anchor was observed already",
    Code.ANCHOR_NOT_OBSERVED: "the anchor has not been observed yet",
    Code.ANCHOR_EVIDENCE_INVALID: "the evidence does not show that the anchor was published",
    Code.ANCHOR_VARIANTS_LIMIT: "the anchor has as many variants as it may have",
    Code.ANCHOR_SEAL_ALIVE: "a variant of the anchor spends the present seal; bump that one",
    Code.ANCHOR_MALFORMED: "not the one shape that an anchor's transaction has",
    Code.ANCHOR_SEAL_MISMATCH: "the anchor spends another coin than the present seal",
    Code.ANCHOR_NEXT_SEAL_MISMATCH: "the anchor's first output is not the next seal",
    Code.ANCHOR_INTENT_MISMATCH: "the anchor does not publish the batch log's root",
    Code.ANCHOR_FEE_INVALID: "the fee is zero, or not above that of the variant it replaces",
    Code.ANCHOR_FEE_OVER_CAP: "the fee is above the cluster's limit for one anchor",
    Code.ANCHOR_SIGNATURE_INVALID: "the anchor is not signed by the seal's key",
    Code.ANCHOR_LANE_CHANGED: "the anchors have moved on since they were looked at; look again",
}

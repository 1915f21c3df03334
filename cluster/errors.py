"""Every error that the library raises for a reason outside itself, as one tree.

    VcpError                       exit  what it means
    ├── InvalidRequest              2    the request itself is wrong; sending it again is useless
    │   ├── Ambiguous                    a short id fits several things
    │   └── InvalidModule                the module can never run (`code` says why)
    ├── ConfigError                 2    a setting or file is wrong (`key`, `origin`, `hint`)
    ├── NotReady                    1    it will exist later
    ├── Unavailable                 3    nothing was changed; safe to retry
    │   ├── NoLeader                     the members are electing, or fewer than a majority run
    │   ├── Timeout                      what was waited for did not happen in time
    │   └── BadAnswer                    an endpoint answered with something else than the API
    ├── InvalidTransaction          4    the ledger rejected it (`code`, `operation`, `receipt`)
    ├── VerificationFailed          5    something that was checked is not valid
    │   ├── InvalidBlob
    │   ├── InvalidProof
    │   └── InvalidReceipt
    ├── NotFound                    6
    ├── NotAuthorised               7
    └── UnknownOutcome              8    sent, not confirmed: look it up by `tx_id`

`exit_code` is the exit code of a command that ends with the error. The text of every error ends
with `Next: …`, what to do about it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from vcp_cluster.ledger.codes import CODE_MEANINGS, Code

if TYPE_CHECKING:
    # Commands that fail early must not pay for loading the whole ledger.
    from vcp_cluster.ledger.transactions import TransactionReceipt

RETRY = "try again; `vcp-cluster status` shows what the members see"


class VcpError(Exception):
    """Base of all errors of this tree: `message` says what and why, `next_step` what to do."""

    exit_code: ClassVar[int] = 1
    is_of_endpoint: ClassVar[bool] = False
    """Whether another member may well answer differently."""

    def __init__(self, message: str, *, next_step: str) -> None:
        super().__init__(f"{message.rstrip('.')}.  Next: {next_step}")
        self.message = message
        self.next_step = next_step


class InvalidRequest(VcpError):
    """What was asked for is wrong in itself."""

    exit_code = 2


class Ambiguous(InvalidRequest):
    """A shortened id fits more than one thing."""


class InvalidModule(InvalidRequest):
    """The module, or the task's limits, can never run; `code` as in `executor.ModuleError`."""

    def __init__(self, message: str, *, code: str, next_step: str) -> None:
        super().__init__(message, next_step=next_step)
        self.code = code


class ConfigError(VcpError):
    """A setting or a file is wrong.

    `key` names the setting or file, `origin` where its value came from (a flag, a variable, a
    path), `hint` what to do.
    """

    exit_code = 2

    def __init__(self, message: str, *, key: str, origin: str, hint: str) -> None:
        super().__init__(f"{key} ({origin}): {message}", next_step=hint)
        self.key = key
        self.origin = origin
        self.hint = hint


class NotReady(VcpError):
    """What was asked for does not exist yet, but will."""


class Unavailable(VcpError):
    """No member could serve the request. Nothing was changed, so it may be sent again."""

    exit_code = 3
    is_of_endpoint = True

    def __init__(self, message: str, *, next_step: str = RETRY) -> None:
        super().__init__(message, next_step=next_step)


class NoLeader(Unavailable):
    """The members have no leader now."""


class Timeout(Unavailable):
    """What was waited for did not happen in time."""


class BadAnswer(Unavailable):
    """An endpoint answered with something that is not this API."""


class InvalidTransaction(VcpError):
    """The ledger, or a member at its door, rejected a transaction.

    `operation` is the index of the failed operation, `receipt` the ledger's receipt, or None when
    a member refused the transaction before it reached the log.
    """

    exit_code = 4

    def __init__(
        self,
        code: Code,
        *,
        tx_id: bytes,
        operation: int = 0,
        receipt: TransactionReceipt | None = None,
    ) -> None:
        what, _, next_step = CODE_MEANINGS[code].partition("; ")
        super().__init__(
            f"transaction {tx_id.hex()[:12]}: {code.name.lower()} — {what}",
            next_step=next_step or "correct it and sign a new transaction",
        )
        self.code = code
        self.tx_id = tx_id
        self.operation = operation
        self.receipt = receipt


class VerificationFailed(VcpError):
    """Something that was checked is not valid."""

    exit_code = 5


class InvalidBlob(VerificationFailed):
    """Bytes do not have the hash or size under which they were asked for."""

    is_of_endpoint = True


class InvalidProof(VerificationFailed):
    """A worker's proof is not valid."""


class InvalidReceipt(VerificationFailed):
    """A settlement receipt is not valid."""


class NotFound(VcpError):
    """There is no such thing."""

    exit_code = 6


class NotAuthorised(VcpError):
    """The key may not do this, or the request's signature or time is wrong."""

    exit_code = 7


class UnknownOutcome(VcpError):
    """A transaction was sent and not confirmed: it may be applied, now or later, or never."""

    exit_code = 8

    def __init__(self, tx_id: bytes, reason: str) -> None:
        super().__init__(
            f"transaction {tx_id.hex()} was sent but not confirmed: {reason}",
            next_step=f"`vcp-cluster tx show {tx_id.hex()}`; do not sign a second one before",
        )
        self.tx_id = tx_id

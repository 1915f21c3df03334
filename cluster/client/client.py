"""The client: sign, submit, read, wait."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Collection, Sequence

import httpx2

from vcp_cluster.cluster.client.blobs import BLOB_BYTES_MAX, Blob, download_blob, upload_blob
from vcp_cluster.cluster.client.reader import Document, Reader, shorten, to_identity
from vcp_cluster.cluster.client.sender import Sender
from vcp_cluster.cluster.client.tasks import ENDED, prepare_task, wait_for_task
from vcp_cluster.cluster.errors import (
    InvalidRequest,
    InvalidTransaction,
    NotAuthorised,
    NotReady,
)
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.operations import AnyOperation, CancelTask, Mint, Stake, Transfer, Unstake
from vcp_cluster.ledger.tasks import compute_task_id
from vcp_cluster.ledger.transactions import TransactionReceipt, sign_transaction

VALIDITY_MS = 60_000


class Client(Reader):
    """A client of one cluster.

    It finds a member that answers, moves on when one fails, and repeats the same signed bytes until
    its deadline, so that a transaction is applied once. It reads its own writes: every read waits
    for the greatest height that this client has seen. Several threads may use one client; use it
    as a context manager, or call `close`.

    `endpoints` is a comma list or a sequence of `http(s)://HOST:PORT`. `seed` (32 bytes) signs;
    without it the client only reads. `genesis` is fetched when it is not given, and trusted then.
    Every method gives up after `timeout_s`, which most methods take as an argument too.

    Raises the errors of `vcp_cluster.cluster.errors`: `Unavailable` when nothing was done and
    `UnknownOutcome` when a transaction was sent but not confirmed, among others. Ids and hashes are
    lower-case hex in documents and may be given as hex or bytes.
    """

    def __init__(
        self,
        endpoints: str | Sequence[str],
        *,
        seed: bytes | None = None,
        genesis: Genesis | None = None,
        timeout_s: float = 30.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """`transport` replaces the network, for tests."""
        if seed is not None and len(seed) != 32:
            raise InvalidRequest("the seed has not 32 bytes", next_step="read it from a key file")
        super().__init__(endpoints, genesis=genesis, timeout_s=timeout_s, transport=transport)
        self._sender = Sender(self._link, self._observe)
        self._seed = seed

    # --- who ---------------------------------------------------------------------------------

    @property
    def seed(self) -> bytes:
        """The seed that signs; raises `NotAuthorised` when the client has none."""
        if self._seed is None:
            raise NotAuthorised(
                "this needs a key to sign with, and the client has none",
                next_step="give one: --key FILE, or Client(..., seed=...)",
            )
        return self._seed

    @property
    def account_id(self) -> str:
        """This client's own account, in hex."""
        return public_key(self.seed).hex()

    def account(self, account: str | bytes | None = None) -> Document:
        """An account (`vcp/account/v1`), this client's own by default."""
        return super().account(self.account_id if account is None else account)

    # --- writing -----------------------------------------------------------------------------

    def sign(
        self,
        *operations: AnyOperation,
        validity_ms: int = VALIDITY_MS,
        cosigner_seeds: Sequence[bytes] = (),
    ) -> bytes:
        """Sign operations as one transaction with a random nonce, valid from now on."""
        return sign_transaction(
            self.seed,
            chain_id=self.chain_id,
            nonce=secrets.randbits(63),
            valid_until_ms=time.time_ns() // 1_000_000 + validity_ms,
            operations=operations,
            cosigner_seeds=cosigner_seeds,
        )

    def send(
        self, transactions: Sequence[bytes], *, timeout_s: float | None = None
    ) -> list[TransactionReceipt]:
        """Send signed transactions; their receipts in order, rejections included.

        The same bytes may be sent again at any time: what was applied is not applied twice.
        """
        return self._sender.send(transactions, deadline=self._deadline(timeout_s))

    def submit(
        self,
        *operations: AnyOperation,
        timeout_s: float | None = None,
        validity_ms: int = VALIDITY_MS,
        cosigner_seeds: Sequence[bytes] = (),
    ) -> TransactionReceipt:
        """Apply operations, all or none; raises `InvalidTransaction` when they are rejected."""
        data = self.sign(*operations, validity_ms=validity_ms, cosigner_seeds=cosigner_seeds)
        (receipt,) = self.send([data], timeout_s=timeout_s)
        if receipt.code != Code.OK:
            raise InvalidTransaction(
                Code(receipt.code),
                tx_id=receipt.tx_id,
                operation=receipt.operation,
                receipt=receipt,
            )
        return receipt

    def submit_many(
        self, groups: Sequence[Sequence[AnyOperation]], *, timeout_s: float | None = None
    ) -> list[TransactionReceipt]:
        """One transaction for each group of operations, sent together.

        Each may be rejected alone: look at `code` of its receipt.
        """
        return self.send([self.sign(*group) for group in groups], timeout_s=timeout_s)

    def transfer(self, recipient: str | bytes, amount: int) -> TransactionReceipt:
        """Move `amount` units to an account (full id)."""
        return self.submit(Transfer(to_identity(recipient), amount))

    def mint(
        self, recipient: str | bytes, amount: int, *, cosigner_seeds: Sequence[bytes] = ()
    ) -> TransactionReceipt:
        """Make `amount` units; the client's seed and the cosigners' must be the governance's."""
        return self.submit(Mint(to_identity(recipient), amount), cosigner_seeds=cosigner_seeds)

    def stake(self, amount: int) -> TransactionReceipt:
        """Put `amount` units at stake."""
        return self.submit(Stake(amount))

    def unstake(self, amount: int) -> TransactionReceipt:
        """Take `amount` units of stake back."""
        return self.submit(Unstake(amount))

    def cancel_task(self, task: str | bytes) -> TransactionReceipt:
        """Take an open task back; its reward returns."""
        return self.submit(CancelTask(to_identity(task)))

    # --- blobs -------------------------------------------------------------------------------

    def upload(self, data: bytes, *, timeout_s: float | None = None) -> Blob:
        """Store a blob with a majority of members; their attestations are checked."""
        if len(data) > BLOB_BYTES_MAX:
            raise InvalidRequest(
                f"{len(data)} bytes, a blob has at most {BLOB_BYTES_MAX}",
                next_step="split it over several tasks",
            )
        deadline = self._deadline(timeout_s)
        return upload_blob(
            self._link, bytes(data), genesis=self.genesis, seed=self.seed, deadline=deadline
        )

    def download(
        self,
        content_hash: str | bytes,
        *,
        size_max: int = BLOB_BYTES_MAX,
        timeout_s: float | None = None,
    ) -> bytes:
        """Fetch a blob of at most `size_max` bytes, checked against its hash."""
        return download_blob(
            self._link,
            to_identity(content_hash),
            size_max=size_max,
            deadline=self._deadline(timeout_s),
        )

    # --- tasks -------------------------------------------------------------------------------

    def submit_task(
        self,
        module: bytes,
        input: bytes,
        *,
        reward: int,
        entry_point: str = "vcp_run",
        gas_limit: int | None = None,
        memory_bytes_max: int | None = None,
        run_ms_max: int | None = None,
        output_bytes_max: int | None = None,
        deadline_ms: int = 60_000,
        open_ms_max: int = 3_600_000,
    ) -> str:
        """Upload module and input, put `reward` units in escrow, and return the task's id.

        Limits that are not given are the cluster's greatest. `deadline_ms` is for one attempt,
        `open_ms_max` for the time until the last attempt starts. Raises `InvalidModule` before
        anything is sent when the module can never run.
        """
        task = prepare_task(
            self.genesis.parameters,
            module=module,
            input=input,
            reward=reward,
            entry_point=entry_point,
            gas_limit=gas_limit,
            memory_bytes_max=memory_bytes_max,
            run_ms_max=run_ms_max,
            output_bytes_max=output_bytes_max,
            deadline_ms=deadline_ms,
            open_ms_max=open_ms_max,
        )
        operation = task.attest(self.upload(module), self.upload(input))
        receipt = self.submit(operation)
        return compute_task_id(receipt.tx_id, 0).hex()

    def wait_task(
        self,
        task: str | bytes,
        until: Collection[str] = ENDED,
        *,
        timeout_s: float | None = None,
        on_change: Callable[[Document], None] | None = None,
    ) -> Document:
        """Wait until the task's status is in `until`, or the task has ended in another way.

        `on_change` is called with the first document, and with each one whose status or number of
        attempts differs from the one before. Raises `Timeout`.
        """
        return wait_for_task(
            lambda height, wait_ms, deadline: self._get_task(task, height, wait_ms, deadline),
            until=until,
            deadline=self._deadline(timeout_s),
            on_change=on_change,
        )

    def output(self, task: str | bytes) -> bytes:
        """The output of a task's newest proof, checked against the hash in the ledger.

        Empty when the run ended otherwise than `ok`. Raises `NotReady` while there is no proof.
        """
        document = self.task(task)
        content_hash, length = document.get("output_hash"), document.get("output_length")
        if not isinstance(content_hash, str) or type(length) is not int:
            raise NotReady(
                f"task {shorten(task)} has no result yet, it is {document.get('status')}",
                next_step=f"`vcp-cluster task watch {shorten(task)}`",
            )
        return self.download(content_hash, size_max=max(length, 1)) if length else b""

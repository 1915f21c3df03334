"""A regtest chain in this process: blocks and scripts are judged by Bitcoin Core's own library.

libbitcoinkernel (PyPI py-bitcoinkernel) decides which blocks are valid and which chain is best, and
whether a witness is right. What it does not have is here: a small mempool with Core's reasons for
refusing, a miner, and reorganisations by mining a longer branch.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, compact_size, hash256, to_display
from vcp_cluster.ledger.bitcoin.spv import compute_branch, compute_merkle_root
from vcp_cluster.ledger.bitcoin.transaction import (
    OutPoint,
    Transaction,
    TxInput,
    TxOutput,
    parse_transaction,
)

pbk = pytest.importorskip("pbk", reason="needs py-bitcoinkernel: pip install -e '.[dev]'")
from pbk.script import PrecomputedTransactionData, ScriptVerificationFlags

OP_TRUE = b"\x51"
ANYONE = b"\x00\x20" + hashlib.sha256(OP_TRUE).digest()
BITS = 0x207FFFFF
BLOCK_S = 600
START_S = 1_500_000_000
COINBASE_MATURITY = 100
SUBSIDY_HALVING = 150


class Rejected(Exception):
    """A node's error: its code and its words."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Coin:
    """An unspent output: value, script, height of its block (-1 in the mempool)."""

    value: int
    script: bytes
    height: int
    is_coinbase: bool = False


@dataclass
class Block:
    """A block that was mined, on whichever branch."""

    raw: bytes
    height: int
    transactions: list[Transaction]

    @property
    def header(self) -> bytes:
        return self.raw[:80]


@dataclass
class Undo:
    created: list[OutPoint] = field(default_factory=list)
    spent: dict[OutPoint, Coin] = field(default_factory=dict)


class RegtestChain:
    """One chain with one mempool. `floor` and `increment` are satoshi per 1,000 vB."""

    def __init__(self) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="vcp-regtest-")
        self._manager = pbk.load_chainman(Path(self._directory.name), pbk.ChainType.REGTEST)
        self._chain = self._manager.get_active_chain()
        genesis = bytes(self._chain.block_tree_entries[0].block_hash)
        self.blocks: dict[bytes, Block] = {}
        self.active = [genesis]
        self.coins: dict[OutPoint, Coin] = {}
        self.mempool: dict[bytes, Transaction] = {}
        self.fees: dict[bytes, int] = {}
        self.confirmed: dict[bytes, bytes] = {}
        self.floor = 100
        self.increment = 100
        self.datacarrier_max = 100_000
        self._undo: dict[bytes, Undo] = {}
        self._now_s = START_S
        self._salt = 0

    def close(self) -> None:
        """Remove everything."""
        self._directory.cleanup()

    @property
    def height(self) -> int:
        return len(self.active) - 1

    @property
    def tip(self) -> bytes:
        return self.active[-1]

    def work_at(self, height: int) -> int:
        """Chain work up to a height: every regtest block counts 2."""
        return 2 * (height + 1)

    def get_coin(self, outpoint: OutPoint, *, with_mempool: bool) -> Coin | None:
        """A coin of the chain, or with the mempool's changes."""
        if with_mempool:
            if outpoint in self._spent_in_mempool():
                return None
            parent = self.mempool.get(outpoint.txid)
            if parent is not None and outpoint.output < len(parent.outputs):
                output = parent.outputs[outpoint.output]
                return Coin(output.value, output.script, -1)
        return self.coins.get(outpoint)

    def _spent_in_mempool(self) -> dict[OutPoint, Transaction]:
        return {one.outpoint: tx for tx in self.mempool.values() for one in tx.inputs}

    # --- mempool -------------------------------------------------------------------------------

    def submit(self, raw: bytes) -> Transaction:
        """Take a transaction into the mempool, or raise `Rejected` as Core does."""
        try:
            transaction = parse_transaction(raw)
        except BitcoinInvalid:
            raise Rejected(
                -22, "TX decode failed. Make sure the tx has at least one input."
            ) from None
        if transaction.txid in self.mempool:
            return transaction
        if any(
            OutPoint(transaction.txid, n) in self.coins for n in range(len(transaction.outputs))
        ):
            raise Rejected(-27, "Transaction outputs already in utxo set")
        carried = sum(len(one.script) for one in transaction.outputs if one.script[:1] == b"\x6a")
        if carried > self.datacarrier_max:
            raise Rejected(-26, "datacarrier")
        self._accept(transaction)
        return transaction

    def _accept(self, transaction: Transaction) -> None:
        spent = self._spent_in_mempool()
        coins = [self._input_coin(one.outpoint) for one in transaction.inputs]
        fee = sum(one.value for one in coins) - sum(one.value for one in transaction.outputs)
        if fee < 0:
            raise Rejected(-26, "bad-txns-in-belowout")
        size = transaction.virtual_size
        if fee * 1000 < self.floor * size:
            raise Rejected(-26, f"min relay fee not met, {fee} < {self.floor * size // 1000}")
        conflicts = {
            spent[one.outpoint].txid: spent[one.outpoint]
            for one in transaction.inputs
            if one.outpoint in spent
        }
        self._add_descendants(conflicts)
        if conflicts:
            old = sum(self.fees[txid] for txid in conflicts)
            needed = old + -(-self.increment * size // 1000)
            if fee < needed:
                raise Rejected(
                    -26,
                    f"insufficient fee, rejecting replacement {to_display(transaction.txid)}; "
                    f"new fee {fee} < {needed}",
                )
        self._check_scripts(transaction, coins)
        for txid in conflicts:
            del self.mempool[txid], self.fees[txid]
        self.mempool[transaction.txid] = transaction
        self.fees[transaction.txid] = fee

    def _input_coin(self, outpoint: OutPoint) -> Coin:
        """A coin of the chain or of an unconfirmed parent; who else spends it is for replacement."""
        coin = self.coins.get(outpoint)
        if coin is None and outpoint.txid in self.mempool:
            outputs = self.mempool[outpoint.txid].outputs
            if outpoint.output < len(outputs):
                output = outputs[outpoint.output]
                return Coin(output.value, output.script, -1)
        if coin is None:
            raise Rejected(-25, "bad-txns-inputs-missingorspent")
        if coin.is_coinbase and self.height + 1 - coin.height < COINBASE_MATURITY:
            raise Rejected(-26, "bad-txns-premature-spend-of-coinbase")
        return coin

    def _add_descendants(self, found: dict[bytes, Transaction]) -> None:
        while True:
            more = {
                one.txid: one
                for one in self.mempool.values()
                if one.txid not in found and any(i.outpoint.txid in found for i in one.inputs)
            }
            if not more:
                return
            found.update(more)

    def _check_scripts(self, transaction: Transaction, coins: list[Coin]) -> None:
        raw = pbk.Transaction(transaction.full)
        outputs = [pbk.TransactionOutput(pbk.ScriptPubkey(c.script), c.value) for c in coins]
        data = PrecomputedTransactionData(raw, outputs)
        for index, coin in enumerate(coins):
            script = pbk.ScriptPubkey(coin.script)
            try:
                is_right = script.verify(coin.value, raw, data, index, ScriptVerificationFlags.ALL)
            except pbk.ScriptVerifyException:
                is_right = False
            if not is_right:
                raise Rejected(-26, "mempool-script-verify-flag-failed")

    # --- blocks --------------------------------------------------------------------------------

    def mine(self, count: int = 1, *, transactions: list[Transaction] | None = None) -> list[bytes]:
        """Mine blocks with the whole mempool, or with just these transactions in the first."""
        mined = []
        for number in range(count):
            chosen = list(self.mempool.values()) if transactions is None else transactions
            chosen = chosen if transactions is None or number == 0 else []
            mined.append(self._mine_on(self.tip, self.height + 1, chosen))
            self._follow()
            assert self.tip == mined[-1], "the kernel refused our block"
        return mined

    def reorganise(self, depth: int, *, transactions: list[Transaction] | None = None) -> None:
        """Replace the last `depth` blocks by one more than that, the first with `transactions`."""
        base = self.height - depth
        previous = self.active[base]
        for number in range(depth + 1):
            chosen = (transactions or []) if number == 0 else []
            previous = self._mine_on(previous, base + 1 + number, chosen)
        self._follow()
        assert self.tip == previous, "the kernel did not take the longer branch"

    def _mine_on(self, previous: bytes, height: int, chosen: list[Transaction]) -> bytes:
        self._now_s += BLOCK_S
        self._salt += 1
        coinbase = self._coinbase(height, chosen)
        txids = [coinbase.txid, *(one.txid for one in chosen)]
        root = compute_merkle_root(txids[0], 0, compute_branch(txids, 0))
        prefix = (0x20000000).to_bytes(4, "little") + previous + root
        prefix += self._now_s.to_bytes(4, "little") + BITS.to_bytes(4, "little")
        nonce = 0
        while hash256(header := prefix + nonce.to_bytes(4, "little"))[31] >= 0x80:
            nonce += 1
        raw = header + compact_size(len(txids)) + coinbase.full + b"".join(t.full for t in chosen)
        block_hash = hash256(header)
        self.blocks[block_hash] = Block(raw, height, [coinbase, *chosen])
        self._manager.process_block(pbk.Block(raw))
        return block_hash

    def _coinbase(self, height: int, chosen: list[Transaction]) -> Transaction:
        number = height.to_bytes(height.bit_length() // 8 + 1, "little")
        push = bytes([0x50 + height]) if height <= 16 else bytes([len(number)]) + number
        script = push + b"\x08" + self._salt.to_bytes(8, "little")
        outputs = [TxOutput(5_000_000_000 >> (height // SUBSIDY_HALVING), ANYONE)]
        source = TxInput(OutPoint(bytes(32), 0xFFFFFFFF), script, 0xFFFFFFFF)
        if not chosen:
            return Transaction(2, (source,), tuple(outputs), 0)
        wtxids = [bytes(32), *(one.wtxid for one in chosen)]
        root = compute_merkle_root(wtxids[0], 0, compute_branch(wtxids, 0))
        outputs.append(TxOutput(0, b"\x6a\x24\xaa\x21\xa9\xed" + hash256(root + bytes(32))))
        return Transaction(2, (source,), tuple(outputs), 0, ((bytes(32),),))

    def _follow(self) -> None:
        """Bring coins and mempool to the chain that the kernel holds for best."""
        returned: list[Transaction] = []
        while self.height > self._chain.height or self._kernel_hash(self.height) != self.tip:
            returned = [*self._disconnect(), *returned]
        while self.height < self._chain.height:
            self._connect(self._kernel_hash(self.height + 1))
        waiting, self.mempool, self.fees = [*returned, *self.mempool.values()], {}, {}
        for transaction in waiting:
            try:
                self._accept(transaction)
            except Rejected:
                continue  # It conflicts with the chain, or its parent is gone.

    def _kernel_hash(self, height: int) -> bytes:
        return bytes(self._chain.block_tree_entries[height].block_hash)

    def _disconnect(self) -> list[Transaction]:
        block = self.blocks[self.active.pop()]
        undo = self._undo.pop(hash256(block.header))
        # First what was spent, then what was created: an output may be both in one block.
        self.coins.update(undo.spent)
        for outpoint in undo.created:
            self.coins.pop(outpoint, None)
        for transaction in block.transactions:
            self.confirmed.pop(transaction.txid, None)
        return block.transactions[1:]

    def _connect(self, block_hash: bytes) -> None:
        block, undo = self.blocks[block_hash], Undo()
        for number, transaction in enumerate(block.transactions):
            for one in transaction.inputs if number else ():
                undo.spent[one.outpoint] = self.coins.pop(one.outpoint)
            for output, value in enumerate(transaction.outputs):
                if value.script[:1] == b"\x6a":
                    continue
                outpoint = OutPoint(transaction.txid, output)
                self.coins[outpoint] = Coin(value.value, value.script, block.height, number == 0)
                undo.created.append(outpoint)
            self.confirmed[transaction.txid] = block_hash
            self.mempool.pop(transaction.txid, None)
            self.fees.pop(transaction.txid, None)
        self._undo[block_hash] = undo
        self.active.append(block_hash)

    # --- money for tests -----------------------------------------------------------------------

    def pay(self, script: bytes, value: int, *, outputs: int = 1) -> Transaction:
        """A confirmed transaction that pays `script` from a mature coinbase."""
        ripe = self.height + 1 - COINBASE_MATURITY
        outpoint, coin = next(
            (outpoint, coin)
            for outpoint, coin in self.coins.items()
            if coin.script == ANYONE
            and coin.value > value * outputs + 10_000
            and coin.height <= ripe
        )
        change = coin.value - value * outputs - 10_000
        paid = [TxOutput(value, script)] * outputs
        transaction = Transaction(
            2,
            (TxInput(outpoint, b"", 0xFFFFFFFD),),
            (*paid, TxOutput(change, ANYONE)),
            0,
            ((OP_TRUE,),),
        )
        self.mine(transactions=[transaction])
        return transaction


def make_chain() -> RegtestChain:
    """A chain with mature coins."""
    chain = RegtestChain()
    chain.mine(COINBASE_MATURITY + 10, transactions=[])
    return chain

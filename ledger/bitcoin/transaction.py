"""Transactions: strict reading and writing, ids and sizes (BIP 141, BIP 144)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, Reader, compact_size, hash256

VALUE_MAX = 21_000_000 * 100_000_000  # satoshi
# A 64-byte transaction could pass for an inner node of a Merkle tree (CVE-2017-12842).
AMBIGUOUS_BYTES = 64
_INPUT_BYTES_MIN = 41
_OUTPUT_BYTES_MIN = 9
_WITNESS_MARK = b"\x00\x01"


@dataclass(frozen=True, slots=True)
class OutPoint:
    """One output of one transaction."""

    txid: bytes
    output: int

    def encode(self) -> bytes:
        """36 bytes, as an input names it."""
        return self.txid + self.output.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class TxInput:
    """What is spent. `script` is empty for a witness program."""

    outpoint: OutPoint
    script: bytes
    sequence: int

    def encode(self) -> bytes:
        """As in a transaction."""
        size = compact_size(len(self.script))
        return self.outpoint.encode() + size + self.script + self.sequence.to_bytes(4, "little")


@dataclass(frozen=True, slots=True)
class TxOutput:
    """An amount in satoshi and the script that says who may spend it."""

    value: int
    script: bytes

    def encode(self) -> bytes:
        """As in a transaction."""
        return self.value.to_bytes(8, "little") + compact_size(len(self.script)) + self.script


@dataclass(frozen=True)
class Transaction:
    """A transaction; `witnesses` is empty for a stripped one, else one stack for each input."""

    version: int
    inputs: tuple[TxInput, ...]
    outputs: tuple[TxOutput, ...]
    lock_time: int
    witnesses: tuple[tuple[bytes, ...], ...] = ()

    @cached_property
    def _body(self) -> bytes:
        parts = [compact_size(len(self.inputs)), *(one.encode() for one in self.inputs)]
        parts += [compact_size(len(self.outputs)), *(one.encode() for one in self.outputs)]
        return b"".join(parts)

    @cached_property
    def stripped(self) -> bytes:
        """Without witnesses: what the id is computed from."""
        return self._number(self.version) + self._body + self._number(self.lock_time)

    @cached_property
    def full(self) -> bytes:
        """As it travels."""
        if not self.witnesses:
            return self.stripped
        stacks = b"".join(
            compact_size(len(stack)) + b"".join(compact_size(len(item)) + item for item in stack)
            for stack in self.witnesses
        )
        head = self._number(self.version) + _WITNESS_MARK
        return head + self._body + stacks + self._number(self.lock_time)

    @cached_property
    def txid(self) -> bytes:
        """Its id, which no signature changes."""
        return hash256(self.stripped)

    @cached_property
    def wtxid(self) -> bytes:
        """Hash of everything."""
        return hash256(self.full)

    @property
    def virtual_size(self) -> int:
        """Size in vB: three times the stripped size and the full one, by four, rounded up."""
        return (3 * len(self.stripped) + len(self.full) + 3) // 4

    def with_witnesses(self, witnesses: Sequence[Sequence[bytes]]) -> Transaction:
        """The same, signed."""
        return replace(self, witnesses=tuple(tuple(stack) for stack in witnesses))

    @staticmethod
    def _number(value: int) -> bytes:
        return value.to_bytes(4, "little")


def read_transaction(reader: Reader) -> Transaction:
    """The next transaction, stripped or with witnesses; raise `BitcoinInvalid`."""
    version = reader.number(4)
    count = reader.count(_INPUT_BYTES_MIN)
    has_witness = count == 0
    if has_witness:
        if reader.number(1) != 1:
            raise BitcoinInvalid("a transaction without inputs")
        count = reader.count(_INPUT_BYTES_MIN)
        if count == 0:
            raise BitcoinInvalid("a transaction without inputs")
    inputs = tuple(_read_input(reader) for _ in range(count))
    outputs = tuple(_read_output(reader) for _ in range(reader.count(_OUTPUT_BYTES_MIN)))
    if not outputs or sum(one.value for one in outputs) > VALUE_MAX:
        raise BitcoinInvalid("a transaction without outputs, or with more coins than exist")
    witnesses: tuple[tuple[bytes, ...], ...] = ()
    if has_witness:
        witnesses = tuple(
            tuple(reader.text() for _ in range(reader.count(1))) for _ in range(count)
        )
        if not any(witnesses):
            raise BitcoinInvalid("a witness is announced and every one is empty")
    return Transaction(version, inputs, outputs, reader.number(4), witnesses)


def _read_input(reader: Reader) -> TxInput:
    return TxInput(OutPoint(reader.take(32), reader.number(4)), reader.text(), reader.number(4))


def _read_output(reader: Reader) -> TxOutput:
    value = reader.number(8)
    if value > VALUE_MAX:
        raise BitcoinInvalid("an output has more coins than exist")
    return TxOutput(value, reader.text())


def parse_transaction(data: bytes) -> Transaction:
    """A whole transaction with or without witnesses, nothing after it; raise `BitcoinInvalid`."""
    reader = Reader(data)
    transaction = read_transaction(reader)
    reader.end()
    if len(transaction.stripped) == AMBIGUOUS_BYTES:
        raise BitcoinInvalid("a transaction of 64 bytes could be a node of a Merkle tree")
    return transaction


def parse_stripped(data: bytes) -> Transaction:
    """A whole transaction that carries no witness; raise `BitcoinInvalid`."""
    transaction = parse_transaction(data)
    if transaction.witnesses:
        raise BitcoinInvalid("the transaction carries witnesses: strip them")
    return transaction

"""Settlement receipts with Bitcoin evidence: what they show, what they do not, every way to forge one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
import warnings
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner

from vcp_cluster.cli.main import cli
from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY, AnchorSettings
from vcp_cluster.ledger.anchors import compute_payload
from vcp_cluster.ledger.anchors.bitcoin_proof import BitcoinProof, check_proof
from vcp_cluster.ledger.anchors.notary import compute_raw
from vcp_cluster.ledger.anchors.timestamp import export_timestamp
from vcp_cluster.ledger.bitcoin.reader import BitcoinInvalid, hash256, to_display
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor
from vcp_cluster.ledger.bitcoin.transaction import (
    OutPoint,
    Transaction,
    TxOutput,
    parse_stripped,
)
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.merkle import BLAKE3_TREE, RFC9162, ProofInvalid, check_inclusion
from vcp_cluster.ledger.operations import (
    AnchorFinal,
    AnchorIntent,
    AnchorObserved,
    SealBatch,
)
from vcp_cluster.ledger.receipt_builder import build_receipt
from vcp_cluster.ledger.receipts import (
    NotReady,
    ReceiptInvalid,
    SettlementReceipt,
    check_receipt,
    format_receipt,
    parse_receipt,
)
from vcp_cluster.ledger.settlement import BatchHeader, header_leaf_hash
from vcp_cluster.ledger.state import Overlay, State

from ..cluster.fake_ledger import MEMBER_SEEDS, FakeChain, make_evidence, make_genesis
from .node import CREDENTIALS, CoreNode, Faults, NodeHandler, NodeServer
from .regtest import RegtestChain
from .world import SCRIPT, SIGNER, World, make_settings

A = MEMBER_SEEDS["a"]


class Paid:
    """A world with one task that was paid, in a batch that both backends anchor."""

    def __init__(self, chain: RegtestChain, backends: tuple[str, ...] = (BITCOIN, NOTARY)) -> None:
        self.world = World(chain)
        genesis = make_genesis(anchors=AnchorSettings(backends, (self.world.settings,)))
        self.ledger = self.world.ledger = FakeChain(genesis)
        for name in MEMBER_SEEDS:
            ledger = self.world.members[name] = self.ledger.member(name)
            self.world.anchorers[name] = self.world.make_anchorer(name, ledger)
        self.ledger.bring_online()
        self.task = self.ledger.submit_task()
        self.ledger.accept(self.ledger.submit_proof(self.task))
        self.ledger.send(A, SealBatch(1))

    @property
    def state(self) -> State:
        return State(Overlay(self.ledger.store))

    def notarise(self) -> None:
        size = self.ledger.settlement().headers
        intent = AnchorIntent(NOTARY, size, compute_payload(self.state), compute_raw(self.state))
        self.ledger.send(A, intent)
        evidence = encode(make_evidence(self.ledger, size))
        self.ledger.send(A, AnchorObserved(NOTARY, size, evidence, b""))
        self.ledger.send(A, AnchorFinal(NOTARY, size, b"", b""))

    def finish(self) -> None:
        asyncio.run(self.world.finish())

    def receipt(self) -> SettlementReceipt:
        return build_receipt(self.state, self.task)


@pytest.fixture
def paid(chain: RegtestChain) -> Paid:
    return Paid(chain)


@pytest.fixture
def anchored(paid: Paid) -> SettlementReceipt:
    """A receipt with both anchors."""
    paid.notarise()
    paid.finish()
    return paid.receipt()


def bitcoin_of(receipt: SettlementReceipt) -> BitcoinProof:
    proof = receipt.anchors[-1]
    assert isinstance(proof, BitcoinProof)
    return proof


def check(receipt: SettlementReceipt) -> Any:
    return check_receipt(format_receipt(receipt).encode(), receipt.chain_id)


def with_proof(receipt: SettlementReceipt, **fields: object) -> SettlementReceipt:
    """The receipt with other fields in its Bitcoin proof."""
    proof = msgspec.structs.replace(bitcoin_of(receipt), **fields)
    return msgspec.structs.replace(receipt, anchors=(*receipt.anchors[:-1], proof))


def test_a_receipt_has_the_anchors_that_are_final(paid: Paid) -> None:
    with pytest.raises(NotReady, match="not final"):
        paid.receipt()
    paid.notarise()
    notarised = check(paid.receipt())
    assert (notarised.block, notarised.members) == (None, ("a", "b", "c"))
    paid.finish()
    report = check(paid.receipt())
    assert report.members == ("a", "b", "c")
    assert report.block.network == "regtest"
    assert "no security" in dict(report.checked)["Bitcoin"]
    assert "anchor audit" in " ".join(report.unchecked)
    (anchor,) = paid.world.published()
    assert report.block.txid == anchor.txid


def test_bitcoin_alone_makes_a_receipt(chain: RegtestChain) -> None:
    paid = Paid(chain, (BITCOIN,))
    paid.finish()
    report = check(paid.receipt())
    assert report.members == ()
    assert "operators" not in " ".join(report.unchecked)


def test_later_batches_are_proved_through_the_anchor_before(paid: Paid) -> None:
    paid.finish()
    task = paid.ledger.submit_task()
    paid.ledger.accept(paid.ledger.submit_proof(task))
    paid.ledger.send(A, SealBatch(2))
    paid.finish()
    report = check(build_receipt(paid.state, task))
    assert (report.batch, report.log_size) == (2, 2)
    first, second = paid.world.published()
    proof = bitcoin_of(build_receipt(paid.state, task))
    assert parse_stripped(proof.parent).txid == first.txid
    assert report.block.txid == second.txid


# --- forgeries ---------------------------------------------------------------------------------------


def test_every_flipped_byte_is_refused(anchored: SettlementReceipt) -> None:
    """All but those of the last header: at regtest's difficulty half of all hashes are enough."""
    settings = anchored.genesis.anchors.bitcoin[0]
    proof = bitcoin_of(anchored)
    data = encode(proof)
    last = data.index(proof.headers[-80:])
    lenient = {
        *range(last, last + 80),
        *range(data.index(encode(proof.block_height), last), len(data)),
    }
    # The block's time, target and nonce are in its hash, which only the next header names.
    refused = 0
    for place in range(len(data)):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        try:
            other = msgspec.msgpack.decode(bytes(spoilt), type=BitcoinProof)
            check_proof(settings, anchored.header, other)
        except (msgspec.MsgspecError, UnicodeDecodeError, BitcoinInvalid, ProofInvalid):
            refused += 1
        else:
            assert place in lenient, f"byte {place} of {len(data)}"
    assert refused >= len(data) - len(lenient)


def test_every_flipped_byte_of_the_rest_of_the_receipt_is_refused(
    anchored: SettlementReceipt,
) -> None:
    data = encode(anchored)
    end = data.index(encode(anchored.anchors[0]))  # Notes have tests of their own.
    for place in range(0, end, 3):
        spoilt = bytearray(data)
        spoilt[place] ^= 1
        try:
            other = msgspec.msgpack.decode(bytes(spoilt), type=SettlementReceipt)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
        with pytest.raises(ReceiptInvalid):
            check_receipt(format_receipt(other).encode(), anchored.chain_id)


def test_anchors_out_of_order_or_twice_are_refused(anchored: SettlementReceipt) -> None:
    notary, bitcoin = anchored.anchors
    for anchors in ((bitcoin, notary), (bitcoin, bitcoin), (notary, notary)):
        with pytest.raises(ReceiptInvalid, match="twice"):
            check(msgspec.structs.replace(anchored, anchors=anchors))


def test_another_cluster_s_anchor_proves_nothing(chain: RegtestChain, paid: Paid) -> None:
    """The same key, another first coin: each chain of seals is of one cluster alone."""
    paid.finish()
    receipt = paid.receipt()
    funding = chain.pay(SCRIPT, 500_000)
    genesis = make_genesis(anchors=AnchorSettings((BITCOIN, NOTARY), (make_settings(funding),)))
    foreign = msgspec.structs.replace(receipt, genesis=genesis)
    with pytest.raises(ReceiptInvalid, match="chain id"):
        check(foreign)
    with pytest.raises(ReceiptInvalid, match="of the cluster"):
        check_receipt(format_receipt(receipt).encode(), bytes(16))
    notary = make_genesis()
    with pytest.raises(ReceiptInvalid):
        check(msgspec.structs.replace(receipt, genesis=notary))


def forge(chain: RegtestChain, transaction: Transaction, proof: BitcoinProof) -> BitcoinProof:
    """The proof for a transaction that really is in blocks of the chain."""
    chain.mine(transactions=[transaction])
    block = chain.blocks[chain.tip]
    chain.mine(2, transactions=[])
    headers = b"".join(chain.blocks[one].header for one in chain.active[-3:])
    return msgspec.structs.replace(
        proof,
        transaction=transaction.stripped,
        index=1,
        branch=block.transactions[0].txid,
        headers=headers,
    )


def test_a_stranger_s_transaction_with_the_right_payload(
    chain: RegtestChain, anchored: SettlementReceipt
) -> None:
    """Anybody can publish the 40 bytes; only the seal's key can spend what pays the seal's key."""
    proof = bitcoin_of(anchored)
    payload = parse_stripped(proof.transaction).outputs[1].script[2:]
    settings = anchored.genesis.anchors.bitcoin[0]
    stranger = chain.pay(b"\x00\x14" + bytes(20), 90_000)
    paying = chain.pay(SCRIPT, 60_000)
    for parent, coin in ((stranger, 0), (paying, 1)):
        spent = Coin(OutPoint(parent.txid, coin), parent.outputs[coin].value)
        made = build_anchor([spent], SCRIPT, payload, 500)
        forged = msgspec.structs.replace(proof, transaction=made.stripped, parent=parent.stripped)
        with pytest.raises(BitcoinInvalid, match="does not pay the seal's key"):
            check_proof(settings, anchored.header, forged)


def test_two_commitments_in_one_transaction(
    chain: RegtestChain, anchored: SettlementReceipt
) -> None:
    proof = bitcoin_of(anchored)
    settings = anchored.genesis.anchors.bitcoin[0]
    good = parse_stripped(proof.transaction)
    paid = chain.pay(SCRIPT, 60_000)
    coin = Coin(OutPoint(paid.txid, 0), 60_000)
    for outputs in (
        (good.outputs[1], good.outputs[1]),
        (TxOutput(50_000, SCRIPT), good.outputs[1], good.outputs[1]),
        (TxOutput(50_000, SCRIPT), TxOutput(0, b"\x6a\x28VCP1" + bytes(36)), good.outputs[1]),
    ):
        inputs = build_anchor([coin], SCRIPT, good.outputs[1].script[2:], 500).inputs
        unsigned = Transaction(2, inputs, outputs, 0)
        made = SIGNER.sign(unsigned, [coin], SCRIPT)
        forged = msgspec.structs.replace(forge(chain, made, proof), parent=paid.stripped)
        with pytest.raises(BitcoinInvalid):
            check_proof(settings, anchored.header, forged)
        chain.reorganise(3)
        chain.mempool.clear()


def test_a_transaction_of_64_bytes_and_oversize_integers(anchored: SettlementReceipt) -> None:
    proof = bitcoin_of(anchored)
    huge = b"\xff" + (2**62).to_bytes(8, "little")
    for fields in (
        {"transaction": proof.transaction[:64]},
        {"transaction": proof.transaction[:4] + huge + proof.transaction[5:]},
        {"transaction": proof.transaction + b"\0"},
        {"transaction": b""},
        {"parent": proof.parent[:64]},
        {"parent": proof.transaction},
        {"index": 2**62},
        {"log_size": 2**40},
        {"log_size": 0},
        {"branch": proof.branch[:-1]},
        {"branch": b""},
        {"headers": b""},
        {"headers": proof.headers[:80]},
        {"headers": proof.headers[80:]},
        {"headers": proof.headers[:160] + proof.headers[:80]},
        {"header_path": (bytes(32),)},
        {"log_root": bytes(32)},
    ):
        with pytest.raises(ReceiptInvalid):
            check(with_proof(anchored, **fields))


def test_headers_below_the_network_s_least_work(anchored: SettlementReceipt) -> None:
    settings = anchored.genesis.anchors.bitcoin[0]
    strict = msgspec.structs.replace(settings, header_bits=0x1D00FFFF)
    with pytest.raises(BitcoinInvalid, match="less work"):
        check_proof(strict, anchored.header, bitcoin_of(anchored))
    more = msgspec.structs.replace(settings, confirmations=4)
    with pytest.raises(BitcoinInvalid, match="3 headers"):
        check_proof(more, anchored.header, bitcoin_of(anchored))


# --- size and speed ----------------------------------------------------------------------------------


def test_the_evidence_is_below_3_kb_and_checked_in_2_ms(anchored: SettlementReceipt) -> None:
    """A batch of a million payments, a log of 100,000 batches, a block of 4,000, six headers."""
    leaf_path = tuple(hashlib.sha256(bytes([number])).digest() for number in range(20))
    log_path = tuple(hashlib.sha256(bytes([64 + number])).digest() for number in range(17))
    proof = bitcoin_of(anchored)
    size = (1 << 17) - 1
    header = BatchHeader.decode(anchored.header)
    leaf = encode(anchored.leaf)
    node = BLAKE3_TREE.leaf(leaf)
    for one in leaf_path:
        node = BLAKE3_TREE.node(node, one)
    made = BatchHeader.encode(
        BatchHeader(
            **{
                **{n: getattr(header, n) for n in header.__slots__},
                "count": 1 << 20,
                "settlement_root": node,
            }
        )
    )
    root = header_leaf_hash(made)
    for one in log_path:
        root = RFC9162.node(root, one)
    transaction = parse_stripped(proof.transaction)
    payload = b"VCP1" + size.to_bytes(4, "big") + root
    transaction = Transaction(
        2,
        transaction.inputs,
        (transaction.outputs[0], TxOutput(0, b"\x6a\x28" + payload)),
        0,
    )
    branch = b"".join(hashlib.sha256(bytes([99, n])).digest() for n in range(12))
    merkle = transaction.txid
    for start in range(0, len(branch), 32):
        merkle = hash256(merkle + branch[start : start + 32])
    headers = b""
    previous = bytes(32)
    for number in range(6):
        prefix = bytes(4) + previous + (merkle if number == 0 else bytes(32)) + bytes(4)
        prefix += (0x207FFFFF).to_bytes(4, "little")
        nonce = 0
        while hash256(one := prefix + nonce.to_bytes(4, "little"))[31] >= 0x80:
            nonce += 1
        headers += one
        previous = hash256(one)
    big = msgspec.structs.replace(
        proof,
        log_size=size,
        log_root=root,
        header_path=log_path,
        transaction=transaction.stripped,
        index=0,
        branch=branch,
        headers=headers,
    )
    settings = msgspec.structs.replace(anchored.genesis.anchors.bitcoin[0], confirmations=6)
    assert len(encode((leaf, leaf_path, made, big))) <= 3_000

    def verify() -> None:
        check_inclusion(BLAKE3_TREE, BLAKE3_TREE.leaf(leaf), 0, 1 << 20, leaf_path, node)
        check_proof(settings, made, big)

    took = []
    for _ in range(300):
        began = time.thread_time()
        verify()
        took.append(time.thread_time() - began)
    assert sorted(took)[int(len(took) * 0.99)] < 0.002


# --- what the command says ---------------------------------------------------------------------------


def run(*arguments: object) -> tuple[int, Any]:
    result = CliRunner().invoke(cli, [*map(str, arguments), "--json"], standalone_mode=True)
    return result.exit_code, json.loads(result.stdout) if result.stdout else result.stderr


@pytest.fixture
def file(tmp_path: Path, anchored: SettlementReceipt) -> Path:
    path = tmp_path / "payout.receipt"
    path.write_text(format_receipt(anchored))
    return path


def test_the_levels(
    file: Path, chain: RegtestChain, anchored: SettlementReceipt, tmp_path: Path
) -> None:
    command = ("receipt", "verify", file, "--chain-id", anchored.chain_id.hex())
    code, document = run(*command)
    assert (code, document["level"]) == (0, "matches-header")  # Work on regtest costs nothing.
    assert document["bitcoin"]["has_security"] is False
    assert any("best chain" in text for text in document["unchecked"])
    block_hash = document["bitcoin"]["block_hash"]
    height = document["bitcoin"]["block_height"]

    checkpoint = f"{block_hash}:{height}"
    code, document = run(*command, "--checkpoint", checkpoint)
    assert (code, document["level"]) == (0, "on-pinned-chain")
    assert not any("best chain" in text for text in document["unchecked"])
    assert run(*command, "--checkpoint", f"{block_hash}:{height + 1}")[0] == 5
    assert run(*command, "--checkpoint", f"{'0' * 64}:{height}")[0] == 5
    assert run(*command, "--checkpoint", "here")[0] == 2

    chain.mine(5)
    headers = tmp_path / "headers.bin"
    headers.write_bytes(b"".join(chain.blocks[one].header for one in chain.active[1:]))
    code, document = run(*command, "--headers", headers)
    assert (code, document["level"]) == (0, "on-pinned-chain")
    assert document["bitcoin"]["confirmations"] == chain.height - height + 1
    tip = f"{to_display(chain.tip)}:{chain.height}"
    assert run(*command, "--headers", headers, "--checkpoint", tip)[0] == 0

    cookie = tmp_path / "cookie"
    cookie.write_text(CREDENTIALS)
    cookie.chmod(0o600)
    with NodeServer(NodeHandler(CoreNode(chain), Faults())) as server:
        node = ("--rpc", server.url, "--rpc-cookie", cookie)
        code, document = run(*command, *node)
        assert (code, document["level"]) == (0, "node-confirmed")
        chain.reorganise(chain.height - height + 1)
        code, document = run(*command, *node)
        assert (code, document["valid"]) == (5, False)
    assert run(*command, *node)[0] == 3  # The node is gone.
    headers.write_bytes(b"".join(chain.blocks[one].header for one in chain.active[1:]))
    code, document = run(*command, "--headers", headers)
    assert (code, document["valid"]) == (5, False)
    for spoilt in (b"", headers.read_bytes()[:-1], headers.read_bytes()[:160][::-1]):
        headers.write_bytes(spoilt)
        assert run(*command, "--headers", headers)[0] == 5


def test_levels_are_of_bitcoin_alone(paid: Paid, tmp_path: Path) -> None:
    paid.notarise()
    receipt = paid.receipt()
    path = tmp_path / "payout.receipt"
    path.write_text(format_receipt(receipt))
    command = ("receipt", "verify", path, "--chain-id", receipt.chain_id.hex())
    assert run(*command)[1]["level"] is None
    assert run(*command, "--checkpoint", f"{'0' * 64}:1")[0] == 2
    assert run("receipt", "ots", *command[2:], "--out", tmp_path / "x")[0] == 2


def test_the_stock_opentimestamps_library_verifies_every_anchor(
    file: Path, chain: RegtestChain, anchored: SettlementReceipt, tmp_path: Path
) -> None:
    pytest.importorskip("opentimestamps", reason="needs opentimestamps: pip install -e '.[dev]'")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # python-bitcoinlib's own
        from bitcoin.core import CBlockHeader
        from opentimestamps.core.notary import BitcoinBlockHeaderAttestation
        from opentimestamps.core.serialize import BytesDeserializationContext
        from opentimestamps.core.timestamp import DetachedTimestampFile

    out = tmp_path / "batch.header"
    command = ("receipt", "ots", file, "--chain-id", anchored.chain_id.hex(), "--out", out)
    assert run(*command)[0] == 0
    assert out.read_bytes() == anchored.header
    data = (tmp_path / "batch.header.ots").read_bytes()
    proof = DetachedTimestampFile.deserialize(BytesDeserializationContext(data))
    assert proof.file_digest == hashlib.sha256(out.read_bytes()).digest()
    ((message, attestation),) = proof.timestamp.all_attestations()
    assert isinstance(attestation, BitcoinBlockHeaderAttestation)
    header = chain.blocks[chain.active[attestation.height]].header
    attestation.verify_against_blockheader(message, CBlockHeader.deserialize(header))
    assert data == export_timestamp(
        anchored.header, bitcoin_of(anchored), hashlib.sha256(anchored.header).digest()
    )


def test_a_receipt_is_one_text(anchored: SettlementReceipt) -> None:
    text = format_receipt(anchored)
    assert parse_receipt(text.encode()) == anchored

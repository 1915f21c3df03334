"""One value, one encoding: every other spelling is refused, and no bytes raise.

The envelopes here are signed as they are spelled, so that nothing but the codec refuses them.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_harness import anchoring, forms
from ledger_harness.cast import key, seed
from ledger_harness.ledger import Ledger
from ledger_harness.spelling import pack, respell

from vcp_cluster.ledger.anchor_settings import BITCOIN, AnchorSettings
from vcp_cluster.ledger.anchors.bitcoin import BlockEvidence, SignedAnchor
from vcp_cluster.ledger.anchors.notary import NotaryEvidence
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import Finding, proof_id
from vcp_cluster.ledger.domains import DOMAIN_TRANSACTION
from vcp_cluster.ledger.encoding import INTEGER_MAX, Malformed, decode, encode
from vcp_cluster.ledger.genesis import Genesis
from vcp_cluster.ledger.keys import sign
from vcp_cluster.ledger.operations import (
    AnyOperation,
    CancelTask,
    RegisterNode,
    SealBatch,
    Transfer,
)
from vcp_cluster.ledger.tasks import compute_task_id
from vcp_cluster.ledger.transactions import (
    Entry,
    Envelope,
    SignedTransaction,
    parse_transaction,
    verify_entry,
)
from vcp_cluster.ledger.transition import apply


def stage() -> tuple[Ledger, bytes]:
    """A ledger with a task that `pc` runs."""
    ledger = Ledger()
    assert ledger.submit("pc", RegisterNode("pc", 2)) is Code.OK
    assert ledger.submit("ada", forms.report(ledger, "pc")) is Code.OK
    return ledger, ledger.submit_task("alice", forms.task(ledger))


def transfer(ledger: Ledger, task: bytes) -> tuple[str, AnyOperation]:
    """A small transaction."""
    return "alice", Transfer(key("bob"), 1_000)


def task(ledger: Ledger, task: bytes) -> tuple[str, AnyOperation]:
    """Many integers, and lists of records."""
    return "alice", forms.task(ledger)


def report(ledger: Ledger, task: bytes) -> tuple[str, AnyOperation]:
    """A boolean, and a record in a record."""
    return "ada", forms.report(ledger, "pc")


def proof(ledger: Ledger, task: bytes) -> tuple[str, AnyOperation]:
    """Small bounded integers and text."""
    return "pc", forms.prove(ledger, "pc", forms.commitment(ledger, task))


def verdict(ledger: Ledger, task: bytes) -> tuple[str, AnyOperation]:
    """What a member signs."""
    claim = forms.commitment(ledger, task)
    assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
    ledger.wait(1)
    record = ledger.state.get_proof(proof_id(claim))
    assert record is not None
    drawn = next(name for name in ("ada", "ben", "cyd") if key(name) == record.verifier)
    return drawn, forms.verdict(ledger, drawn, proof_id(claim), Finding.AGREE)


def anchor(ledger: Ledger, task: bytes) -> tuple[str, AnyOperation]:
    """A transaction of another system, as bytes."""
    claim = forms.commitment(ledger, task)
    assert ledger.submit("pc", forms.prove(ledger, "pc", claim)) is Code.OK
    ledger.wait(1)
    for member in ("ada", "ben", "cyd"):
        ledger.submit(member, forms.verdict(ledger, member, proof_id(claim), Finding.AGREE))
    assert ledger.submit("ada", SealBatch(1)) is Code.OK
    assert ledger.submit("ada", anchoring.lease(ledger)) is Code.OK
    return "ada", anchoring.intent(ledger, BITCOIN)


Example = Callable[[Ledger, bytes], tuple[str, AnyOperation]]
EXAMPLES = pytest.mark.parametrize(
    "example",
    [transfer, task, report, proof, verdict, anchor],
    ids=lambda example: example.__name__,
)


def answer(ledger: Ledger, transaction: bytes) -> Code:
    """The code that a transaction would get; the ledger stays as it is."""
    (receipt,) = ledger.try_entry(transaction).receipts
    return Code(receipt.code)


def signed(sender: str, envelope: bytes) -> bytes:
    """A transaction around the bytes of an envelope, whatever they are."""
    return encode(SignedTransaction(envelope, sign(seed(sender), DOMAIN_TRANSACTION, envelope), ()))


@EXAMPLES
def test_every_other_spelling_of_an_envelope_is_malformed(example: Example) -> None:
    """Integers, bytes, text, booleans and lists, each at every place where one stands."""
    ledger, task_id = stage()
    sender, operation = example(ledger, task_id)
    transaction = ledger.transaction(sender, operation)
    envelope = decode(SignedTransaction, transaction).envelope
    plain = msgspec.msgpack.decode(envelope)
    assert pack(plain) == envelope, "the packer of the tests writes what the codec writes"
    assert answer(ledger, signed(sender, envelope)) is Code.OK
    spellings = 0
    for what, spelled in respell(plain):
        if spelled != envelope and not _means_something_else(spelled):
            assert answer(ledger, signed(sender, spelled)) is Code.MALFORMED, what
            spellings += 1
    assert spellings > 100


def _means_something_else(envelope: bytes) -> bool:
    """One element less, or a value that is also right there, can be another envelope: canonical."""
    try:
        value = msgspec.msgpack.decode(envelope)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return False
    try:
        parsed = msgspec.convert(value, Envelope, strict=True)
    except (msgspec.MsgspecError, TypeError):
        return False
    return encode(parsed) == envelope


@EXAMPLES
def test_a_cut_or_padded_transaction_is_malformed(example: Example) -> None:
    """At every position; and so is everything around the envelope that is not minimal."""
    ledger, task_id = stage()
    sender, operation = example(ledger, task_id)
    transaction = ledger.transaction(sender, operation)
    for length in range(len(transaction)):
        assert answer(ledger, transaction[:length]) is Code.MALFORMED
    for padding in (b"\x00", b"\xc0", b"\x90", transaction):
        assert answer(ledger, transaction + padding) is Code.MALFORMED
        assert answer(ledger, padding + transaction) is Code.MALFORMED
    for what, spelled in respell(msgspec.msgpack.decode(transaction)):
        assert spelled == transaction or answer(ledger, spelled) is not Code.OK, what


@EXAMPLES
def test_no_byte_of_a_transaction_can_be_changed(example: Example) -> None:
    """Every byte is checked: by the codec, the chain id, or the signature."""
    ledger, task_id = stage()
    sender, operation = example(ledger, task_id)
    transaction = ledger.transaction(sender, operation)
    before = (Code.MALFORMED, Code.CHAIN_MISMATCH, Code.SIGNATURE_INVALID)
    for position, byte in enumerate(transaction):
        for value in {byte ^ 1, byte ^ 0x80, 0xC0, 0xFF} - {byte}:
            changed = transaction[:position] + bytes([value]) + transaction[position + 1 :]
            assert answer(ledger, changed) in before, position


def test_an_entry_that_is_none_changes_only_the_height() -> None:
    """Bytes of a Raft record that do not decode, at every cut."""
    ledger = Ledger()
    data = encode(Entry(1, ledger.now_ms + 5, (ledger.transaction("alice"),)))
    for length in range(len(data)):
        applied = apply(ledger.store, data[:length], ())
        assert applied.receipts == ()
        assert (applied.head.height, applied.head.time_ms) == (1, ledger.now_ms)
        assert len(applied.writes) == 1, "the head"


def test_time_does_not_run_backwards() -> None:
    """An entry of an earlier time keeps the time before it."""
    ledger = Ledger()
    ledger.wait(1_000)
    before = ledger.state.get_head()
    applied = ledger.apply_bytes(encode(Entry(1, 0, ())))
    assert applied.head.time_ms == before.time_ms
    assert applied.head.active_ms == before.active_ms


def test_the_last_moment_of_time() -> None:
    """The largest time that an entry can carry is only a time: a task can still begin and end."""
    ledger = Ledger()
    head = ledger.apply_bytes(encode(Entry(1, INTEGER_MAX, ()))).head
    assert head.time_ms == INTEGER_MAX
    assert head.active_ms == ledger.genesis.parameters.active_gap_ms_max
    submit = ledger.transaction("alice", forms.task(ledger), valid_ms=0)
    cancel = CancelTask(compute_task_id(parse_transaction(submit).tx_id, 0))
    end = ledger.transaction("alice", cancel, valid_ms=0)
    applied = ledger.apply_bytes(encode(Entry(1, INTEGER_MAX, (submit, end))))
    assert [receipt.code for receipt in applied.receipts] == [Code.OK, Code.OK]


json_like = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=40)
    | st.text(max_size=5),
    lambda children: st.lists(children, max_size=8),
    max_leaves=20,
)
KINDS = (
    Entry,
    SignedTransaction,
    Envelope,
    Genesis,
    AnchorSettings,
    NotaryEvidence,
    SignedAnchor,
    BlockEvidence,
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(data=st.binary(max_size=200) | json_like.map(msgspec.msgpack.encode))
def test_no_bytes_raise(data: bytes) -> None:
    """As an entry, as a transaction, as an envelope: an answer, never an exception."""
    ledger = _LEDGER
    for entry in (
        data,
        encode(Entry(1, ledger.now_ms, (data,))),
        encode(Entry(1, ledger.now_ms, (encode(SignedTransaction(data, bytes(64), ())),))),
    ):
        applied = apply(ledger.store, entry, verify_entry(entry))
        assert all(receipt.code != Code.OK for receipt in applied.receipts)
    for kind in KINDS:
        try:
            value = decode(kind, data)
        except Malformed:
            continue
        assert encode(value) == data


_LEDGER = Ledger()


def test_deep_nesting_is_malformed() -> None:
    """Not a stack overflow."""
    for data in (b"\x91" * 100_000, b"\x93\x01\x01" + b"\x91" * 100_000, b"\x81" * 100_000):
        with pytest.raises(Malformed):
            decode(Entry, data)

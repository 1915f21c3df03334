"""Golden vectors: the bytes that every version and every other implementation must agree about.

`pytest tests/ledger --rewrite` writes them anew. A change of `vectors/ledger.json` is a change of
the wire format: it needs a new format version, not a new vector.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ledger_harness import anchoring, forms
from ledger_harness.cast import WORKERS, key, make_genesis
from ledger_harness.ledger import Ledger

from vcp_cluster.ledger.anchor_settings import BITCOIN, NOTARY
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.commitments import (
    Finding,
    blob_message,
    commitment_hash,
    proof_id,
    sign_commitment,
    sign_verdict,
)
from vcp_cluster.ledger.domains import DOMAINS
from vcp_cluster.ledger.encoding import encode
from vcp_cluster.ledger.genesis import compute_chain_id, to_document
from vcp_cluster.ledger.operations import RegisterNode, SealBatch, Transfer
from vcp_cluster.ledger.records import ProofStatus
from vcp_cluster.ledger.schema import HEADER, u64
from vcp_cluster.ledger.transactions import (
    compute_envelope_hash,
    parse_transaction,
    verify_entry,
)
from vcp_cluster.ledger.transition import apply, initial_writes

PATH = Path(__file__).parents[1] / "vectors" / "ledger.json"


def scripted_log() -> tuple[Ledger, bytes, list[str]]:
    """A short log that touches every record: work, an audit, a batch, two anchors, a rejection."""
    ledger = Ledger()
    for worker in WORKERS:
        assert ledger.submit(worker, RegisterNode("pc", 1), nonce=1) is Code.OK
        assert ledger.submit("ada", forms.report(ledger, worker)) is Code.OK
    task = ledger.submit_task("alice", forms.task(ledger))
    claim = forms.commitment(ledger, task)
    proof = proof_id(claim)
    worker = next(name for name in WORKERS if key(name) == claim.node)
    assert ledger.submit(worker, forms.prove(ledger, worker, claim)) is Code.OK
    ledger.wait(1)
    for member in ("ada", "ben", "cyd"):
        ledger.submit(member, forms.verdict(ledger, member, proof, Finding.AGREE))
    record = ledger.state.get_proof(proof)
    assert record is not None and record.status == ProofStatus.ACCEPTED
    assert ledger.submit("ada", SealBatch(1)) is Code.OK
    assert ledger.submit("ada", anchoring.intent(ledger)) is Code.OK
    assert ledger.submit("ada", anchoring.notary_observed(ledger)) is Code.OK
    assert ledger.submit("ben", anchoring.lease(ledger)) is Code.OK
    assert ledger.submit("ben", anchoring.intent(ledger, BITCOIN)) is Code.OK
    assert ledger.submit("ben", anchoring.bump(ledger, 400)) is Code.OK
    assert ledger.submit("ben", anchoring.bitcoin_observed(ledger, 1)) is Code.OK
    assert ledger.submit("ben", anchoring.final(ledger, BITCOIN)) is Code.OK
    assert ledger.submit("bob", Transfer(key("alice"), 2**62)) is Code.BALANCE_INSUFFICIENT
    ledger.entry(after_ms=3_600_000)
    ledger.apply_bytes(b"not an entry")
    return ledger, proof, roots_of(ledger)


def roots_of(ledger: Ledger) -> list[str]:
    """The state root at every height, from the log alone."""
    store = type(ledger.store)()
    store.commit(initial_writes(ledger.genesis))
    roots = []
    for data in ledger.entries:
        applied = apply(store, data, verify_entry(data))
        store.commit(applied.writes)
        roots.append(applied.head.state_root.hex())
    return roots


def genesis_vector() -> dict[str, Any]:
    """Genesis to chain id."""
    genesis = make_genesis()
    return {
        "document": to_document(genesis),
        "bytes": encode(genesis).hex(),
        "chain_id": compute_chain_id(genesis).hex(),
    }


def transfer_vector() -> dict[str, Any]:
    """A signed transfer, its ids and its receipt."""
    ledger = Ledger()
    data = ledger.transaction("alice", Transfer(key("bob"), 5_000_000), nonce=7)
    parsed = parse_transaction(data)
    (receipt,) = ledger.entry(data)
    return {
        "signed_transaction": data.hex(),
        "envelope": parsed.signed.envelope.hex(),
        "signature": parsed.signed.signature.hex(),
        "tx_id": parsed.tx_id.hex(),
        "envelope_hash": compute_envelope_hash(data).hex(),
        "entry": ledger.entries[0].hex(),
        "receipt": encode(receipt).hex(),
    }


def run_vector() -> dict[str, Any]:
    """What workers and members sign, and the log in which they do."""
    ledger, proof, roots = scripted_log()
    record = ledger.state.get_proof(proof)
    assert record is not None
    commitment, recorded = record.commitment, record.verdicts[0]
    header = ledger.store.get(HEADER + u64(1))
    anchor, sealed = (ledger.state.get_anchor(name, 1) for name in (NOTARY, BITCOIN))
    assert header is not None and anchor is not None and sealed is not None
    return {
        "commitment": {
            "bytes": encode(commitment).hex(),
            "hash": commitment_hash(commitment).hex(),
            "proof_id": proof.hex(),
            "signature": record.signature.hex(),
        },
        "verdict": {
            "bytes": encode(recorded.verdict).hex(),
            "signature": recorded.signature.hex(),
        },
        "blob_message": blob_message(ledger.chain_id, commitment.output_hash, 30).hex(),
        "batch_header": header.hex(),
        "anchor": {"payload": anchor.payload.hex(), "raw": anchor.raws[0].decode()},
        "bitcoin": {
            "variants": [raw.hex() for raw in sealed.raws],
            "evidence": sealed.evidence.hex(),
            "finality": sealed.finality.hex(),
            "record": encode(sealed).hex(),
            "lane": encode(ledger.state.get_lane(BITCOIN)).hex(),
        },
        "log": {"entries": [data.hex() for data in ledger.entries], "state_roots": roots},
    }


def make_vectors() -> dict[str, Any]:
    """All vectors as the file holds them."""
    return {
        "about": "Golden vectors of the ledger. Keys are BLAKE3('seed of ' + name) as Ed25519 "
        "seeds; hashes, keys and bytes in hex; times in ms.",
        "domains": [domain.decode() for domain in DOMAINS],
        "genesis": genesis_vector(),
        "transfer": transfer_vector(),
        "run": run_vector(),
    }


def test_golden_vectors(is_rewriting: bool) -> None:
    """Bytes, ids, receipts and roots are those of the file."""
    vectors = make_vectors()
    if is_rewriting:
        PATH.write_text(json.dumps(vectors, indent=1) + "\n")
    assert vectors == json.loads(PATH.read_text())


def test_a_log_replayed_gives_the_same_roots() -> None:
    """From the file alone: its entries on an empty store give its roots."""
    run = json.loads(PATH.read_text())["run"]["log"]
    ledger = Ledger()
    roots = [
        ledger.apply_bytes(bytes.fromhex(entry)).head.state_root.hex() for entry in run["entries"]
    ]
    assert roots == run["state_roots"]
    assert len(set(roots)) == len(roots)


def test_what_is_signed_is_signed_with_its_domain() -> None:
    """The signatures of the file are those of the functions that sign."""
    ledger, proof, _ = scripted_log()
    record = ledger.state.get_proof(proof)
    assert record is not None
    worker = next(name for name in WORKERS if key(name) == record.commitment.node)
    assert record.signature == sign_commitment(forms.seed(worker), record.commitment)
    recorded = record.verdicts[0]
    member = next(name for name in ("ada", "ben", "cyd") if key(name) == recorded.member)
    assert recorded.signature == sign_verdict(forms.seed(member), recorded.verdict)

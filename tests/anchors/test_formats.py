"""Bitcoin's formats: known values, agreement with Core's library, and everything malformed."""

from __future__ import annotations

import hashlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, utils
from hypothesis import given
from hypothesis import strategies as st

from vcp_cluster.cluster.anchors.bitcoin.signer import KeySigner, compute_seal_script
from vcp_cluster.ledger.bitcoin import secp256k1
from vcp_cluster.ledger.bitcoin.headers import decode_target, parse_chain, parse_header
from vcp_cluster.ledger.bitcoin.networks import NETWORKS
from vcp_cluster.ledger.bitcoin.reader import (
    BitcoinInvalid,
    Reader,
    compact_size,
    from_display,
    hash256,
    to_display,
)
from vcp_cluster.ledger.bitcoin.script import (
    find_payload,
    format_address,
    payload_script,
    read_pushed,
    seal_script,
)
from vcp_cluster.ledger.bitcoin.seal import Coin, build_anchor, check_witnesses
from vcp_cluster.ledger.bitcoin.transaction import (
    OutPoint,
    Transaction,
    TxInput,
    TxOutput,
    parse_stripped,
    parse_transaction,
)

from .regtest import RegtestChain, pbk

# The first block's header, as every node has it.
MAINNET_HEADER = bytes.fromhex(
    "01000000" + "00" * 32 + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    "29ab5f49ffff001d1dac2b7c"
)
EASY = decode_target(0x207FFFFF)
SIGNER = KeySigner(b"\x07" * 32)
SCRIPT = compute_seal_script(SIGNER.public_key)
PAYLOAD = b"VCP1" + bytes(4) + b"\x33" * 32
COINS = [Coin(OutPoint(b"\x01" * 32, 0), 100_000), Coin(OutPoint(b"\x02" * 32, 5), 70_000)]


def signed(coins: list[Coin], fee: int = 500) -> Transaction:
    return SIGNER.sign(build_anchor(coins, SCRIPT, PAYLOAD, fee), coins, SCRIPT)


def test_addresses_are_those_of_bip_173() -> None:
    key = bytes.fromhex("0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")
    script = compute_seal_script(key)
    assert format_address(script, "bc") == "bc1qw508d6qejxtdg4y5r3zarvary0c5xw7kv8f3t4"
    assert format_address(script, "tb") == "tb1qw508d6qejxtdg4y5r3zarvary0c5xw7kxpjzsx"


def test_the_first_header_of_mainnet() -> None:
    header = parse_header(MAINNET_HEADER, decode_target(0x1D00FFFF))
    assert header.hash == NETWORKS["mainnet"].genesis_hash
    assert header.work == 0x100010001
    with pytest.raises(BitcoinInvalid, match="less work"):
        parse_header(MAINNET_HEADER, decode_target(NETWORKS["mainnet"].header_bits))


@pytest.mark.parametrize("bits", [0, 0x01000000, 0x1D800000, 0x2300FFFF, 0xFF7FFFFF, 0x02000000])
def test_impossible_targets_are_refused(bits: int) -> None:
    with pytest.raises(BitcoinInvalid):
        decode_target(bits)


@pytest.mark.parametrize(
    ("data", "value"),
    [
        ("00", 0),
        ("fc", 252),
        ("fdfd00", 253),
        ("fdffff", 65_535),
        ("fe00000100", 65_536),
        ("ff0000000001000000", 1 << 32),
    ],
)
def test_lengths_have_one_spelling(data: str, value: int) -> None:
    assert Reader(bytes.fromhex(data)).size() == value
    assert compact_size(value).hex() == data


@pytest.mark.parametrize("data", ["fdfc00", "feff000000", "feffff0000", "ff" + "ff" * 4 + "00" * 4])
def test_longer_spellings_are_refused(data: str) -> None:
    with pytest.raises(BitcoinInvalid):
        Reader(bytes.fromhex(data)).size()


def test_announced_lengths_are_bounded_before_anything_is_read() -> None:
    huge = b"\xff" + (2**63).to_bytes(8, "little")
    for data in (huge, huge + bytes(100), b"\x65" + bytes(100)):
        with pytest.raises(BitcoinInvalid):
            Reader(data).count(1)
    with pytest.raises(BitcoinInvalid):
        parse_transaction(b"\x02\x00\x00\x00" + huge + bytes(100))


def test_ids_agree_with_core_s_library() -> None:
    for coins in (COINS[:1], COINS):
        transaction = signed(coins)
        assert parse_transaction(transaction.full) == transaction
        assert bytes(pbk.Transaction(transaction.full).txid) == transaction.txid
        stripped = parse_stripped(transaction.stripped)
        assert stripped.txid == transaction.txid != transaction.wtxid
        assert stripped.full == transaction.stripped


def test_an_anchor_is_162_virtual_bytes_or_less() -> None:
    assert signed(COINS[:1]).virtual_size <= 161


def test_core_s_library_takes_our_signatures(chain: RegtestChain) -> None:
    paid = chain.pay(SCRIPT, 90_000, outputs=2)
    coins = [Coin(OutPoint(paid.txid, number), 90_000) for number in (1, 0)]
    transaction = signed(coins)
    check_witnesses(transaction, coins, SIGNER.public_key, SCRIPT)
    assert chain.submit(transaction.full).txid == transaction.txid
    chain.mine()
    assert transaction.txid in chain.confirmed


def test_every_spoilt_signature_is_refused_by_both(chain: RegtestChain) -> None:
    paid = chain.pay(SCRIPT, 90_000)
    coin = Coin(OutPoint(paid.txid, 0), 90_000)
    transaction = signed([coin])
    signature, key = transaction.witnesses[0]
    for place in range(4, len(signature) - 1, 7):
        spoilt = bytearray(signature)
        spoilt[place] ^= 1
        other = transaction.with_witnesses([(bytes(spoilt), key)])
        with pytest.raises(BitcoinInvalid):
            check_witnesses(other, [coin], SIGNER.public_key, SCRIPT)
        with pytest.raises(Exception, match="script-verify"):
            chain.submit(other.full)


def test_every_flipped_byte_of_a_transaction_changes_it_or_is_refused() -> None:
    transaction = signed(COINS)
    for place in range(len(transaction.full)):
        data = bytearray(transaction.full)
        data[place] ^= 0x01
        try:
            other = parse_transaction(bytes(data))
        except BitcoinInvalid:
            continue
        assert other.full == bytes(data)
        assert other.wtxid != transaction.wtxid
    for data in (transaction.full[:-1], transaction.full + b"\0", transaction.full * 2, b""):
        with pytest.raises(BitcoinInvalid):
            parse_transaction(data)
    with pytest.raises(BitcoinInvalid, match="witnesses"):
        parse_stripped(transaction.full)


def test_a_transaction_of_64_bytes_is_refused() -> None:
    source = TxInput(OutPoint(bytes(32), 0), b"", 0)
    short = Transaction(2, (source,), (TxOutput(0, b"\x6a\x02ab"),), 0)
    assert len(short.stripped) == 64
    with pytest.raises(BitcoinInvalid, match="64 bytes"):
        parse_transaction(short.stripped)


def test_no_inputs_no_outputs_too_many_coins() -> None:
    source = TxInput(OutPoint(bytes(32), 0), b"", 0)
    for inputs, outputs in (
        ((), (TxOutput(1, b"\x51"),)),
        ((source,), ()),
        ((source,), (TxOutput(21_000_000 * 10**8 + 1, b"\x51"),)),
        ((source,), (TxOutput(21_000_000 * 10**8, b"\x51"), TxOutput(1, b"\x51"))),
    ):
        with pytest.raises(BitcoinInvalid):
            parse_transaction(Transaction(2, inputs, outputs, 0).full)
    empty = Transaction(2, (source,), (TxOutput(1, b"\x51"),), 0, ((),))
    with pytest.raises(BitcoinInvalid, match="witness"):
        parse_transaction(empty.full)


def test_exactly_one_commitment_in_its_one_spelling() -> None:
    good = payload_script(PAYLOAD)
    assert find_payload([SCRIPT, good]) == PAYLOAD
    long_push = b"\x6a\x4c\x28" + PAYLOAD
    assert read_pushed(long_push) == PAYLOAD
    for scripts in (
        [SCRIPT],
        [],
        [b""],
        [good, good],
        [good, payload_script(b"VCP1" + bytes(36))],
        [long_push],
        [payload_script(PAYLOAD[:-1])],
        [payload_script(b"x" + PAYLOAD[:-1])],
        [good + b"\0"],
    ):
        with pytest.raises(BitcoinInvalid):
            find_payload(scripts)
    for script in (b"", b"\x6a", b"\x51", b"\x6a\x4c", b"\x6a\x4d\x01\x00a", b"\x6a\x05abc"):
        assert read_pushed(script) is None


def test_headers_follow_one_another_and_have_work(chain: RegtestChain) -> None:
    headers = [chain.blocks[one].header for one in chain.active[1:8]]
    assert [one.hash for one in parse_chain(b"".join(headers), EASY)] == chain.active[1:8]
    spoilt = bytearray(headers[0])
    while hash256(bytes(spoilt))[31] < 0x80:
        spoilt[76] += 1
    for data in (
        b"",
        headers[0][:-1],
        headers[0] + headers[2],
        headers[1] + headers[0],
        bytes(spoilt),
        b"".join(headers) * 30,
    ):
        with pytest.raises(BitcoinInvalid):
            parse_chain(data, EASY)


def test_hashes_are_printed_reversed() -> None:
    digest = bytes(range(32))
    assert from_display(to_display(digest)) == digest
    for text in ("", "00", "0" * 63, "g" * 64, "0" * 66, " " + "0" * 63):
        with pytest.raises(BitcoinInvalid):
            from_display(text)


# --- signatures ------------------------------------------------------------------------------------


@given(secret=st.integers(1, secp256k1.N - 1), message=st.binary(max_size=40))
def test_signatures_agree_with_openssl(secret: int, message: bytes) -> None:
    key = ec.derive_private_key(secret, ec.SECP256K1())
    digest = hashlib.sha256(message).digest()
    r, s = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
    public = KeySigner(secret.to_bytes(32, "big")).public_key
    signature = secp256k1.encode_signature(r, s)
    secp256k1.check_signature(public, digest, signature)
    for wrong_key, wrong_digest in (
        (public, hashlib.sha256(digest).digest()),
        (bytes([public[0] ^ 1]) + public[1:], digest),
    ):
        with pytest.raises(BitcoinInvalid):
            secp256k1.check_signature(wrong_key, wrong_digest, signature)


def test_multiples_of_the_generator_that_meet() -> None:
    """Keys for which the sum of the two base points is a doubling, or is infinity."""
    digest = hashlib.sha256(b"x").digest()
    for secret in (1, secp256k1.N - 1):
        signer = KeySigner(secret.to_bytes(32, "big"))
        r, s = utils.decode_dss_signature(
            signer._key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256())))
        )
        signature = secp256k1.encode_signature(r, s)
        secp256k1.check_signature(signer.public_key, digest, signature)


def der(*numbers: bytes) -> bytes:
    body = b"".join(bytes([2, len(one)]) + one for one in numbers)
    return bytes([0x30, len(body)]) + body


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        bytes(70),
        der(b"\x01", b"\x01") + b"\0",
        der(b"\x01\x01", b"\x01\x01\x01")[:-1],
        der(b"\x00\x01\x01", b"\x01\x01"),
        der(b"\x81\x01", b"\x01\x01"),
        der(b"", b"\x01\x01\x01\x01"),
        der(b"\x00", b"\x01\x01\x01"),
        der(b"\x01\x01", b"\x00\x80", b"\x01"),
        der(b"\x01\x01", (secp256k1.N - 1).to_bytes(33, "big")),
        der((secp256k1.N + 1).to_bytes(33, "big"), b"\x01\x01"),
    ],
    ids=range(11),
)
def test_only_strict_der_with_a_low_s(signature: bytes) -> None:
    with pytest.raises(BitcoinInvalid):
        secp256k1.parse_signature(signature)


@pytest.mark.parametrize(
    "key",
    [
        b"",
        bytes(33),
        b"\x04" + bytes(64),
        b"\x02" + b"\xff" * 32,
        b"\x02" + (5).to_bytes(32, "big"),
    ],
    ids=["empty", "zero", "uncompressed", "above the field", "not on the curve"],
)
def test_only_points_are_keys(key: bytes) -> None:
    with pytest.raises(BitcoinInvalid):
        secp256k1.parse_key(key)


def test_the_key_is_not_shown() -> None:
    assert "07" * 4 not in repr(SIGNER) + str(vars(SIGNER))
    for secret in (bytes(32), b"\xff" * 32):
        with pytest.raises(ValueError, match="not a private key"):
            KeySigner(secret)


def test_an_anchor_never_makes_dust() -> None:
    with pytest.raises(BitcoinInvalid, match="too few"):
        build_anchor([Coin(OutPoint(bytes(32), 0), 1_500)], SCRIPT, PAYLOAD, 501)
    assert seal_script(SCRIPT[2:]) == SCRIPT

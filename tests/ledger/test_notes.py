"""Checkpoints, notes and cosignatures: published vectors, limits, and every damaged byte."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vcp_cluster.ledger.notes import (
    ALGORITHM_COSIGNATURE_V1,
    ALGORITHM_ED25519,
    NAME_BYTES_MAX,
    NOTE_BYTES_MAX,
    SIGNATURE_LINES_MAX,
    Checkpoint,
    Cosignature,
    NoteError,
    SignatureLine,
    check_cosignature,
    cosignature_message,
    format_note,
    key_id,
    match_cosignatures,
    parse_note,
    sign_cosignature,
)

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "notes.json").read_text(encoding="utf-8")
)
ROOT = bytes(range(32))
CHECKPOINT = Checkpoint("vcp/00ff/tx", 48_000, ROOT)
TIME_S = 1_767_225_600
SEEDS = {"a": bytes([1]) * 32, "b": bytes([2]) * 32, "c": bytes([3]) * 32}
COSIGNATURES = [sign_cosignature(seed, name, CHECKPOINT, TIME_S) for name, seed in SEEDS.items()]
WITNESSES = {each.name: each.public_key for each in COSIGNATURES}
NOTE = format_note(CHECKPOINT, COSIGNATURES[:2])


def verify(note: bytes, witnesses: dict[str, bytes] = WITNESSES) -> tuple[Checkpoint, list[str]]:
    """What a careful reader does: parse, select known keys, check each of their signatures."""
    checkpoint, lines = parse_note(note)
    cosignatures = match_cosignatures(lines, witnesses)
    for cosignature in cosignatures:
        check_cosignature(checkpoint, cosignature)
    return checkpoint, [cosignature.name for cosignature in cosignatures]


# Vectors.


def test_golden_note() -> None:
    ours = VECTORS["ours"]
    checkpoint = Checkpoint(ours["origin"], ours["size"], bytes.fromhex(ours["root"]))
    cosignatures = []
    for witness in ours["witnesses"]:
        cosignature = sign_cosignature(
            bytes.fromhex(witness["seed"]), witness["name"], checkpoint, witness["time_s"]
        )
        assert cosignature == Cosignature(
            witness["name"],
            bytes.fromhex(witness["public_key"]),
            witness["time_s"],
            bytes.fromhex(witness["signature"]),
        )
        assert cosignature.line().decode() == witness["line"]
        assert cosignature.signature_line().key_id.hex() == witness["key_id"]
        cosignatures.append(cosignature)
    assert format_note(checkpoint, cosignatures).decode() == ours["note"]
    witnesses = {each.name: each.public_key for each in cosignatures}
    assert verify(ours["note"].encode(), witnesses) == (checkpoint, ["a", "b"])


def test_a_public_witness_verifies() -> None:
    public = VECTORS["public"]
    checkpoint, lines = parse_note(public["note"].encode())
    assert (checkpoint.size, len(lines)) == (public["size"], public["lines"])
    witnesses = {public["witness"]: bytes.fromhex(public["public_key"])}
    [cosignature] = match_cosignatures(lines, witnesses)
    assert cosignature.time_s == public["time_s"]
    check_cosignature(checkpoint, cosignature)
    assert cosignature.line().decode() in public["note"]
    with pytest.raises(NoteError, match="does not match"):
        check_cosignature(Checkpoint(checkpoint.origin, 42, checkpoint.root), cosignature)


def test_the_example_of_the_specification_parses() -> None:
    text = VECTORS["specification"]["note"]
    checkpoint, lines = parse_note(text.encode())
    assert checkpoint.origin == lines[0].name == "example.com/behind-the-sofa"
    assert checkpoint.size == 20_852_163
    assert [len(line.signature) for line in lines] == [64, 72]
    assert int.from_bytes(lines[1].signature[:8], "big") == VECTORS["specification"]["time_s"]
    assert checkpoint.body() + b"\n" + b"".join(line.line() for line in lines) == text.encode()


@pytest.mark.parametrize("vector", VECTORS["key_ids"], ids=lambda vector: vector["name"])
def test_published_key_ids(vector: dict[str, Any]) -> None:
    public_key = bytes.fromhex(vector["public_key"])
    assert key_id(vector["name"], vector["algorithm"], public_key).hex() == vector["key_id"]


def test_the_signed_message_is_that_of_the_specification() -> None:
    body = Checkpoint.parse(VECTORS["specification"]["note"].split("\n\n")[0].encode() + b"\n")
    assert cosignature_message(body.body(), 1_679_315_147) == (
        b"cosignature/v1\n"
        b"time 1679315147\n"
        b"example.com/behind-the-sofa\n"
        b"20852163\n"
        b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n"
    )


# Round trips.

TEXT = st.text(
    st.characters(min_codepoint=0x20, exclude_categories=["Cs"]), min_size=1, max_size=60
)
NAMES = st.text(
    st.characters(min_codepoint=0x21, exclude_categories=("Cs", "Z", "Cc"), exclude_characters="+"),
    min_size=1,
    max_size=60,
)
HASHES = st.binary(min_size=32, max_size=32)
INTEGERS = st.integers(0, 2**63 - 1)


SIGNERS = st.lists(
    st.tuples(NAMES, HASHES),
    min_size=1,
    max_size=5,
    unique_by=(lambda signer: signer[0], lambda signer: signer[1]),
)


@settings(deadline=None)
@given(TEXT, INTEGERS, HASHES, SIGNERS, INTEGERS)
def test_round_trip(
    origin: str, size: int, root: bytes, signers: list[tuple[str, bytes]], time_s: int
) -> None:
    checkpoint = Checkpoint(origin, size, root)
    assert Checkpoint.parse(checkpoint.body()) == checkpoint
    cosignatures = [sign_cosignature(seed, name, checkpoint, time_s) for name, seed in signers]
    parsed, lines = parse_note(format_note(checkpoint, cosignatures))
    assert parsed == checkpoint
    witnesses = {each.name: each.public_key for each in cosignatures}
    assert match_cosignatures(lines, witnesses) == cosignatures
    for cosignature in cosignatures:
        check_cosignature(checkpoint, cosignature)


def test_the_extremes_round_trip() -> None:
    for name in ("a", "é" * 127 + "a", "a" * NAME_BYTES_MAX):
        for size in (0, 2**63 - 1):
            checkpoint = Checkpoint(name, size, ROOT)
            note = format_note(checkpoint, [sign_cosignature(SEEDS["a"], name, checkpoint, size)])
            assert verify(note, {name: WITNESSES["a"]}) == (checkpoint, [name])


# Damage.


def key_positions(note: bytes) -> set[int]:
    """Where the names and key ids of the note's lines are: what tells which key signed."""
    positions: set[int] = set()
    for line in note.partition(b"\n\n")[2].splitlines():
        name_at = note.index(line) + len("— ".encode())
        base64_at = note.index(b" ", name_at) + 1
        positions.update(range(name_at, base64_at - 1), range(base64_at, base64_at + 6))
    return positions


def test_every_damaged_byte_is_noticed() -> None:
    assert verify(NOTE) == (CHECKPOINT, ["a", "b"])
    survived = set()
    for at in range(len(NOTE)):
        for value in range(256):
            if value == NOTE[at]:
                continue
            damaged = NOTE[:at] + bytes([value]) + NOTE[at + 1 :]
            try:
                checkpoint, names = verify(damaged)
            except NoteError:
                continue
            assert checkpoint == CHECKPOINT and len(names) == 1
            survived.add(at)
    # A damaged name or key id is that of an unknown key: one witness fewer, and nothing else.
    assert survived == key_positions(NOTE)


def test_every_cut_and_every_inserted_or_dropped_byte_is_noticed() -> None:
    for at in range(len(NOTE)):
        changes = [NOTE[:at], NOTE[:at] + NOTE[at + 1 :]]
        changes += [NOTE[:at] + byte + NOTE[at:] for byte in (b"\n", b" ", b"A", b"0", b"\r", b"=")]
        for damaged in changes:
            if damaged == NOTE:
                continue
            try:
                checkpoint, names = verify(damaged)
            except NoteError:
                continue
            assert checkpoint == CHECKPOINT and len(names) == 1


def test_every_bit_of_a_cosignature_counts() -> None:
    line = COSIGNATURES[0].signature_line()
    for at in range(8 * len(line.signature)):
        changed = int.from_bytes(line.signature, "big") ^ (1 << at)
        spoiled = SignatureLine(line.name, line.key_id, changed.to_bytes(72, "big"))
        with pytest.raises(NoteError):
            for cosignature in match_cosignatures([spoiled], WITNESSES):
                check_cosignature(CHECKPOINT, cosignature)


def test_a_cosignature_holds_for_one_checkpoint_key_and_time() -> None:
    cosignature = COSIGNATURES[0]
    others = [
        Checkpoint("vcp/00ff/batch", CHECKPOINT.size, ROOT),
        Checkpoint(CHECKPOINT.origin, CHECKPOINT.size + 1, ROOT),
        Checkpoint(CHECKPOINT.origin, CHECKPOINT.size, bytes(32)),
    ]
    for checkpoint in others:
        with pytest.raises(NoteError, match="does not match"):
            check_cosignature(checkpoint, cosignature)
    for public_key, time_s in ((WITNESSES["b"], TIME_S), (WITNESSES["a"], TIME_S + 1)):
        moved = Cosignature("a", public_key, time_s, cosignature.signature)
        with pytest.raises(NoteError, match="does not match"):
            check_cosignature(CHECKPOINT, moved)


def test_keys_and_signatures_that_prove_nothing_are_refused() -> None:
    # Under a key of small order one signature fits every message; libsodium refuses such keys.
    identity = bytes([1]) + bytes(31)
    for public_key in (bytes(32), identity, b"\xff" * 32):
        for signature in (bytes(64), identity + bytes(32)):
            with pytest.raises(NoteError, match="does not match"):
                check_cosignature(CHECKPOINT, Cosignature("a", public_key, TIME_S, signature))


# Strict reading.

BODY = CHECKPOINT.body()
ROOT_BASE64 = base64.b64encode(ROOT)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\n",
        b"o\n1\n",
        b"o\n1\n" + ROOT_BASE64,
        b"o\n1\n" + ROOT_BASE64 + b"\n\n",
        b"o\n1\n" + ROOT_BASE64 + b"\nextension\n",
        b"\no\n1\n" + ROOT_BASE64 + b"\n",
        b"\n1\n" + ROOT_BASE64 + b"\n",
        b"o\n\n" + ROOT_BASE64 + b"\n",
        b"o\n1\n\n",
        b"o\n01\n" + ROOT_BASE64 + b"\n",
        b"o\n00\n" + ROOT_BASE64 + b"\n",
        b"o\n+1\n" + ROOT_BASE64 + b"\n",
        b"o\n-1\n" + ROOT_BASE64 + b"\n",
        b"o\n 1\n" + ROOT_BASE64 + b"\n",
        b"o\n1_0\n" + ROOT_BASE64 + b"\n",
        b"o\n1.0\n" + ROOT_BASE64 + b"\n",
        b"o\n0x1\n" + ROOT_BASE64 + b"\n",
        "o\n١\n".encode() + ROOT_BASE64 + b"\n",
        "o\n²\n".encode() + ROOT_BASE64 + b"\n",
        b"o\n%d\n" % 2**63 + ROOT_BASE64 + b"\n",
        b"o\n" + b"9" * 400 + b"\n" + ROOT_BASE64 + b"\n",
        b"o\n1\n" + ROOT_BASE64[:-1] + b"\n",
        b"o\n1\n" + ROOT_BASE64 + b"=\n",
        b"o\n1\n " + ROOT_BASE64 + b"\n",
        b"o\n1\n" + base64.b64encode(ROOT[:31]) + b"\n",
        b"o\n1\n" + base64.b64encode(ROOT + b"\x00") + b"\n",
        b"o\n1\n" + base64.urlsafe_b64encode(b"\xff" * 32) + b"\n",
        b"o\n1\n" + ROOT_BASE64[:-2] + b"9=\n",
        b"o\n1\n" + "é".encode() * 22 + b"\n",
        b"o\r\n1\r\n" + ROOT_BASE64 + b"\r\n",
        b"o\x00\n1\n" + ROOT_BASE64 + b"\n",
        b"o\t\n1\n" + ROOT_BASE64 + b"\n",
        b"\xff\n1\n" + ROOT_BASE64 + b"\n",
        b"\xed\xa0\x80\n1\n" + ROOT_BASE64 + b"\n",
        b"o" * 256 + b"\n1\n" + ROOT_BASE64 + b"\n",
        b"\xef\xbb\xbf" * 86 + b"\n1\n" + ROOT_BASE64 + b"\n",
        b"o" * 10_000_000,
    ],
    ids=lambda body: ascii(bytes(body[:24])),
)
def test_malformed_checkpoints_are_refused(body: bytes) -> None:
    with pytest.raises(NoteError):
        Checkpoint.parse(body)


def test_origins_may_hold_spaces() -> None:
    # c2sp.org/tlog-checkpoint recommends against it and forbids readers to count on that.
    body = b"go.sum database tree\n1\n" + ROOT_BASE64 + b"\n"
    assert Checkpoint.parse(body).origin == "go.sum database tree"


SPACES = "\t\n\v\f\r \x85\xa0\u1680\u2000\u200a\u2028\u2029\u202f\u205f\u3000"


@pytest.mark.parametrize("character", [*SPACES, "+", "\x00", "\x1f", "\ud800"], ids=ascii)
def test_key_names_have_no_spaces(character: str) -> None:
    name = f"member{character}a"
    with pytest.raises(NoteError, match="key name"):
        key_id(name, ALGORITHM_ED25519, bytes(32))
    with pytest.raises(NoteError, match="key name"):
        sign_cosignature(SEEDS["a"], name, CHECKPOINT, TIME_S)
    with pytest.raises(NoteError, match="key name"):
        SignatureLine(name, bytes(4), b"s")


@pytest.mark.parametrize("name", ["", "a" * 256, "é" * 128, "a" * 10_000_000], ids=len)
def test_names_are_bounded_in_bytes(name: str) -> None:
    with pytest.raises(NoteError, match=r"key name: its length is not 1\.\.255 bytes"):
        key_id(name, ALGORITHM_ED25519, bytes(32))
    with pytest.raises(NoteError, match=r"origin: its length is not 1\.\.255 bytes"):
        Checkpoint(name, 0, ROOT)


def test_fields_are_bounded() -> None:
    signature = COSIGNATURES[0].signature
    refused: list[Callable[[], object]] = [
        lambda: Checkpoint("o", -1, ROOT),
        lambda: Checkpoint("o", 2**63, ROOT),
        lambda: Checkpoint("o", 1, ROOT[:31]),
        lambda: Checkpoint("o\n2", 1, ROOT),
        lambda: Cosignature("a", bytes(31), 0, signature),
        lambda: Cosignature("a", bytes(32), -1, signature),
        lambda: Cosignature("a", bytes(32), 2**63, signature),
        lambda: Cosignature("a", bytes(32), 0, signature[:63]),
        lambda: SignatureLine("a", bytes(3), b"s"),
        lambda: SignatureLine("a", bytes(4), b""),
        lambda: cosignature_message(BODY, -1),
        lambda: cosignature_message(BODY, 2**63),
        lambda: sign_cosignature(bytes(31), "a", CHECKPOINT, TIME_S),
        lambda: sign_cosignature(bytes(64), "a", CHECKPOINT, TIME_S),
        lambda: sign_cosignature(bytes(32), "a", CHECKPOINT, -1),
        lambda: key_id("a", ALGORITHM_ED25519, bytes(33)),
        lambda: key_id("a", 2, bytes(32)),
        lambda: key_id("a", 256, bytes(32)),
    ]
    for make in refused:
        with pytest.raises(NoteError):
            make()


LINE_A, LINE_B = (cosignature.line() for cosignature in COSIGNATURES[:2])


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n\n",
        BODY,
        BODY + b"\n",
        BODY + LINE_A,
        BODY + b"\n\n" + LINE_A,
        BODY + b"\n" + LINE_A + b"\n",
        BODY + b"\n" + LINE_A + b"\n" + LINE_B,
        BODY + b"\n" + LINE_A[:-1],
        BODY + b"\n" + LINE_A + LINE_B[:-1],
        BODY + b"\n" + LINE_A + LINE_A,
        BODY + b"\n" + LINE_A + LINE_B + LINE_A,
        BODY + b"\n" + LINE_A.replace("—".encode(), b"-"),
        BODY + b"\n" + LINE_A.replace(b" ", b"  "),
        BODY + b"\n " + LINE_A,
        BODY + b"\n" + LINE_A[:-1] + b" \n",
        BODY + b"\n" + LINE_A.replace(b" a ", b" a+b "),
        BODY + b"\n" + LINE_A.replace(b" a ", b"  "),
        BODY + b"\n" + LINE_A.replace(b" a ", " a\u00a0b ".encode()),
        BODY + b"\n" + "— a AAAA\n".encode(),
        BODY + b"\n" + "— a AAAAAA==\n".encode(),
        BODY + b"\n" + "— a \n".encode(),
        BODY + b"\n" + "— a\n".encode(),
        BODY + b"\n" + "— \n".encode(),
        BODY + b"\nextension\n\n" + LINE_A,
        b"\n" + BODY + b"\n" + LINE_A,
        NOTE.replace(b"\n", b"\r\n"),
        NOTE + b"\r",
        NOTE + b"\x00",
        b"\xef\xbb\xbf" + NOTE + b"\xff",
        NOTE.decode().encode("utf-16"),
    ],
    ids=range(31),
)
def test_malformed_notes_are_refused(data: bytes) -> None:
    with pytest.raises(NoteError):
        parse_note(data)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (NOTE.replace(b"\n", b"\r\n"), "is it CRLF text"),
        (b"\xff" + NOTE, "byte 0 is not UTF-8"),
        (BODY, "not a checkpoint, an empty line and whole signature lines"),
        (BODY + LINE_A, "not a checkpoint, an empty line and whole signature lines"),
        (b"o" * 1_000 + b"\n\n" + LINE_A, "1001 bytes are more than 512"),
        (BODY + b"extension\n\n" + LINE_A, "not exactly three lines"),
        (BODY.replace(b"\n48", b"\n048") + b"\n" + LINE_A, "leading zeros"),
        (BODY.replace(b"\n48", b"\n-48") + b"\n" + LINE_A, "not the decimal size"),
        (BODY + b"\n" + LINE_A[:-3] + b"\n", "signature line: not base64"),
        (BODY + b"\n" + LINE_A[:-4] + b"h==\n", "signature line: not the canonical base64"),
    ],
)
def test_an_error_says_what_is_wrong(data: bytes, message: str) -> None:
    with pytest.raises(NoteError, match=message):
        parse_note(data)


def test_a_key_signs_once() -> None:
    # Even at another time: a quorum counts lines, and one key must not make two of them.
    later = sign_cosignature(SEEDS["a"], "a", CHECKPOINT, TIME_S + 1)
    with pytest.raises(NoteError, match="two signature lines of one key"):
        parse_note(NOTE + later.line())
    with pytest.raises(NoteError, match="two signature lines of one key"):
        format_note(CHECKPOINT, [COSIGNATURES[0], later])
    lines = [COSIGNATURES[0].signature_line(), later.signature_line()]
    with pytest.raises(NoteError, match="one key signs once"):
        match_cosignatures(lines, WITNESSES)


def test_a_key_serves_one_witness() -> None:
    # The signed message does not hold the name: one signature would count for both.
    twins = {"a": WITNESSES["a"], "twin": WITNESSES["a"]}
    with pytest.raises(NoteError, match="two names have the same key"):
        match_cosignatures([], twins)


def test_unknown_keys_are_left_out() -> None:
    _, lines = parse_note(NOTE)
    assert match_cosignatures(lines, {}) == []
    assert match_cosignatures(lines, {"c": WITNESSES["c"]}) == []
    assert match_cosignatures(lines, {"a": WITNESSES["b"]}) == []
    assert match_cosignatures(lines, {"a": WITNESSES["a"]}) == COSIGNATURES[:1]
    # The same name and key as a signer of the note itself is another key id, hence unknown.
    id_ed25519 = key_id("a", ALGORITHM_ED25519, WITNESSES["a"])
    signer = SignatureLine("a", id_ed25519, bytes(64))
    assert match_cosignatures([signer], WITNESSES) == []


@pytest.mark.parametrize("length", [1, 64, 71, 73])
def test_a_known_key_with_a_malformed_signature_is_refused(length: int) -> None:
    id_cosignature = key_id("a", ALGORITHM_COSIGNATURE_V1, WITNESSES["a"])
    line = SignatureLine("a", id_cosignature, bytes(length))
    with pytest.raises(NoteError, match=f"{length} bytes, not 72"):
        match_cosignatures([line], WITNESSES)


def test_a_witness_with_a_malformed_key_is_refused() -> None:
    with pytest.raises(NoteError, match="public key"):
        match_cosignatures([COSIGNATURES[0].signature_line()], {"a": bytes(31)})


def test_the_number_of_lines_is_bounded() -> None:
    cosignatures = [
        Cosignature(f"w{number}", bytes(32), 0, bytes(64))
        for number in range(SIGNATURE_LINES_MAX + 1)
    ]
    _, lines = parse_note(format_note(CHECKPOINT, cosignatures[:-1]))
    assert len(lines) == SIGNATURE_LINES_MAX
    text = BODY + b"\n" + b"".join(cosignature.line() for cosignature in cosignatures)
    with pytest.raises(NoteError, match="65 signature lines"):
        parse_note(text)
    for count in (0, SIGNATURE_LINES_MAX + 1):
        with pytest.raises(NoteError, match=f"{count} signature lines"):
            format_note(CHECKPOINT, cosignatures[:count])


def test_the_size_of_a_note_is_bounded() -> None:
    with pytest.raises(NoteError, match="more than"):
        parse_note(NOTE + b"A" * NOTE_BYTES_MAX)
    assert parse_note(NOTE, bytes_max=len(NOTE))[0] == CHECKPOINT
    with pytest.raises(NoteError, match="more than"):
        parse_note(NOTE, bytes_max=len(NOTE) - 1)
    # Signatures of other algorithms are long, and are read up to the bound of the whole note.
    length = (NOTE_BYTES_MAX - len(NOTE) - len("— pq \n".encode())) // 4 * 3
    long_line = SignatureLine("pq", bytes(4), bytes(length - 4))
    _, lines = parse_note(NOTE + long_line.line())
    assert lines[2] == long_line


# Whatever arrives.

FRAGMENTS = st.lists(
    st.one_of(
        st.sampled_from(
            [
                BODY,
                b"\n",
                LINE_A,
                LINE_B,
                "— ".encode(),
                b"a ",
                b"0",
                ROOT_BASE64,
                b"=",
                b"\r",
                b"+",
            ]
        ),
        st.binary(max_size=8),
        st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass")),
    ),
    max_size=8,
).map(b"".join)


@settings(deadline=None)
@given(st.one_of(FRAGMENTS, FRAGMENTS.map(lambda tail: BODY + b"\n" + tail)))
def test_parsing_raises_nothing_but_note_error(data: bytes) -> None:
    try:
        checkpoint, lines = parse_note(data)
    except NoteError:
        return
    assert checkpoint.body() + b"\n" + b"".join(line.line() for line in lines) == data


@settings(deadline=None)
@given(st.one_of(FRAGMENTS, st.binary(max_size=100)))
def test_checkpoint_parsing_raises_nothing_but_note_error(data: bytes) -> None:
    try:
        checkpoint = Checkpoint.parse(data)
    except NoteError:
        return
    assert checkpoint.body() == data


@settings(deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "x"]), st.binary(min_size=1, max_size=80))),
    st.booleans(),
)
def test_matching_raises_nothing_but_note_error(
    signatures: list[tuple[str, bytes]], known: bool
) -> None:
    lines = []
    for name, signature in signatures:
        public_key = WITNESSES.get(name, bytes(32)) if known else bytes(32)
        lines.append(SignatureLine(name, key_id(name, 4, public_key), signature))
    try:
        cosignatures = match_cosignatures(lines, WITNESSES)
        for cosignature in cosignatures:
            check_cosignature(CHECKPOINT, cosignature)
    except NoteError:
        return
    assert cosignatures == []

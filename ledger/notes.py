"""Checkpoints of our logs and the members' cosignatures, in the transparency-log formats.

Sources: c2sp.org/signed-note, c2sp.org/tlog-checkpoint and c2sp.org/tlog-cosignature (Ed25519,
`cosignature/v1`), so that existing witnesses can sign our checkpoints and existing tools read
them. A cosigned checkpoint is text:

    vcp/<chain>/tx                              origin: which log
    48000                                       size, leaves
    <base64 of the root>

    — <name> <base64 of key id, time, signature>    one line for each witness

We read less than the formats allow: no extension lines, one signature for each key, bounded
sizes, and only the one encoding that we would write ourselves. What parses is therefore, byte for
byte, what was signed. Parsing shows nothing yet: a signature counts after `check_cosignature`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nacl.exceptions import BadSignatureError
from nacl.signing import SigningKey, VerifyKey

ALGORITHM_ED25519: Final = 0x01
"""Signature over the body of a note itself."""
ALGORITHM_COSIGNATURE_V1: Final = 0x04
"""Signature over `cosignature_message`."""

NOTE_BYTES_MAX: Final = 65_536
SIGNATURE_LINES_MAX: Final = 64
NAME_BYTES_MAX: Final = 255  # The bound that tlog-cosignature sets where it signs a name.
INTEGER_MAX: Final = 2**63 - 1  # Of our own formats, and of a cosignature's time.
HASH_BYTES: Final = 32
KEY_BYTES: Final = 32
KEY_ID_BYTES: Final = 4
SIGNATURE_BYTES: Final = 64
TIME_BYTES: Final = 8

# Longer than any three lines that Checkpoint accepts: 255 bytes, 19 digits, 44 of base64.
_BODY_BYTES_MAX: Final = 512
_LINE_START: Final = "— "
_CONTROL_CHARACTER: Final = re.compile("[\x00-\x1f]")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
# White_Space of Unicode written out: str.isspace asks the tables of the interpreter at hand, and
# members that run different ones must agree on what a name is.
_SPACE_OR_PLUS: Final = re.compile(
    "[\x09-\x0d +\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000]"
)


class NoteError(ValueError):
    """A checkpoint, note, key name or cosignature is malformed or does not verify."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A tree head: log `origin`, `size` in leaves, `root` of 32 bytes (c2sp.org/tlog-checkpoint).

    Raises NoteError when a field is out of range.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        _check_text("checkpoint origin", self.origin)
        _check_integer("checkpoint size", self.size)
        _check_length("checkpoint root", self.root, HASH_BYTES)

    def body(self) -> bytes:
        """The three lines, each ended by a newline: what a witness signs after its own header."""
        root = base64.b64encode(self.root).decode("ascii")
        return f"{self.origin}\n{self.size}\n{root}\n".encode()

    @classmethod
    def parse(cls, body: bytes) -> Checkpoint:
        """The inverse of `body`; raises NoteError on any bytes that `body` cannot return."""
        if len(body) > _BODY_BYTES_MAX:
            raise NoteError(f"checkpoint: {len(body)} bytes are more than {_BODY_BYTES_MAX}")
        lines = _decode_text("checkpoint", body).split("\n")
        if len(lines) != 4 or lines[3]:
            raise NoteError("checkpoint: not exactly three lines: origin, size, root")
        origin, size, root = lines[:3]
        if not (size.isascii() and size.isdigit()):
            raise NoteError("checkpoint: the second line is not the decimal size of a tree")
        checkpoint = cls(origin, int(size), _decode_base64("checkpoint root", root))
        if checkpoint.body() != body:
            raise NoteError("checkpoint: the size has leading zeros; write it without")
        return checkpoint


@dataclass(frozen=True, slots=True)
class SignatureLine:
    """One signature line of a note, of whatever algorithm, not verified (c2sp.org/signed-note).

    `key_id` is 4 bytes, `signature` at least one byte. Raises NoteError.
    """

    name: str
    key_id: bytes
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_length("key id", self.key_id, KEY_ID_BYTES)
        if not self.signature:
            raise NoteError(f"signature line of {self.name}: there is no signature in it")

    def line(self) -> bytes:
        """`— name base64(key id || signature)` and a newline, UTF-8."""
        data = base64.b64encode(self.key_id + self.signature).decode("ascii")
        return f"{_LINE_START}{self.name} {data}\n".encode()

    @classmethod
    def parse(cls, text: str) -> SignatureLine:
        """The inverse of `line`, without the newline; raises NoteError."""
        fields = text.removeprefix(_LINE_START).split(" ")
        if not text.startswith(_LINE_START) or len(fields) != 2:
            raise NoteError("note: a signature line is not of the form '— name base64'")
        data = _decode_base64("signature line", fields[1])
        return cls(fields[0], data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])


@dataclass(frozen=True, slots=True)
class Cosignature:
    """A witness's signed statement about one checkpoint (c2sp.org/tlog-cosignature).

    It says: at `time_s`, POSIX seconds, this was the largest checkpoint I had seen of this log,
    and it extends all those before it. `public_key` is 32 bytes, `signature` 64. Raises NoteError
    for other lengths; verified only by `check_cosignature`.
    """

    name: str
    public_key: bytes
    time_s: int
    signature: bytes

    def __post_init__(self) -> None:
        _check_name(self.name)
        _check_length("public key", self.public_key, KEY_BYTES)
        _check_integer("cosignature time", self.time_s)
        _check_length("signature", self.signature, SIGNATURE_BYTES)

    def line(self) -> bytes:
        """`— name base64(key id || time as 8 bytes || signature)` and a newline, UTF-8."""
        return self.signature_line().line()

    def signature_line(self) -> SignatureLine:
        """The line as a note holds it: the time is part of the signature's bytes."""
        return SignatureLine(
            self.name,
            key_id(self.name, ALGORITHM_COSIGNATURE_V1, self.public_key),
            self.time_s.to_bytes(TIME_BYTES, "big") + self.signature,
        )


def key_id(name: str, algorithm: int, public_key: bytes) -> bytes:
    """The 4 bytes that, with the name, tell which key and algorithm signed (c2sp.org/signed-note).

    SHA-256(name || newline || algorithm || public key)[:4]. It selects a key and proves nothing:
    collisions are easy to make. Raises NoteError for a bad name, key length or algorithm.
    """
    _check_name(name)
    _check_length("public key", public_key, KEY_BYTES)
    if algorithm not in (ALGORITHM_ED25519, ALGORITHM_COSIGNATURE_V1):
        raise NoteError(f"key id: algorithm {algorithm} is not 1 (Ed25519) or 4 (cosignature/v1)")
    data = name.encode() + b"\n" + bytes([algorithm]) + public_key
    return hashlib.sha256(data).digest()[:KEY_ID_BYTES]


def cosignature_message(body: bytes, time_s: int) -> bytes:
    """The bytes that a witness signs at `time_s`, POSIX seconds, for a checkpoint body.

    The first line separates them from anything else signed with the same key. Raises NoteError
    for a time outside 0..2**63-1.
    """
    _check_integer("cosignature time", time_s)
    return f"cosignature/v1\ntime {time_s}\n".encode("ascii") + body


def sign_cosignature(seed: bytes, name: str, checkpoint: Checkpoint, time_s: int) -> Cosignature:
    """Cosign `checkpoint` as witness `name` with the Ed25519 key of `seed` (32 bytes).

    The caller must have checked consistency with the last checkpoint it cosigned and stored this
    one: signing is the promise that it did. The message does not contain the name, so a key must
    serve one name only. Raises NoteError.
    """
    _check_length("seed", seed, KEY_BYTES)
    key = SigningKey(seed)
    signature = key.sign(cosignature_message(checkpoint.body(), time_s)).signature
    return Cosignature(name, key.verify_key.encode(), time_s, signature)


def check_cosignature(checkpoint: Checkpoint, cosignature: Cosignature) -> None:
    """Check that the holder of `cosignature.public_key` signed `checkpoint`; raises NoteError.

    Whether that key belongs to a witness we trust is the caller's to know: `match_cosignatures`.
    """
    message = cosignature_message(checkpoint.body(), cosignature.time_s)
    try:
        VerifyKey(cosignature.public_key).verify(message, cosignature.signature)
    except BadSignatureError as error:
        raise NoteError(
            f"cosignature of {cosignature.name} does not match checkpoint {checkpoint.size} of "
            f"{checkpoint.origin}; check the witness's key, or ask for the note again"
        ) from error


def format_note(checkpoint: Checkpoint, cosignatures: Sequence[Cosignature]) -> bytes:
    """The cosigned checkpoint as text, lines in the order given.

    Raises NoteError for what `parse_note` would refuse: no cosignature, more than
    SIGNATURE_LINES_MAX, or two of one key.
    """
    _check_line_count(len(cosignatures))
    lines = [cosignature.signature_line() for cosignature in cosignatures]
    _check_distinct_keys(lines)
    return checkpoint.body() + b"\n" + b"".join(line.line() for line in lines)


def parse_note(
    data: bytes, *, bytes_max: int = NOTE_BYTES_MAX
) -> tuple[Checkpoint, list[SignatureLine]]:
    """The inverse of `format_note`, for signatures of any algorithm, none of them verified.

    Raises NoteError on more than `bytes_max` bytes and on anything that is not exactly a
    checkpoint, an empty line and 1 to SIGNATURE_LINES_MAX signature lines of different keys.
    """
    if len(data) > bytes_max:
        raise NoteError(f"note: {len(data)} bytes are more than {bytes_max}; drop signature lines")
    text = _decode_text("note", data)
    # The last empty line separates (signed-note). The checkpoint has none, so it is the only one.
    body, separator, signatures = text.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteError("note: not a checkpoint, an empty line and whole signature lines")
    checkpoint = Checkpoint.parse(f"{body}\n".encode())
    texts = signatures.removesuffix("\n").split("\n")
    _check_line_count(len(texts))
    lines = [SignatureLine.parse(line) for line in texts]
    _check_distinct_keys(lines)
    return checkpoint, lines


def match_cosignatures(
    lines: Sequence[SignatureLine], witnesses: Mapping[str, bytes]
) -> list[Cosignature]:
    """The cosignatures of `witnesses` (public keys by name) among `lines`, still to be checked.

    Lines of unknown keys are left out, as signed-note demands, even when the name is known: other
    algorithms and rotated keys share names. At most one cosignature for each witness is returned,
    so their number counts witnesses. Raises NoteError when a known witness's line is malformed
    and when two witnesses have the same key, whose one signature would count twice.
    """
    if len(set(witnesses.values())) != len(witnesses):
        raise NoteError("witnesses: two names have the same key; give each witness its own")
    found: dict[str, Cosignature] = {}
    for line in lines:
        public_key = witnesses.get(line.name)
        if public_key is None:
            continue
        if key_id(line.name, ALGORITHM_COSIGNATURE_V1, public_key) != line.key_id:
            continue
        if line.name in found:
            raise NoteError(f"note: two cosignatures of {line.name}; one key signs once")
        _check_length(f"cosignature of {line.name}", line.signature, TIME_BYTES + SIGNATURE_BYTES)
        time_s = int.from_bytes(line.signature[:TIME_BYTES], "big")
        signature = line.signature[TIME_BYTES:]
        found[line.name] = Cosignature(line.name, public_key, time_s, signature)
    return list(found.values())


def _check_line_count(count: int) -> None:
    if not 1 <= count <= SIGNATURE_LINES_MAX:
        raise NoteError(f"note: {count} signature lines, where 1..{SIGNATURE_LINES_MAX} may be")


def _check_distinct_keys(lines: Sequence[SignatureLine]) -> None:
    if len({(line.name, line.key_id) for line in lines}) != len(lines):
        raise NoteError("note: two signature lines of one key; keep one of them")


def _check_name(name: str) -> None:
    _check_text("key name", name)
    if _SPACE_OR_PLUS.search(name):
        raise NoteError(f"key name {name!a} contains a space or '+'; choose one without")


def _check_text(what: str, text: str) -> None:
    # Every character takes at least one byte, so the cheap bound comes first.
    if not text or len(text) > NAME_BYTES_MAX:
        raise NoteError(f"{what}: its length is not 1..{NAME_BYTES_MAX} bytes")
    if _CONTROL_CHARACTER.search(text) or _SURROGATE.search(text):
        raise NoteError(f"{what} {text!a} contains a control character or a surrogate")
    if len(text.encode()) > NAME_BYTES_MAX:
        raise NoteError(f"{what}: its length is not 1..{NAME_BYTES_MAX} bytes")


def _check_integer(what: str, value: int) -> None:
    if not 0 <= value <= INTEGER_MAX:
        raise NoteError(f"{what} {value} is not in 0..{INTEGER_MAX}")


def _check_length(what: str, data: bytes, length: int) -> None:
    if len(data) != length:
        raise NoteError(f"{what}: {len(data)} bytes, not {length}")


def _decode_text(what: str, data: bytes) -> str:
    """UTF-8 without control characters other than newline (signed-note), so CRLF is refused."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoteError(f"{what}: byte {error.start} is not UTF-8; send it unchanged") from error
    if _CONTROL_CHARACTER.search(text.replace("\n", "")):
        raise NoteError(f"{what}: a control character other than newline; is it CRLF text?")
    return text


def _decode_base64(what: str, text: str) -> bytes:
    """Base64 of RFC 4648 §4 with padding, in its one canonical form: spare bits are zero."""
    try:
        data = base64.b64decode(text, validate=True)
    except ValueError as error:
        raise NoteError(f"{what}: not base64: {error}") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise NoteError(f"{what}: not the canonical base64 of its bytes")
    return data

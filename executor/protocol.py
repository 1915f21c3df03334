"""What the parent and the process of a task say to each other over two pipes.

One frame is four bytes of little-endian length and a MessagePack array. The parent sends one
`Request`; the child answers `Confined`, `Compiled` and one of `Finished`, `Refused`, `Failed`,
in this order, and may stop early with one of the last two. The parent takes the child for
hostile: every field is bounded by its type, and the parent derives every hash itself.
"""

from collections.abc import Iterator
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from vcp_cluster.executor.errors import ModuleCode
from vcp_cluster.executor.limits import INPUT_BYTES_MAX, MODULE_BYTES_MAX
from vcp_cluster.executor.profile import Backend
from vcp_cluster.executor.result import Status, TrapClass
from vcp_cluster.executor.trace import PATH_BYTES, WAYPOINTS_MAX

_LENGTH_BYTES: Final = 4

REQUEST_BYTES_MAX: Final = MODULE_BYTES_MAX + INPUT_BYTES_MAX + (1 << 16)
"""Largest body of a request frame."""

STATE_BYTES_MAX: Final = 128
"""Largest encoding of one waypoint."""

REPLY_OVERHEAD_BYTES_MAX: Final = (WAYPOINTS_MAX + 1) * STATE_BYTES_MAX + (1 << 16)
"""Largest body of a reply frame, besides the output: the waypoints and the fixed fields."""

_Unsigned = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
_Text = Annotated[str, Meta(max_length=1000)]
_Digest = Annotated[bytes, Meta(min_length=32, max_length=32)]
_Path = Annotated[bytes, Meta(min_length=PATH_BYTES, max_length=PATH_BYTES)]


class _Message(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """A MessagePack array; the tag of a reply is its first element."""


class Request(_Message, frozen=True):
    """One task: what to run, under which limits, and whose child the process is."""

    parent_pid: int
    module: bytes
    input: bytes
    entry_point: str
    memory_bytes_max: int
    gas_max: int
    time_ms_max: int
    output_bytes_max: int
    stack_bytes_max: int
    path_seed: _Path
    backend: Backend


class Confined(_Message, frozen=True, tag=1):
    """The sandbox stands; compiling starts."""


class Compiled(_Message, frozen=True, tag=2):
    """The module is compiled; the clock of the run starts."""


class State(_Message, frozen=True):
    """The guest at one waypoint: gas used, pages, digests of memory and globals, the path."""

    gas: _Unsigned
    pages: Annotated[int, Meta(ge=0, le=1 << 16)]
    memory: _Digest
    globals: _Digest
    path: _Path


class Finished(_Message, frozen=True, tag=3):
    """The run ended in a committable way."""

    status: Annotated[int, Meta(ge=0, le=int(max(Status)))]
    trap: Annotated[int, Meta(ge=0, le=int(max(TrapClass)))]
    output: bytes
    gas: _Unsigned
    states: Annotated[list[State], Meta(min_length=1, max_length=WAYPOINTS_MAX + 1)]
    wall_ms: _Unsigned
    cpu_ms: _Unsigned


class Refused(_Message, frozen=True, tag=4):
    """The engine refuses the module; the same on every host."""

    code: ModuleCode
    found: _Text


class Failed(_Message, frozen=True, tag=5):
    """The child gives up for a reason of this host."""

    detail: _Text


Reply = Confined | Compiled | Finished | Refused | Failed

_encoder: Final = msgspec.msgpack.Encoder()
_request_decoder: Final = msgspec.msgpack.Decoder(Request)
_reply_decoder: Final[msgspec.msgpack.Decoder[Reply]] = msgspec.msgpack.Decoder(Reply)


class ProtocolError(Exception):
    """The other side sent what the protocol does not allow."""


def encode_frame(message: Request | Reply) -> bytes:
    """`message` with its length in front."""
    body = _encoder.encode(message)
    return len(body).to_bytes(_LENGTH_BYTES, "little") + body


def decode_request(body: bytes) -> Request:
    """The request of a frame body. Raises `ProtocolError`."""
    try:
        return _request_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the request is malformed: {error}") from None


def decode_reply(body: bytes) -> Reply:
    """The reply of a frame body. Raises `ProtocolError`."""
    try:
        return _reply_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise ProtocolError(f"the reply is malformed: {error}") from None


class FrameBuffer:
    """Cuts a stream of bytes into frame bodies of at most `body_bytes_max` bytes."""

    def __init__(self, body_bytes_max: int) -> None:
        self._body_bytes_max = body_bytes_max
        self._received = bytearray()

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take `data`; yield each body that is complete. Raises `ProtocolError`."""
        self._received += data
        while len(self._received) >= _LENGTH_BYTES:
            size = int.from_bytes(self._received[:_LENGTH_BYTES], "little")
            if size > self._body_bytes_max:
                most = self._body_bytes_max
                raise ProtocolError(f"a frame of {size} bytes is announced, the most is {most}")
            if len(self._received) < _LENGTH_BYTES + size:
                return
            body = bytes(self._received[_LENGTH_BYTES : _LENGTH_BYTES + size])
            del self._received[: _LENGTH_BYTES + size]
            yield body

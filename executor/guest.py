"""The process of one task, started by `child.py`.

Reads one request from standard input, confines itself, compiles, runs, writes the replies to
standard output and ends. Everything that needs a file is imported and set up before the sandbox
closes; after that the process can compute, allocate, read and write its pipes, and exit.
"""

import os
from typing import Final

from wasmtime import Engine, WasmtimeError

from vcp_cluster.executor.confine import ConfinementError, confine, die_with_parent
from vcp_cluster.executor.convention import UnexpectedTrap, execute
from vcp_cluster.executor.engine import compile_module, make_engine
from vcp_cluster.executor.errors import ModuleError
from vcp_cluster.executor.limits import Limits
from vcp_cluster.executor.protocol import (
    REQUEST_BYTES_MAX,
    Compiled,
    Confined,
    Failed,
    FrameBuffer,
    ProtocolError,
    Refused,
    Reply,
    Request,
    decode_request,
    encode_frame,
)

_STDIN: Final = 0
_STDOUT: Final = 1
_READ_BYTES: Final = 1 << 20


def main() -> None:
    """Serve one request. Never returns."""
    try:
        request = _read_request()
        die_with_parent(request.parent_pid)
        # Making an engine asks the host about itself, which the filter forbids; of the task only
        # the size of its stack takes part in it.
        engine = make_engine(request.stack_bytes_max, request.backend)
        confine(_limits(request))
        reply = _serve(engine, request)
    except (ConfinementError, ProtocolError) as error:
        reply = Failed(detail=str(error)[:1000])
    _send(reply)
    # No interpreter shutdown: it would call what the filter forbids, and nothing is left to save.
    os._exit(0)


def _serve(engine: Engine, request: Request) -> Reply:
    _send(Confined())
    try:
        compiled = compile_module(engine, request.module)
        _send(Compiled())
        return execute(compiled, request)
    except ModuleError as error:
        return Refused(code=error.code, found=error.found[:1000])
    except (MemoryError, UnexpectedTrap, WasmtimeError) as error:
        return Failed(detail=f"{type(error).__name__}: {error}"[:1000])


def _limits(request: Request) -> Limits:
    return Limits(
        memory_bytes_max=request.memory_bytes_max,
        gas_max=request.gas_max,
        time_ms_max=request.time_ms_max,
        output_bytes_max=request.output_bytes_max,
        stack_bytes_max=request.stack_bytes_max,
    )


def _read_request() -> Request:
    frames = FrameBuffer(REQUEST_BYTES_MAX)
    while data := os.read(_STDIN, _READ_BYTES):
        for body in frames.feed(data):
            return decode_request(body)
    raise ProtocolError("the request ends early")


def _send(reply: Reply) -> None:
    frame = memoryview(encode_frame(reply))
    while frame:
        frame = frame[os.write(_STDOUT, frame) :]


if __name__ == "__main__":
    main()

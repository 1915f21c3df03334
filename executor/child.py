"""Start the process of a task, talk to it against the clock, and tell how it ended."""

import enum
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Final

from vcp_cluster.executor.confine import COMPILE_MS_MAX
from vcp_cluster.executor.protocol import (
    REPLY_OVERHEAD_BYTES_MAX,
    Compiled,
    Confined,
    Failed,
    Finished,
    FrameBuffer,
    ProtocolError,
    Refused,
    Request,
    decode_reply,
    encode_frame,
)
from vcp_cluster.executor.result import ExecutionFailure, Failure

START_MS_MAX: Final = 30_000
"""Wall time for the interpreter and the engine to load on a busy host."""

# The child must run the very code that its parent runs, wherever that was imported from: two
# versions at one table would disagree on results. Isolated mode does not look there by itself.
# The path is not resolved: this folder may be a link from the package's folder.
_ROOT: Final = str(Path(__file__).absolute().parents[2])
_PROGRAM: Final = (
    "import sys; sys.path.insert(0, sys.argv[1]); "
    "from vcp_cluster.executor.guest import main; main()"
)

_CANCEL_POLL_S: Final = 0.05
_REAP_S: Final = 5.0
_PIPE_BYTES: Final = 1 << 18

# Deaths that a compiler brings upon itself: out of memory, out of time, out of stack.
_COMPILER_SIGNALS: Final = frozenset((signal.SIGABRT, signal.SIGXCPU, signal.SIGSEGV))


class Phase(enum.Enum):
    """What the child is doing; decides what its death or its silence means."""

    STARTING = "starting"
    COMPILING = "compiling"
    RUNNING = "running"


def run_child(request: Request, cancel: threading.Event | None = None) -> Finished | Refused:
    """Run `request` in a process of its own and return its last word.

    Safe to call from several threads at once. The calling thread must live until this returns,
    because the child dies with it. Raises `ExecutionFailure`.
    """
    process = start_process()
    try:
        return _Conversation(process, request, cancel).hold()
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()


def start_process() -> "subprocess.Popen[bytes]":
    """The process, waiting for its request: isolated mode, empty environment, own session."""
    try:
        return subprocess.Popen(
            [sys.executable, "-I", "-c", _PROGRAM, _ROOT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            cwd="/",
            env={},
            start_new_session=True,  # Ctrl-C at the terminal is the parent's to handle
        )
    except OSError as error:
        raise ExecutionFailure(
            Failure.HOST_FAILURE, f"the process of the task could not be started: {error}"
        ) from error


class _Conversation:
    """One request and its replies, each phase with a deadline of its own."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        request: Request,
        cancel: threading.Event | None,
    ) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._process = process
        self._stdin = process.stdin.fileno()
        self._stdout = process.stdout.fileno()
        self._unsent = memoryview(encode_frame(request))
        self._frames = FrameBuffer(request.output_bytes_max + REPLY_OVERHEAD_BYTES_MAX)
        self._run_ms_max = request.time_ms_max
        self._cancel = cancel
        self._enter(Phase.STARTING, START_MS_MAX)

    def _enter(self, phase: Phase, time_ms_max: int) -> None:
        self._phase = phase
        self._time_ms_max = time_ms_max
        self._deadline = time.monotonic() + time_ms_max / 1000

    def hold(self) -> Finished | Refused:
        """Send the request, read until the last reply. Raises `ExecutionFailure`."""
        os.set_blocking(self._stdin, False)
        os.set_blocking(self._stdout, False)
        with selectors.DefaultSelector() as selector:
            selector.register(self._stdin, selectors.EVENT_WRITE)
            selector.register(self._stdout, selectors.EVENT_READ)
            while True:
                for key, _ in selector.select(self._patience()):
                    if key.fd == self._stdin:
                        if not self._send():
                            selector.unregister(self._stdin)
                    elif reply := self._receive():
                        return reply

    def _patience(self) -> float:
        """Seconds to wait for the next event. Raises when there is nothing to wait for."""
        if self._cancel is not None and self._cancel.is_set():
            raise ExecutionFailure(Failure.HOST_FAILURE, "cancelled by the caller")
        left = self._deadline - time.monotonic()
        if left <= 0:
            failure = {
                Phase.STARTING: Failure.HOST_FAILURE,
                Phase.COMPILING: Failure.COMPILE_RESOURCE,
                Phase.RUNNING: Failure.TIMEOUT,
            }[self._phase]
            detail = f"{self._phase.value} took longer than {self._time_ms_max} ms"
            raise ExecutionFailure(failure, detail)
        return left if self._cancel is None else min(left, _CANCEL_POLL_S)

    def _send(self) -> bool:
        """Send what the pipe takes; false when nothing is left to send."""
        try:
            self._unsent = self._unsent[os.write(self._stdin, self._unsent[:_PIPE_BYTES]) :]
        except BrokenPipeError:
            return False  # the child is gone; the end of its output tells how
        return bool(self._unsent)

    def _receive(self) -> Finished | Refused | None:
        data = os.read(self._stdout, _PIPE_BYTES)
        if not data:
            raise self._explain_death()
        try:
            for body in self._frames.feed(data):
                reply = decode_reply(body)
                match self._phase, reply:
                    case Phase.STARTING, Confined():
                        self._enter(Phase.COMPILING, COMPILE_MS_MAX)
                    case Phase.COMPILING, Compiled():
                        self._enter(Phase.RUNNING, self._run_ms_max)
                    case Phase.COMPILING, Refused() as last:
                        return last
                    case Phase.RUNNING, Finished() as last:
                        return last
                    case _, Failed(detail=detail):
                        raise self._explain_surrender(detail)
                    case _:
                        raise ProtocolError(f"{type(reply).__name__} while {self._phase.value}")
        except ProtocolError as error:
            raise ExecutionFailure(Failure.HOST_FAILURE, str(error)) from error
        return None

    def _explain_surrender(self, detail: str) -> ExecutionFailure:
        compiling = self._phase is Phase.COMPILING
        failure = Failure.COMPILE_RESOURCE if compiling else Failure.HOST_FAILURE
        return ExecutionFailure(failure, f"{detail} (while {self._phase.value})")

    def _explain_death(self) -> ExecutionFailure:
        """The child closed its output without a last word: the signal that ended it says why."""
        try:
            code = self._process.wait(_REAP_S)
        except subprocess.TimeoutExpired:
            return ExecutionFailure(
                Failure.HOST_FAILURE, f"the process fell silent while {self._phase.value}"
            )
        failure = Failure.HOST_FAILURE
        if code >= 0:
            end = f"exit code {code}"
        else:
            end = f"signal {signal.Signals(-code).name}"
            if -code == signal.SIGSYS:
                failure = Failure.SANDBOX_VIOLATION
            elif self._phase is Phase.COMPILING and -code in _COMPILER_SIGNALS:
                failure = Failure.COMPILE_RESOURCE
            elif self._phase is Phase.RUNNING and -code == signal.SIGXCPU:
                failure = Failure.TIMEOUT
        return ExecutionFailure(failure, f"the process ended by {end} while {self._phase.value}")

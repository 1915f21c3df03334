"""The process around a task: it dies with its task, its parent or its sandbox, and says which."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from vcp_cluster.executor import (
    ExecutionFailure,
    Failure,
    Limits,
    ModuleError,
    Status,
    child,
    isolation,
    run,
)
from vcp_cluster.executor.protocol import (
    Compiled,
    Confined,
    Failed,
    Finished,
    Refused,
    State,
    encode_frame,
)

FOREVER = Limits(gas_max=1 << 62, time_ms_max=60_000)
LOOP = "(loop $again (br $again)) (i64.const 0)"

linux_x86_64 = pytest.mark.skipif(
    "system call filter" not in isolation(), reason="this platform has no system call filter"
)
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll `condition` until it holds; fail after 20 s."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within 20 s"
        time.sleep(0.005)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> "list[subprocess.Popen[bytes]]":
    """The processes that `run` starts, in order."""
    processes: list[subprocess.Popen[bytes]] = []
    start = child.start_process

    def recording() -> "subprocess.Popen[bytes]":
        processes.append(start())
        return processes[-1]

    monkeypatch.setattr(child, "start_process", recording)
    return processes


def is_confined(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):  # gone, or gone while it was read
        return False
    return "Seccomp:\t2" in status


@linux_x86_64
def test_killed_in_the_middle_is_a_host_failure(guest, started) -> None:
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, guest(LOOP), b"", FOREVER)
        wait_until(lambda: bool(started) and is_confined(started[0].pid), "confinement")
        os.kill(started[0].pid, signal.SIGKILL)
        with pytest.raises(ExecutionFailure, match="SIGKILL") as caught:
            future.result(timeout=20)
    assert caught.value.failure is Failure.HOST_FAILURE


@linux_x86_64
def test_cancel_kills_the_process(guest, started) -> None:
    cancel = threading.Event()
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(run, guest(LOOP), b"", FOREVER, cancel=cancel)
        wait_until(lambda: bool(started) and is_confined(started[0].pid), "confinement")
        cancel.set()
        with pytest.raises(ExecutionFailure, match="cancelled") as caught:
            future.result(timeout=20)
    assert caught.value.failure is Failure.HOST_FAILURE
    assert started[0].returncode == -signal.SIGKILL


def test_cancelled_before_it_starts(guest) -> None:
    cancel = threading.Event()
    cancel.set()
    with pytest.raises(ExecutionFailure, match="cancelled"):
        run(guest(), b"", cancel=cancel)


def test_an_event_that_is_never_set_changes_nothing(guest) -> None:
    assert run(guest(), b"x", cancel=threading.Event()).output == b"x"


@linux
def test_a_task_dies_with_its_worker(guest, tmp_path: Path) -> None:
    (tmp_path / "loop.wasm").write_bytes(guest(LOOP))
    script = """
import pathlib, sys
from vcp_cluster.executor import Limits, child, run
start = child.start_process
def telling():
    process = start()
    print(process.pid, flush=True)
    return process
child.start_process = telling
run(pathlib.Path(sys.argv[1]).read_bytes(), b"", Limits(gas_max=1 << 62, time_ms_max=60_000))
"""
    command = [sys.executable, "-c", script, str(tmp_path / "loop.wasm")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as worker:
        assert worker.stdout is not None
        pid = int(worker.stdout.readline())
        wait_until(lambda: is_confined(pid), "confinement")
        worker.kill()
    wait_until(lambda: not is_confined(pid), "death of the task")


def test_several_at_a_time(guest) -> None:
    module = guest()
    inputs = [bytes([i]) * 1000 for i in range(6)]
    with ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda data: run(module, data), inputs))
    assert [result.output for result in results] == inputs
    assert len({result.execution_root for result in results}) == len(inputs)


def test_no_process_is_left_behind(guest, started) -> None:
    run(guest(), b"")
    with pytest.raises(ExecutionFailure):
        run(guest(LOOP), b"", Limits(gas_max=1 << 62, time_ms_max=50))
    assert len(started) == 2
    for process in started:
        assert process.returncode is not None
        assert process.stdin is not None and process.stdin.closed
        assert process.stdout is not None and process.stdout.closed


def confined(code: str) -> int:
    """The return code of a process that confines itself and runs `code`."""
    script = (
        "import os, socket, sys\n"
        "from vcp_cluster.executor.confine import confine\n"
        "from vcp_cluster.executor.limits import Limits\n"
        "confine(Limits(memory_bytes_max=65536))\n"
        f"{code}\n"
        "os._exit(0)\n"
    )
    command = [sys.executable, "-I", "-c", script]
    return subprocess.run(command, stderr=subprocess.DEVNULL, timeout=60, check=False).returncode


@linux_x86_64
@pytest.mark.parametrize(
    "escape",
    [
        "open('/etc/passwd')",
        "socket.socket()",
        "os.fork()",
        "os.kill(os.getppid(), 0)",
        "os.execv('/bin/true', ['true'])",
        "os.stat('/')",
        "os.readlink('/proc/self/exe')",
        "os.dup(1)",
    ],
)
def test_a_forbidden_system_call_kills(escape: str) -> None:
    assert confined(escape) == -signal.SIGSYS


@linux_x86_64
def test_what_stays_allowed() -> None:
    assert confined("os.write(1, b''); bytearray(100 << 20); os.getpid()") == 0


def test_memory_beyond_the_limit_of_the_process_is_refused() -> None:
    code = "try:\n    bytearray(900 << 20)\nexcept MemoryError:\n    os._exit(7)"
    assert confined(code) == 7


def fake(monkeypatch: pytest.MonkeyPatch, spoken: bytes, end: str) -> None:
    """Put a process in the guest's place that says `spoken` and then does `end`."""
    script = f"import os, signal, sys; os.write(1, {spoken!r}); {end}"

    def start() -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
        )

    monkeypatch.setattr(child, "start_process", start)


CONFINED = encode_frame(Confined())
COMPILED = CONFINED + encode_frame(Compiled())
HANG = "sys.stdin.buffer.read(1 << 30); signal.pause()"


def state(**changes: object) -> State:
    fields: dict[str, object] = {
        "gas": 1,
        "pages": 1,
        "memory": bytes(32),
        "globals": bytes(32),
        "path": bytes(8),
    }
    return State(**{**fields, **changes})  # type: ignore[arg-type]


def finished(**changes: object) -> bytes:
    fields: dict[str, object] = {
        "status": 0,
        "trap": 0,
        "output": b"",
        "gas": 1,
        "states": [state()],
        "wall_ms": 0,
        "cpu_ms": 0,
    }
    return encode_frame(Finished(**{**fields, **changes}))  # type: ignore[arg-type]


def die(name: str) -> str:
    return f"signal.signal(signal.{name}, 0) if '{name}' != 'SIGKILL' else 0; " + (
        f"os.kill(os.getpid(), signal.{name})"
    )


ENDS = {
    "filter while starting": (b"", die("SIGSYS"), Failure.SANDBOX_VIOLATION),
    "filter while compiling": (CONFINED, die("SIGSYS"), Failure.SANDBOX_VIOLATION),
    "filter while running": (COMPILED, die("SIGSYS"), Failure.SANDBOX_VIOLATION),
    "compiler out of memory": (CONFINED, die("SIGABRT"), Failure.COMPILE_RESOURCE),
    "compiler out of time": (CONFINED, die("SIGXCPU"), Failure.COMPILE_RESOURCE),
    "compiler out of stack": (CONFINED, die("SIGSEGV"), Failure.COMPILE_RESOURCE),
    "killed while compiling": (CONFINED, die("SIGKILL"), Failure.HOST_FAILURE),
    "processor time of the run": (COMPILED, die("SIGXCPU"), Failure.TIMEOUT),
    "abort while running": (COMPILED, die("SIGABRT"), Failure.HOST_FAILURE),
    "segment fault while running": (COMPILED, die("SIGSEGV"), Failure.HOST_FAILURE),
    "exit while starting": (b"", "sys.exit(1)", Failure.HOST_FAILURE),
    "exit while running": (COMPILED, "sys.exit(0)", Failure.HOST_FAILURE),
    "gives up while starting": (
        encode_frame(Failed(detail="no")),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "gives up while compiling": (
        CONFINED + encode_frame(Failed(detail="MemoryError")),
        HANG,
        Failure.COMPILE_RESOURCE,
    ),
    "gives up while running": (
        COMPILED + encode_frame(Failed(detail="no")),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "hangs while running": (COMPILED, HANG, Failure.TIMEOUT),
    # A child that was taken over says what it likes; it must not pass for a result.
    "result before compiling": (CONFINED + finished(), HANG, Failure.HOST_FAILURE),
    "refusal while running": (
        COMPILED + encode_frame(Refused(code="bad_module", found="")),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "phase twice": (CONFINED + CONFINED, HANG, Failure.HOST_FAILURE),
    "not MessagePack": (b"\1\0\0\0\xc1", HANG, Failure.HOST_FAILURE),
    "text not UTF-8": (b"\4\0\0\0\x92\5\xa1\xff", HANG, Failure.HOST_FAILURE),
    "frame too large": (b"\xff\xff\xff\xff", HANG, Failure.HOST_FAILURE),
    "cut frame": (COMPILED + finished()[:-1], "sys.exit(0)", Failure.HOST_FAILURE),
    "gas above the limit": (
        COMPILED + finished(gas=1 << 62, states=[state(gas=1 << 62)]),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "gas of another state": (COMPILED + finished(gas=2), HANG, Failure.HOST_FAILURE),
    "gas that falls": (
        COMPILED + finished(states=[state(gas=2), state(gas=1)]),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "no state": (COMPILED + finished(states=[]), HANG, Failure.HOST_FAILURE),
    "path of nine bytes": (
        COMPILED + finished(states=[state(path=bytes(9))]),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "output above the limit": (COMPILED + finished(output=bytes(9)), HANG, Failure.HOST_FAILURE),
    "trap without the status": (COMPILED + finished(trap=1), HANG, Failure.HOST_FAILURE),
    "status without the trap": (COMPILED + finished(status=1), HANG, Failure.HOST_FAILURE),
    "output of a trap": (
        COMPILED + finished(status=1, trap=1, output=b"x"),
        HANG,
        Failure.HOST_FAILURE,
    ),
    "out of gas below the limit": (COMPILED + finished(status=2), HANG, Failure.HOST_FAILURE),
    "short digest": (
        COMPILED + finished(states=[state(memory=b"")]),
        HANG,
        Failure.HOST_FAILURE,
    ),
}


@pytest.mark.parametrize("case", ENDS)
def test_every_end_of_the_process(case: str, guest, monkeypatch: pytest.MonkeyPatch) -> None:
    spoken, end, failure = ENDS[case]
    fake(monkeypatch, spoken, end)
    # Only the row that waits for the clock gets a short one: a busy host must not end the others.
    time_ms_max = 200 if case == "hangs while running" else 20_000
    with pytest.raises(ExecutionFailure) as caught:
        run(guest(), b"", Limits(time_ms_max=time_ms_max, output_bytes_max=8))
    assert caught.value.failure is failure


def test_the_table_hits_every_failure() -> None:
    assert {failure for *_, failure in ENDS.values()} == set(Failure)


def test_the_fake_can_give_a_result(guest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the rows above fail for their own reason and not for the fake's."""
    fake(monkeypatch, COMPILED + finished(output=b"eight by"), HANG)
    result = run(guest(), b"", Limits(time_ms_max=5_000, output_bytes_max=8))
    assert (result.status, result.output) == (Status.OK, b"eight by")


def test_a_slow_compiler_is_stopped(guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "COMPILE_MS_MAX", 1)
    body = "(drop (i32.const 1))" * 20_000 + "(i64.const 0)"
    with pytest.raises(ExecutionFailure) as caught:
        run(guest(body), b"")
    assert caught.value.failure is Failure.COMPILE_RESOURCE


def test_a_process_that_cannot_start(guest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    with pytest.raises(ExecutionFailure, match="could not be started") as caught:
        run(guest(), b"")
    assert caught.value.failure is Failure.HOST_FAILURE


def test_refusal_by_the_engine_is_the_same_error_as_ours(guest) -> None:
    with pytest.raises(ModuleError) as caught:
        run(guest("(i64.add (i32.const 1) (i64.const 1))"), b"")
    assert str(caught.value).startswith("bad_module: the engine refuses the module: ")


def test_isolation_names_the_process_first() -> None:
    assert isolation()[0] == "separate process"

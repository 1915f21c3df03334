"""What the process of a task gives up before it touches a byte of the task.

Measures that a platform lacks are left out and `measures()` says so; a measure that the platform
offers and refuses is an error, because a weaker sandbox must not pass for the whole one.
Limits are per process, hence this module is for the child alone, except for `measures`.
"""

import ctypes
import os
import platform
import resource
import signal
import struct
import sys
from functools import cache
from typing import Final

from vcp_cluster.executor.limits import Limits, compute_native_stack_bytes

COMPILE_BYTES_MAX: Final = 768 << 20
"""Data memory besides the guest's own: Python, the compiler and the generated code."""

COMPILE_MS_MAX: Final = 10_000
"""Wall time of compiling one module."""

_HOST_STACK_BYTES: Final = 8 << 20
"""Native stack besides the guest's: the interpreter, the compiler and the engine."""
_FILES_MAX: Final = 16

_PR_SET_PDEATHSIG: Final = 1
_PR_GET_SECCOMP: Final = 21
_PR_SET_NO_NEW_PRIVS: Final = 38
_SYS_SECCOMP: Final = 317
_SECCOMP_SET_MODE_FILTER: Final = 1
_SECCOMP_FILTER_FLAG_TSYNC: Final = 1
_SECCOMP_KILL_PROCESS: Final = 0x80000000
_SECCOMP_ALLOW: Final = 0x7FFF0000
_AUDIT_ARCH_X86_64: Final = 0xC000003E

# BPF opcodes (linux/filter.h): load a word of seccomp_data, jump if equal, return.
_BPF_LOAD_WORD: Final = 0x20
_BPF_JUMP_EQUAL: Final = 0x15
_BPF_RETURN: Final = 0x06

# Linux x86-64 numbers of the only calls that the engine and this interpreter need from here on.
_SYSTEM_CALLS: Final[dict[str, int]] = {
    "read": 0,
    "write": 1,
    "close": 3,
    "mmap": 9,
    "mprotect": 10,
    "munmap": 11,
    "brk": 12,
    "rt_sigaction": 13,
    "rt_sigprocmask": 14,
    "rt_sigreturn": 15,
    "sched_yield": 24,
    "mremap": 25,
    "madvise": 28,
    "getpid": 39,
    "exit": 60,
    "sigaltstack": 131,
    "gettid": 186,
    "futex": 202,
    "restart_syscall": 219,
    "clock_gettime": 228,
    "exit_group": 231,
    "getrandom": 318,
    "rseq": 334,
}


class ConfinementError(Exception):
    """A measure that this platform offers could not be taken; the task must not run."""


class _Program(ctypes.Structure):
    """`struct sock_fprog` of linux/filter.h."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _has_seccomp() -> bool:
    """Whether this kernel and architecture offer the filter; asks, changes nothing."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    return bool(_libc().prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) >= 0)


def measures() -> list[str]:
    """The measures taken on this platform, in the order in which they are taken."""
    taken = ["separate process", "empty environment", "resource limits"]
    if sys.platform == "linux":
        taken += ["death with parent", "no new privileges"]
    if _has_seccomp():
        taken.append("system call filter")
    return taken


def die_with_parent(parent_pid: int) -> None:
    """Have the kernel kill this process when the thread that started it ends (Linux)."""
    if sys.platform == "linux":
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # The parent may have died before the request above was in force.
    if os.getppid() != parent_pid:
        raise ConfinementError("the parent is gone")


def confine(limits: Limits) -> None:
    """Take every measure. Raises `ConfinementError`."""
    _limit_resources(limits)
    if sys.platform == "linux":
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    if _has_seccomp():
        _filter_system_calls()


def _limit_resources(limits: Limits) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    used_s = usage.ru_utime + usage.ru_stime
    # The parent's clock ends a run; this limit stands behind it should the parent be stopped.
    cpu_s = int(used_s + (COMPILE_MS_MAX + limits.time_ms_max) / 1000) + 3
    # RLIMIT_AS would break the engine, which reserves addresses that it never uses. Data memory
    # lies above the guest's limit, so that `memory.grow` below it never depends on the host.
    data_bytes = COMPILE_BYTES_MAX + limits.memory_bytes_max
    stack_bytes = _HOST_STACK_BYTES + compute_native_stack_bytes(limits.stack_bytes_max)
    try:
        _lower(resource.RLIMIT_CORE, 0)
        _lower(resource.RLIMIT_FSIZE, 0)
        _lower(resource.RLIMIT_NOFILE, _FILES_MAX)
        _lower(resource.RLIMIT_CPU, cpu_s)
        if not _lower(resource.RLIMIT_DATA, data_bytes):
            raise ConfinementError(f"the host allows less than {data_bytes} bytes of data memory")
        soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
        if soft != resource.RLIM_INFINITY and soft < stack_bytes:
            resource.setrlimit(resource.RLIMIT_STACK, (stack_bytes, hard))
    except (OSError, ValueError) as error:
        raise ConfinementError(f"a resource limit could not be set: {error}") from error


def _lower(which: int, value: int) -> bool:
    """Set soft and hard limit to `value`; false when a lower hard limit was there already."""
    _, hard = resource.getrlimit(which)
    enough = hard == resource.RLIM_INFINITY or hard >= value
    most = value if enough else hard
    resource.setrlimit(which, (most, most))
    return enough


def _prctl(option: int, value: int) -> None:
    if _libc().prctl(option, value, 0, 0, 0) != 0:
        raise ConfinementError(f"prctl {option}: {os.strerror(ctypes.get_errno())}")


def _filter_system_calls() -> None:
    program = ctypes.create_string_buffer(_filter_program())
    count = (len(program) - 1) // 8  # create_string_buffer appends one zero byte
    header = _Program(count, ctypes.addressof(program))
    status = _libc().syscall(
        _SYS_SECCOMP,
        _SECCOMP_SET_MODE_FILTER,
        _SECCOMP_FILTER_FLAG_TSYNC,  # any other thread of this process is filtered as well
        ctypes.byref(header),
    )
    if status != 0:
        raise ConfinementError(f"seccomp: {os.strerror(ctypes.get_errno())}")


def _filter_program() -> bytes:
    """BPF: another architecture or a number outside the list kills the process."""
    numbers = sorted(_SYSTEM_CALLS.values())
    code = [
        (_BPF_LOAD_WORD, 0, 0, 4),  # seccomp_data.arch
        (_BPF_JUMP_EQUAL, 1, 0, _AUDIT_ARCH_X86_64),
        (_BPF_RETURN, 0, 0, _SECCOMP_KILL_PROCESS),
        (_BPF_LOAD_WORD, 0, 0, 0),  # seccomp_data.nr
    ]
    for position, number in enumerate(numbers):
        code.append((_BPF_JUMP_EQUAL, len(numbers) - position, 0, number))
    code.append((_BPF_RETURN, 0, 0, _SECCOMP_KILL_PROCESS))
    code.append((_BPF_RETURN, 0, 0, _SECCOMP_ALLOW))
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in code)

"""What this machine can do at best: the figures that bound every system on it.

Each takes a fraction of a second, so they are as good as a quiet machine makes them; they are
printed before anything is compared, and kept in the document.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec
import plyvel

from vcp_cluster.ledger.domains import DOMAIN_TRANSACTION
from vcp_cluster.ledger.keys import is_signed, public_key, sign

RUN_S = 0.4
SYNC_BYTES = 4096
SYNC_FILE_BYTES = 16 << 20
MESSAGE_BYTES = 256
BATCH_RECORDS = 100
RECORD_BYTES = 232
WAIT_S = 20.0
_CHUNK = 50


class Latency(msgspec.Struct, frozen=True):
    """Something done again and again by one thread."""

    ops_per_s: float
    p50_us: float
    p99_us: float


class Limits(msgspec.Struct, frozen=True):
    """The limits of a machine. Verifications are of Ed25519 signatures over 256 bytes."""

    fdatasync: Latency
    verify_per_s_one_core: float
    verify_per_s_all_cores: float
    store_batch_records_per_s: float
    store_batch_synced_records_per_s: float
    loopback: Latency


def measure_limits(directory: Path) -> Limits:
    """Measure all of them; files are made in `directory`, which must exist, and removed."""
    cores = len(os.sched_getaffinity(0))
    return Limits(
        fdatasync=_measure_fdatasync(directory / "limits.sync"),
        verify_per_s_one_core=_measure_verify(1),
        verify_per_s_all_cores=_measure_verify(cores),
        store_batch_records_per_s=_measure_store(directory / "limits.ldb", is_synced=False),
        store_batch_synced_records_per_s=_measure_store(
            directory / "limits-synced.ldb", is_synced=True
        ),
        loopback=_measure_loopback(),
    )


def measure_cores_share() -> float:
    """The part of all cores that one spinning process for each of them really gets, 0 to 1."""
    cores = len(os.sched_getaffinity(0))
    command = [sys.executable, "-S", str(Path(__file__).with_name("spinner.py")), str(RUN_S)]
    spinners = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(cores)
    ]
    try:
        for spinner in spinners:
            assert spinner.stdout is not None
            spinner.stdout.readline()
        for spinner in spinners:
            assert spinner.stdin is not None
            spinner.stdin.write("go\n")
            spinner.stdin.flush()
        got_s = sum(float(spinner.communicate(timeout=WAIT_S)[0]) for spinner in spinners)
    finally:
        for spinner in spinners:
            spinner.kill()
            spinner.communicate()
    return min(1.0, got_s / (cores * RUN_S))


def _repeat(action: Callable[[], object]) -> Latency:
    """Do something for a while."""
    taken_ns = []
    end_ns = time.perf_counter_ns() + int(RUN_S * 1e9)
    now_ns = start_ns = time.perf_counter_ns()
    while now_ns < end_ns:
        action()
        before_ns, now_ns = now_ns, time.perf_counter_ns()
        taken_ns.append(now_ns - before_ns)
    taken_ns.sort()
    return Latency(
        ops_per_s=len(taken_ns) / ((now_ns - start_ns) / 1e9),
        p50_us=taken_ns[len(taken_ns) // 2] / 1e3,
        p99_us=taken_ns[int(len(taken_ns) * 0.99)] / 1e3,
    )


def _measure_fdatasync(path: Path) -> Latency:
    """4 KiB after 4 KiB into a file that was filled before, each synced."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(descriptor, bytes(SYNC_FILE_BYTES))
        os.fsync(descriptor)
        data, offset = os.urandom(SYNC_BYTES), 0

        def write() -> None:
            nonlocal offset
            os.pwrite(descriptor, data, offset)
            os.fdatasync(descriptor)
            offset = (offset + SYNC_BYTES) % SYNC_FILE_BYTES

        return _repeat(write)
    finally:
        os.close(descriptor)
        path.unlink()


def _measure_verify(threads: int) -> float:
    """Verifications per second of so many threads: libsodium lets go of the interpreter lock."""
    seed, message = bytes(32), bytes(MESSAGE_BYTES)
    key, signature = public_key(seed), sign(seed, DOMAIN_TRANSACTION, message)

    def verify_many(end_s: float) -> int:
        done = 0
        while time.monotonic() < end_s:
            for _ in range(_CHUNK):
                is_signed(key, DOMAIN_TRANSACTION, message, signature)
            done += _CHUNK
        return done

    with ThreadPoolExecutor(threads) as pool:
        start_s = time.monotonic()
        done = sum(pool.map(verify_many, [start_s + RUN_S] * threads))
        return done / (time.monotonic() - start_s)


def _measure_store(path: Path, *, is_synced: bool) -> float:
    """Records per second in write batches with keys in no order."""
    value = os.urandom(RECORD_BYTES)
    database = plyvel.DB(str(path), create_if_missing=True)
    try:

        def write() -> None:
            with database.write_batch(sync=is_synced) as batch:
                for _ in range(BATCH_RECORDS):
                    batch.put(os.urandom(16), value)

        return _repeat(write).ops_per_s * BATCH_RECORDS
    finally:
        database.close()
        plyvel.destroy_db(str(path))


def _measure_loopback() -> Latency:
    """A message to another process and back."""
    command = [sys.executable, "-S", str(Path(__file__).with_name("echo.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        with socket.create_connection(("127.0.0.1", port), timeout=WAIT_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            data = bytes(MESSAGE_BYTES)

            def exchange() -> None:
                connection.sendall(data)
                left = MESSAGE_BYTES
                while left:
                    left -= len(connection.recv(left))

            return _repeat(exchange)

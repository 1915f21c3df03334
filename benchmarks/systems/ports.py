"""Free ports on loopback for systems that are not ours."""

from __future__ import annotations

import socket

HOST = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """So many different free ports. They may be taken before they are used; the start then says so.

    All are held until all are found, or the kernel might give one of them twice.
    """
    probes = []
    try:
        for _ in range(count):
            probe = socket.socket()
            probes.append(probe)
            probe.bind((HOST, 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()

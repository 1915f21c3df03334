"""Entry of a member's two processes: `python -m vcp_cluster.cluster.process raft|door DIR PARENT`.

Not a command for people: `vcp-cluster join` starts it.
"""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from vcp_cluster.cluster.directory import MemberDirectory
from vcp_cluster.cluster.errors import VcpError
from vcp_cluster.cluster.processes import die_with_parent

EXIT_CANNOT_START = 1


def run_raft(member: MemberDirectory) -> int:
    """The Raft process: journal, store, apply."""
    from vcp_cluster.cluster.certificate_files import identities_of
    from vcp_cluster.cluster.machine import GenesisMismatch, LedgerMachine
    from vcp_cluster.cluster.raft.process import run_raft_process
    from vcp_cluster.cluster.raft.transport.security import Credentials
    from vcp_cluster.cluster.store import Store, StoreError

    try:
        store = Store.open(member.store_path)
        machine = LedgerMachine(store, member.genesis)
    except (StoreError, GenesisMismatch) as error:
        logging.getLogger(__name__).error("%s", error)
        return EXIT_CANNOT_START
    identities = identities_of(member.genesis)
    credentials = Credentials(
        me=identities.pop(member.name),
        peers=tuple(identities.values()),
        tls_path=member.tls_path,
        authority_path=member.authority_path,
    )
    return run_raft_process(
        name=member.name,
        address=member.address,
        peers={other.name: other.address for other in member.genesis.members},
        credentials=credentials,
        journal_path=member.journal_path,
        socket_path=member.socket_path,
        machine=machine,
    )


def run_door(member: MemberDirectory) -> int:
    """The door process: HTTP, admission, blobs, sessions, verifier, settler."""
    from vcp_cluster.cluster.door.process import run_door_process

    return run_door_process(member)


def main(arguments: list[str]) -> int:
    """Run one part; the exit code."""
    part, directory, parent = arguments
    die_with_parent(int(parent))
    try:
        member = MemberDirectory.load(Path(directory))
    except VcpError as error:
        logging.getLogger(__name__).error("%s", error)
        return error.exit_code
    logging.basicConfig(
        level=logging.INFO,
        stream=sys.stderr,
        format=f"%(asctime)s {member.name}/{part} %(levelname)s %(name)s: %(message)s",
    )
    for noisy in ("httpx2", "httpcore2", "httpx", "uvicorn.error", "pysyncobj"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    return run_raft(member) if part == "raft" else run_door(member)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""What a member must remember of its workers across a restart: their last signed telemetry.

Only the member that a worker talks to may report it silent, and only with telemetry that the worker
signed. A member that forgot it could never take back a worker that died while the member was down,
and tasks would go on being assigned to it.
"""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from vcp_cluster.ledger.commitments import SignedTelemetry
from vcp_cluster.ledger.encoding import Malformed, Record, Unsigned, decode, encode, prepare

RECORD_BYTES_MAX = 1_024
_TEMPORARY = ".new"

logger = logging.getLogger(__name__)


class SessionRecord(Record, frozen=True):
    """The newest telemetry of a node, and what this member measured (kbit/s, microseconds)."""

    version: Annotated[int, Meta(ge=1, le=1)]
    declared: SignedTelemetry
    bandwidth_kbps: Unsigned
    latency_us: Unsigned


class SessionFiles:
    """One small file for each node below `path`. Every method blocks on the disk.

    A record that a crash loses costs the release of one node's tasks before their deadline, so it
    is replaced atomically but not flushed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def save(self, record: SessionRecord) -> None:
        """Write a node's record. Raises `OSError`."""
        final = self._file(record.declared.telemetry.node)
        temporary = final.with_suffix(_TEMPORARY)
        temporary.write_bytes(encode(record))
        os.replace(temporary, final)

    def remove(self, node: bytes) -> None:
        """Forget a node. Raises `OSError`."""
        self._file(node).unlink(missing_ok=True)

    def load(self, count_max: int) -> list[SessionRecord]:
        """At most `count_max` records; what cannot be read is removed, it is of no use."""
        with os.scandir(self._path) as files:
            names = [entry.path for entry in files][:count_max]
        records = []
        for name in names:
            path = Path(name)
            try:
                if path.stat().st_size > RECORD_BYTES_MAX:
                    raise Malformed("longer than a record")
                record = decode(SessionRecord, path.read_bytes())
                if path != self._file(record.declared.telemetry.node):
                    raise Malformed("not under its node's name")
            except (Malformed, OSError) as error:
                logger.warning("session record %s is removed: %s", path.name, error)
                path.unlink(missing_ok=True)
                continue
            records.append(record)
        return records

    def _file(self, node: bytes) -> Path:
        return self._path / node.hex()


prepare(SessionRecord)

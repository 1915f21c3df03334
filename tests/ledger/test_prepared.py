"""Decoders of all records exist once the modules that define them are imported (see `prepare`)."""

from __future__ import annotations

from importlib import import_module

from vcp_cluster.ledger import encoding
from vcp_cluster.ledger.encoding import Record


def test_every_record_of_the_ledger_has_its_decoder_at_import() -> None:
    for name in ("transactions", "receipts"):
        import_module(f"vcp_cluster.ledger.{name}")
    kinds = [kind for kind in Record.__subclasses__() if kind.__module__.startswith("vcp_cluster.")]
    assert len(kinds) > 20
    missing = [kind.__name__ for kind in kinds if kind not in encoding._decoders]
    assert missing == []

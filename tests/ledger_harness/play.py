"""The commands of scenario files, played on a `Ledger`.

    start attempts_max=2              a new ledger with other parameters (the first command)
    SENDER: OPERATION; OPERATION …    one transaction in an entry of its own
    SENDER: … | nonce=7 valid=0       with another nonce, validity (s), chain, signer or cosigners
    again                             the bytes of the last transaction once more
    together N                        the next N transactions travel in one entry
    wait 5s    gap 1h                 empty entries every second; one entry after a long silence
    show NAME                         an account, node, task, proof, `supply`, `batch`, `anchor` (the
                                      notary's) or `bitcoin` (the one on Bitcoin)

A sender is a name, or `worker`: who holds the task that is named next; `drawn`, `other` and
`others`: the member drawn to verify the proof that is named next, one more that has not been heard,
and all of these. Below a transaction's code stands what happened in its entry to the tasks and
proofs that have names.
"""

from __future__ import annotations

from ledger_harness import shows
from ledger_harness.cast import MEMBERS
from ledger_harness.ledger import Ledger
from ledger_harness.names import Names
from ledger_harness.verbs import VERBS, Words
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.operations import AnyOperation, SubmitProof, SubmitTask
from vcp_cluster.ledger.tasks import compute_task_id
from vcp_cluster.ledger.transactions import parse_transaction

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000}
SHOWS = {
    "supply": shows.supply,
    "batch": shows.batch,
    "anchor": shows.anchor,
    "bitcoin": shows.bitcoin,
}


def milliseconds(text: str) -> int:
    """The duration that `999ms`, `5s`, `10m` or `24h` says."""
    number = text.rstrip("hms")
    return int(number) * UNITS_MS[text[len(number) :]]


class Play:
    """One run of a scenario."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.names = Names(self.ledger)
        self._last = ("", b"")
        self._held: list[tuple[str, bytes]] = []
        self._hold = 0

    def run(self, command: str) -> list[str]:
        """Play one command; returns the lines that it prints."""
        if command == "again":
            return self._hand_over([self._last])
        if ": " in command:
            return self._transact(command)
        verb, *words = command.split()
        if verb == "start":
            pairs = (word.split("=") for word in words)
            self.ledger = Ledger(**{name: int(value) for name, value in pairs})
            self.names = Names(self.ledger)
            return []
        if verb == "together":
            self._hold = int(words[0])
            return []
        if verb in ("wait", "gap"):
            duration_ms = milliseconds(words[0])
            before = self.names.snapshot()
            if verb == "wait":
                self.ledger.wait(duration_ms)
            else:
                self.ledger.entry(after_ms=duration_ms)
            return [f"{words[0]} later", *self.names.changes(before)]
        assert verb == "show", f"no command {command!r}"
        what = words[0]
        return [SHOWS[what](self.ledger)] if what in SHOWS else self.names.show(what)

    def _transact(self, command: str) -> list[str]:
        who, _, rest = command.partition(": ")
        text, _, options = rest.partition(" | ")
        sent = []
        for sender in self._senders(who, text):
            operations: list[AnyOperation] = []
            labels = {}
            for number, part in enumerate(text.split("; ")):
                verb, *words = part.split()
                arguments = Words(words)
                operations.append(VERBS[verb](self.names, sender, arguments))
                if "as" in arguments.named:
                    labels[number] = arguments.named["as"]
            transaction = self._sign(sender, operations, Words(options.split()))
            self._name(labels, operations, transaction)
            sent.append((sender, transaction))
        self._last = sent[-1]
        return self._hand_over(sent)

    def _hand_over(self, sent: list[tuple[str, bytes]]) -> list[str]:
        """Send, or keep for the entry in which several commands travel together."""
        self._held += sent
        self._hold = max(0, self._hold - 1)
        if self._hold:
            return []
        held, self._held = self._held, []
        return self._send(held)

    def _senders(self, who: str, text: str) -> list[str]:
        subject = text.split()[1] if len(text.split()) > 1 else ""
        if who == "worker":
            return [self.names.worker(subject)]
        if who not in ("drawn", "others", "other"):
            return [who]
        drawn = self.names.verifier(subject)
        if who == "drawn":
            return [drawn]
        others = [name for name in MEMBERS if name not in (drawn, *self.names.heard(subject))]
        return others if who == "others" else others[:1]

    def _sign(self, sender: str, operations: list[AnyOperation], options: Words) -> bytes:
        named = options.named
        return self.ledger.transaction(
            sender,
            *operations,
            nonce=int(named["nonce"]) if "nonce" in named else None,
            valid_ms=int(named.get("valid", "60")) * 1_000,
            signer=named.get("signer"),
            chain_id=bytes(16) if named.get("chain") == "another" else None,
            cosigners=named["cosigners"].split(",") if "cosigners" in named else (),
        )

    def _name(self, labels: dict[int, str], operations: list[AnyOperation], data: bytes) -> None:
        tx_id = parse_transaction(data).tx_id
        for number, label in labels.items():
            operation = operations[number]
            if isinstance(operation, SubmitTask):
                self.names.tasks[label] = compute_task_id(tx_id, number)
            elif isinstance(operation, SubmitProof):
                self.names.add_proof(label, operation.commitment)

    def _send(self, sent: list[tuple[str, bytes]]) -> list[str]:
        before = self.names.snapshot()
        receipts = self.ledger.entry(*(data for _, data in sent))
        lines = []
        for (sender, data), receipt in zip(sent, receipts, strict=True):
            line = f"{sender}: {Code(receipt.code).name.lower()}"
            if receipt.code and len(parse_transaction(data).envelope.operations) > 1:
                line += f" (operation {receipt.operation})"
            if receipt.height != self.ledger.state.get_head().height:
                line += f" (first answered at height {receipt.height})"
            lines.append(line)
        return lines + self.names.changes(before)

"""Movements of money between the places where a unit can be.

available + escrow + pending + stake + treasury = minted + deposited - withdrawn, after every entry.
Callers check first (`balance`, `stake`); a movement here cannot fail.
"""

from __future__ import annotations

import msgspec

from vcp_cluster.ledger.encoding import INTEGER_MAX
from vcp_cluster.ledger.records import RECORD_VERSION, Account, Supply
from vcp_cluster.ledger.state import State

_replace = msgspec.structs.replace


def empty_account(key: bytes) -> Account:
    """An account without money."""
    return Account(RECORD_VERSION, key, 0, 0, 0, 0, 0)


def get_account(state: State, account: bytes) -> Account | None:
    """An account with what sealed batches paid already folded into `available`.

    Sealing a batch pays all its accounts at once: it takes logarithmic time because each account
    is brought up to date only here, when it is next looked at.
    """
    record = state.get_account(account)
    if record is None or record.pending == 0:
        return record
    if record.pending_batch < state.get_settlement().batch:
        available = record.available + record.pending
        record = _replace(record, available=available, pending=0, pending_batch=0)
    return record


def balance(state: State, account: bytes) -> int:
    """Units that an account can spend; 0 for one that does not exist."""
    record = get_account(state, account)
    return 0 if record is None else record.available


def stake(state: State, account: bytes) -> int:
    """Units that an account has at stake."""
    record = get_account(state, account)
    return 0 if record is None else record.stake


def ensure_account(state: State, account: bytes) -> Account:
    """The account, made if it does not exist. An account's id is its first key."""
    record = get_account(state, account)
    if record is None:
        record = empty_account(account)
        state.put_account(account, record)
    return record


def _change(
    state: State, account: bytes, *, available: int = 0, stake: int = 0, escrow: int = 0
) -> None:
    record = ensure_account(state, account)
    record = _replace(
        record,
        available=record.available + available,
        stake=record.stake + stake,
        escrow=record.escrow + escrow,
    )
    state.put_account(account, record)


def _change_supply(state: State, **changes: int) -> None:
    supply = state.get_supply()
    values = {name: getattr(supply, name) + change for name, change in changes.items()}
    state.put_supply(_replace(supply, **values))


def mint(state: State, account: bytes, amount: int) -> None:
    """Make units."""
    _change(state, account, available=amount)
    _change_supply(state, minted=amount, available=amount)


def is_mintable(state: State, amount: int) -> bool:
    """Whether the total stays within 2^63-1 units."""
    supply = state.get_supply()
    return supply.minted + supply.deposited + amount <= INTEGER_MAX


def transfer(state: State, *, sender: bytes, recipient: bytes, amount: int) -> None:
    """available → another's available."""
    _change(state, sender, available=-amount)
    _change(state, recipient, available=amount)


def lock_stake(state: State, account: bytes, amount: int) -> None:
    """available → stake."""
    _change(state, account, available=-amount, stake=amount)
    _change_supply(state, available=-amount, stake=amount)


def unlock_stake(state: State, account: bytes, amount: int) -> None:
    """stake → available."""
    _change(state, account, available=amount, stake=-amount)
    _change_supply(state, available=amount, stake=-amount)


def slash(state: State, account: bytes, amount: int) -> None:
    """stake → treasury."""
    _change(state, account, stake=-amount)
    _change_supply(state, stake=-amount, treasury=amount)


def hold_escrow(state: State, account: bytes, amount: int) -> None:
    """available → escrow."""
    _change(state, account, available=-amount, escrow=amount)
    _change_supply(state, available=-amount, escrow=amount)


def refund_escrow(state: State, account: bytes, amount: int) -> None:
    """escrow → available."""
    _change(state, account, available=amount, escrow=-amount)
    _change_supply(state, available=amount, escrow=-amount)


def pay_escrow(
    state: State, *, client: bytes, payee: bytes, amount: int, retained: int, batch: int
) -> int:
    """The client's escrow → the worker's pending and, for `retained` units of it, stake.

    Returns what the payee owns afterwards: available + pending + stake.
    """
    _change(state, client, escrow=-amount)
    record = ensure_account(state, payee)
    record = _replace(
        record,
        pending=record.pending + amount - retained,
        pending_batch=batch,
        stake=record.stake + retained,
    )
    state.put_account(payee, record)
    _change_supply(state, escrow=-amount, pending=amount - retained, stake=retained)
    return record.available + record.pending + record.stake


def release_pending(state: State, amount: int) -> None:
    """pending → available for all accounts of a batch at once (see `get_account`)."""
    _change_supply(state, pending=-amount, available=amount)


def is_balanced(supply: Supply) -> bool:
    """Whether every unit that was made is somewhere."""
    made = supply.minted + supply.deposited - supply.withdrawn
    held = supply.available + supply.escrow + supply.pending + supply.stake + supply.treasury
    return made == held

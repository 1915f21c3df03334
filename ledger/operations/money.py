"""Transfer, Stake, Unstake, Mint."""

from __future__ import annotations

from vcp_cluster.ledger import money, nodes
from vcp_cluster.ledger.codes import Code
from vcp_cluster.ledger.encoding import Key, Unsigned
from vcp_cluster.ledger.operations.base import Context, Operation


def _check_spendable(context: Context, amount: int) -> Code:
    """Whether the sender has this much available, and it is something."""
    if amount == 0:
        return Code.AMOUNT_ZERO
    if money.balance(context.state, context.account) < amount:
        return Code.BALANCE_INSUFFICIENT
    return Code.OK


class Transfer(Operation, tag=1, frozen=True):
    """Move units to another account, which is made if it does not exist."""

    recipient: Key
    amount: Unsigned

    def check(self, context: Context) -> Code:
        """AMOUNT_ZERO, BALANCE_INSUFFICIENT."""
        return _check_spendable(context, self.amount)

    def effect(self, context: Context) -> None:
        """available → available."""
        money.transfer(
            context.state, sender=context.account, recipient=self.recipient, amount=self.amount
        )


class Stake(Operation, tag=2, frozen=True):
    """Put units at stake: what a compute node loses when it lies."""

    amount: Unsigned

    def check(self, context: Context) -> Code:
        """AMOUNT_ZERO, BALANCE_INSUFFICIENT."""
        return _check_spendable(context, self.amount)

    def effect(self, context: Context) -> None:
        """available → stake."""
        money.lock_stake(context.state, context.account, self.amount)
        nodes.refresh_weight(context.state, context.account)


class Unstake(Operation, tag=3, frozen=True):
    """Take stake back, while nothing is undecided that it stands for."""

    amount: Unsigned

    def check(self, context: Context) -> Code:
        """AMOUNT_ZERO, STAKE_INSUFFICIENT, STAKE_LOCKED."""
        if self.amount == 0:
            return Code.AMOUNT_ZERO
        if money.stake(context.state, context.account) < self.amount:
            return Code.STAKE_INSUFFICIENT
        node = context.state.get_node(context.account)
        if node is not None and (node.running > 0 or node.undecided > 0):
            return Code.STAKE_LOCKED
        return Code.OK

    def effect(self, context: Context) -> None:
        """stake → available."""
        money.unlock_stake(context.state, context.account, self.amount)
        nodes.refresh_weight(context.state, context.account)


class Mint(Operation, tag=4, frozen=True):
    """Make units, by governance."""

    recipient: Key
    amount: Unsigned

    def check(self, context: Context) -> Code:
        """NOT_GOVERNANCE, AMOUNT_ZERO, AMOUNT_OVERFLOW."""
        if not context.is_governance:
            return Code.NOT_GOVERNANCE
        if self.amount == 0:
            return Code.AMOUNT_ZERO
        if not money.is_mintable(context.state, self.amount):
            return Code.AMOUNT_OVERFLOW
        return Code.OK

    def effect(self, context: Context) -> None:
        """nothing → available."""
        money.mint(context.state, self.recipient, self.amount)

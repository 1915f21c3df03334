"""Telling a rejected operation from a transaction that only has to be signed again."""

from __future__ import annotations

from vcp_cluster.cluster.door.problems import Problem
from vcp_cluster.cluster.errors import InvalidTransaction, VcpError
from vcp_cluster.ledger.codes import Code

# Codes below are of the envelope (`ledger.codes`): the operation itself was not looked at, and a
# new envelope may well carry it.
_FIRST_OF_OPERATIONS = Code.NOT_A_MEMBER


def get_rejection(error: VcpError | Problem) -> Code | None:
    """The code with which an operation was rejected, by the ledger or by admission.

    None when nothing is said about the operation: no answer, no leader, an expired envelope.
    """
    if isinstance(error, InvalidTransaction):
        code = error.code
    elif isinstance(error, Problem) and error.status == 422:
        code = Code.__members__.get(error.code.upper(), Code.OK)
    else:
        return None
    return code if code >= _FIRST_OF_OPERATIONS else None

"""Errors of the HTTP API: one document for each, with what failed, why, and what to do next."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

from vcp_cluster.ledger.codes import CODE_MEANINGS, Code


class Problem(Exception):
    """An answer that is not success. `code` is a stable word, `next_step` is for people."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        next_step: str = "",
        retry_after_ms: int | None = None,
        index: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.next_step = next_step
        self.retry_after_ms = retry_after_ms
        self.index = index

    def document(self) -> dict[str, Any]:
        """The body of the answer."""
        return {
            "schema": "vcp/error/v1",
            "error": {
                "code": self.code,
                "message": str(self),
                "next": self.next_step,
                "retry_after_ms": self.retry_after_ms,
                "index": self.index,
            },
        }


def json_response(document: Any, status: int = 200) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def bad_request(message: str, next_step: str = "see docs/http-api.md") -> Problem:
    """The request itself is wrong."""
    return Problem(400, "bad_request", message, next_step=next_step)


def not_found(what: str, identity: str) -> Problem:
    """There is no such object."""
    return Problem(404, "not_found", f"no {what} {identity}", next_step=f"list the {what}s")


def refused(code: Code, index: int) -> Problem:
    """Admission refused a transaction of the request; nothing of the request was taken."""
    meaning, _, advice = CODE_MEANINGS[code].partition("; ")
    return Problem(422, code.name.lower(), meaning, next_step=advice, index=index)


def no_leader() -> Problem:
    """Nobody leads at this moment; nothing was sent."""
    return Problem(
        503,
        "no_leader",
        "no leader is known at this moment; nothing was sent",
        next_step="send the same bytes again",
        retry_after_ms=200,
    )


def unavailable(message: str) -> Problem:
    """This member cannot serve now; nothing was sent."""
    return Problem(
        503,
        "unavailable",
        message,
        next_step="try again, or another member",
        retry_after_ms=500,
    )


def unknown(message: str) -> Problem:
    """The transaction was sent and not confirmed."""
    return Problem(
        504,
        "unknown",
        message,
        next_step="send the same bytes again, or look the transaction up by its id",
    )

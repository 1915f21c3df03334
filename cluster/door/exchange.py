"""One request to another member's door, with an end to how long and how much it answers.

The other members are not trusted with this process's memory or time: a time-out of the HTTP library
is for each read, and one byte a second would satisfy it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import httpx2


class AnswerTooLarge(Exception):
    """A member answers with more bytes than were asked for."""


async def exchange(
    client: httpx2.AsyncClient,
    method: str,
    url: str,
    *,
    content: bytes = b"",
    params: Mapping[str, str] | None = None,
    headers: Mapping[str, str] | None = None,
    timeout_s: float,
    connect_s: float,
    bytes_max: int,
) -> tuple[int, bytes]:
    """(status, body) of an answer of at most `bytes_max` bytes within `timeout_s` in all.

    Raises `httpx2.HTTPError`, `TimeoutError` and `AnswerTooLarge`.
    """
    answer = bytearray()
    async with (
        asyncio.timeout(timeout_s),
        client.stream(
            method,
            url,
            content=content,
            params=params,
            # Not compressed: a few bytes could else stand for any number of them.
            headers={**(headers or {}), "Accept-Encoding": "identity"},
            timeout=httpx2.Timeout(timeout_s, connect=connect_s),
        ) as response,
    ):
        async for piece in response.aiter_raw():
            answer += piece
            if len(answer) > bytes_max:
                raise AnswerTooLarge(f"more than {bytes_max} bytes")
    return response.status_code, bytes(answer)

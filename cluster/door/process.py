"""The door process of a member: HTTP API and the services behind it, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from contextlib import AsyncExitStack

import httpx2
import uvicorn
from starlette.applications import Starlette

from vcp_cluster.cluster.addresses import HTTP_OFFSET
from vcp_cluster.cluster.directory import MemberDirectory
from vcp_cluster.cluster.door.admission import Admission
from vcp_cluster.cluster.door.app import Api, build_app
from vcp_cluster.cluster.door.ledger import LinkReader, MemberLedger
from vcp_cluster.cluster.door.queries import Queries
from vcp_cluster.cluster.door.status import Status
from vcp_cluster.cluster.door.submission import Submission
from vcp_cluster.cluster.link import LinkClosed, RaftLink

LINK_TIMEOUT_S = 30.0
LINK_RETRY_S = 0.05
EXIT_CANNOT_START = 1
EXIT_LINK_LOST = 70
CONNECTIONS_MAX = 1_024
SHUTDOWN_S = 3

logger = logging.getLogger(__name__)


class PortInUse(Exception):
    """The HTTP port cannot be bound; the message names it."""


def run_door_process(member: MemberDirectory) -> int:
    """Serve until SIGTERM; returns the exit code."""
    try:
        return asyncio.run(_run(member))
    except (PortInUse, LinkClosed) as error:
        logger.error("%s", error)
        return EXIT_CANNOT_START


async def _run(directory: MemberDirectory) -> int:
    listener = _bind(directory)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        link = await _connect(directory)
        stack.push_async_callback(link.close)
        peers = await stack.enter_async_context(
            httpx2.AsyncClient(limits=httpx2.Limits(max_connections=64))
        )
        admission = Admission(LinkReader(link, directory.genesis))
        stack.callback(admission.close)
        submission = Submission(link, admission, directory.genesis, peers)
        member = next(m for m in directory.genesis.members if m.key == directory.key)
        ledger = MemberLedger(link, directory.genesis, member, directory.seed, submission)
        queries = Queries(ledger)
        status = Status(link, queries, directory.genesis, member, peers)
        app = build_app(Api(queries, submission, status).routes())
        return await _serve(app, listener, link)


def _bind(directory: MemberDirectory) -> socket.socket:
    """Bind exactly the address of genesis, before anything else is started."""
    port = directory.port + HTTP_OFFSET
    host = directory.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(CONNECTIONS_MAX)
    except OSError as error:
        listener.close()
        raise PortInUse(
            f"cannot listen on {directory.host}:{port} (HTTP): {error.strerror}. "
            "Next: stop what uses the port, or correct the member's address"
        ) from None
    listener.setblocking(False)
    return listener


async def _connect(directory: MemberDirectory) -> RaftLink:
    """Connect to the Raft process, which may still be starting."""
    deadline = time.monotonic() + LINK_TIMEOUT_S
    while True:
        try:
            return await RaftLink.connect(directory.socket_path, LINK_TIMEOUT_S)
        except LinkClosed:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(LINK_RETRY_S)


async def _serve(app: Starlette, listener: socket.socket, link: RaftLink) -> int:
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        limit_concurrency=CONNECTIONS_MAX,
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=75,
        server_header=False,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    lost = asyncio.create_task(link.wait_closed())
    await asyncio.wait((serving, lost), return_when=asyncio.FIRST_COMPLETED)
    is_lost = not serving.done()
    if is_lost:
        logger.error("the Raft process is gone; the door closes with it")
        server.should_exit = True
    lost.cancel()
    await asyncio.gather(serving, lost, return_exceptions=True)
    return EXIT_LINK_LOST if is_lost else 0

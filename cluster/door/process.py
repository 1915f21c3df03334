"""The door process of a member: HTTP API and the services behind it, on one event loop."""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import time
from collections.abc import Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any

import httpx2
import uvicorn
from starlette.types import ASGIApp

from vcp_cluster.cluster.addresses import HTTP_OFFSET
from vcp_cluster.cluster.anchors.bitcoin.service import open_anchorers
from vcp_cluster.cluster.anchors.notary import NotaryKeeper
from vcp_cluster.cluster.directory import MemberDirectory
from vcp_cluster.cluster.door.admission import Admission
from vcp_cluster.cluster.door.anchor_routes import AnchorApi
from vcp_cluster.cluster.door.app import Api, build_app
from vcp_cluster.cluster.door.blobs import BlobService, BlobStore
from vcp_cluster.cluster.door.connections import (
    CONNECTIONS_MAX,
    BoundedProtocol,
    allow_connections,
)
from vcp_cluster.cluster.door.ledger import LinkReader, MemberLedger
from vcp_cluster.cluster.door.peers import Peers
from vcp_cluster.cluster.door.queries import Queries
from vcp_cluster.cluster.door.service_routes import ServiceApi
from vcp_cluster.cluster.door.sessions import Sessions
from vcp_cluster.cluster.door.settler import Settler
from vcp_cluster.cluster.door.status import Status
from vcp_cluster.cluster.door.submission import Submission
from vcp_cluster.cluster.door.traffic import Traffic
from vcp_cluster.cluster.door.verifier import Verifier
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.cluster.link import LinkClosed, RaftLink

LINK_TIMEOUT_S = 30.0
LINK_RETRY_S = 0.05
EXIT_OK = 0
EXIT_CANNOT_START = 1
EXIT_INTERNAL = 70
SHUTDOWN_S = 3

logger = logging.getLogger(__name__)


class PortInUse(Exception):
    """The HTTP port cannot be bound; the message names it."""


def run_door_process(member: MemberDirectory) -> int:
    """Serve until SIGTERM; returns the exit code."""
    try:
        return asyncio.run(_run(member))
    except (PortInUse, LinkClosed, ConfigError) as error:
        logger.error("%s", error)
        return EXIT_CANNOT_START
    except OSError as error:
        # Its services report what fails later; here it is the directory that cannot be used.
        logger.error(
            "cannot use %s: %s. Next: check owner, permissions and free space",
            error.filename or member.path,
            error.strerror,
        )
        return EXIT_CANNOT_START


async def _run(directory: MemberDirectory) -> int:
    """Wire the parts together; each is closed in the reverse order."""
    allow_connections()
    listener = _bind(directory)
    genesis = directory.genesis
    member = next(one for one in genesis.members if one.key == directory.key)
    async with AsyncExitStack() as stack:
        stack.callback(listener.close)
        link = await _connect(directory)
        stack.push_async_callback(link.close)
        # Members talk to one another directly: a proxy of the environment is not for them.
        doors = await stack.enter_async_context(
            httpx2.AsyncClient(trust_env=False, limits=httpx2.Limits(max_connections=64))
        )
        admission = Admission(LinkReader(link, genesis))
        stack.callback(admission.close)
        submission = Submission(link, admission, genesis, doors)
        ledger = MemberLedger(link, genesis, member, directory.seed, submission)
        queries = Queries(ledger)
        status = Status(link, queries, genesis, member, doors)
        peers = Peers(genesis, member, directory.seed)
        stack.push_async_callback(peers.close)
        parameters = genesis.parameters
        store = BlobStore(
            directory.blobs_path,
            blob_bytes_max=max(
                parameters.module_bytes_max,
                parameters.input_bytes_max,
                parameters.output_bytes_max,
            ),
        )
        blobs = BlobService(store, ledger, peers)
        stack.push_async_callback(blobs.close)
        sessions = Sessions(ledger, directory.path / "sessions")
        keeper = NotaryKeeper(directory.path / "notary.json", ledger)
        settler = Settler(ledger, peers, keeper)
        verifier = Verifier(ledger, blobs)
        anchorers = open_anchorers(directory.path, ledger, stack)
        app = Traffic(
            build_app(
                [
                    *Api(queries, submission, status).routes(),
                    *AnchorApi(ledger).routes(),
                    *ServiceApi(genesis, blobs, sessions, keeper).routes(),
                ]
            )
        )
        services = [blobs.run(), sessions.run(), settler.run(), verifier.run(), *anchorers]
        return await _serve(app, listener, link, services)


def _bind(directory: MemberDirectory) -> socket.socket:
    """Bind exactly the address of genesis, before anything else is started."""
    port = directory.port + HTTP_OFFSET
    host = directory.host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Named TCP, or asyncio leaves Nagle's delay on: 40 ms on every second small answer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
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
    """Connect to the Raft process, however long it takes to start: after a loss of power it applies
    its journal again. Should it end instead, the member ends this process too."""
    tell_s = time.monotonic() + LINK_TIMEOUT_S
    while True:
        try:
            return await RaftLink.connect(directory.socket_path, LINK_TIMEOUT_S)
        except LinkClosed:
            if time.monotonic() > tell_s:
                tell_s = math.inf
                logger.warning("waiting for the Raft process, which is not ready yet")
            await asyncio.sleep(LINK_RETRY_S)


async def _serve(
    app: ASGIApp,
    listener: socket.socket,
    link: RaftLink,
    services: Sequence[Coroutine[Any, Any, None]],
) -> int:
    """Serve until SIGTERM, until the Raft process is gone, or until a service has a defect."""
    config = uvicorn.Config(
        app,
        http=BoundedProtocol,
        ws="none",
        log_config=None,
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=SHUTDOWN_S,
        timeout_keep_alive=75,
        server_header=False,
    )
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    running = [asyncio.create_task(service) for service in services]
    lost = asyncio.create_task(link.wait_closed())
    done, _ = await asyncio.wait((serving, lost, *running), return_when=asyncio.FIRST_COMPLETED)
    code = EXIT_OK
    if serving not in done:
        code = EXIT_INTERNAL
        for task in done - {lost}:
            logger.error("a service ended", exc_info=task.exception())
        if lost in done:
            logger.error("the Raft process is gone; the door closes with it")
        server.should_exit = True
    for task in (lost, *running):
        task.cancel()
    await asyncio.gather(serving, lost, *running, return_exceptions=True)
    return code

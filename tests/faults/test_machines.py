"""Real members whose machines lose power and whose disks fail, under load."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from vcp_cluster.cluster.link import LinkError, Unknown
from vcp_cluster.cluster.raft.engine import EXIT_FAIL_STOP

from ..cluster.raft_cluster import until
from .faulty_member import STALL_S
from .power_cluster import PowerCluster, running_power_cluster

pytestmark = pytest.mark.cluster

CLIENTS = 8


class Load:
    """Clients that write all the time, and what became of their transactions."""

    def __init__(self, cluster: PowerCluster) -> None:
        self.acknowledged: list[bytes] = []
        self.unsure: list[bytes] = []
        self._cluster = cluster
        self._is_done = False
        self._rng = random.Random(11)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Writes until the block ends."""
        clients = [asyncio.create_task(self._write(client)) for client in range(CLIENTS)]
        try:
            yield
        finally:
            self._is_done = True
            await asyncio.gather(*clients)

    async def _write(self, client: int) -> None:
        sent = 0
        while not self._is_done:
            with contextlib.suppress(LinkError):
                async with self._cluster.link(await self._cluster.leader()) as link:
                    while not self._is_done:
                        sent += 1
                        content = self._rng.randbytes(self._rng.choice([10, 300, 20_000]))
                        transaction = b"%d %d " % (client, sent) + content
                        try:
                            await link.submit([transaction], 3)
                            self.acknowledged.append(transaction)
                        except Unknown:
                            self.unsure.append(transaction)
                            raise

    async def progress(self) -> None:
        """Wait until writes that came after now are acknowledged."""
        target = len(self.acknowledged) + 4 * CLIENTS

        async def look() -> bool | None:
            return len(self.acknowledged) >= target or None

        await until(look)

    async def check(self) -> None:
        """All running members hold every acknowledged transaction once, and no other twice."""
        await self._cluster.same_state()
        for name in self._cluster.processes:
            applied = await self._cluster.applied(name, self.acknowledged)
            assert applied == [1] * len(self.acknowledged)
            assert set(await self._cluster.applied(name, self.unsure)) <= {0, 1}


async def exit_code(cluster: PowerCluster, name: str) -> int:
    """Wait for the member to end by itself."""
    process = cluster.processes[name]

    async def look() -> int | None:
        return process.poll()

    code = await until(look)
    del cluster.processes[name]
    return code


def test_power_cuts_under_load_lose_nothing_and_double_nothing(tmp_path: Path) -> None:
    async def scenario(cluster: PowerCluster) -> None:
        load = Load(cluster)
        async with load.running():
            await load.progress()
            for victim in ("all", "leader", "all", "follower", "all"):
                leader = await cluster.leader()
                followers = [name for name in cluster.members if name != leader]
                names = {"all": [*cluster.members], "leader": [leader], "follower": followers[:1]}
                cluster.kill(*names[victim])
                cluster.start(*names[victim])
                await load.progress()
        await load.check()
        state = await cluster.same_state()
        cluster.kill()
        cluster.start()
        assert await cluster.same_state(height_min=state[0]) == state

    with running_power_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))
        logs = [cluster.log(name) for name in cluster.members]
        assert all("it is rebuilt from the journal" in log for log in logs)
        assert all("stopped:" not in log for log in logs)


@pytest.mark.parametrize("victim", ["leader", "follower"])
@pytest.mark.parametrize("fault", ["EIO", "ENOSPC"])
def test_a_failing_sync_stops_the_member_and_nothing_is_lost(
    tmp_path: Path, victim: str, fault: str
) -> None:
    async def scenario(cluster: PowerCluster) -> None:
        load = Load(cluster)
        async with load.running():
            await load.progress()
            leader = await cluster.leader()
            name = leader if victim == "leader" else min(set(cluster.members) - {leader})
            cluster.set_fault(name, fault)
            assert await exit_code(cluster, name) == EXIT_FAIL_STOP
            await load.progress()
            cluster.clear_fault(name)
            cluster.start(name)
            await load.progress()
        await load.check()
        assert "stopped: journal" in cluster.log(name)
        assert "the disk failed (" in cluster.log(name)
        assert "Traceback" not in cluster.log(name)

    with running_power_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


def test_a_disk_that_does_not_answer_stops_the_member(tmp_path: Path) -> None:
    async def scenario(cluster: PowerCluster) -> None:
        load = Load(cluster)
        async with load.running():
            await load.progress()
            name = await cluster.leader()
            cluster.set_fault(name, "hold")
            assert await exit_code(cluster, name) == EXIT_FAIL_STOP
            assert f"an fdatasync has not returned for {STALL_S:g} s" in cluster.log(name)
            await load.progress()
            cluster.clear_fault(name)
            cluster.start(name)
        await load.check()

    with running_power_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))


def test_nothing_is_acknowledged_before_a_majority_of_disks_has_it(tmp_path: Path) -> None:
    """Both followers have the entry and wait for their disks; then one of the disks answers."""

    async def scenario(cluster: PowerCluster) -> None:
        leader = await cluster.leader()
        followers = sorted(set(cluster.members) - {leader})
        async with cluster.link(leader) as link:
            await link.submit([b"before"], 5)
            before = (await link.status())["commit_index"]
            for name in followers:
                cluster.set_fault(name, "hold")
            submitting = asyncio.create_task(link.submit([b"held"], 10))

            async def held() -> bool | None:
                return all(cluster.held_file(name).exists() for name in followers) or None

            await until(held)
            status = await link.status()
            assert (status["role"], status["commit_index"]) == ("leader", before)
            assert not submitting.done()
            cluster.clear_fault(followers[0])
            assert len(await submitting) == 1
            cluster.clear_fault(followers[1])
        await cluster.same_state()

    with running_power_cluster(tmp_path) as cluster:
        asyncio.run(scenario(cluster))

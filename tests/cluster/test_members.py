"""Real members, real kills: what was acknowledged stays, and takes effect once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.directory import ClientDirectory
from vcp_cluster.cluster.errors import Unavailable, UnknownOutcome
from vcp_cluster.cluster.local import LocalCluster
from vcp_cluster.ledger.keys import public_key
from vcp_cluster.ledger.operations import Transfer

pytestmark = pytest.mark.cluster

ROUNDS = 3
WRITERS = 6


@contextmanager
def running_cluster(directory: Path, *, start: bool = True) -> Iterator[LocalCluster]:
    """Three members on loopback, stopped at the end."""
    with LocalCluster.create(directory, members=3, cluster_name="test") as cluster:
        if start:
            cluster.start_members()
            cluster.wait_ready()
        yield cluster


def open_client(cluster: LocalCluster, **options: Any) -> Client:
    """The funded client's."""
    directory = ClientDirectory.load(cluster.client_directory)
    return Client(cluster.endpoints, seed=directory.seed, genesis=directory.genesis, **options)


def account_of(number: int) -> bytes:
    """A recipient that nobody has the key of."""
    return public_key(number.to_bytes(32, "big"))


def wait_for_agreement(cluster: LocalCluster, client: Client) -> dict[str, Any]:
    """The status once all members have applied the same height; their roots must be equal."""
    seen: list[dict[str, Any]] = []

    def agree() -> bool:
        seen.append(client.status())
        members = seen[-1]["members"]
        return len({member["height"] for member in members}) == 1 and None not in {
            member["height"] for member in members
        }

    cluster.wait_until(agree, "all members to apply the same height")
    status = seen[-1]
    assert status["is_agreed"]
    assert len({member["state_root"] for member in status["members"]}) == 1
    assert status["supply"]["minted"] == status["supply"]["accounted"]
    return status


def test_members_start_in_any_order_and_one_comes_late(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c", start=False) as cluster:
        cluster.start_member("c")
        cluster.start_member("a")
        cluster.wait_ready("a", "c")
        with open_client(cluster) as client:
            for number in range(20):
                client.transfer(account_of(1), 1 + number)
            assert client.status()["members"][1]["role"] == "unreachable"
            cluster.start_member("b")
            cluster.wait_ready("b")
            status = wait_for_agreement(cluster, client)
            assert status["height"] >= 20
            assert client.account(account_of(1))["available"] == str(sum(range(1, 21)))


def test_without_a_majority_nothing_is_taken_and_nothing_is_lost(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c") as cluster:
        with open_client(cluster) as client:
            client.transfer(account_of(1), 5)
        cluster.kill("a", "b")
        with (
            open_client(cluster, timeout_s=3.0) as client,
            pytest.raises((Unavailable, UnknownOutcome)),
        ):
            client.transfer(account_of(1), 7)
        cluster.start_member("a")
        cluster.wait_ready("a", "c")
        with open_client(cluster) as client:
            client.transfer(account_of(2), 1)
            # The transfer whose outcome was unknown happened once or not at all.
            assert client.account(account_of(1))["available"] in ("5", "12")


def test_any_member_and_all_members_are_killed_and_come_back_the_same(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c") as cluster, open_client(cluster) as client:
        sent = 0
        for name in cluster.names:
            for _ in range(10):
                client.transfer(account_of(1), 1)
                sent += 1
            cluster.kill(name)
            client.transfer(account_of(1), 1)
            sent += 1
            cluster.start_member(name)
            cluster.wait_ready(name)
        before = wait_for_agreement(cluster, client)
        cluster.kill(*cluster.names)
        cluster.start_members()
        cluster.wait_ready()
        after = wait_for_agreement(cluster, client)
        assert after["height"] >= before["height"]
        if after["height"] == before["height"]:
            assert after["state_root"] == before["state_root"]
        assert client.account(account_of(1))["available"] == str(sent)
        assert after["supply"] == before["supply"]


class Writer(threading.Thread):
    """Sends transfers of 1 unit until it is stopped, and counts what was acknowledged."""

    def __init__(self, cluster: LocalCluster, number: int) -> None:
        super().__init__(daemon=True)
        self.recipient = account_of(100 + number)
        self.acknowledged: list[bytes] = []
        self.unknown = 0
        self.stop = threading.Event()
        self._client = open_client(cluster, timeout_s=20.0)

    def run(self) -> None:
        with self._client:
            while not self.stop.is_set():
                try:
                    receipt = self._client.submit(Transfer(self.recipient, 1))
                except (UnknownOutcome, Unavailable):
                    self.unknown += 1
                    continue
                self.acknowledged.append(receipt.tx_id)


def test_the_leader_is_killed_while_clients_write(tmp_path: Path) -> None:
    with running_cluster(tmp_path / "c") as cluster, open_client(cluster) as client:
        writers = [Writer(cluster, number) for number in range(WRITERS)]
        for writer in writers:
            writer.start()
        for _ in range(ROUNDS):
            counts = [len(writer.acknowledged) for writer in writers]
            cluster.wait_until(
                lambda counts=counts: all(
                    len(writer.acknowledged) > count + 10
                    for writer, count in zip(writers, counts, strict=True)
                ),
                "every writer to make progress",
                60,
            )
            leader = client.status()["leader"]
            assert leader is not None
            cluster.kill(leader)
            cluster.start_member(leader)
            cluster.wait_ready()
        for writer in writers:
            writer.stop.set()
        for writer in writers:
            writer.join(30)
            assert not writer.is_alive()
        wait_for_agreement(cluster, client)
        for writer in writers:
            for tx_id in writer.acknowledged:
                assert client.transaction(tx_id)["receipt"]["code"] == "ok"
            received = int(client.account(writer.recipient)["available"])
            # Acknowledged once each; one whose outcome stayed unknown is there once or not.
            assert len(writer.acknowledged) <= received
            assert received <= len(writer.acknowledged) + writer.unknown
            assert len(set(writer.acknowledged)) == len(writer.acknowledged)

"""A cluster that several tests of one module share: three members, no workers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from vcp_cluster.cluster.client import Client
from vcp_cluster.cluster.directory import ClientDirectory
from vcp_cluster.cluster.local import LocalCluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    """Three members that agree on a leader."""
    directory: Path = tmp_path_factory.mktemp("cluster") / "c"
    with LocalCluster.create(directory, members=3, cluster_name="test") as cluster:
        cluster.start_members()
        cluster.wait_ready()
        yield cluster


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    """The funded client's."""
    directory = ClientDirectory.load(cluster.client_directory)
    with Client(cluster.endpoints, seed=directory.seed, genesis=directory.genesis) as client:
        yield client

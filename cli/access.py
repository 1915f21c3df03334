"""Which cluster a command talks to, and with which key.

The cluster: `--cluster`, then VCP_CLUSTER, then `--dir`, then the profile. The key: `--key`, then
the directory's, then the profile's. A genesis that is at hand goes to the client, which then
recognises another cluster at the same address.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from vcp_cluster.cli.output import Output

if TYPE_CHECKING:
    from vcp_cluster.cluster.client import Client
    from vcp_cluster.cluster.directory import ClientDirectory, MemberDirectory
    from vcp_cluster.cluster.profile import Profile
    from vcp_cluster.ledger.genesis import Genesis


@dataclass(frozen=True)
class Access:
    """What was given on the command line, and how to reach a cluster with it.

    `cluster` is the flag's or the variable's value. `timeout_ms` is how long to try to reach the
    cluster, `wait_ms` how long to wait for a task; `--timeout` sets both.
    """

    output: Output
    cluster: str | None
    directory: Path | None
    key_file: Path | None
    timeout_ms: int
    wait_ms: int

    def open_client(self, *, is_signing: bool = False) -> Client:
        """A client of the cluster, with a key if the command signs; raise `ConfigError`."""
        from vcp_cluster.cluster.client import Client

        return Client(
            self.get_endpoints(),
            seed=self.load_seed() if is_signing else None,
            genesis=self._get_genesis(),
            timeout_s=self.timeout_ms / 1000,
        )

    def get_endpoints(self) -> str:
        """Comma list of HTTP doors; raise `ConfigError` when nothing names a cluster."""
        if self.cluster is not None:
            return self.cluster
        if self._opened is not None:
            return self._opened.endpoints
        if self._profile is not None:
            return self._profile.cluster
        from vcp_cluster.cluster.errors import ConfigError

        raise ConfigError(
            "nothing says which cluster to talk to",
            key="cluster",
            origin="no --cluster, VCP_CLUSTER, --dir or profile",
            hint="give --cluster http://HOST:7101, or start one here with `vcp-cluster dev`",
        )

    def load_seed(self) -> bytes:
        """The seed that signs; raise `ConfigError` when there is none."""
        from vcp_cluster.cluster.directory import CLIENT_KEY_FILE, load_seed
        from vcp_cluster.cluster.errors import ConfigError

        if self.key_file is not None:
            return load_seed(self.key_file)
        if self._opened is not None:
            return self._opened.seed
        if self._profile is not None:
            return load_seed(Path(self._profile.directory) / CLIENT_KEY_FILE)
        raise ConfigError(
            "this command signs, and no key is given",
            key="key",
            origin="no --key, --dir or profile",
            hint="give --key FILE, or the --dir of a client or member",
        )

    def _get_genesis(self) -> Genesis | None:
        """The genesis of a directory that was named, or of the profile if it names the cluster."""
        if self._opened is not None:
            return self._opened.genesis
        if self.cluster is not None or self._profile is None:
            return None
        from vcp_cluster.cluster.directory import GENESIS_FILE, load_genesis

        return load_genesis(Path(self._profile.directory) / GENESIS_FILE)

    @cached_property
    def _opened(self) -> MemberDirectory | ClientDirectory | None:
        if self.directory is None:
            return None
        from vcp_cluster.cluster.directory import load_directory

        return load_directory(self.directory)

    @cached_property
    def _profile(self) -> Profile | None:
        from vcp_cluster.cluster.profile import read_profile

        return read_profile()

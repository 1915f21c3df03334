"""The directories that `init` makes, and what a member or a client reads from its own.

    DIR/genesis.json            what all members share; its hash is the chain id
    DIR/governance.key          may mint; belongs to the operators, not on a member's machine
    DIR/ca.key                  makes certificates of members; belongs there too
    DIR/ca.crt                  its certificate
    DIR/<member>/genesis.json   a copy
                 member.key     the member's Ed25519 seed
                 ca.crt         the CA's certificate
                 tls.pem        key and certificate of the links between members
                 store/ journal/ blobs/ run/    made by the member
    DIR/client/genesis.json     a copy
               client.key       an account with an allocation

A key file is one line of 64 hexadecimal digits (32 bytes) with mode 0600; `tls.pem` is PEM with the
same mode. A wider mode is refused: a key that others could read is not a key any more.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vcp_cluster.cluster.addresses import NATIVE_OFFSET, http_url, split_address
from vcp_cluster.cluster.config_files import read_file, read_secret_file, write_new, wrong_file
from vcp_cluster.cluster.errors import ConfigError
from vcp_cluster.ledger.anchor_settings import AnchorSettings, default_anchors
from vcp_cluster.ledger.encoding import Malformed, encode
from vcp_cluster.ledger.genesis import (
    UNITS_PER_VCP,
    Allocation,
    Genesis,
    GenesisInvalid,
    Governance,
    Member,
    Parameters,
    decode_genesis,
    default_parameters,
    from_document,
    to_document,
)
from vcp_cluster.ledger.keys import hash_content, public_key

GENESIS_FILE = "genesis.json"
MEMBER_KEY_FILE = "member.key"
CLIENT_KEY_FILE = "client.key"
AUTHORITY_KEY_FILE = "ca.key"
AUTHORITY_FILE = "ca.crt"
TLS_FILE = "tls.pem"
GOVERNANCE_KEY_FILE = "governance.key"
CLIENT_DIRECTORY = "client"

SEED_BYTES = 32
CLIENT_ALLOCATION = 1_000_000 * UNITS_PER_VCP
GENESIS_FILE_BYTES_MAX = 4 << 20
# `struct sockaddr_un` holds 107 on Linux and 103 elsewhere.
SOCKET_PATH_BYTES_MAX = 99

INIT_LINE = "vcp-cluster init --members a=HOST:PORT,b=HOST:PORT,c=HOST:PORT --dir DIR"

_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\]")
_EVERY_INTERFACE = ("0.0.0.0", "[::]")


@dataclass(frozen=True)
class MemberDirectory:
    """What a member needs to start. `peers` are the other members: name to HOST:PORT."""

    path: Path
    genesis: Genesis
    name: str
    seed: bytes
    key: bytes
    address: str
    host: str
    port: int
    peers: dict[str, str]

    @classmethod
    def load(cls, path: Path) -> MemberDirectory:
        """Read and check a member's directory; raise `ConfigError`."""
        path = path.resolve()
        genesis = load_genesis(path / GENESIS_FILE)
        seed = load_seed(path / MEMBER_KEY_FILE)
        key = public_key(seed)
        member = next((one for one in genesis.members if one.key == key), None)
        if member is None:
            raise ConfigError(
                "it is not the key of a member of genesis.json",
                key=MEMBER_KEY_FILE,
                origin=str(path / MEMBER_KEY_FILE),
                hint="put genesis.json and member.key of one `vcp-cluster init` together again",
            )
        host, port = split_address(member.address)
        return cls(
            path=path,
            genesis=genesis,
            name=member.name,
            seed=seed,
            key=key,
            address=member.address,
            host=host,
            port=port,
            peers={one.name: one.address for one in genesis.members if one.key != key},
        )

    @property
    def tls_path(self) -> Path:
        """Key and certificate of the links to other members."""
        return self.path / TLS_FILE

    @property
    def authority_path(self) -> Path:
        """The certificate of the CA that the other members' certificates are of."""
        return self.path / AUTHORITY_FILE

    @property
    def store_path(self) -> Path:
        """Directory of the LevelDB store."""
        return self.path / "store"

    @property
    def journal_path(self) -> Path:
        """Directory of the Raft journal."""
        return self.path / "journal"

    @property
    def blobs_path(self) -> Path:
        """Directory of modules, inputs and outputs."""
        return self.path / "blobs"

    @cached_property
    def socket_path(self) -> Path:
        """Where the Raft process listens: always the same for one directory.

        A Unix socket's path is short by nature. Where the directory's is too long, the socket is
        in the user's own directory under /tmp, named by the hash of the directory's path; who
        listens there checks that the directory belongs to the user alone.
        """
        path = self.path / "run" / "raft.sock"
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES_MAX:
            return path
        name = hash_content(os.fsencode(self.path)).hex()[:16]
        return Path("/tmp") / f"vcp-cluster-{os.getuid()}" / f"{name}.sock"

    @property
    def endpoints(self) -> str:
        """The HTTP doors of all members, as `--cluster` takes them."""
        return endpoints_of(self.genesis)


@dataclass(frozen=True)
class ClientDirectory:
    """What a client needs to find its cluster, check it and sign."""

    path: Path
    genesis: Genesis
    seed: bytes
    key: bytes

    @classmethod
    def load(cls, path: Path) -> ClientDirectory:
        """Read and check a client's directory; raise `ConfigError`."""
        path = path.resolve()
        genesis = load_genesis(path / GENESIS_FILE)
        seed = load_seed(path / CLIENT_KEY_FILE)
        return cls(path=path, genesis=genesis, seed=seed, key=public_key(seed))

    @property
    def endpoints(self) -> str:
        """The HTTP doors of all members, as `--cluster` takes them."""
        return endpoints_of(self.genesis)


def load_directory(path: Path) -> MemberDirectory | ClientDirectory:
    """The directory of a member or of a client, whichever `path` is; raise `ConfigError`."""
    if (path / MEMBER_KEY_FILE).exists():
        return MemberDirectory.load(path)
    if (path / CLIENT_KEY_FILE).exists():
        return ClientDirectory.load(path)
    if (path / CLIENT_DIRECTORY / CLIENT_KEY_FILE).exists():
        hint = f"give --dir {path / CLIENT_DIRECTORY}, or the directory of a member in it"
    else:
        hint = f"make one: {INIT_LINE}"
    raise ConfigError(
        "it is not a directory of a member or a client", key="--dir", origin=str(path), hint=hint
    )


def endpoints_of(genesis: Genesis) -> str:
    """Comma list of the HTTP doors of a cluster's members."""
    return ",".join(http_url(member.address) for member in genesis.members)


def initialise(
    path: Path,
    members: Sequence[tuple[str, str, int]],
    *,
    cluster_name: str,
    created_ms: int,
    parameters: Parameters | None = None,
    anchors: AnchorSettings | None = None,
    client_allocation: int = CLIENT_ALLOCATION,
    certificate_days: int | None = None,
) -> Genesis:
    """Make the directories of a new cluster with new keys, and return its genesis.

    `members` are (name, host, Raft port); `created_ms` is the ledger time at height 0, milliseconds
    since 1970; `anchors` the notary alone by default; `client_allocation` the client account's
    first balance in units; `certificate_days` how long the members' certificates are valid, by
    default five years. An existing directory must be empty. Raises `ConfigError`; then nothing that
    could be taken for a cluster
    is left behind, since DIR/genesis.json is written last.
    """
    if parameters is None:
        # Only here: what reads a directory has no need of the executor.
        from vcp_cluster.executor.profile import PROFILE_ID

        parameters = default_parameters((PROFILE_ID,))
    _check_members(members)
    ordered = sorted(members)
    seeds = {name: secrets.token_bytes(SEED_BYTES) for name, _, _ in ordered}
    client_seed, governance_seed = (secrets.token_bytes(SEED_BYTES) for _ in range(2))
    genesis = _checked_genesis(
        Genesis(
            version=1,
            cluster_name=cluster_name,
            created_ms=created_ms,
            governance=Governance(threshold=1, keys=(public_key(governance_seed),)),
            members=tuple(
                Member(name, f"{host}:{port}", public_key(seeds[name]))
                for name, host, port in ordered
            ),
            parameters=parameters,
            anchors=anchors or default_anchors(),
            allocations=(Allocation(public_key(client_seed), client_allocation),),
        )
    )
    document = (json.dumps(to_document(genesis), indent=2) + "\n").encode()
    _make_empty(path)
    for name, seed in seeds.items():
        _make_directory(path / name)
        write_seed(path / name / MEMBER_KEY_FILE, seed)
        write_new(path / name / GENESIS_FILE, document, 0o644)
    _make_directory(path / CLIENT_DIRECTORY)
    write_seed(path / CLIENT_DIRECTORY / CLIENT_KEY_FILE, client_seed)
    write_new(path / CLIENT_DIRECTORY / GENESIS_FILE, document, 0o644)
    write_seed(path / GOVERNANCE_KEY_FILE, governance_seed)
    # Only here: what reads a directory has no need of certificates.
    from vcp_cluster.cluster.certificate_files import write_certificates

    write_certificates(path, genesis, seeds, days=certificate_days)
    write_new(path / GENESIS_FILE, document, 0o644)
    return genesis


def _check_members(members: Sequence[tuple[str, str, int]]) -> None:
    """Raise `ConfigError` for names, hosts and ports that no cluster could start with."""
    taken: dict[tuple[str, int], str] = {}
    for name, host, port in members:
        if name == CLIENT_DIRECTORY:
            raise _wrong_members(f"{name!r} is the client's directory", "choose another name")
        if not _HOST.fullmatch(host) or host in _EVERY_INTERFACE:
            message = f"{host!r} is not an address at which the other members reach {name}"
            raise _wrong_members(message, "give the host name or address of its machine")
        try:
            split_address(f"{host}:{port}")
        except ValueError as error:
            raise _wrong_members(str(error), "7100 is the usual port of a member") from None
        for used in range(port, port + NATIVE_OFFSET + 1):
            other = taken.setdefault((host.lower(), used), name)
            if other != name:
                raise _wrong_members(
                    f"{name} and {other} both need port {used} of {host}",
                    "a member takes three ports in a row: leave 3 between ports on one host",
                )


def _checked_genesis(genesis: Genesis) -> Genesis:
    """The genesis as every reader will decode it."""
    try:
        return decode_genesis(encode(genesis))
    except (Malformed, GenesisInvalid) as error:
        hint = "1 to 16 members, each with its own name of lower-case letters, digits and hyphens"
        raise _wrong_members(str(error), hint) from error


def _wrong_members(message: str, hint: str) -> ConfigError:
    return ConfigError(message, key="members", origin="init", hint=hint)


def _make_empty(path: Path) -> None:
    _make_directory(path)
    try:
        is_empty = next(path.iterdir(), None) is None
    except OSError as error:
        hint = "choose a directory that you may read"
        raise wrong_file(path, f"cannot read it: {error.strerror}", hint) from error
    if not is_empty:
        raise wrong_file(
            path, "it is not empty, and init overwrites nothing", "choose a new directory"
        )


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        hint = "choose a directory that you may write"
        raise wrong_file(path, f"cannot make it: {error.strerror}", hint) from error


def load_genesis(path: Path) -> Genesis:
    """Read and check a `genesis.json`; raise `ConfigError`."""
    data, _ = read_file(path, GENESIS_FILE_BYTES_MAX, if_missing=f"make a cluster: {INIT_LINE}")
    try:
        genesis = from_document(json.loads(data))
        for member in genesis.members:
            split_address(member.address)
    except (ValueError, RecursionError) as error:
        hint = "restore the file from another member of the cluster"
        raise wrong_file(path, str(error), hint) from None
    return genesis


def load_seed(path: Path) -> bytes:
    """The 32 bytes of a key file; raise `ConfigError`, also for a file that others can read."""
    hint = "check the path of the key"
    data = read_secret_file(path, 2 * SEED_BYTES + 1, if_missing=hint)
    text = data.decode("ascii", errors="replace").removesuffix("\n")
    if not re.fullmatch(r"[0-9A-Fa-f]{64}", text):
        message = "it is not one line of 64 hexadecimal digits"
        raise wrong_file(path, message, "give a key file that this program made")
    return bytes.fromhex(text)


def write_seed(path: Path, seed: bytes) -> None:
    """Write a new key file, mode 0600, and bring it to disk.

    Raises `ConfigError`, also when the file exists: no key is ever overwritten.
    """
    if len(seed) != SEED_BYTES:
        raise ValueError(f"a seed has {SEED_BYTES} bytes")
    write_new(path, f"{seed.hex()}\n".encode(), 0o600)

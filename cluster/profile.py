"""The profile: which cluster a command without flags talks to.

`init` and `dev` write it, for one user, to `$XDG_CONFIG_HOME/vcp-cluster/profile.json` (by default
`~/.config`). It holds no secret: it names the client directory where the key is.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from vcp_cluster.cluster.errors import ConfigError

PROFILE_BYTES_MAX = 64 * 1024


class Profile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A cluster: comma list of HTTP doors, the client's directory, 16 bytes of chain id in hex."""

    cluster: Annotated[str, Meta(min_length=1, max_length=4096)]
    directory: Annotated[str, Meta(min_length=1, max_length=4096)] = msgspec.field(name="dir")
    chain_id: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    schema: Literal["vcp/profile/v1"] = "vcp/profile/v1"


def profile_path() -> Path:
    """Where the user's profile is. Relative values of XDG_CONFIG_HOME count as unset, by XDG."""
    home = os.environ.get("XDG_CONFIG_HOME", "")
    base = Path(home) if os.path.isabs(home) else Path.home() / ".config"
    return base / "vcp-cluster" / "profile.json"


def read_profile() -> Profile | None:
    """The user's profile, or None when there is none; raise `ConfigError` for one that is wrong."""
    path = profile_path()
    try:
        with path.open("rb") as file:
            data = file.read(PROFILE_BYTES_MAX + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _wrong(path, f"cannot read it: {error.strerror}") from None
    if len(data) > PROFILE_BYTES_MAX:
        raise _wrong(path, f"it is larger than {PROFILE_BYTES_MAX} bytes")
    try:
        return msgspec.json.decode(data, type=Profile)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(path, f"it is not a profile: {error}") from None


def write_profile(profile: Profile) -> Path:
    """Replace the user's profile in one step, and return its path; raise `ConfigError`."""
    path = profile_path()
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix="profile.")
        try:
            with open(descriptor, "wb") as file:
                file.write(msgspec.json.format(msgspec.json.encode(profile), indent=2) + b"\n")
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise _wrong(path, f"cannot write it: {error.strerror}") from error
    return path


def remove_profile(profile: Profile) -> None:
    """Remove the user's profile if it is still this one: what another command wrote stays."""
    try:
        if read_profile() == profile:
            profile_path().unlink(missing_ok=True)
    except (ConfigError, OSError):
        return  # What cannot be read is not ours.


def _wrong(path: Path, message: str) -> ConfigError:
    return ConfigError(
        message,
        key="profile",
        origin=str(path),
        hint="remove the file, or give --cluster URL or --dir DIR",
    )

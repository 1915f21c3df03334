"""Files that commands read and write; `-` is standard input or output."""

from __future__ import annotations

import sys
from pathlib import Path

from vcp_cluster.cli.output import write_file


def read_input(path: Path, size_max: int, *, option: str) -> bytes:
    """All bytes of a file or of standard input, at most `size_max`; raise `ConfigError`."""
    from vcp_cluster.cluster.errors import ConfigError

    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(size_max + 1)
        else:
            with path.open("rb") as file:
                data = file.read(size_max + 1)
    except OSError as error:
        raise ConfigError(
            f"cannot read it: {error.strerror}",
            key=option,
            origin=str(path),
            hint="check the path and its permissions",
        ) from error
    if len(data) > size_max:
        raise ConfigError(
            f"it is larger than {size_max} bytes",
            key=option,
            origin=str(path),
            hint="give a smaller file",
        )
    return data


def write_out(path: Path, data: bytes) -> None:
    """Write the file that `--out` names; raise `ConfigError`."""
    from vcp_cluster.cluster.errors import ConfigError

    try:
        write_file(path, data)
    except OSError as error:
        raise ConfigError(
            f"cannot write it: {error.strerror}",
            key="--out",
            origin=str(path),
            hint="choose a file in a directory that you may write",
        ) from error

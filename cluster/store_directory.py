"""Who owns a store directory, and whether what is in it can be used.

<store>/OWNER       locked by the process that has the store open
<store>/SESSION     see `store_session`
<store>.untrusted   what could not be trusted, kept until the store is rebuilt
<store>.discarded   being removed
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path

import msgspec

from vcp_cluster.cluster.files import Files
from vcp_cluster.cluster.store_session import (
    SESSION_FORMAT,
    Session,
    SessionUnknown,
    is_trustworthy,
    read_session,
    write_session,
)

OWNER_FILE = "OWNER"

logger = logging.getLogger(__name__)


class InUse(Exception):
    """Another process has the store open."""


class NewerSchema(Exception):
    """Another release wrote the store; `schema` is its layout."""

    def __init__(self, schema: int) -> None:
        super().__init__(f"schema {schema}")
        self.schema = schema


@dataclass
class StoreDirectory:
    """A store directory that this process owns, with the session it began."""

    files: Files
    path: Path
    session: Session
    owner: int

    def note(self, *, durable_index: int, is_closed: bool) -> None:
        """Record that everything up to `durable_index` is on the disk. Raises OSError."""
        session = msgspec.structs.replace(
            self.session, durable_index=durable_index, is_closed=is_closed
        )
        write_session(self.files, self.path, session)
        self.session = session
        if durable_index >= session.floor_index:
            _discard(self.files, _aside(self.path))

    def release(self) -> None:
        """Let others open the store."""
        self.files.close(self.owner)


def claim_directory(files: Files, path: Path, *, boot_id: str, schema: int) -> StoreDirectory:
    """Own the directory `path`, made if it is missing; what cannot be trusted is set aside.

    `boot_id` names this boot of the machine, `schema` is the layout this release knows. Raises
    `InUse`, `NewerSchema`, OSError, and `SessionUnknown` when there is something in the directory
    that does not say what it is; nothing was changed then.
    """
    owner = _lock(files, path)
    try:
        session = _find_session(files, path)
        if session is None:
            session = _new_session(boot_id, schema, _known_index(files, _aside(path)))
        elif session.schema != schema:
            raise NewerSchema(session.schema)
        elif is_trustworthy(files, path, session, boot_id):
            session = msgspec.structs.replace(session, boot_id=boot_id, is_closed=False)
        else:
            logger.warning(
                "store %s was not closed before the machine stopped, and what is left of it cannot "
                "be trusted: it is rebuilt from the journal",
                path,
            )
            known_index = max(session.known_index, _known_index(files, _aside(path)))
            _set_aside(files, path)
            files.close(owner)
            owner = _lock(files, path)
            session = _new_session(boot_id, schema, known_index)
        write_session(files, path, session)
        files.fsync_directory(path.parent)
    except BaseException:
        files.close(owner)
        raise
    return StoreDirectory(files, path, session, owner)


def _lock(files: Files, path: Path) -> int:
    files.make_directory(path)
    owner = files.open(path / OWNER_FILE, create=True)
    try:
        files.lock(owner)
    except OSError as error:
        files.close(owner)
        if isinstance(error, BlockingIOError):
            raise InUse from error
        raise
    return owner


def _find_session(files: Files, path: Path) -> Session | None:
    """The session in the directory, None in one that was just made."""
    try:
        return read_session(files, path)
    except SessionUnknown:
        # A file SESSION.new is from a process killed before there was anything else.
        if any(name not in (OWNER_FILE, "SESSION.new") for name in files.names(path)):
            raise
        return None


def _new_session(boot_id: str, schema: int, floor_index: int) -> Session:
    return Session(SESSION_FORMAT, schema, boot_id, False, 0, floor_index)


def _known_index(files: Files, aside: Path) -> int:
    try:
        return read_session(files, aside).known_index
    except (FileNotFoundError, SessionUnknown):
        return 0


def _set_aside(files: Files, path: Path) -> None:
    """Move the store away, unless one is there already, which has more in it: this was a rebuild
    that was interrupted."""
    aside = _aside(path)
    if aside.is_dir():
        _discard(files, path)
    else:
        files.rename(path, aside)
        files.fsync_directory(path.parent)


def _discard(files: Files, path: Path) -> None:
    """Remove a directory that may be missing; what is half removed never has its old name."""
    discarded = path.with_name(path.name + ".discarded")
    if discarded.is_dir():
        shutil.rmtree(discarded)
    if path.is_dir():
        files.rename(path, discarded)
        files.fsync_directory(path.parent)
        shutil.rmtree(discarded)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + ".untrusted")

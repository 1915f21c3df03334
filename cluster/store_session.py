"""What a store directory says about how far its content can be trusted.

LevelDB writes are not synced, one after the other goes to the kernel. A killed process loses none
of them. Loss of power can lose any of them, and not only the newest: LevelDB begins a new log file
every 16 MiB, the kernel writes files in the order it likes, and zeros in the middle of a log are
skipped without a word. What is left then may be no state that ever was.

So the directory has a file SESSION, always replaced as a whole and synced: the boot of the machine
in which the store was opened last, whether it was closed in order since, and the *durable mark*,
the Raft index up to which everything is surely on the disk. A store can be trusted when it was closed
in order, or when the machine has not been started anew since it was opened and its files can all be
synced. Any other is rebuilt from the journal, which has everything the store ever had: an entry is
applied only after the journal synced it.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from vcp_cluster.cluster.files import Files, replace_file

SESSION_FILE = "SESSION"
SESSION_FORMAT = 1
SESSION_BYTES_MAX = 4_096
BOOT_ID_FILE = Path("/proc/sys/kernel/random/boot_id")


class SessionUnknown(Exception):
    """There is no session file that this release understands; the message says what there is."""


class Session(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file. `schema` is that of the store; `floor_index` is what the store had
    applied, at least, before it was set aside and begun anew."""

    format: int
    schema: int
    boot_id: str
    is_closed: bool
    durable_index: int
    floor_index: int

    @property
    def known_index(self) -> int:
        """An index that was applied here once, whatever is left of it."""
        return max(self.durable_index, self.floor_index)


_decoder = msgspec.json.Decoder(Session)


def read_boot_id() -> str:
    """What changes whenever this machine starts; empty when the system does not say."""
    try:
        return BOOT_ID_FILE.read_text().strip()
    except OSError:
        return ""


def read_session(files: Files, directory: Path) -> Session:
    """Raises `SessionUnknown`, and OSError when the file cannot be read."""
    if SESSION_FILE not in files.names(directory):
        raise SessionUnknown("it has no file SESSION")
    file = files.open(directory / SESSION_FILE)
    try:
        data = files.pread(file, SESSION_BYTES_MAX, 0)
    finally:
        files.close(file)
    try:
        session = _decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise SessionUnknown(f"its file SESSION cannot be understood ({error})") from error
    if session.format != SESSION_FORMAT:
        raise SessionUnknown(f"its file SESSION has format {session.format}, not {SESSION_FORMAT}")
    return session


def write_session(files: Files, directory: Path, session: Session) -> None:
    """Replace the file, durably. Raises OSError."""
    replace_file(files, directory / SESSION_FILE, msgspec.json.encode(session))


def is_trustworthy(files: Files, directory: Path, session: Session, boot_id: str) -> bool:
    """Whether everything that was ever written to the store is there.

    After a kill within one boot the files are synced here: a sync also tells of a write that failed
    in the background, which nobody noticed because nobody synced.
    """
    if session.is_closed:
        return True
    if not boot_id or session.boot_id != boot_id:
        return False
    try:
        for name in files.names(directory):
            _sync(files, directory / name)
        files.fsync_directory(directory)
    except OSError:
        return False
    return True


def _sync(files: Files, path: Path) -> None:
    file = files.open(path)
    try:
        files.fdatasync(file)
    finally:
        files.close(file)

"""Reading a journal directory from its beginning, when it is opened.

What follows the last whole group is either the rest of one group that was being written when the
power went, which nobody relies on and which is passed over, or it is damage. The two are told apart
by what is behind: a group is written only when the one before it is on the disk, so a group that is
not whole, with a later one behind it, was whole once.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from vcp_cluster.cluster.files import Files
from vcp_cluster.cluster.raft.journal.errors import JournalError
from vcp_cluster.cluster.raft.journal.format import (
    GROUP_HEADER_BYTES,
    SECTOR_BYTES,
    FormatError,
    Group,
    SegmentHeader,
    decode_group,
    decode_segment_header,
    group_length,
    later_group,
)
from vcp_cluster.cluster.raft.journal.segments import SUFFIX, Position, Segment

OnGroup = Callable[[Group, Position], None]
"""Takes in one group; raises `FormatError` when it does not follow the ones before."""

logger = logging.getLogger(__name__)


def load_segments(
    files: Files, directory: Path, names: list[str], *, chain_id: bytes, on_group: OnGroup
) -> tuple[list[Segment], bytes]:
    """Check all segments, hand every group to `on_group` in order; `names` are the files in
    `directory`.

    Returns the segments and the bytes of the last group of the last one (none: empty). Raises
    `JournalError` when something is damaged, missing or another cluster's, and OSError.
    """
    paths = sorted(directory / name for name in names if name.endswith(SUFFIX))
    segments: list[Segment] = []
    data, length = b"", 0
    for path in paths:
        file = files.open(path)
        try:
            data = files.pread(file, files.size(file), 0)
        finally:
            files.close(file)
        segment = Segment(path, _read_header(path, data, chain_id), len(data))
        _check_follows(segment, segments[-1] if segments else None)
        length = _read_groups(segment, data, on_group)
        segments.append(segment)
    if not segments:
        return [], b""
    _check_tail(segments[-1], data)
    end = segments[-1].end
    return segments, data[end - length : end]


def damaged(path: Path, offset: int, what: str) -> JournalError:
    """The error for damage at byte `offset` of the file `path`."""
    return JournalError(
        f"journal segment {path} is damaged at byte {offset}: {what}. The cluster runs on while a "
        "majority of its members does. Next: when every other member is up, move this member's "
        "journal and store away (keep them) and start it; it fetches everything again."
    )


def _read_header(path: Path, data: bytes, chain_id: bytes) -> SegmentHeader:
    try:
        header = decode_segment_header(data[:SECTOR_BYTES])
    except FormatError as error:
        if "format" in str(error):
            raise JournalError(
                f"journal segment {path} cannot be read: {error}. Nothing was changed. Next: start "
                "the member with the release that wrote it, or a newer one."
            ) from error
        raise damaged(path, 0, str(error)) from error
    if header.chain_id != chain_id:
        raise JournalError(
            f"journal segment {path} belongs to the cluster {header.chain_id.hex()}, not to "
            f"{chain_id.hex()}. Next: put back the directory's own journal."
        )
    if path.stem != f"{header.number:016d}":
        raise damaged(path, 0, f"it is segment {header.number} under another name")
    return header


def _check_follows(segment: Segment, previous: Segment | None) -> None:
    """Raise unless `segment` begins where `previous` ends; sets its first sequence."""
    header = segment.header
    segment.next_sequence = header.first_sequence
    if previous is None:
        return
    if header.number != previous.header.number + 1:
        raise JournalError(
            f"journal segment {previous.header.number + 1} is missing in {segment.path.parent}. "
            "Next: put the file back; if it is lost, do as for a damaged journal: when every other "
            "member is up, move this member's journal and store away and start it."
        )
    if header.first_sequence != previous.next_sequence:
        raise damaged(previous.path, previous.end, "a group in the middle of the log is not whole")


def _read_groups(segment: Segment, data: bytes, on_group: OnGroup) -> int:
    """Take in the whole groups of one segment; returns the length of the last one, in bytes."""
    view, key, last = memoryview(data), segment.header.key, 0
    while True:
        offset, sequence = segment.end, segment.next_sequence
        header = view[offset : offset + GROUP_HEADER_BYTES]
        length = group_length(bytes(header), sequence=sequence, key=key)
        if length is None:
            return last
        try:
            group = decode_group(view[offset : offset + length], sequence=sequence, key=key)
            if group is None:
                return last
            on_group(group, Position(segment.header.number, offset, sequence))
        except FormatError as error:
            raise damaged(segment.path, offset, str(error)) from error
        segment.note(group, length)
        last = length


def _check_tail(segment: Segment, data: bytes) -> None:
    """Tell a group cut short from damage."""
    rest = data[segment.end :]
    key, sequence = segment.header.key, segment.next_sequence
    later = later_group(rest, sequence=sequence, key=key)
    if later is not None:
        raise damaged(
            segment.path,
            segment.end,
            f"a group is not whole, and a later one is behind it at byte {segment.end + later}",
        )
    if group_length(rest[:GROUP_HEADER_BYTES], sequence=sequence, key=key) is not None:
        logger.warning(
            "journal segment %s: passed over a group cut short at byte %d; nobody relies on it",
            segment.path,
            segment.end,
        )

"""Files of zeros, made before they are needed.

A write into a file whose length and extents do not change is one write to the disk; into a growing
file it is two. Measured with three members on one disk: twice as many fdatasyncs a second.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

from vcp_cluster.cluster.files import Files

SPARES_MAX = 2
"""Recycled segments that are kept; further ones are removed."""

_SUFFIX = ".spare"
_UNFINISHED = "unfinished.spare"
_PIECE_BYTES = 1 << 20

logger = logging.getLogger(__name__)


class Spares:
    """The spare segment files of one journal directory, and the thread that makes the next one."""

    def __init__(self, files: Files, directory: Path, names: list[str], *, inline: bool) -> None:
        """`names` are the files in `directory`. With `inline` there is no thread: what is to be
        made is made at once. Raises OSError."""
        self._files = files
        self._directory = directory
        self._inline = inline
        self._worker: threading.Thread | None = None
        self._is_closed = False
        if _UNFINISHED in names:
            files.unlink(directory / _UNFINISHED)
        spares = sorted(name for name in names if name.endswith(_SUFFIX))
        self._ready = [directory / name for name in spares if name != _UNFINISHED]

    def prepare(self, size: int, label: int) -> None:
        """See to it that a spare of `size` bytes is ready later, unless there is one or one is
        being made. `label` is the number of the segment it will probably be."""
        if self._ready or self._is_working():
            return
        if self._inline:
            self._try_make(size, label)
            return
        self._worker = threading.Thread(
            target=self._try_make, args=(size, label), name="journal-spare", daemon=True
        )
        self._worker.start()

    def take(self, size_min: int, size: int, label: int) -> Path:
        """A file of at least `size_min` bytes, all allocated; `size` bytes if it must be made now.

        Raises OSError when it cannot be made.
        """
        if not any(self._fits(path, size_min) for path in self._ready):
            self._wait()
        for path in self._ready:
            if self._fits(path, size_min):
                self._ready.remove(path)
                return path
        while self._ready:  # Too small for this and for what follows: segments only grow.
            self._files.unlink(self._ready.pop())
        self._make(max(size, size_min), label)
        return self._ready.pop()

    def give(self, path: Path) -> None:
        """Recycle the segment file `path`, or remove it when there are spares enough."""
        spare = path.with_suffix(_SUFFIX)
        if len(self._ready) >= SPARES_MAX or spare in self._ready:
            self._files.unlink(path)
            return
        self._files.rename(path, spare)
        self._ready.append(spare)

    def close(self) -> None:
        """End the thread; a file it has not finished is removed when the journal is opened."""
        self._is_closed = True
        self._wait()

    def _is_working(self) -> bool:
        return self._worker is not None and self._worker.is_alive()

    def _wait(self) -> None:
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _fits(self, path: Path, size_min: int) -> bool:
        file = self._files.open(path)
        try:
            return self._files.size(file) >= size_min
        finally:
            self._files.close(file)

    def _try_make(self, size: int, label: int) -> None:
        """Make a spare ahead of time. No harm is done when that fails: nothing is in it, and when
        the segment is needed it is tried again, and a failure then stops the member."""
        try:
            self._make(size, label)
        except OSError as error:
            logger.warning(
                "journal %s: cannot prepare the next segment (%d bytes): %s. The member stops when "
                "the present one is full. Next: make room on this disk.",
                self._directory,
                size,
                error.strerror,
            )
            with contextlib.suppress(OSError):
                self._files.unlink(self._directory / _UNFINISHED)

    def _make(self, size: int, label: int) -> None:
        unfinished = self._directory / _UNFINISHED
        file = self._files.open(unfinished, create=True)
        try:
            # Piece by piece, so that no fdatasync of the journal waits long behind one of these.
            for offset in range(0, size, _PIECE_BYTES):
                if self._is_closed:
                    return
                piece = bytes(min(_PIECE_BYTES, size - offset))
                self._files.pwrite(file, piece, offset)
                self._files.fdatasync(file)
        finally:
            self._files.close(file)
        target = self._directory / f"{label:016d}{_SUFFIX}"
        self._files.rename(unfinished, target)
        self._ready.append(target)

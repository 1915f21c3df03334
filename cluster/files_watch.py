"""A watch over a disk that does not answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from vcp_cluster.cluster.files import Files


class WatchedFiles:
    """Files that notice when the disk does not answer.

    A call that writes or syncs and does not return within `limit_s` seconds is reported, once, to
    `on_stall(what)` from a thread of its own: the one that made the call cannot say anything.
    """

    def __init__(self, files: Files, *, limit_s: float, on_stall: Callable[[str], None]) -> None:
        self._files = files
        self._limit_s = limit_s
        self._on_stall = on_stall
        self._calls: dict[int, tuple[str, float]] = {}
        self._is_closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="disk-watch", daemon=True)
        self._thread.start()
        self.make_directory = files.make_directory
        self.names = files.names
        self.open = files.open
        self.close = files.close
        self.lock = files.lock
        self.size = files.size
        self.pread = files.pread

    def stop_watching(self) -> None:
        """End the thread."""
        self._is_closed.set()
        self._thread.join()

    def pwrite(self, file: int, data: bytes, offset: int) -> None:
        """See `Files`."""
        with self._timed("a write"):
            self._files.pwrite(file, data, offset)

    def fdatasync(self, file: int) -> None:
        """See `Files`."""
        with self._timed("an fdatasync"):
            self._files.fdatasync(file)

    def fsync_directory(self, path: Path) -> None:
        """See `Files`."""
        with self._timed("an fsync of a directory"):
            self._files.fsync_directory(path)

    def rename(self, source: Path, target: Path) -> None:
        """See `Files`."""
        with self._timed("a rename"):
            self._files.rename(source, target)

    def unlink(self, path: Path) -> None:
        """See `Files`."""
        with self._timed("a removal"):
            self._files.unlink(path)

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        thread = threading.get_ident()
        self._calls[thread] = (what, time.monotonic())
        try:
            yield
        finally:
            del self._calls[thread]

    def _watch(self) -> None:
        while not self._is_closed.wait(self._limit_s / 10):
            now_s = time.monotonic()
            for what, since_s in list(self._calls.values()):
                if now_s - since_s > self._limit_s:
                    self._on_stall(what)
                    return

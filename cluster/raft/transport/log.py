"""Log lines that strangers can cause, kept to a number that nobody has to fear."""

from __future__ import annotations

import logging

WINDOW_S = 10.0
KINDS_MAX = 64


class RationedLog:
    """One line of a kind at once; then how many more there were, every `WINDOW_S` seconds."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._kinds: dict[str, tuple[float, int, str]] = {}

    def report(self, kind: str, message: str, now_s: float) -> None:
        """Log `message` unless one of the same `kind` was logged a short while ago."""
        started_s, held_back, _ = self._kinds.get(kind, (float("-inf"), 0, ""))
        if now_s - started_s < WINDOW_S:
            self._kinds[kind] = (started_s, held_back + 1, message)
            return
        if len(self._kinds) >= KINDS_MAX:
            self.flush(now_s)
        if len(self._kinds) < KINDS_MAX:
            self._kinds[kind] = (now_s, 0, message)
            self._logger.warning("%s", message)

    def flush(self, now_s: float) -> None:
        """Report what was held back in windows that have ended."""
        for kind, (started_s, held_back, message) in list(self._kinds.items()):
            if now_s - started_s >= WINDOW_S:
                del self._kinds[kind]
                if held_back:
                    self._logger.warning("%s (and %d more like it)", message, held_back)

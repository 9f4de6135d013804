"""How many sandboxes to keep ready: as many as strategies lately came at once, within bounds."""

from __future__ import annotations

import time

__all__ = ["Demand"]

#: A sandbox that had been ready for so long, seconds, when somebody came: the machine had time to spare.
IDLE_SECONDS = 1.0
#: One that was ready all this time, seconds, and that nobody needed, was one too many.
REVIEW_SECONDS = 60.0


class Demand:
    """Learns from who came and what was ready for him. Not thread-safe.

    One more is wanted when a burst has used up all that had been ready for a while. Where none ever is the machine is
    busy, and more at a time would not come sooner.

    Args:
        least, most: how many to keep ready.
    """

    def __init__(self, least: int, most: int) -> None:
        self._least, self._most = least, max(least, most)
        #: How many to keep ready now.
        self.wanted = least
        self._served = 0
        self._spared = self._most
        self._reviewed = time.monotonic()

    def served(self, idle_seconds: float, left: int) -> None:
        """Take note of somebody for whom one was ready: since when, and how many are left for the next."""
        self._served += idle_seconds >= IDLE_SECONDS
        self._spared = min(self._spared, left)

    def missed(self) -> None:
        """Take note of somebody who has to wait."""
        if self._served >= self.wanted:
            self.wanted = min(self.wanted + 1, self._most)
        self._served = 0
        self._spared = 0

    def review(self) -> None:
        """Want one less, where one was never needed for a while; to be called now and then."""
        now = time.monotonic()
        if now - self._reviewed < REVIEW_SECONDS:
            return
        if self._spared > 0:
            self.wanted = max(self.wanted - 1, self._least)
        self._spared, self._reviewed = self._most, now

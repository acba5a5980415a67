"""How long to wait before the next attempt."""

from __future__ import annotations

import random
from collections.abc import Callable

LEAST_SECONDS = 0.01
"""So that nobody spins."""

Random = Callable[[], float]
"""Gives a number from 0 up to 1, evenly."""


class Backoff:
    """Growing pauses with full jitter, so that a crowd which lost its broker at one moment does not come back at one.

    Units: seconds. The first pause is at most `first`, each further one at most twice the one before and never more
    than `most`.
    """

    def __init__(self, first: float, most: float, chance: Random = random.random) -> None:
        self._failures = 0
        self._first = first
        self._most = most
        self._chance = chance

    def pause(self) -> float:
        """The next pause."""
        # 2 to the 30th is more than any `most`; further doubling would only grow the number.
        step = min(self._first * 2.0 ** min(self._failures, 30), self._most)
        self._failures += 1
        return max(step * self._chance(), min(LEAST_SECONDS, step))

    def limit(self, most: float) -> None:
        """From now on no pause is longer than this."""
        self._most = most

    def succeeded(self) -> None:
        """Begins anew: something succeeded."""
        self._failures = 0

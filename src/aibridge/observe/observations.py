"""Observations for a histogram, from the moment that they are made until they are handed over, many at once."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import prometheus_client


class Histogram(prometheus_client.Histogram):
    """A histogram to which many observations can be added at once."""

    @property
    def bounds(self) -> Sequence[float]:
        """The upper bounds of the buckets, the last of which is infinite."""
        return self._upper_bounds

    def add(self, counts: Sequence[int], total: float) -> None:
        """Add so many observations for each bucket, and their sum."""
        self._sum.inc(total)
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)


class Observations:
    """Observations that are not in their histogram yet."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram, self._bounds = histogram, histogram.bounds
        self._counts, self._sum = [0] * len(self._bounds), 0.0

    def add(self, value: float) -> None:
        """Add one; a value that is a bucket's bound is in that bucket."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def settle(self) -> None:
        """Hand them over."""
        self._histogram.add(self._counts, self._sum)
        self._counts, self._sum = [0] * len(self._bounds), 0.0

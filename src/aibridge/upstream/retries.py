"""When a request is sent once more, and after how long.

The rules are those of the official SDKs: connection faults, 408, 409, 429 and 5xx are tried again, before the first
byte of an answer only; `Retry-After` says how long to wait, and `x-should-retry` has the last word.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from time import time

FIRST_DELAY = 0.5
MOST_DELAY = 8.0
LONGEST_WAIT = 60.0
"""Seconds that the gateway waits at the most because a provider asks for it; longer, and the client is told instead."""


def delay_after(
    attempt: int, status: int | None, headers: Mapping[str, str], patience: float = LONGEST_WAIT
) -> float | None:
    """Seconds to wait before the next attempt; None where there must be none.

    `attempt` counts from 0. `status` is None where there was no answer; header names are in lower case. A provider that
    asks for more than `patience` is not waited for.
    """
    if headers.get("x-should-retry") == "false":
        return None
    retriable = status is None or status in (408, 409, 429) or status >= 500
    if not retriable and headers.get("x-should-retry") != "true":
        return None
    asked = seconds_asked(headers)
    if asked is None:
        return float(min(FIRST_DELAY * 2**attempt, MOST_DELAY) * (1 - 0.25 * random.random()))  # noqa: S311
    return asked if asked <= patience else None


def seconds_asked(headers: Mapping[str, str]) -> float | None:
    """What `retry-after-ms` or `Retry-After` (RFC 9110, 10.2.3: seconds or a date) asks for."""
    try:
        if told := headers.get("retry-after-ms"):
            return max(0.0, float(told) / 1000)
        if told := headers.get("retry-after"):
            return max(0.0, float(told) if told[0].isdigit() else parsedate_to_datetime(told).timestamp() - time())
    except ValueError:
        pass
    return None

"""The keys of a provider that has several: which of them a session takes, and which are left alone for a while.

A session keeps to one key, since the provider's prompt cache and encrypted reasoning belong to it. Which one is told by
rendezvous hashing (D. Thaler and C. Ravishankar, 1998): nothing has to be remembered, every worker comes to the same,
and a key that is out of use moves its own sessions only.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from math import ceil
from time import monotonic
from typing import Protocol

from aibridge.errors import Fault, Kind
from aibridge.providers.credential import Credential

_log = logging.getLogger("aibridge.upstream")

LIMITED = 429
REFUSED = frozenset({401, 403})

LIMITED_FOR = 60.0
"""Seconds that a key is left alone after a 429 that does not say how long."""

LIMITED_AT_MOST = 24 * 3600.0
"""The same where it asks for longer than a day: it may be mistaken, and a day is long enough."""

REFUSED_FOR = 300.0
"""Seconds that a key is left alone after the provider refused it."""


MOST_ORDERS = 4096
"""Of how many sessions the order of keys is kept at hand; of others, it is worked out again."""


class State(Enum):
    """How a key is; the values are those of the metric."""

    WELL = 0.0
    LIMITED = 0.5
    REFUSED = 1.0


class Watcher(Protocol):
    """Is told how keys are; the metrics are one."""

    def key_changed(self, provider: str, key: str, state: float) -> None:
        """A key is well (0), limited (0.5) or refused (1) from now on."""


class RingKey:
    """One of several keys of a provider: a state machine without a clock; times are in seconds, and never fall."""

    def __init__(self, provider: str, number: int, credential: Credential, watcher: Watcher | None = None) -> None:
        self.provider, self.number, self.credential = provider, number, credential
        self.state = State.WELL
        self.until = 0.0
        """When a key that is not well is to be tried again."""
        self._watcher = watcher
        self._mark = blake2b(credential.secret.encode(), digest_size=16).digest()
        self._tell()

    def __repr__(self) -> str:
        return f"RingKey({self.provider!r}, {self.number}, {self.state})"

    @property
    def hint(self) -> str:
        """A few characters of the key."""
        return self.credential.hint

    def rank(self, affinity: bytes) -> bytes:
        """Among the keys of a provider, a session takes the one that ranks highest for it."""
        return blake2b(affinity, digest_size=8, key=self._mark).digest()

    def usable(self, now: float) -> bool:
        """The key is well, or the time is over for which it was left alone."""
        return self.state is State.WELL or now >= self.until

    def waits(self, now: float) -> bool:
        """The provider limits the key for the moment: it will be well again by itself."""
        return self.state is State.LIMITED and now < self.until

    def answered(self, status: int, asked: float | None, now: float) -> None:
        """The provider answered a request with this key; `asked` is how many seconds it wants to be left alone."""
        if status == LIMITED:
            self._leave(State.LIMITED, now + (LIMITED_FOR if asked is None else min(asked, LIMITED_AT_MOST)))
        elif status in REFUSED:
            self._leave(State.REFUSED, now + REFUSED_FOR)
        elif self.state is not State.WELL and (self.state is State.REFUSED or now >= self.until):
            self._become(State.WELL, str(status))

    def look(self, now: float) -> None:
        """Note that a limit is over, though nobody has used the key since."""
        if self.state is State.LIMITED and now >= self.until:
            self._become(State.WELL, "the limit is over")

    def _leave(self, state: State, until: float) -> None:
        self.until = max(until, self.until) if self.state is state else until
        if self.state is not state:
            self._become(state, "429" if state is State.LIMITED else "refused")

    def _become(self, state: State, why: str) -> None:
        self.state = state
        level = logging.INFO if state is State.WELL else logging.WARNING
        facts = {"provider": self.provider, "key": self.number, "hint": self.hint, "why": why}
        _log.log(level, "a key is %s", state.name.lower(), extra={"facts": facts})
        self._tell()

    def _tell(self) -> None:
        if self._watcher:
            self._watcher.key_changed(self.provider, str(self.number), self.state.value)


class KeyRing:
    """The keys of one provider, numbered from 1 in the order in which they are configured."""

    def __init__(
        self,
        provider: str,
        credentials: Sequence[Credential],
        watcher: Watcher | None = None,
        *,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self.keys = tuple(RingKey(provider, number, each, watcher) for number, each in enumerate(credentials, 1))
        self._provider, self._clock = provider, clock
        self.order: Callable[[str], tuple[RingKey, ...]] = lru_cache(MOST_ORDERS)(self._order)
        """All keys, those first that a session (or whoever has none) should take."""

    def _order(self, affinity: str) -> tuple[RingKey, ...]:
        told = affinity.encode("utf-8", "surrogatepass")
        return tuple(sorted(self.keys, key=lambda key: key.rank(told), reverse=True))

    def pick(self, affinity: str) -> RingKey:
        """The key that a session should take; where none can be used, the one that it would take else."""
        now, order = self._clock(), self.order(affinity)
        return next((key for key in order if key.usable(now)), order[0])

    def look(self) -> None:
        """Note of which keys the limits are over."""
        now = self._clock()
        for key in self.keys:
            key.look(now)

    def warnings(self) -> list[str]:
        """What an operator should know of the keys that are out of use."""
        now = self._clock()
        said = {State.LIMITED: "limited by the provider", State.REFUSED: "refused by the provider"}
        return [
            f"key {key.number} ({key.hint}) of {self._provider} is {said[key.state]}: "
            f"left alone for {ceil(key.until - now)} s"
            for key in self.keys
            if not key.usable(now)
        ]


def all_limited(provider: str, keys: Sequence[RingKey], now: float) -> Fault:
    """The fault of a request that no key is there for: it says when the first of them is well again."""
    wait = max(1, ceil(min(key.until for key in keys if key.waits(now)) - now))
    return Fault(Kind.TOO_MANY_REQUESTS, f"{provider} limits every key that there is for it", retry_after=wait)

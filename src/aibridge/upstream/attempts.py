"""Which attempt comes next: the same once more, one with another key, one at another provider, or none.

All of it is decided here, by what came of the attempts before, and nothing is done: no clock, no network. The rules:

- Trouble that may pass (`aibridge.upstream.retries`) is tried again in the same way, as often as the provider's
  `max_retries` says, unless its circuit breaker has opened.
- Where a provider has several keys, one that is limited (429) or refused (401, 403) is left for the next at once, and
  alone for a while. Refused keys are tried all the same where all are: it may be the request that was refused.
- A provider that still fails, whose circuit breaker is open, or that limits every key, is left for the next provider.
- What came of the last attempt stands, where there is no other; that no key may be used, only where there was none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from aibridge.errors import Fault, Kind
from aibridge.upstream.exchange import UpstreamRequest
from aibridge.upstream.keys import LIMITED, REFUSED, RingKey, all_limited
from aibridge.upstream.retries import LONGEST_WAIT, MOST_DELAY, delay_after, seconds_asked


class Way(msgspec.Struct, frozen=True, eq=False):
    """One way in which a request may be sent. Those to one provider stand together, and differ in their keys."""

    provider: str
    """The provider's name."""
    max_retries: int
    key: RingKey | None
    """One of several keys; None where there are not several."""

    def request(self, request: UpstreamRequest) -> UpstreamRequest:
        """Makes of the request what is sent in this way."""
        return request


class Tried(NamedTuple):
    """A way that was left, or could not be taken."""

    provider: str
    key: str | None
    """The hint of the key, where there are several."""
    why: str
    """A status, `connection` or `timeout`; or why nothing was sent: `breaker`, `limited` (every key), `unsendable`."""


def _tried(way: Way, why: str) -> Tried:
    return Tried(way.provider, way.key.hint if way.key else None, why)


class Ways(Protocol):
    """The ways in which a request may be sent, where there are several."""

    def now(self) -> Sequence[Way]:
        """The ways, in the order in which they are to be tried."""

    def settled(self, way: Way | None, tried: Sequence[Tried], *, well: bool) -> None:
        """Is told which way was taken last, whether it led to success, and what was tried before it."""


class Attempt(msgspec.Struct, frozen=True):
    """What is to be done next."""

    way: Way
    delay: float = 0.0
    """Seconds to wait before it."""
    again: str | None = None
    """Why it is the same as before: a status, or `connection`."""


class Attempts:
    """The attempts of one request. Times are in seconds, and never fall."""

    verdict: Fault | None = None
    """What the client is told in the end; None where that is what came of the last attempt."""
    _asked = False
    _retries = 0  # at the provider that is asked

    def __init__(self, ways: Sequence[Way]) -> None:
        self.tried: list[Tried] = []
        """What was left, or could not be taken, in this order."""
        self._ways = ways
        self._rest = list(ways)

    def first(self, now: float) -> Attempt | None:
        """The first attempt; None where there is no way to take."""
        while self._rest:
            first = self._rest[0]
            if first.key is None:
                return Attempt(first)
            provider = first.provider
            if way := self._with_a_key(provider, now):
                return Attempt(way)
            self.tried.append(Tried(provider, None, "limited"))
            self._refuse(all_limited(provider, self._keys(provider), now))
            self._drop(provider)
        return None

    def refused(self, way: Way, fault: Fault, now: float) -> Attempt | None:
        """The next attempt, since nothing could be sent: the circuit breaker is open, or a credential is missing."""
        self.tried.append(Tried(way.provider, None, "breaker" if fault.kind is Kind.BREAKER_OPEN else "unsendable"))
        self._refuse(fault)
        return self._elsewhere(way, now)

    def answered(
        self, way: Way, status: int, headers: Mapping[str, str], now: float, *, stands: bool
    ) -> Attempt | None:
        """The next attempt after an answer; None where it is for the client. Names of headers are in lower case.

        `stands` says that the circuit breaker has not opened since the provider was first asked.
        """
        self._asked, self.verdict = True, None
        if way.key:
            way.key.answered(status, seconds_asked(headers), now)
            if status == LIMITED or status in REFUSED:
                return self._with_another_key(way, str(status), now, stands=stands)
        if status < 400:
            return None
        if again := self._again(way, str(status), status, headers, stands=stands):
            return again
        if status == LIMITED or status in REFUSED or status >= 500:
            return self._leave(way, str(status), now)
        return None

    def failed(self, way: Way, fault: Fault, now: float, *, stands: bool) -> Attempt | None:
        """The next attempt where no answer came; None where the fault is for the client."""
        self._asked, self.verdict = True, None
        if fault.kind is Kind.UPSTREAM_FAULT:
            return self._again(way, "connection", None, {}, stands=stands) or self._leave(way, "connection", now)
        return self._leave(way, "timeout", now) if fault.kind is Kind.UPSTREAM_SILENT else None

    def _again(
        self, way: Way, why: str, status: int | None, headers: Mapping[str, str], *, stands: bool
    ) -> Attempt | None:
        """The same once more, if it may be."""
        if self._retries >= way.max_retries or not stands:
            return None
        patience = MOST_DELAY if self._is_left_to(way) else LONGEST_WAIT
        delay = delay_after(self._retries, status, headers, patience)
        if delay is None:
            return None
        self._retries += 1
        return Attempt(way, delay, why)

    def _with_another_key(self, way: Way, why: str, now: float, *, stands: bool) -> Attempt | None:
        """The same with the next key of the provider, else elsewhere."""
        self.tried.append(_tried(way, why))
        self._rest.remove(way)
        other = self._with_a_key(way.provider, now)
        if other and stands:
            return Attempt(other)
        keys = self._keys(way.provider)
        if not other and any(key.waits(now) for key in keys):
            self.verdict = all_limited(way.provider, keys, now)
        return self._elsewhere(way, now)

    def _leave(self, way: Way, why: str, now: float) -> Attempt | None:
        """The first attempt at another provider, where there is one."""
        if not self._is_left_to(way):
            return None
        self.tried.append(_tried(way, why))
        return self._elsewhere(way, now)

    def _elsewhere(self, way: Way, now: float) -> Attempt | None:
        self._drop(way.provider)
        self._retries = 0
        return self.first(now)

    def _refuse(self, fault: Fault) -> None:
        """A provider was not asked. Of several such, the client is told of the one that will be there first."""
        if self.verdict is None:
            self.verdict = None if self._asked else fault
        elif (fault.retry_after or 0) < (self.verdict.retry_after or 0):
            self.verdict = fault

    def _drop(self, provider: str) -> None:
        self._rest = [way for way in self._rest if way.provider != provider]

    def _is_left_to(self, way: Way) -> bool:
        """There is another provider to go to."""
        return any(other.provider != way.provider for other in self._rest)

    def _keys(self, provider: str) -> list[RingKey]:
        return [way.key for way in self._ways if way.provider == provider and way.key]

    def _with_a_key(self, provider: str, now: float) -> Way | None:
        """The next way to a provider whose key may be used."""
        first = None
        for way in self._rest:
            if way.provider == provider:
                if way.key is None or way.key.usable(now):
                    return way
                first = first or way
        # Where none of them waits, all were refused.
        return None if any(key.waits(now) for key in self._keys(provider)) else first

"""Circuit breakers: a provider in trouble is left alone for a while, and its clients are told so at once.

The pattern is that of M. Nygard, "Release It!"; see https://martinfowler.com/bliki/CircuitBreaker.html. There is one
breaker for each provider, endpoint and model, since providers limit and lose their models one by one.

Own code, since the libraries (pybreaker, aiobreaker, purgatory and circuitbreaker were looked at) guard the call of a
function: when half-open they let pass whatever comes until the first of it has ended, instead of a few, and they know
neither that an answer has begun well but may still break off, nor that a client which leaves proves nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from math import ceil
from time import monotonic
from typing import Protocol, TypeAlias

from aibridge.errors import Fault, Kind
from aibridge.providers.interpreter import RawHeaders

_log = logging.getLogger("aibridge.upstream")

FAILURES = frozenset({429, 503, 504, 529})
"""Statuses by which providers say that they can not take more; 529 is Anthropic's "overloaded"."""

MOST_BREAKERS = 1000
"""How many breakers are kept: clients choose the models. Those that were asked last stay."""


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When a circuit breaker opens, and how it closes again. Times are in seconds."""

    failures: int = 5
    """In a row, and within `reset` of the first of them, until it opens."""
    reset: float = 10.0
    """After which a closed breaker forgets the failures that it has counted."""
    open: float = 30.0
    """How long every request is refused."""
    probes: int = 3
    """How many requests at a time may then try whether the provider is well again."""


DEFAULT_POLICY = BreakerPolicy()


class State(Enum):
    """The states of a breaker; the values are those of the metric."""

    CLOSED = 0.0
    HALF_OPEN = 0.5
    OPEN = 1.0


class Breaker:
    """One circuit breaker, as a state machine without a clock: times are the caller's, in seconds, and never fall.

    A request that `admit` lets pass is followed by `answered` once its answer begins well, and ends with one of
    `completed`, `failed` and `abandoned`; none of these is to be told of a request that was admitted in an earlier
    `generation`, for it says nothing of how the provider is now.
    """

    def __init__(self, policy: BreakerPolicy = DEFAULT_POLICY) -> None:
        self.state = State.CLOSED
        self.generation = 0
        """How often the breaker has opened."""
        self._policy = policy
        self._failures = 0
        self._first_failure = 0.0
        self._open_until = 0.0
        self._probes = 0  # that are under way

    def admit(self, now: float) -> float:
        """0 where a request may go upstream, else the seconds after which to ask again."""
        if self.state is State.CLOSED:
            return 0.0
        if self.state is State.OPEN and now >= self._open_until:
            self.state, self._probes = State.HALF_OPEN, 0
        if self.state is State.OPEN:
            return self._open_until - now
        if self._probes == self._policy.probes:
            return 1.0
        self._probes += 1
        return 0.0

    def answered(self) -> None:
        """An answer begins well. That is enough to close: its end, which would prove more, may be minutes away."""
        if self.state is State.HALF_OPEN:
            self.state, self._failures = State.CLOSED, 0

    def completed(self) -> None:
        """An answer came to its end: failures are no longer in a row. One that has only begun may still break off."""
        self._failures = 0

    def failed(self, now: float) -> None:
        """A request failed."""
        if self.state is State.CLOSED:
            if not self._failures or now - self._first_failure >= self._policy.reset:
                self._failures, self._first_failure = 0, now
            self._failures += 1
            if self._failures < self._policy.failures:
                return
        self.state = State.OPEN
        self.generation += 1
        self._open_until = now + self._policy.open

    def abandoned(self) -> None:
        """A request ended without showing how the provider is: its client left."""
        if self.state is State.HALF_OPEN:
            self._probes -= 1


Key: TypeAlias = tuple[str, str, str]
"""What a breaker guards: the names of a provider, an endpoint and a model."""


class Watcher(Protocol):
    """Is told what breakers do; the metrics are one."""

    def breaker_changed(self, provider: str, endpoint: str, model: str, state: float) -> None:
        """A breaker is closed again (0), half-open (0.5) or open (1) from now on."""

    def breaker_rejected(self, provider: str, endpoint: str, model: str) -> None:
        """A request was refused."""


class Breakers:
    """The breakers of one process. At most `most` are kept; `clock` tells seconds, and never goes back."""

    def __init__(
        self,
        policy: BreakerPolicy,
        watcher: Watcher | None = None,
        *,
        clock: Callable[[], float] = monotonic,
        most: int = MOST_BREAKERS,
    ) -> None:
        self._policy, self._watcher, self._clock, self._most = policy, watcher, clock, most
        self._breakers: dict[Key, Breaker] = {}  # those asked last stand last

    def admit(self, key: Key) -> Call:
        """Let a request pass. The call that is returned is to follow it, for it tells the breaker how that goes.

        Raises `Fault` (BREAKER_OPEN), which says when to come again.
        """
        breaker = self._at(key)
        before = breaker.state
        if before is State.CLOSED:  # as nearly always
            return Call(self, key, breaker)
        wait = breaker.admit(self.now())
        if breaker.state is not before:
            self.tell(key, breaker)
        if wait:
            if self._watcher:
                self._watcher.breaker_rejected(*key)
            raise Fault(Kind.BREAKER_OPEN, "circuit breaker is open", retry_after=ceil(wait))
        return Call(self, key, breaker)

    def _at(self, key: Key) -> Breaker:
        """The breaker of a key; another one is forgotten for it where there are too many."""
        found = self._breakers.pop(key, None)
        if found is None:
            found = Breaker(self._policy)
            if len(self._breakers) >= self._most:
                oldest = next(iter(self._breakers))
                forgotten = self._breakers.pop(oldest)
                if self._watcher and forgotten.state is not State.CLOSED:
                    self._watcher.breaker_changed(*oldest, State.CLOSED.value)
        self._breakers[key] = found
        return found

    def now(self) -> float:
        """The time of the breakers' clock."""
        return self._clock()

    def tell(self, key: Key, breaker: Breaker) -> None:
        """Tell operators what has become of a breaker."""
        if self._breakers.get(key) is not breaker:
            return
        facts = dict(zip(("provider", "endpoint", "model"), key, strict=True))
        level = logging.WARNING if breaker.state is State.OPEN else logging.INFO
        _log.log(level, "circuit breaker is %s", breaker.state.name.lower().replace("_", "-"), extra={"facts": facts})
        if self._watcher:
            self._watcher.breaker_changed(*key, breaker.state.value)


class Call:
    """A request that a breaker let pass: follows it, and tells the breaker its outcome, once."""

    _over = False

    def __init__(self, breakers: Breakers, key: Key, breaker: Breaker) -> None:
        self._breakers, self._key, self._breaker = breakers, key, breaker
        self._generation = breaker.generation

    @property
    def stands(self) -> bool:
        """The breaker has not opened since: the request may be repeated."""
        return self._generation == self._breaker.generation

    def answered(self, status: int, reason: str, headers: RawHeaders) -> None:
        """The head of the answer is there."""
        if status in FAILURES:
            self._fail()
        elif self._breaker.state is State.HALF_OPEN and self.stands:
            self._breaker.answered()
            self._breakers.tell(self._key, self._breaker)

    def received(self, data: bytes) -> None:
        """A piece of the answer says nothing new."""

    def failed(self, fault: Fault) -> None:
        """No answer came, or it broke off."""
        self._fail()

    def ended(self, *, whole: bool) -> None:
        """The exchange is over; what a client that leaves does is neither success nor failure."""
        if self.stands and not self._over:
            if whole:
                self._breaker.completed()
            else:
                self._breaker.abandoned()
        self._over = True

    def _fail(self) -> None:
        if self.stands and not self._over:
            before = self._breaker.state
            self._breaker.failed(self._breakers.now())
            if self._breaker.state is not before:
                self._breakers.tell(self._key, self._breaker)
        self._over = True

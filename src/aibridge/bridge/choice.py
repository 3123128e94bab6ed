"""The ways in which one request can go upstream, where there are several: keys of a provider, providers of a route."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import monotonic

from msgspec.structs import replace

from aibridge.providers import Credential, Provider
from aibridge.providers.interpreter import Headers
from aibridge.upstream.attempts import Tried, Way
from aibridge.upstream.exchange import UpstreamRequest
from aibridge.upstream.keys import KeyRing
from aibridge.wire.body import renamed

STAY = 3600.0
"""Seconds that a session which had to go elsewhere stays there after its last request."""

MOST_HOMES = 10_000
"""How many such sessions are known; of more, those are forgotten that asked longest ago."""

Leg = tuple[Provider, str]
"""A provider, and the name by which it knows the model."""

Address = Callable[[Provider, Credential], tuple[str, Headers]]
"""The URL and the headers of a request to this provider, with this credential."""

Tell = Callable[[Sequence[Tried], tuple[Provider, Credential] | None], None]
"""Is told what was tried, and who was asked after that, and with which credential; None for nobody."""


class Homes:
    """Where sessions are that had to leave the first provider of their route: what is cached of them is elsewhere."""

    def __init__(self, *, clock: Callable[[], float] = monotonic, most: int = MOST_HOMES) -> None:
        self._clock, self._most = clock, most
        self._homes: dict[tuple[str, str], tuple[str, float]] = {}  # those that asked last stand last

    def find(self, route: str, session: str) -> str | None:
        """The provider that a session is at, where that is not the first one."""
        home = self._homes.get((route, session))
        return home[0] if home and self._clock() < home[1] else None

    def settle(self, route: str, session: str, provider: str | None) -> None:
        """A session is at this provider now; None for the first one."""
        self._homes.pop((route, session), None)
        if provider is not None:
            if len(self._homes) >= self._most:
                del self._homes[next(iter(self._homes))]
            self._homes[route, session] = (provider, self._clock() + STAY)


class _Way(Way, frozen=True, eq=False):
    """A way, and what goes along it: with which credential, and under which name of the model."""

    to: Provider
    model: str
    credential: Credential
    address: Address

    def request(self, request: UpstreamRequest) -> UpstreamRequest:
        """See `Way.request`."""
        url, headers = self.address(self.to, self.credential)
        return replace(
            request,
            provider=self.provider,
            url=url,
            headers=[*headers, *request.headers],  # those are of no provider
            body=renamed(request.body, request.model, self.model),
            max_retries=self.max_retries,
            model=self.model,
            interpreter=self.to.interpreter,
        )


class Choice:
    """The ways of one request, in the order in which they are to be tried.

    `session` is what a session, or a client that has none, is known by: it keeps to one key, and on a `route` to the
    provider that answered it last.
    """

    def __init__(
        self,
        legs: Sequence[Leg],
        rings: Mapping[str, KeyRing],
        session: str,
        address: Address,
        *,
        route: str | None = None,
        homes: Homes | None = None,
    ) -> None:
        self.tell: Tell | None = None
        self._session, self._route, self._homes = session, route, homes
        self._first = legs[0][0].name
        self._ways: list[_Way] = []
        for provider, model in legs:
            ring = rings.get(provider.name)
            for key in ring.order(session) if ring else (None,):
                credential = key.credential if key else provider.credential({})
                way = _Way(provider.name, provider.max_retries, key, provider, model, credential, address)
                self._ways.append(way)
        if homes and route and (home := homes.find(route, session)):
            self._begin_at(home)

    @property
    def expected(self) -> tuple[Provider, Credential]:
        """Who is asked first, unless a circuit breaker is open, and with which credential."""
        now = monotonic()
        way = next((way for way in self._ways if way.key is None or way.key.usable(now)), self._ways[0])
        return way.to, way.credential

    def now(self) -> Sequence[Way]:
        """The ways."""
        return self._ways

    def settled(self, way: Way | None, tried: Sequence[Tried], *, well: bool) -> None:
        """Tell what was tried, and keep to a provider that has answered well."""
        if well and way and self._homes and self._route:
            self._homes.settle(self._route, self._session, way.provider if way.provider != self._first else None)
            self._begin_at(way.provider)
        if tried and self.tell:
            asked = (way.to, way.credential) if isinstance(way, _Way) else None
            self.tell(tried, asked)

    def _begin_at(self, provider: str) -> None:
        self._ways.sort(key=lambda way: way.provider != provider)

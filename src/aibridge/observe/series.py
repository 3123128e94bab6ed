"""What is told of interceptions, from the moment that it happens until it is counted, for Prometheus to show."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import prometheus_client

from aibridge.records import Status
from aibridge.wire.dialect import Usage

if TYPE_CHECKING:
    from aibridge.observe.metrics import Metrics

Name = TypeVar("Name", str, tuple[str, str])
Told = TypeVar("Told")

MOST_TOKENS = 1 << 63
"""What a provider can not mean: a float holds the sum of as many counts below it as there will ever be."""

MOST_UNSETTLED = 1000
"""How many ends of interceptions wait to be counted, should nobody look."""


class Series:
    """What is told of interceptions that share their labels, until `settle` counts it in `prometheus_client`.

    That is done for all of them when somebody looks, and not each time that something happens, since to count many at
    once takes a small part of the time. Threads may tell and settle at the same time: what is told is kept first and
    announced then, each in one step, so that whoever settles either finds it or leaves it announced.
    """

    def __init__(
        self, metrics: Metrics, provider: str, model: str, route: str, method: str, initiator: str, client: str
    ) -> None:
        self._metrics = metrics
        self._unsettled = metrics.unsettled
        self._model = (provider, model)
        self._who = (initiator, client)
        self._route = (route, method)
        self._inflight = metrics.inflight.labels(provider, model, route)
        self._durations = metrics.durations.labels(provider, model)
        self._overheads = metrics.overhead.labels(provider)
        self._added = metrics.added_first_byte.labels(provider)
        self._begun: list[bool] = []
        self._over: list[Status] = []
        self._ended: list[tuple[Status, float, float]] = []
        self._first_bytes: list[float] = []
        self._used: list[Usage] = []
        self._selected: list[str] = []
        self._invoked: list[tuple[str, str]] = []

    def begun(self, *, prompted: bool) -> None:
        """An interception begins, with a prompt of the user's or none."""
        self._begun.append(prompted)
        self._unsettled.add(self)

    def answered(self, added: float) -> None:
        """The first byte of an answer is there, so many seconds later than it would be without the gateway."""
        self._first_bytes.append(added)
        self._unsettled.add(self)

    def used(self, usage: Usage) -> None:
        """A turn used tokens."""
        self._used.append(usage)
        self._unsettled.add(self)

    def selected(self, tool: str) -> None:
        """A model asks for a client's own tool."""
        self._selected.append(tool)
        self._unsettled.add(self)

    def invoked(self, server: str, tool: str) -> None:
        """An injected tool was called."""
        self._invoked.append((server, tool))
        self._unsettled.add(self)

    def ended(self, status: Status, took: float, overhead: float, *, begun: Series) -> None:
        """An interception ended, after so many seconds.

        Its labels when it had `begun` were others if its provider was left for another one.
        """
        begun._over.append(status)
        begun._unsettled.add(begun)
        self._ended.append((status, took, overhead))
        self._unsettled.add(self)
        if len(self._ended) > MOST_UNSETTLED:
            self._metrics.settle()

    def settle(self) -> None:
        """Count what was told until now; by one thread at a time."""
        metrics, model, who = self._metrics, self._model, self._who
        begun, tool = _taken(self._begun), metrics.tool
        self._inflight.inc(len(begun) - len(_taken(self._over)))
        if prompts := sum(begun):
            metrics.prompts.labels(*model, *who).inc(prompts)
        if ended := _taken(self._ended):
            statuses, durations, overheads = zip(*ended, strict=True)
            self._durations.observe_all(durations)
            self._overheads.observe_all(overheads)
            _count(Counter(statuses), lambda status: metrics.interceptions.labels(*model, status, *self._route, *who))
        if first_bytes := _taken(self._first_bytes):
            self._added.observe_all(first_bytes)
        if used := _taken(self._used):
            _count(_tokens(used), lambda kind: metrics.tokens.labels(*model, kind, *who))
        if selected := _taken(self._selected):
            _count(Counter(map(tool, selected)), lambda name: metrics.selections.labels(*model, name))
        if invoked := _taken(self._invoked):
            names = Counter((server, tool(name)) for server, name in invoked)
            _count(names, lambda name: metrics.invocations.labels(*model, *name))


def _taken(told: list[Told]) -> list[Told]:
    """What stands in a list, which is there no longer; not what another thread adds meanwhile."""
    taken = told[:]
    del told[: len(taken)]
    return taken


def _tokens(used: Sequence[Usage]) -> Counter[str]:
    """The sums of tokens; of the provider's other counters, what is no positive whole number is no count."""
    tokens = Counter(
        input=sum([usage.input for usage in used]),
        output=sum([usage.output for usage in used]),
        cache_read_input_tokens=sum([usage.cache_read for usage in used]),
        cache_write_input_tokens=sum([usage.cache_write for usage in used]),
    )
    for usage in used:
        for kind, value in usage.extra.items():
            if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_TOKENS:
                tokens[kind] += value
    return tokens


def _count(counts: Counter[Name], counter: Callable[[Name], prometheus_client.Counter]) -> None:
    for name, count in counts.items():
        if count:
            counter(name).inc(count)

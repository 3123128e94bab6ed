"""What is counted of interceptions, from the moment that it is counted until it is Prometheus' to show."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from prometheus_client import Counter

from aibridge.observe.observations import Observations
from aibridge.records import Status
from aibridge.wire.dialect import Usage

if TYPE_CHECKING:
    from aibridge.observe.metrics import Metrics

Name = TypeVar("Name", str, tuple[str, str])

MOST_TOKENS = 1 << 63
"""What a provider can not mean: a float holds the sum of as many counts below it as there will ever be."""


class Series:
    """The counts of interceptions that share their labels, until `settle` hands them to `prometheus_client`.

    That is done for all of them when somebody looks, and not each time that something happens, since adding to a number
    here takes a small part of what adding to a metric does. Threads may count and settle at the same time.
    """

    def __init__(
        self, metrics: Metrics, provider: str, model: str, route: str, method: str, initiator: str, client: str
    ) -> None:
        self._metrics = metrics
        self._counting, self._unsettled = metrics.counting, metrics.unsettled
        self._model = (provider, model)
        self._who = (initiator, client)
        self._route = (route, method)
        self._inflight = metrics.inflight.labels(provider, model, route)
        self._running = 0
        self._prompts = 0
        self._ended: defaultdict[str, int] = defaultdict(int)
        self._tokens: defaultdict[str, int] = defaultdict(int)
        self._selections: defaultdict[str, int] = defaultdict(int)
        self._invocations: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._durations = Observations(metrics.durations.labels(provider, model))
        self._overheads = Observations(metrics.overhead.labels(provider))
        self._first_bytes = Observations(metrics.added_first_byte.labels(provider))

    def begun(self, *, prompted: bool) -> None:
        """An interception begins, with a prompt of the user's or none."""
        with self._counting:
            self._unsettled.add(self)
            self._running += 1
            self._prompts += prompted

    def answered(self, added: float) -> None:
        """The first byte of an answer is there, so many seconds later than it would be without the gateway."""
        with self._counting:
            self._unsettled.add(self)
            self._first_bytes.add(added)

    def used(self, usage: Usage) -> None:
        """A turn used tokens; of the provider's other counters, what is no positive whole number is no count."""
        with self._counting:
            self._unsettled.add(self)
            tokens = self._tokens
            tokens["input"] += usage.input
            tokens["output"] += usage.output
            tokens["cache_read_input_tokens"] += usage.cache_read
            tokens["cache_write_input_tokens"] += usage.cache_write
            for kind, value in usage.extra.items():
                if isinstance(value, int) and not isinstance(value, bool) and 0 < value < MOST_TOKENS:
                    tokens[kind] += value

    def selected(self, tool: str) -> None:
        """A model asks for a client's own tool."""
        with self._counting:
            self._unsettled.add(self)
            self._selections[self._metrics.tool(tool)] += 1

    def invoked(self, server: str, tool: str) -> None:
        """An injected tool was called."""
        with self._counting:
            self._unsettled.add(self)
            self._invocations[server, self._metrics.tool(tool)] += 1

    def ended(self, status: Status, took: float, overhead: float, *, begun: Series) -> None:
        """An interception ended, after so many seconds.

        Its labels when it had `begun` were others if its provider was left for another one.
        """
        with self._counting:
            self._unsettled.add(self)
            self._unsettled.add(begun)
            begun._running -= 1
            self._ended[status] += 1
            self._durations.add(took)
            self._overheads.add(overhead)

    def settle(self) -> None:
        """Hand over what was counted; nobody may count meanwhile."""
        metrics, model, who = self._metrics, self._model, self._who
        self._inflight.inc(self._running)
        if self._prompts:
            metrics.prompts.labels(*model, *who).inc(self._prompts)
        self._running = self._prompts = 0
        _settle(self._ended, lambda status: metrics.interceptions.labels(*model, status, *self._route, *who))
        _settle(self._tokens, lambda kind: metrics.tokens.labels(*model, kind, *who))
        _settle(self._selections, lambda tool: metrics.selections.labels(*model, tool))
        _settle(self._invocations, lambda tool: metrics.invocations.labels(*model, *tool))
        for observations in (self._durations, self._overheads, self._first_bytes):
            observations.settle()


def _settle(counts: dict[Name, int], counter: Callable[[Name], Counter]) -> None:
    for name, count in counts.items():
        if count:
            counter(name).inc(count)
    counts.clear()

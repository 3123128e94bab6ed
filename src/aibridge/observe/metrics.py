"""Prometheus metrics.

Names and labels are those of docs/metrics.md. With several worker processes, `prometheus_client`'s multiprocess mode
lets one scrape show the sum over them (https://prometheus.github.io/client_python/multiprocess/), as far as each has
settled its counts.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from threading import Lock
from typing import Any

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Gauge, Metric

from aibridge.observe.histogram import Histogram
from aibridge.observe.series import Series

MOST_VALUES = 1000
"""How many values a label has that clients choose; what comes after them reads `other`."""

MOST_SERIES = 10_000
"""How many combinations of labels are kept at hand; Prometheus' client keeps those that were used all the same."""

OTHER = "other"

_DURATIONS = (0.5, 2, 5, 15, 30, 60, 120)
_OVERHEADS = (0.00025, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)


class Labels:
    """Values of a label that clients choose, capped in number, so that no client can fill the memory of who scrapes."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._seen: dict[str, str] = {}

    def __call__(self, value: str) -> str:
        """The value, or `other` where there are too many already."""
        found = self._seen.get(value)
        if found is None:
            if len(self._seen) >= self._most or len(value) > 200:
                return OTHER
            found = self._seen[value] = value
        return found


class Metrics:
    """What the bridge counts, in a Prometheus registry; `namespace` is put before every name.

    In the registry it is one collector, which settles what is counted before it shows it.
    """

    def __init__(
        self, registry: CollectorRegistry = REGISTRY, *, namespace: str = "", most_values: int = MOST_VALUES
    ) -> None:
        self._all = CollectorRegistry()
        at: dict[str, Any] = {"registry": self._all, "namespace": namespace}
        self._settling = Lock()
        self.unsettled: set[Series] = set()
        """Those that have counts to hand over."""
        self._models, self._tools, self._actors = Labels(most_values), Labels(most_values), Labels(most_values)
        self._series: dict[tuple[str, str, str, str, str, str], Series] = {}
        who = ("initiator_id", "client")
        self.interceptions = Counter(
            "interceptions",
            "Interceptions that have ended.",
            ("provider", "model", "status", "route", "method", *who),
            **at,
        )
        self.inflight = Gauge(
            "interceptions_inflight",
            "Interceptions that are running.",
            ("provider", "model", "route"),
            multiprocess_mode="livesum",
            **at,
        )
        self.durations = Histogram(
            "interceptions_duration_seconds",
            "From a request's first byte to the end of its interception.",
            ("provider", "model"),
            buckets=_DURATIONS,
            **at,
        )
        self.passthrough = Counter(
            "passthrough", "Requests that were only proxied.", ("provider", "route", "method"), **at
        )
        self.prompts = Counter("prompts", "Prompts of users.", ("provider", "model", *who), **at)
        self.tokens = Counter("tokens", "Tokens, by type.", ("provider", "model", "type", *who), **at)
        self.invocations = Counter(
            "injected_tool_invocations",
            "Calls of injected tools that the gateway ran.",
            ("provider", "model", "server", "name"),
            **at,
        )
        self.selections = Counter(
            "non_injected_tool_selections",
            "Calls of clients' own tools that models asked for.",
            ("provider", "model", "name"),
            **at,
        )
        self.retries = Counter(
            "upstream_retries", "Requests that were sent upstream once more.", ("provider", "reason"), **at
        )
        self.left = Counter(
            "upstream_left",
            "Keys and providers that were left for another one, or could not be asked.",
            ("provider", "reason"),
            **at,
        )
        self.key_state = Gauge(
            "provider_key_state",
            "The keys of providers that have several: 0 well, 0.5 limited, 1 refused; of several workers, the worst.",
            ("provider", "key"),
            multiprocess_mode="livemax",
            **at,
        )
        guarded = ("provider", "endpoint", "model")
        self.breaker_state = Gauge(
            "circuit_breaker_state",
            "Circuit breakers that have opened: 0 closed again, 0.5 half-open, 1 open; of several workers, the worst.",
            guarded,
            multiprocess_mode="livemax",
            **at,
        )
        self.breaker_trips = Counter("circuit_breaker_trips", "How often circuit breakers opened.", guarded, **at)
        self.breaker_rejects = Counter(
            "circuit_breaker_rejects", "Requests that an open circuit breaker refused.", guarded, **at
        )
        self.unrecorded = Counter("unrecorded", "Records that could not be kept.", **at)
        self.recording_lag = Gauge(
            "recording_lag_bytes",
            "Journal entries that are not in the store yet, in bytes.",
            multiprocess_mode="livesum",
            **at,
        )
        self.mcp_connected = Gauge(
            "mcp_server_connected",
            "Whether an MCP server can be called (1) or not (0); among several workers, whether by each of them.",
            ("server",),
            multiprocess_mode="livemin",
            **at,
        )
        self.overhead = Histogram(
            "overhead_seconds",
            "Time in an interception that was not spent waiting for the client, the upstream or a tool.",
            ("provider",),
            buckets=_OVERHEADS,
            **at,
        )
        self.added_first_byte = Histogram(
            "added_first_byte_seconds",
            "What the gateway added to the time to the first byte of an answer.",
            ("provider",),
            buckets=_OVERHEADS,
            **at,
        )
        registry.register(self)

    def describe(self) -> Iterable[Metric]:
        """The names of all metrics, for a registry."""
        return self._all.collect()

    def collect(self) -> Iterable[Metric]:
        """All metrics as they are now, for a registry."""
        self.settle()
        return self._all.collect()

    def settle(self) -> None:
        """Hand what was counted to `prometheus_client`: for another process that looks, or the end of this one."""
        with self._settling:
            while self.unsettled:
                self.unsettled.pop().settle()

    def model(self, name: str) -> str:
        """A model's name as a label."""
        return self._models(name)

    def tool(self, name: str) -> str:
        """A tool's name as a label."""
        return self._tools(name)

    def series(self, provider: str, model: str, route: str, method: str, initiator: str, client: str) -> Series:
        """What is counted for interceptions with these labels."""
        labels = (provider, model, route, method, initiator, client)
        if found := self._series.get(labels):
            return found
        labels = (provider, self._models(model), route, method, self._actors(initiator), client)
        if labels not in self._series:
            if len(self._series) >= MOST_SERIES:
                self._series.clear()
                self.settle()
            self._series[labels] = Series(self, *labels)
        return self._series[labels]

    def breaker_changed(self, provider: str, endpoint: str, model: str, state: float) -> None:
        """A circuit breaker is closed (0), half-open (0.5) or open (1) from now on."""
        labels = (provider, endpoint, self.model(model))
        self.breaker_state.labels(*labels).set(state)
        if state == 1:
            self.breaker_trips.labels(*labels).inc()

    def breaker_rejected(self, provider: str, endpoint: str, model: str) -> None:
        """A circuit breaker refused a request."""
        self.breaker_rejects.labels(provider, endpoint, self.model(model)).inc()

    def key_changed(self, provider: str, key: str, state: float) -> None:
        """A key of a provider that has several is well (0), limited (0.5) or refused (1) from now on."""
        self.key_state.labels(provider, key).set(state)


@lru_cache(maxsize=1)
def default_metrics() -> Metrics:
    """The metrics of a bridge that was given none: in a registry of their own, which nobody scrapes."""
    return Metrics(CollectorRegistry())

"""How providers are reached, and how long they may take, as the settings say."""

from __future__ import annotations

from collections.abc import Sequence

from aibridge.http_client.connecting import Connecting, Proxies
from aibridge.server import tls
from aibridge.server.settings import MCPServer, Provider, Upstream
from aibridge.upstream.upstream import TimeLimits


def time_limits(upstream: Upstream, provider: Provider | None = None) -> TimeLimits:
    """How long a provider may take; without one, how long those may that say nothing else."""

    def of(setting: str) -> float:
        own: float | None = getattr(provider, setting) if provider else None
        usual: float = getattr(upstream, setting)
        return usual if own is None else own

    return TimeLimits(
        connect=upstream.connect_timeout,
        first_byte=of("first_byte_timeout"),
        idle=of("idle_timeout"),
        whole=of("whole_timeout"),
        whole_stream=of("whole_stream_timeout"),
        keep_alive=upstream.keepalive_interval,
    )


def connecting(upstream: Upstream, providers: Sequence[Provider]) -> Connecting:
    """How providers are reached. Raises `SettingsError` where a certificate or a key can not be used."""
    contexts = {provider.name: tls.context(upstream, provider) for provider in providers}
    return Connecting(
        per_host=upstream.max_connections_per_host,
        dns_ttl=upstream.dns_ttl,
        proxies=_proxies(upstream),
        tls={name: context for name, context in contexts.items() if context},
    )


def connecting_tools(upstream: Upstream, servers: Sequence[MCPServer]) -> Connecting:
    """How MCP servers are reached, and the authorization servers before them. Raises `SettingsError` as well."""
    trusted = tls.trusting(upstream)
    return Connecting(
        dns_ttl=upstream.dns_ttl,
        proxies=_proxies(upstream),
        tls={server.name: trusted for server in servers} if trusted else {},
    )


def _proxies(upstream: Upstream) -> Proxies:
    return Proxies(upstream.http_proxy, upstream.https_proxy, upstream.no_proxy)

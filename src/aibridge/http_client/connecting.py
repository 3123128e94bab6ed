"""How others are connected to: by which proxies, trusting whom, and with how many connections."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from aiohttp.abc import AbstractResolver
from yarl import URL

_WITH_PORT = re.compile(r"([^:]+|\[[^]]+\]):([0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class Proxies:
    """HTTP proxies for requests to `http` and `https` URLs; empty for none. Credentials may stand in their URLs.

    `exceptions` is what a variable `NO_PROXY` would say: names of hosts (and all below them), with a port or without,
    addresses and networks, separated by commas; `*` for all. Nothing on this machine itself is asked by a proxy.
    """

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    exceptions: str = ""

    def __bool__(self) -> bool:
        return bool(self.http or self.https)

    def of(self, url: URL) -> URL | None:
        """The proxy by which a URL is reached; None where there is none."""
        proxy = self.https if url.scheme == "https" else self.http
        return URL(proxy) if proxy and not self._excepted(url.host or "", url.port) else None

    def _excepted(self, host: str, port: int | None) -> bool:
        try:
            address = ip_address(host)
        except ValueError:
            address = None
        if host == "localhost" or (address and address.is_loopback):
            return True
        named = (each.strip().lower() for each in self.exceptions.split(","))
        return any(each == "*" or _means(each, host.lower(), address, port) for each in named if each)


def _means(named: str, host: str, address: IPv4Address | IPv6Address | None, port: int | None) -> bool:
    """An exception is about this host."""
    if found := _WITH_PORT.fullmatch(named):
        if int(found[2]) != port:
            return False
        named = found[1]
    if address is None:
        name = named.removeprefix("*").removeprefix(".")
        return host == name or host.endswith(f".{name}")
    try:
        return address in ip_network(named.strip("[]"), strict=False)
    except ValueError:  # it is a name
        return False


@dataclass(frozen=True, slots=True)
class Connecting:
    """How others are connected to."""

    per_host: int = 0
    """Connections to one host at a time; requests wait for a free one. 0 for any number."""
    dns_ttl: float = 30.0
    """Seconds for which a host is taken to be where it was found."""
    proxies: Proxies = Proxies()
    tls: Mapping[str, ssl.SSLContext] = field(default_factory=dict)
    """By name of who is asked: whom to trust, and which certificate to show; for others, what the system trusts."""
    resolver: AbstractResolver | None = None
    """Finds hosts' addresses; None for the system's way."""
    kept_for: float = 15.0
    """Seconds for which a connection is kept that nothing is asked on; up to 15 more where nobody looks for one."""

"""How providers are connected to, as the settings say."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from pathlib import Path

from aibridge.errors import SettingsError
from aibridge.server.settings import Provider, Upstream
from aibridge.upstream.connecting import Connecting, Proxies


def connecting(upstream: Upstream, providers: Sequence[Provider]) -> Connecting:
    """How providers are reached. Raises `SettingsError` where a certificate or key can not be used."""
    contexts = {provider.name: _context(upstream, provider) for provider in providers}
    return Connecting(
        per_host=upstream.max_connections_per_host,
        dns_ttl=upstream.dns_ttl,
        proxies=Proxies(upstream.http_proxy, upstream.https_proxy, upstream.no_proxy),
        tls={name: context for name, context in contexts.items() if context},
    )


def _context(upstream: Upstream, provider: Provider) -> ssl.SSLContext | None:
    """Whom a provider is trusted to be, and who the gateway is; None where the system's way will do."""
    files = [("upstream.ca_file", upstream.ca_file), (f"ca_file of provider {provider.name}", provider.ca_file)]
    if not (any(file for _, file in files) or provider.client_cert):
        return None
    context = ssl.create_default_context()
    context.set_alpn_protocols(["http/1.1"])
    for setting, file in files:
        if file:
            _trust(context, setting, file)
    if provider.client_cert:
        try:
            # Without a password, OpenSSL would ask for one on the terminal.
            context.load_cert_chain(provider.client_cert, provider.client_key, password="")
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"client_cert of provider {provider.name}: {_cause(error)}; it is a PEM file with a certificate and "
                "those between it and its authority, and client_key one with its key, which has no password"
            ) from error
    return context


def _trust(context: ssl.SSLContext, setting: str, file: Path) -> None:
    try:
        context.load_verify_locations(file)
    except (OSError, ValueError) as error:
        remedy = "it is a PEM file with the certificates of authorities"
        raise SettingsError(f"{setting}: {file} can not be used ({_cause(error)}); {remedy}") from error


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"OpenSSL says {error.reason or error}"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

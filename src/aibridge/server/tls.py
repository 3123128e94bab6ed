"""Whom providers and MCP servers are trusted to be, and which certificates they are shown, as the settings say."""

from __future__ import annotations

import ssl
from pathlib import Path

from aibridge.errors import SettingsError
from aibridge.server.settings import Provider, Upstream


def context(upstream: Upstream, provider: Provider) -> ssl.SSLContext | None:
    """What TLS with a provider needs; None where the system's way will do.

    Raises `SettingsError` where a certificate or a key can not be used.
    """
    named = f"providers.{provider.name}"
    authorities = [("upstream.ca_file", upstream.ca_file), (f"{named}.ca_file", provider.ca_file)]
    if not (any(file for _, file in authorities) or provider.client_cert):
        return None
    made = _context()
    for setting, file in authorities:
        if file:
            _trust(made, setting, file)
    if provider.client_cert:
        _show(made, f"{named}.client_cert", provider.client_cert, provider.client_key)
    return made


def trusting(upstream: Upstream) -> ssl.SSLContext | None:
    """What TLS with anyone else needs; None where the system's way will do. Raises `SettingsError`."""
    if not upstream.ca_file:
        return None
    made = _context()
    _trust(made, "upstream.ca_file", upstream.ca_file)
    return made


def _context() -> ssl.SSLContext:
    made = ssl.create_default_context()
    made.set_alpn_protocols(["http/1.1"])
    return made


def _trust(made: ssl.SSLContext, setting: str, file: Path) -> None:
    try:
        made.load_verify_locations(file)
    except (OSError, ValueError) as error:
        allowed = "allowed is a PEM file with the certificates of authorities"
        raise SettingsError(f"{setting}: {file} can not be used ({_cause(error)}); {allowed}") from error


def _show(made: ssl.SSLContext, setting: str, certificate: Path, key: Path | None) -> None:
    try:
        made.load_cert_chain(certificate, key, password="")  # without one, OpenSSL would ask for it on the terminal
    except (OSError, ValueError) as error:
        allowed = (
            "allowed is a PEM file with a certificate and those between it and its authority, and with its key, "
            "unless that is in client_key; a key has no password"
        )
        raise SettingsError(f"{setting}: {certificate} can not be used ({_cause(error)}); {allowed}") from error


def _cause(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        return f"OpenSSL says {error.reason or error}"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)

"""The audit trail of a gateway, as its settings say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aibridge.errors import SettingsError
from aibridge.recording.audit import Audited, AuditTrail, Reader
from aibridge.recording.stores import Store
from aibridge.server.settings import Audit

if TYPE_CHECKING:
    from aibridge.server.forwarding import Forwarder


def audited(store: Store, settings: Audit) -> Store:
    """The store, with the trail beside it where there is to be one."""
    if settings.dir is None:
        return store
    trail = AuditTrail(
        settings.dir, contents=settings.contents, max_file_size=settings.max_file_size, keep=settings.keep
    )
    return Audited(store, trail)


def forwarder(settings: Audit) -> Forwarder | None:
    """What sends the trail on, where it is to be sent. Raises `SettingsError` where there is none to send."""
    if not settings.otlp_endpoint:
        return None
    if settings.dir is None:
        raise SettingsError("audit.otlp_endpoint: there is no trail to send; allowed is one where audit.dir is set")
    from aibridge.server.forwarding import Forwarder

    headers = {name: value.reveal() for name, value in settings.otlp_headers.items()}
    return Forwarder(Reader(settings.dir), settings.otlp_endpoint, headers)

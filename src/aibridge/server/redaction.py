"""What sees contents before they are recorded, as the settings say."""

from __future__ import annotations

from aibridge.errors import SettingsError
from aibridge.recording.contents import Redaction, Redactor
from aibridge.server.importing import imported
from aibridge.server.settings import Recording


def redaction(settings: Recording) -> Redaction | None:
    """The redaction, where there is any. Raises `SettingsError` where its redactor can not be had."""
    if settings.redactor_patterns and settings.redactor != "secrets":
        raise SettingsError(
            "recording.redactor_patterns: only the built-in redactor has patterns, and recording.redactor is "
            f'"{settings.redactor}"; allowed is "secrets" with them'
        )
    if settings.redactor == "none":
        return None
    redactor: Redactor
    if settings.redactor == "secrets":
        from aibridge.recording.secrets import KnownSecrets

        redactor = KnownSecrets(settings.redactor_patterns)
    else:
        redactor = imported("recording.redactor", settings.redactor, "none, secrets")
        if not callable(redactor):
            raise SettingsError(f"recording.redactor: {settings.redactor!r} is nothing that can be called with a text")
    return Redaction(redactor, time_limit=settings.redactor_timeout)

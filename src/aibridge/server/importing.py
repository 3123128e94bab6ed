"""Code of the operator's own that a setting names: `package.module:name`."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from aibridge.errors import SettingsError


def imported(setting: str, told: str, others: str) -> Any:
    """What a setting names. `others` are the words that the setting could have instead, for an error.

    Raises `SettingsError` where it can not be had.
    """
    module, _, name = told.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as error:
        allowed = f"allowed is {others}, or package.module:name of something that can be imported"
        raise SettingsError(f"{setting}: {told!r} can not be loaded ({error}); {allowed}") from error

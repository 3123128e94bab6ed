"""Token counts as providers send them, made fit to be kept."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from aibridge.wire import json_bytes
from aibridge.wire.dialect import Usage

_DIGITS = re.compile(r"-?[0-9]+")
_MOST = (1 << 63) - 1  # what a database's integer holds
_object = msgspec.json.Decoder(dict[str, Any] | None)


def told(usage: msgspec.Raw) -> dict[str, Any]:
    """The counters of a usage object that was left as it stands; empty where there is none.

    Raises `msgspec.DecodeError` where it is no object.
    """
    return json_bytes.decode(_object, usage) or {} if usage else {}


def count(value: Any) -> int:
    """A count of tokens; 0 for what is none. A negative one stays negative, for the caller to see."""
    if type(value) is int and 0 <= value <= _MOST:  # as nearly all are
        return value
    if isinstance(value, bool):
        return 0
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        value = int(value[:20])
    elif isinstance(value, float) and value == value and abs(value) < _MOST:
        value = int(value)
    return max(-_MOST, min(value, _MOST)) if isinstance(value, int) else 0


def others(usage: dict[str, Any], known: frozenset[str]) -> dict[str, Any]:
    """Every counter but the `known` ones, under its own name; those of a nested object as `object.counter`."""
    found: dict[str, Any] = {}
    for name, value in usage.items():
        if name in known or value is None:
            continue
        if type(value) is dict:
            told = ((f"{name}.{each}", inner) for each, inner in value.items())
            found.update((path, inner) for path, inner in told if inner is not None and path not in known)
        else:
            found[name] = value
    return found


def usage_of(uncached: int, output: int, read: int, written: int, raw: dict[str, Any], known: frozenset[str]) -> Usage:
    """Usage that can be stored: no count is below zero; where one was, the provider's own object is kept beside it.

    `raw` is that object, whose `known` counters are told by the others.
    """
    extra = others(raw, known)
    if uncached >= 0 and output >= 0 and read >= 0 and written >= 0:
        return Usage(uncached, output, read, written, extra)
    return Usage(max(0, uncached), max(0, output), max(0, read), max(0, written), {**extra, "raw_usage": raw})

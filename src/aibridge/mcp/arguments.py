"""The arguments of a call, as a model writes them."""

from __future__ import annotations

from typing import Any

import msgspec

from aibridge.wire import json_bytes

DEEPEST = 64
"""How deeply arguments may be nested; no schema of a tool needs as much."""

_decoder = msgspec.json.Decoder()


class ArgumentsError(Exception):
    """They can not be sent to a server; the message tells the model why."""


def read_arguments(text: str) -> dict[str, Any]:
    """The object that JSON text holds; no text at all is an empty one. Raises `ArgumentsError`."""
    if not text.strip():
        return {}
    try:
        value = json_bytes.decode(_decoder, text.encode("utf-8", "replace"))
    except msgspec.DecodeError as fault:
        raise ArgumentsError(f"the arguments are not valid JSON: {fault}") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise ArgumentsError(f"the arguments have to be a JSON object, not {_KINDS[type(value)]}")
    if _deeper_than(value, DEEPEST):
        raise _too_deep()
    return value


_KINDS = {
    list: "an array",
    str: "a string",
    int: "a number",
    float: "a number",
    bool: "a boolean",
    type(None): "null",
}


def _too_deep() -> ArgumentsError:
    return ArgumentsError(f"the arguments are nested more than {DEEPEST} levels deep")


def _deeper_than(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_deeper_than(each, levels - 1) for each in inner)

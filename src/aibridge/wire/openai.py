"""What OpenAI's two dialects share: the shape of an error, and how usage is counted."""

from __future__ import annotations

from typing import Any

from aibridge.errors import Fault
from aibridge.wire import counters, json_bytes
from aibridge.wire.counters import count
from aibridge.wire.dialect import Usage


def error_of(fault: Fault) -> dict[str, Any]:
    """A fault in the shape of https://platform.openai.com/docs/guides/error-codes/api-errors."""
    said = fault.said
    return {
        "message": fault.message,
        "type": fault.provider_type or said.openai_type,
        "param": None,
        "code": said.openai_code,
    }


def error_body(fault: Fault) -> bytes:
    """The JSON body of an error answer."""
    return json_bytes.encode({"error": error_of(fault)})


def usage_of(told: dict[str, Any], input_name: str, output_name: str) -> Usage:
    """Usage whose input is told with its cached part in it, in `<input>_details.cached_tokens`.

    A part written to the cache, where a provider tells of one, is in the input as well.
    """
    details = told.get(f"{input_name}_details")
    parts = details if isinstance(details, dict) else {}
    cached = count(parts.get("cached_tokens"))
    written = count(parts.get("cache_write_tokens"))
    inner = {f"{input_name}_details.cached_tokens", f"{input_name}_details.cache_write_tokens"}
    known = frozenset({input_name, output_name, *inner})
    uncached = count(told.get(input_name)) - cached - written
    return counters.usage_of(uncached, count(told.get(output_name)), cached, written, told, known)

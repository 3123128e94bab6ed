"""The messages of a session, as they stand on the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mcp.types import INTERNAL_ERROR, JSONRPCMessage, RequestId, jsonrpc_message_adapter

from aibridge.wire import json_bytes

TOO_LARGE = INTERNAL_ERROR
"""The code of the error that stands for an answer larger than what is read of one."""


def read_message(text: bytes) -> JSONRPCMessage:
    """A message in JSON; lone surrogates in it are U+FFFD. Raises `ValueError` where it is none."""
    message: JSONRPCMessage = jsonrpc_message_adapter.validate_json(json_bytes.mended(text), by_name=False)
    return message


def write_message(message: JSONRPCMessage) -> bytes:
    """The same in JSON, in one line."""
    return message.model_dump_json(by_alias=True, exclude_unset=True).encode()


def write_request(request: RequestId, method: str, params: Mapping[str, Any] | None) -> bytes:
    """A request in JSON, in one line."""
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": request, "method": method}
    if params:
        message["params"] = params
    return json_bytes.encode(message)


def too_large(limit: int) -> str:
    """What is said of such an answer; `limit` is in bytes."""
    return f"the answer is larger than {limit} bytes"

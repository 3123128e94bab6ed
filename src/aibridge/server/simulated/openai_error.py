"""Errors as OpenAI writes them, in both of its dialects (https://platform.openai.com/docs/guides/error-codes)."""

from __future__ import annotations

from typing import Any

_KINDS = {
    401: ("invalid_request_error", "invalid_api_key"),
    429: ("requests", "rate_limit_exceeded"),
    500: ("server_error", None),
    503: ("service_unavailable_error", None),
}


def openai_error(status: int, message: str) -> dict[str, Any]:
    """The body of an answer that is an error."""
    kind, code = _KINDS.get(status, ("invalid_request_error" if status < 500 else "server_error", None))
    return {"error": {"message": message, "type": kind, "param": None, "code": code}}

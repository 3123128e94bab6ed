"""What can go wrong, and what each fault says to a client.

A fault knows no dialect: it has a kind, and `SAID` says which HTTP status, type and code stand for that
kind in the shapes that Anthropic's and OpenAI's clients understand.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import NamedTuple


class Kind(Enum):
    """The sorts of faults that the gateway itself reports."""

    INVALID_REQUEST = auto()
    UNKNOWN_ACTOR = auto()
    ACTOR_NOT_ALLOWED = auto()
    MODEL_NOT_ALLOWED = auto()
    ROUTE_NOT_SUPPORTED = auto()
    BODY_TOO_LARGE = auto()
    WEBSOCKET_NOT_SERVED = auto()
    TOO_MANY_REQUESTS = auto()
    NOT_RECORDED = auto()
    SHUTTING_DOWN = auto()
    BREAKER_OPEN = auto()
    NO_CREDENTIAL = auto()
    UPSTREAM_FAULT = auto()
    UPSTREAM_SILENT = auto()
    INTERNAL = auto()


class Said(NamedTuple):
    """How a kind of fault is told: HTTP status, then Anthropic's error type, then OpenAI's type and code."""

    status: int
    anthropic_type: str
    openai_type: str
    openai_code: str | None


SAID = {
    Kind.INVALID_REQUEST: Said(400, "invalid_request_error", "invalid_request_error", None),
    Kind.UNKNOWN_ACTOR: Said(401, "authentication_error", "invalid_request_error", "invalid_api_key"),
    Kind.ACTOR_NOT_ALLOWED: Said(403, "permission_error", "permission_error", None),
    Kind.MODEL_NOT_ALLOWED: Said(403, "permission_error", "permission_error", "model_not_allowed"),
    Kind.ROUTE_NOT_SUPPORTED: Said(404, "not_found_error", "invalid_request_error", "route_not_supported"),
    Kind.BODY_TOO_LARGE: Said(413, "request_too_large", "invalid_request_error", "request_too_large"),
    Kind.WEBSOCKET_NOT_SERVED: Said(426, "invalid_request_error", "invalid_request_error", "websocket_not_supported"),
    Kind.TOO_MANY_REQUESTS: Said(429, "rate_limit_error", "rate_limit_error", "rate_limit_exceeded"),
    Kind.NOT_RECORDED: Said(503, "api_error", "api_error", "recording_unavailable"),
    Kind.SHUTTING_DOWN: Said(503, "overloaded_error", "server_error", "service_unavailable"),
    Kind.BREAKER_OPEN: Said(503, "overloaded_error", "server_error", "service_unavailable"),
    Kind.NO_CREDENTIAL: Said(502, "api_error", "server_error", "server_error"),
    Kind.UPSTREAM_FAULT: Said(502, "api_error", "server_error", "server_error"),
    Kind.UPSTREAM_SILENT: Said(504, "timeout_error", "timeout_error", "timeout_error"),
    Kind.INTERNAL: Said(500, "api_error", "server_error", "server_error"),
}


class Fault(Exception):
    """Something went wrong, and the client is to be told.

    `message` names the cause and, where there is one, the remedy.
    `retry_after` is in whole seconds; `provider_type` is the provider's own word for an error that it reported, empty
    where it had none, and None where `message` is the gateway's alone.
    Nothing secret may stand in `message`.
    """

    def __init__(
        self, kind: Kind, message: str, *, retry_after: int | None = None, provider_type: str | None = None
    ) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.retry_after = retry_after
        self.provider_type = provider_type

    @property
    def said(self) -> Said:
        """Status, type and code, by dialect."""
        return SAID[self.kind]


class RecordingError(Exception):
    """A record could not be kept (the journal's disk is full, the store is closed)."""


class SettingsError(Exception):
    """A setting is unknown, ill-typed or missing; the message names it in full, what was found and what is allowed."""

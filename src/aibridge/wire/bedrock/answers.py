"""Putting what Amazon Bedrock answers as Anthropic would put it: events out of binary frames, and errors of AWS.

Sources: https://docs.aws.amazon.com/bedrock/latest/APIReference/API_runtime_InvokeModelWithResponseStream.html and
.../API_runtime_ResponseStream.html.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from aibridge.errors import Fault, Kind
from aibridge.wire import json_bytes, sse
from aibridge.wire.aws_event_stream import Frame, FrameDecoder, FrameError

MAX_DOCUMENT = 1 << 20
"""How long an error or a count may be, in bytes; a longer one passes as it came."""

RawHeaders = Sequence[tuple[bytes, bytes]]

ERROR_TYPES = {
    "accessdenied": "permission_error",
    "expiredtoken": "authentication_error",
    "incompletesignature": "authentication_error",
    "invalidclienttokenid": "authentication_error",
    "invalidsignature": "authentication_error",
    "missingauthenticationtoken": "authentication_error",
    "modelnotready": "overloaded_error",
    "modeltimeout": "timeout_error",
    "resourcenotfound": "not_found_error",
    "servicequotaexceeded": "rate_limit_error",
    "serviceunavailable": "overloaded_error",
    "throttling": "rate_limit_error",
    "unrecognizedclient": "authentication_error",
    "validation": "invalid_request_error",
}
"""Anthropic's types of errors by those of AWS, which are told in small letters and without `Exception`."""

_TYPES_BY_STATUS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    529: "overloaded_error",
}


class _Chunk(msgspec.Struct):
    event: bytes = msgspec.field(name="bytes")  # msgspec undoes their Base64


class _Event(msgspec.Struct):
    type: str = ""


class _Error(msgspec.Struct):
    message: str = ""
    capital: str = msgspec.field(default="", name="Message")  # as some services of AWS have it
    kind: str = msgspec.field(default="", name="__type")


class _Count(msgspec.Struct):
    tokens: int = msgspec.field(name="inputTokens")


_chunk = msgspec.json.Decoder(_Chunk)
_event = msgspec.json.Decoder(_Event)
_error = msgspec.json.Decoder(_Error)
_count = msgspec.json.Decoder(_Count)


class EventFrames:
    """A stream of events, each in a frame of an AWS event stream. `provider` is named in faults."""

    def __init__(self, provider: str, headers: RawHeaders, request_id: str) -> None:
        self.headers = headers
        self.fault: Fault | None = None
        self._provider, self._request_id = provider, request_id
        self._frames = FrameDecoder()

    def feed(self, data: bytes) -> bytes:
        """The next bytes; returns the events that are now whole, as server-sent ones."""
        told: list[bytes] = []
        try:
            if not self.fault:
                told.extend(map(self._said, self._frames.feed(data)))
        except FrameError as error:
            self._fail(error)
        return b"".join(told)

    def close(self) -> bytes:
        """The answer has ended."""
        try:
            self._frames.close()
        except FrameError as error:
            self._fail(error)
        return b""

    def _fail(self, error: FrameError) -> None:
        self.fault = self.fault or Fault(Kind.UPSTREAM_FAULT, f"the answer of {self._provider} broke off: {error}")

    def _said(self, frame: Frame) -> bytes:
        kind = frame.headers.get(":message-type")
        if kind == "exception":
            return self._exception(frame.headers.get(":exception-type", ""), _message_in(frame.payload))
        if kind == "error":
            return self._exception(frame.headers.get(":error-code", ""), frame.headers.get(":error-message", ""))
        if frame.headers.get(":event-type") != "chunk":
            return b""
        try:
            data = _chunk.decode(frame.payload).event
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise FrameError("a frame holds no event") from error
        try:
            name = _event.decode(data).type
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            name = ""
        if b"\n" in data or b"\r" in data:  # between tokens, where a space says the same
            data = b" ".join(data.splitlines())
        return sse.write(data, name if name.isidentifier() else None)

    def _exception(self, kind: str, message: str) -> bytes:
        return sse.write(_error_body(error_type(kind, 500), message or kind, self._request_id), "error")


class Document:
    """An answer in one document that is put otherwise once it is whole; this one as it stands."""

    def __init__(self, headers: RawHeaders) -> None:
        self.headers = headers
        self.fault: Fault | None = None
        self._text: bytes | None = b""  # None once it is too long

    def feed(self, data: bytes) -> bytes:
        """The next bytes; they are kept to the end."""
        if self._text is None:
            return data
        self._text += data
        if len(self._text) <= MAX_DOCUMENT:
            return b""
        text, self._text = self._text, None
        return text

    def close(self) -> bytes:
        """The answer has ended: what it says, in Anthropic's shape; what can not be understood, as it came."""
        return self._put(self._text) if self._text else b""

    def _put(self, text: bytes) -> bytes:
        return text


class ErrorDocument(Document):
    """An error, as AWS tells it: `kind` is the type that its headers name."""

    def __init__(self, headers: RawHeaders, status: int, kind: str, request_id: str) -> None:
        super().__init__(headers)
        self._status, self._kind, self._request_id = status, kind, request_id

    def _put(self, text: bytes) -> bytes:
        try:
            error = _error.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return text
        if not (message := error.message or error.capital):
            return text
        return _error_body(error_type(self._kind or error.kind, self._status), message, self._request_id)


class CountDocument(Document):
    """The number of tokens that were counted."""

    def _put(self, text: bytes) -> bytes:
        try:
            return b'{"input_tokens":%d}' % _count.decode(text).tokens
        except (msgspec.DecodeError, UnicodeDecodeError):
            return text


class Passing:
    """An answer that passes as it comes, under other headers."""

    fault: Fault | None = None

    def __init__(self, headers: RawHeaders) -> None:
        self.headers = headers

    def feed(self, data: bytes) -> bytes:
        """The next bytes."""
        return data

    def close(self) -> bytes:
        """The answer has ended."""
        return b""


def error_name(kind: str) -> str:
    """A type of error as AWS tells it, without what some of its services put around it: `Name:http://…`, `…#Name`."""
    return kind.partition(":")[0].rpartition("#")[2]


def error_type(kind: str, status: int) -> str:
    """Anthropic's type of an error that AWS has a type for."""
    name = error_name(kind).lower().removesuffix("exception")
    return ERROR_TYPES.get(name) or _TYPES_BY_STATUS.get(status, "api_error")


def _message_in(payload: bytes) -> str:
    try:
        error = _error.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return error.message or error.capital


def _error_body(kind: str, message: str, request_id: str) -> bytes:
    told = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id or None}
    return json_bytes.encode(told)

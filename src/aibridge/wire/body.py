"""What every dialect does with a request's body: find the model, and the last thing that was said."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from aibridge.errors import Fault, Kind
from aibridge.wire import json_bytes

T = TypeVar("T", bound=msgspec.Struct)


class Said(msgspec.Struct):
    """One message or input item of a conversation; its content is left as it stands."""

    role: str = ""
    type: str = ""
    content: msgspec.Raw = msgspec.Raw()
    tool_call_id: str | None = None
    call_id: str | None = None


class _Part(msgspec.Struct):
    type: str = ""
    text: str = ""


class _Named(msgspec.Struct):
    model: str | None = None


_named = msgspec.json.Decoder(_Named)
_said = msgspec.json.Decoder(Said)
_text = msgspec.json.Decoder(str)
_parts = msgspec.json.Decoder(list[_Part])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])


_NOT_UTF_8 = "the request body is not UTF-8"


def read_body(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    """The members of a request that the gateway needs.

    Only what the gateway can not do without makes it refuse a request: members that are not of the expected type are
    taken as absent, for it is the provider's to judge them, as are texts that are not looked at.
    Raises `Fault` (INVALID_REQUEST).
    """
    try:
        try:
            return json_bytes.decode_strictly(decoder, body)
        except msgspec.ValidationError:
            return _read_leniently(decoder, body)
    except RecursionError:
        cause = "the request body is nested too deeply"
    except UnicodeDecodeError:
        cause = _NOT_UTF_8
    except msgspec.ValidationError as error:
        cause = f"the request body is not valid: {error}"
    except msgspec.DecodeError as error:
        cause = f"the request body is not JSON: {error}" if body else "the request body is empty"
    raise Fault(Kind.INVALID_REQUEST, cause)


def _read_leniently(decoder: msgspec.json.Decoder[T], body: bytes) -> T:
    members = json_bytes.decode_strictly(_members, body)
    fitting = {}
    for member in msgspec.structs.fields(decoder.type):
        try:
            if member.encode_name in members:
                fitting[member.name] = json_bytes.decode_strictly(
                    msgspec.json.Decoder(member.type), bytes(members[member.encode_name])
                )
            elif member.required:
                raise msgspec.ValidationError("it is missing")
        except msgspec.DecodeError as error:
            if member.required:
                raise msgspec.ValidationError(f"member `{member.encode_name}`: {error}") from None
    return decoder.type(**fitting)


def model_in(body: bytes) -> str | None:
    """The model that a request of whatever kind names, if it is JSON and does."""
    try:
        return json_bytes.decode_strictly(_named, body).model
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def renamed(body: bytes, model: str | None, other: str) -> bytes:
    """A request's body, which names the model, with another in its place, and no other byte changed."""
    return body if other == model else json_bytes.set_member(body, "model", json_bytes.encode(other))


def last_said(messages: list[msgspec.Raw]) -> Said | None:
    """The last message, once trailing ones are skipped that neither the user nor a tool said; None where it is none.

    Claude Code puts a description of its surroundings into a `system` message after the user's own, and Codex what a
    sub-agent reports into an `agent_message`.
    """
    for message in reversed(messages):
        try:
            said = json_bytes.decode_strictly(_said, message)
        except UnicodeDecodeError as error:
            raise Fault(Kind.INVALID_REQUEST, _NOT_UTF_8) from error
        except (msgspec.DecodeError, RecursionError):
            return None
        if said.role not in ("system", "developer") and said.type != "agent_message":
            return said
    return None


def texts(content: msgspec.Raw | bytes, kind: str, *, lenient: bool = False) -> list[str]:
    """The texts of a message: its string, or those of its parts of one kind.

    Raises `Fault` (INVALID_REQUEST) where a text is not UTF-8; if `lenient`, takes what is not for U+FFFD.
    """
    told = bytes(content)
    decode = json_bytes.decode if lenient else json_bytes.decode_strictly
    try:
        if told[:1] == b'"':
            return [decode(_text, told)]
        return [part.text for part in decode(_parts, told) if part.type == kind]
    except UnicodeDecodeError as error:
        raise Fault(Kind.INVALID_REQUEST, _NOT_UTF_8) from error
    except (msgspec.DecodeError, RecursionError):
        return []


def last_text(content: msgspec.Raw | bytes, kind: str, *, lenient: bool = False) -> str | None:
    """The user's own words in a message: its string, or its last text that no client wrapped as a reminder.

    Of a text that is not UTF-8, see `texts`.
    """
    given = bytes(content)
    told = texts(given, kind, lenient=lenient)
    if given[:1] == b'"':
        return told[0] if told else None
    return last_own(told)


def last_own(said: list[str]) -> str | None:
    """The last of the texts that no client wrapped as a reminder."""
    for text in reversed(said):
        if not _is_reminder(text):
            return text
    return None


def _is_reminder(text: str) -> bool:
    return text.lstrip().startswith("<system-reminder>") and text.rstrip().endswith("</system-reminder>")

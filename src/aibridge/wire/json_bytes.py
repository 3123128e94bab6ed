"""JSON as it stands in bytes: read no more of it than is needed, and edit it without encoding it anew."""

from __future__ import annotations

import json
import re
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}\Z")
_SPACE = re.compile(r"[ \t\n\r]*")
_scan = json.JSONDecoder().raw_decode


def decode(decoder: msgspec.json.Decoder[T], text: bytes) -> T:
    """Decode, taking escaped lone surrogates for U+FFFD.

    JavaScript clients send those where they cut a text inside a character; RFC 8259 (8.2) allows it, msgspec does not.
    Raises `msgspec.DecodeError` (of which `msgspec.ValidationError` is a kind) and `RecursionError`.
    """
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        mended = _ESCAPE.sub(_mend, text)
        if mended == text:
            raise
        return decoder.decode(mended)


def _mend(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if _LONE_SURROGATE.fullmatch(escape[0]) else escape[0]


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def set_member(text: bytes, name: str, value: bytes) -> bytes:
    """The object `text` with its member `name` set, and no other byte changed; `text` is known to be valid."""
    span = member_span(text, name)
    if span:
        return text[: span[0]] + value + text[span[1] :]
    begin = text.index(b"{") + 1
    comma = b"" if text[begin:].lstrip().startswith(b"}") else b","
    return text[:begin] + encode(name) + b":" + value + comma + text[begin:]


def member_span(text: bytes, name: str) -> tuple[int, int] | None:
    """Where the value of an object's member begins and ends; of members with one name, the last.

    `text` is known to be a valid JSON object. All of it is decoded, so this is for where an edit is due.
    """
    told = text.decode("latin-1")  # a character for each byte, so that offsets agree
    found, at = None, _SPACE.match(told, told.index("{") + 1).end()  # type: ignore[union-attr]  # it matches everywhere
    while told[at] == '"':
        key, at = _scan(told, at)
        begin = _after(told, at, ":")
        _, at = _scan(told, begin)
        if key == name:
            found = begin, at
        at = _after(told, at, ",")
    return found


def _after(text: str, at: int, mark: str) -> int:
    """The first place after white space, one `mark` where it stands there, and white space again."""
    at = _SPACE.match(text, at).end()  # type: ignore[union-attr]
    return _SPACE.match(text, at + 1).end() if text[at] == mark else at  # type: ignore[union-attr]

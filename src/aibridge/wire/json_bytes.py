"""JSON as it stands in bytes: read no more of it than is needed, and edit it without encoding it anew."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

T = TypeVar("T")

_ESCAPE = re.compile(
    rb"\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|\\u[dD][89a-fA-F][0-9a-fA-F]{2}|\\.", re.DOTALL
)
_LONE_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F][0-9a-fA-F]{2}\Z")
_KEY = re.compile(rb'[ \t\n\r,]*("(?:[^"\\]|\\.)*")[ \t\n\r]*:[ \t\n\r]*', re.DOTALL)
_GAP = re.compile(rb"[ \t\n\r,]*")
_END = ord("]")
_elements = msgspec.json.Decoder(list[msgspec.Raw])
_members = msgspec.json.Decoder(dict[str, msgspec.Raw])
_scan = json.JSONDecoder(parse_int=str, strict=False).raw_decode  # as text, numbers may be of any length


def decode(decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    """Decode, taking escaped lone surrogates, and bytes that are not UTF-8, for U+FFFD.

    JavaScript clients send those where they cut a text inside a character; RFC 8259 (8.2) allows it, msgspec does not.
    Raises `msgspec.DecodeError` (of which `msgspec.ValidationError` is a kind) and `RecursionError`.
    """
    try:
        return decode_strictly(decoder, text)
    except UnicodeDecodeError:
        return decode_strictly(decoder, text_of(text).encode())


def decode_strictly(decoder: msgspec.json.Decoder[T], text: bytes | msgspec.Raw) -> T:
    """The same for a text that must be UTF-8: raises `UnicodeDecodeError` where a part that is decoded is not."""
    try:
        return decoder.decode(text)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        told = bytes(text)
        whole = mended(told)
        if whole == told:
            raise
        return decoder.decode(whole)


def mended(text: bytes) -> bytes:
    """The text with U+FFFD for each escaped lone surrogate; parsers that are strict refuse those."""
    return _ESCAPE.sub(_mend, text) if b"\\ud" in text or b"\\uD" in text else text


def _mend(escape: re.Match[bytes]) -> bytes:
    return b"\\ufffd" if _LONE_SURROGATE.fullmatch(escape[0]) else escape[0]


def text_of(json: bytes | msgspec.Raw) -> str:
    """A piece of JSON as text; msgspec does not look whether one that it left as it stands is UTF-8."""
    return bytes(json).decode(errors="replace")


def encode(value: Any) -> bytes:
    """Compact JSON."""
    return msgspec.json.encode(value)


def set_member(text: bytes, name: str, value: bytes) -> bytes:
    """The object `text` with its member `name` set, and no other byte changed; `text` is known to be valid."""
    if span := member_spans(text).get(name):
        return text[: span[0]] + value + text[span[1] :]
    begin = text.index(b"{") + 1
    comma = b"" if text[begin:].lstrip().startswith(b"}") else b","
    return text[:begin] + encode(name) + b":" + value + comma + text[begin:]


def replace_member(text: bytes, name: str, known: bytes, value: bytes) -> bytes:
    """The same where the member is known to be there, and most likely stands as `known`: then this is much faster."""
    key = b'"%b":' % name.encode()
    if text.count(key[:-1]) == 1:  # in a text of that name it would be twice there, or its quotes be escaped
        start = text.find(key + known)
        end = start + len(key) + len(known)
        if start >= 0 and text[end : end + 1] in (b",", b"}"):
            return text[: start + len(key)] + value + text[end:]
    return set_member(text, name, value)


def without_member(text: bytes, name: str) -> bytes:
    """The object `text` without its member `name`, and no other byte changed; `text` is known to be valid."""
    return edit(text, {name: None})


def edit(text: bytes, changes: Mapping[str, bytes | None]) -> bytes:
    """The object `text` with members set, or removed (None), and no other byte changed; `text` is known to be valid.

    New members go before all others. Of members with one name, the last is set, and all are removed.
    """
    members = _spans(text)
    last = {name: place for place, (name, _, _) in enumerate(members)}
    begin = at = text.index(b"{") + 1
    kept: list[bytes] = []
    for place, (name, start, end) in enumerate(members):
        value = changes.get(name, text[start:end])
        if value is not None:
            if place != last[name]:
                value = text[start:end]
            before = text[at:start]
            if not kept and at != begin:  # what stood before it is gone
                before = before.lstrip().removeprefix(b",")
            kept.append(before + value)
        at = end
    added = b",".join(
        encode(name) + b":" + value for name, value in changes.items() if value is not None and name not in last
    )
    comma = b"," if added and kept else b""
    return b"".join((text[:begin], added, comma, *kept, text[at:]))


def member_spans(text: bytes) -> dict[str, tuple[int, int]]:
    """Where the value of each member of an object begins and ends; of members with one name, the last.

    `text` is known to be a valid JSON object.
    """
    return {name: (begin, end) for name, begin, end in _spans(text)}


def _spans(text: bytes) -> list[tuple[str, int, int]]:
    """The members of an object in their order, each with the place of its value."""
    spans = []
    at = start = text.index(b"{") + 1
    try:
        members = _members.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return _spans_one_by_one(text, start)
    for name, value in members.items():
        raw = bytes(value)
        key = _KEY.match(text, at)
        if not key or key[1] != encode(name) or not text.startswith(raw, key.end()):
            return _spans_one_by_one(text, start)  # a name stands twice, or is escaped
        at = key.end() + len(raw)
        spans.append((name, key.end(), at))
    if text[at:].strip() != b"}":  # a name stands twice, with values of which one begins the other
        return _spans_one_by_one(text, start)
    return spans


def _spans_one_by_one(text: bytes, at: int) -> list[tuple[str, int, int]]:
    """The same for what the quick way can not tell apart; each value is decoded."""
    told = text.decode("latin-1")  # a character for each byte, so that offsets agree
    spans = []
    while key := _KEY.match(text, at):
        _, at = _scan(told, key.end())
        name, _ = _scan(text_of(key[1]), 0)
        spans.append((name, key.end(), at))
    return spans


def element_spans(array: bytes) -> list[tuple[int, int]]:
    """Where each element of an array begins and ends; `array` is known to be valid."""
    spans = []
    at = array.index(b"[") + 1
    for element in _elements.decode(array):
        begin = _GAP.match(array, at).end()  # type: ignore[union-attr]  # it matches everywhere
        at = begin + len(bytes(element))
        spans.append((begin, at))
    return spans


def insert_first(array: bytes, elements: bytes) -> bytes:
    """The array with elements (comma-separated JSON) put before its own, and no other byte changed."""
    at, added = first_place(array, 0, len(array), elements)
    return array[:at] + added + array[at:]


def first_place(text: bytes, begin: int, end: int, elements: bytes) -> tuple[int, bytes]:
    """What to insert, and where, for elements (comma-separated JSON) to be the first of the array text[begin:end]."""
    at = text.index(b"[", begin, end) + 1
    return at, elements if _is_gap(text, at, end) else elements + b","


def last_place(text: bytes, begin: int, end: int, elements: bytes) -> tuple[int, bytes]:
    """The same for them to be the last."""
    at = text.rindex(b"]", begin, end)
    return at, elements if _is_gap(text, text.index(b"[", begin, end) + 1, end) else b"," + elements


def _is_gap(text: bytes, at: int, end: int) -> bool:
    """There is no element in what is left of an array."""
    return text[_GAP.match(text, at, end).end()] == _END  # type: ignore[union-attr]  # it matches everywhere

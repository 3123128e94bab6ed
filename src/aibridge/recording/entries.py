"""One line of a journal: a record as text that shows by itself whether it is whole.

A line is the CRC-32 of the rest in eight hexadecimal digits, a space, the record as JSON with its type in the
member `type`, and a newline. JSON text holds no newline of its own, so a damaged line spoils no other one.
"""

from __future__ import annotations

import json
import os
from binascii import hexlify
from collections.abc import Iterable
from typing import NamedTuple
from zlib import crc32

import msgspec

from aibridge.records import Record

CANCEL = b"\x18\n"
"""Ends a line that could be neither finished nor cut off again; what stands before it is no entry."""

_CHUNK = 64 * 1024
_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Record] = msgspec.json.Decoder(Record)


class Reading(NamedTuple):
    """What was found between two offsets of a journal file, both in bytes."""

    records: list[Record]
    offset: int
    """Where the first entry begins that was not read."""
    damaged: int
    """Whole lines that hold no readable entry."""


def as_json(record: Record) -> bytes:
    """A record as a JSON object in one line, whose first member is `type`.

    Lone surrogates, which UTF-8 can not carry, are written as JSON escapes (RFC 8259, section 8.2) and come back
    as they were; two that make up a pair come back as the one character that they stand for. TypeError, ValueError
    and RecursionError are raised for metadata that JSON can not express.
    """
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        return json.dumps(msgspec.to_builtins(record), separators=(",", ":")).encode("ascii")


def encode(record: Record) -> bytes:
    """Write a record as a line; raises what `as_json` does."""
    return encode_all((record,))


def encode_all(records: Iterable[Record]) -> bytes:
    """Write records as a line each; raises what `as_json` does."""
    lines: list[bytes] = []
    for record in records:
        body = as_json(record)
        lines += (hexlify(crc32(body).to_bytes(4)), b" ", body, b"\n")
    return b"".join(lines)


def json_of(record: Record) -> str:
    """A record as the JSON text that a line holds."""
    return encode(record)[9:-1].decode()


def decode(line: bytes) -> Record:
    """Read a line, without its newline; ValueError where it is not an entry as `encode` wrote it."""
    body = line[9:]
    if line[:9] != b"%08x " % crc32(body):
        raise ValueError("the checksum does not fit")
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError:
        return _decode_escaped(body)


def _decode_escaped(body: bytes) -> Record:
    """Read JSON with escapes of lone surrogates, which msgspec takes for faults."""
    try:
        record: Record = msgspec.convert(json.loads(body), Record)
    except msgspec.ValidationError as error:
        raise ValueError(f"not a record: {error}") from error
    return record


def parse(lines: bytes) -> tuple[list[Record], int]:
    """Read whole lines; return their records and how many lines held none though they should."""
    records = []
    damaged = 0
    for line in lines.split(b"\n")[:-1]:
        try:
            records.append(decode(line))
        except (ValueError, RecursionError):
            damaged += not (line.endswith(CANCEL[:-1]) or line.strip() == b"")
    return records, damaged


def read(descriptor: int, offset: int, end: int) -> Reading:
    """Read some of the entries between two offsets in bytes: about 64 KiB of them, and at least one whole entry.

    An incomplete line at `end` is left alone: its owner may be about to finish it.
    """
    size = _CHUNK
    while True:
        data = os.pread(descriptor, min(size, end - offset), offset)
        whole = data.rfind(b"\n") + 1
        if whole or len(data) < size:
            break
        size *= 4
    records, damaged = parse(data[:whole])
    return Reading(records, offset + whole, damaged)

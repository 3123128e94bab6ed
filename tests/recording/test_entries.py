"""A line of a journal reads back as it was written, or is known to be damaged."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.recording.entries import CANCEL, decode, encode, parse, read
from aibridge.records import PromptUsage, Record

from . import samples


def with_pairs_joined(text: str) -> str:
    """Surrogates that make up a pair stand for one character; Python alone tells the two spellings apart."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def plain(record: Record) -> object:
    """A record as plain values, pairs joined."""

    def joined(value: object) -> object:
        if isinstance(value, str):
            return with_pairs_joined(value)
        if isinstance(value, dict):
            return {joined(key): joined(each) for key, each in value.items()}
        return [joined(each) for each in value] if isinstance(value, list) else value

    return joined(msgspec.to_builtins(record))


@given(samples.records)
def test_every_record_reads_back_as_it_was(record: Record) -> None:
    line = encode(record)
    assert line.count(b"\n") == 1
    found = decode(line[:-1])
    assert type(found) is type(record)
    assert plain(found) == plain(record)


def test_nul_characters_and_lone_surrogates_read_back() -> None:
    record = samples.prompt("i", "a\x00b \ud800 c \udfff")
    assert decode(encode(record)[:-1]) == record


@given(samples.records, st.data())
def test_one_wrong_bit_is_noticed(record: Record, data: st.DataObject) -> None:
    line = bytearray(encode(record)[:-1])
    line[data.draw(st.integers(0, len(line) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(ValueError, match="checksum"):
        decode(bytes(line))


def test_a_record_of_an_unknown_type_counts_as_damaged() -> None:
    class Novelty(msgspec.Struct, tag="novelty"):
        id: str

    line = encode(Novelty("n"))  # type: ignore[arg-type]
    assert parse(line) == ([], 1)


def test_damage_is_counted_and_skipped_while_blanks_and_cancelled_lines_are_nothing() -> None:
    first, second = samples.prompt("i"), samples.prompt("i")
    torn = encode(first)[:40]
    lines = encode(first) + torn + b"\n" + b"    \n" + torn + CANCEL + encode(second)
    assert parse(lines) == ([first, second], 1)


def test_reading_stops_before_an_incomplete_entry_wherever_it_is_torn(tmp_path: Path) -> None:
    whole, torn = samples.prompt("i"), samples.prompt("j", "Grüße")
    before, last = encode(whole), encode(torn)
    file = tmp_path / "file"
    for cut in range(len(last)):
        file.write_bytes(before + last[:cut])
        descriptor = os.open(file, os.O_RDONLY)
        try:
            assert read(descriptor, 0, len(before) + cut) == ([whole], len(before), 0)
            assert read(descriptor, len(before), len(before) + cut) == ([], len(before), 0)
        finally:
            os.close(descriptor)


def test_an_entry_of_any_length_is_read(tmp_path: Path) -> None:
    records: list[Record] = [samples.prompt("i", "x" * length) for length in (1, 70_000, 3_000_000, 1)]
    file = tmp_path / "file"
    file.write_bytes(b"".join(map(encode, records)))
    found: list[Record] = []
    offset = 0
    with file.open("rb") as opened:
        while offset < file.stat().st_size:
            reading = read(opened.fileno(), offset, file.stat().st_size)
            assert reading.offset > offset
            assert reading.damaged == 0
            found += reading.records
            offset = reading.offset
    assert found == records
    assert isinstance(found[2], PromptUsage)

"""AWS event streams: frames are the same however their bytes arrive, and a damaged one is never taken for another."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from zlib import crc32

import pytest
from botocore.eventstream import EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from aibridge.wire.aws_event_stream import MAX_FRAME, Frame, FrameDecoder, FrameError
from support.bedrock import frame

names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
told = st.tuples(st.dictionaries(names, st.text(max_size=30), max_size=4), st.binary(max_size=60))
streams = st.lists(told, max_size=5)


def read(pieces: Sequence[bytes]) -> tuple[list[Frame], str | None]:
    """The frames of a stream, and why there are no more of them."""
    decoder, found = FrameDecoder(), []
    try:
        for piece in pieces:
            for each in decoder.feed(piece):
                found.append(each)  # noqa: PERF402 - those before a fault count
        decoder.close()
    except FrameError as error:
        return found, str(error)
    return found, None


@st.composite
def cut(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=8)))
    return [whole[begin:end] for begin, end in zip([0, *places], [*places, len(whole)], strict=True)]


@given(st.data(), streams)
def test_frames_are_the_same_however_they_are_cut(
    data: st.DataObject, stream: list[tuple[dict[str, str], bytes]]
) -> None:
    whole = b"".join(frame(headers, payload) for headers, payload in stream)
    due = [Frame(headers, payload) for headers, payload in stream]
    assert read(data.draw(cut(whole))) == (due, None)
    assert read([whole[at : at + 1] for at in range(len(whole))]) == (due, None)


@given(streams)
def test_botocore_reads_the_same(stream: list[tuple[dict[str, str], bytes]]) -> None:
    whole = b"".join(frame(headers, payload) for headers, payload in stream)
    buffer = EventStreamBuffer()
    buffer.add_data(whole)
    assert [Frame(each.headers, each.payload) for each in buffer] == read([whole])[0]


@given(st.data(), streams.filter(bool))
def test_a_damaged_frame_is_noticed(data: st.DataObject, stream: list[tuple[dict[str, str], bytes]]) -> None:
    whole = bytearray(b"".join(frame(headers, payload) for headers, payload in stream))
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= 1 << data.draw(st.integers(0, 7))
    found, why = read(data.draw(cut(bytes(whole))))
    assert why
    assert found == [Frame(headers, payload) for headers, payload in stream][: len(found)]


@given(st.data(), streams.filter(bool))
def test_a_stream_that_ends_in_a_frame_is_noticed(
    data: st.DataObject, stream: list[tuple[dict[str, str], bytes]]
) -> None:
    written = [frame(headers, payload) for headers, payload in stream]
    missing = data.draw(st.integers(1, len(written[-1]) - 1))
    found, why = read(data.draw(cut(b"".join(written)[:-missing])))
    assert (len(found), why) == (len(written) - 1, "it ended in the middle of a frame")


@given(st.binary(min_size=1, max_size=200))
def test_anything_else_is_refused(data: bytes) -> None:
    found, why = read([data])
    assert not found
    assert why


def test_every_type_of_header_is_passed_over() -> None:
    values = {
        0: b"",
        1: b"",
        2: b"\1",
        3: b"\0\1",
        4: b"\0\0\0\1",
        5: b"\0" * 8,
        6: b"\0\2ab",
        8: b"\0" * 8,
        9: b"u" * 16,
    }
    headers = b"".join(b"\1" + bytes([65 + kind, kind]) + value for kind, value in values.items())
    headers += b"\1z\7\0\4last"
    assert read([built(headers, b"payload")]) == ([Frame({"z": "last"}, b"payload")], None)


@pytest.mark.parametrize(
    "headers",
    [b"\1", b"\1a", b"\1a\7", b"\1a\7\0", b"\1a\7\0\5abc", b"\1a\x0a", b"\5a\7\0\1b", b"\1a\7\0\1\xff", b"\1a\5ab"],
)
def test_headers_that_can_not_be_read_are_refused(headers: bytes) -> None:
    assert read([built(headers, b"")])[1]


@pytest.mark.parametrize(
    ("size", "headers", "why"),
    [
        (MAX_FRAME + 1, 0, "too long"),
        (0xFFFFFFFF, 0, "too long"),
        (1 << 20, 1 << 18, "too long"),
        (15, 0, "shorter than what it holds"),
        (20, 5, "shorter than what it holds"),
    ],
)
def test_lengths_that_can_not_be_are_refused_before_anything_is_kept(size: int, headers: int, why: str) -> None:
    prelude = struct.pack(">II", size, headers)
    _, said = read([prelude + struct.pack(">I", crc32(prelude))])
    assert said is not None
    assert why in said


def built(headers: bytes, payload: bytes) -> bytes:
    prelude = struct.pack(">II", 16 + len(headers) + len(payload), len(headers))
    body = prelude + struct.pack(">I", crc32(prelude)) + headers + payload
    return body + struct.pack(">I", crc32(body))

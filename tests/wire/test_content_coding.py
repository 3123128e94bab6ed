"""Compressed bodies are unpacked as they come, in bounded memory, and what can not be unpacked is told."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress

import brotli
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from aibridge.wire.content_coding import CodingError, decoded, decoder_for

from .hearing import cut, one_by_one

PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "br": lambda body: brotli.compress(body, quality=5),
    "zstd": zstandard.compress,
}
codings = pytest.mark.parametrize("coding", PACK)

TEXT = b'data: {"type":"ping"}\n\n' * 200


def unpack(coding: str, pieces: Iterable[bytes]) -> bytes:
    decoder = decoder_for(coding)
    assert decoder
    return b"".join(unpacked for piece in pieces for unpacked in decoder.feed(piece))


@codings
def test_a_stream_is_unpacked_byte_by_byte(coding: str) -> None:
    assert unpack(coding, one_by_one(PACK[coding](TEXT))) == TEXT


@given(st.sampled_from(list(PACK)), st.binary(), st.lists(st.integers(0, 200), max_size=4))
def test_any_body_is_unpacked_however_it_is_cut(coding: str, body: bytes, places: list[int]) -> None:
    assert unpack(coding, cut(PACK[coding](body), places)) == body


def test_what_was_flushed_is_there_at_once() -> None:
    packing = zlib.compressobj(wbits=31)
    flushed = packing.compress(b"data: 1\n\n") + packing.flush(zlib.Z_SYNC_FLUSH)
    assert unpack("gzip", [flushed]) == b"data: 1\n\n"


@pytest.mark.parametrize("coding", ["gzip", "zstd"])
def test_several_members_are_one_body(coding: str) -> None:
    two = PACK[coding](b"one, ") + PACK[coding](b"two")
    assert unpack(coding, [two]) == b"one, two"
    assert unpack(coding, one_by_one(two)) == b"one, two"


def test_codings_within_one_another_are_undone_from_the_last_to_the_first() -> None:
    packed = gzip.compress(brotli.compress(TEXT))
    assert unpack("br, gzip", [packed]) == TEXT
    assert unpack("br, gzip", one_by_one(packed)) == TEXT


@pytest.mark.parametrize("name", ["GZIP", " gzip ", "x-gzip", "identity, gzip", "gzip,"])
def test_names_of_codings_are_read_as_rfc_9110_says(name: str) -> None:
    assert decoded(gzip.compress(TEXT), name, len(TEXT)) == TEXT


@pytest.mark.parametrize("name", ["", "identity", " , identity"])
def test_where_nothing_is_packed_nothing_is_unpacked(name: str) -> None:
    assert decoder_for(name) is None
    assert decoded(TEXT, name, 10) == TEXT


@pytest.mark.parametrize(("name", "cause"), [("compress", "'compress' is not supported"), ("br,br,br", "too many")])
def test_a_coding_that_is_not_read_is_named(name: str, cause: str) -> None:
    with pytest.raises(CodingError, match=cause):
        decoder_for(name)


@codings
def test_what_was_cut_off_is_unpacked_as_far_as_it_came(coding: str) -> None:
    packed = PACK[coding](TEXT)
    found = unpack(coding, [packed[: len(packed) - 4]])
    assert TEXT.startswith(found)


@codings
def test_a_body_that_is_not_packed_is_no_honest_one(coding: str) -> None:
    with pytest.raises(CodingError, match="not what its Content-Encoding says"):
        unpack(coding, [b'{"type":"error"}', b'{"type":"error"}'])


@given(st.sampled_from([*PACK, "gzip, br"]), st.lists(st.binary(), max_size=4))
def test_no_bytes_do_harm(coding: str, pieces: list[bytes]) -> None:
    with suppress(CodingError):
        unpack(coding, pieces)


@codings
def test_a_body_that_unpacks_to_more_than_the_limit_is_refused(coding: str) -> None:
    packed = PACK[coding](TEXT)
    assert decoded(packed, coding, len(TEXT)) == TEXT
    assert decoded(packed, coding, len(TEXT) - 1) is None


@pytest.mark.parametrize("coding", [*PACK, "gzip, gzip"])
def test_a_bomb_costs_little_memory(coding: str) -> None:
    bomb = bytes(64 << 20)
    for name in coding.split(", "):
        bomb = PACK[name](bomb)

    tracemalloc.start()
    try:
        assert decoded(bomb, coding, 1 << 20) is None
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()

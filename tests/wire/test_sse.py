"""Server-sent events are the same ones, however their lines end and however the bytes arrive."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aibridge.wire import sse

from .hearing import cut, one_by_one


def split(*pieces: bytes) -> list[bytes]:
    """The events of a stream, and what is left of it."""
    splitter = sse.EventSplitter()
    events = [event for piece in pieces for event in splitter.feed(piece)]
    return [*events, splitter.rest()]


@pytest.mark.parametrize(
    ("stream", "events"),
    [
        pytest.param(b"data: a\n\ndata: b\n\n", [b"data: a\n\n", b"data: b\n\n", b""], id="line feeds"),
        pytest.param(b"data: a\r\n\r\ndata: b\r\n\r\n", [b"data: a\r\n\r\n", b"data: b\r\n\r\n", b""], id="CRLF"),
        pytest.param(b"data: a\r\rdata: b\r\r", [b"data: a\r\r", b"data: b\r\r"], id="CR: a line feed may follow"),
        pytest.param(b"data: a\r\n\ndata: b\n\r\n", [b"data: a\r\n\n", b"data: b\n\r\n", b""], id="mixed"),
        pytest.param(b"data: a\n\n\ndata: b\n\n", [b"data: a\n\n", b"\ndata: b\n\n", b""], id="an empty line more"),
        pytest.param(b"data: a\n\n\n", [b"data: a\n\n", b"\n"], id="an empty line more at the end"),
        pytest.param(b"data: a\n\n\n\n", [b"data: a\n\n", b"\n\n", b""], id="two of them"),
        pytest.param(b"data: a\r\n", [b"data: a\r\n"], id="no empty line at the end"),
        pytest.param(b": wait\n\n", [b": wait\n\n", b""], id="a comment"),
        pytest.param(b"", [b""], id="nothing"),
    ],
)
def test_an_empty_line_ends_an_event(stream: bytes, events: list[bytes]) -> None:
    assert split(stream) == events
    assert split(*one_by_one(stream)) == events


@given(st.lists(st.sampled_from([b"data: a", b"data", b"\n", b"\r", b"\r\n", b"\n\n"])).map(b"".join), st.data())
def test_events_do_not_depend_on_how_the_stream_is_cut(stream: bytes, data: st.DataObject) -> None:
    at_once = split(stream)
    assert b"".join(at_once) == stream
    assert split(*one_by_one(stream)) == at_once
    assert split(*cut(stream, data.draw(st.lists(st.integers(0, len(stream)), max_size=5)))) == at_once


def test_it_is_known_whether_an_event_was_begun() -> None:
    splitter = sse.EventSplitter()
    known = []
    for piece in (b"data: a\n\n", b"data: b", b"\n\n", b"data: c"):
        splitter.feed(piece)
        known.append(splitter.between_events)
    splitter.rest()
    known.append(splitter.between_events)
    assert known == [True, False, True, False, False], "in the end, the client has half an event for ever"


def test_an_event_without_an_end_is_given_up() -> None:
    splitter = sse.EventSplitter(limit=100)
    splitter.feed(b"data: " + b"a" * 90)

    with pytest.raises(sse.EventTooLarge, match="longer than 100 bytes"):
        splitter.feed(b"a" * 10)


def test_many_events_may_be_longer_than_one_may_be() -> None:
    splitter = sse.EventSplitter(limit=100)
    assert len(splitter.feed(b"data: a\n\n" * 1000)) == 1000
    assert len(splitter.feed(b"data: a\r\n\r\n" * 1000)) == 1000


@pytest.mark.parametrize(
    ("event", "data"),
    [
        (b"data: a\n\n", b"a"),
        (b"data:a\n\n", b"a"),
        (b"data:  a \n\n", b" a "),
        (b"data\n\n", b""),
        (b"data: a\ndata: b\r\ndata:\rdata: c\n\n", b"a\nb\n\nc"),
        (b": said by nobody\nevent: x\nid: 7\nretry: 10\ndata: a\n\n", b"a"),
        (b"database: a\ndata : b\n data: c\nDATA: d\n\n", b""),
        (b"\xef\xbb\xbfdata: a\n\n", b"a"),
        (b": only a comment\n\n", b""),
        (b"data: a", b"a"),
    ],
)
def test_the_data_of_an_event(event: bytes, data: bytes) -> None:
    assert sse.data_of(event) == data


def test_writing_an_event() -> None:
    assert sse.write(b"{}") == b"data: {}\n\n"
    assert sse.write(b"{}", "ping") == b"event: ping\ndata: {}\n\n"

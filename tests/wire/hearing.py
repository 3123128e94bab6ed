"""Listening to an answer: what the client gets of it, and what is known of it then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from textwrap import dedent

from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.dialect import Dialect, Reader, Turn, Usage
from aibridge.wire.messages import Messages
from aibridge.wire.responses import Responses

MESSAGES, CHAT, RESPONSES = Messages(), ChatCompletions(), Responses()
DIALECTS: tuple[Dialect, ...] = (MESSAGES, CHAT, RESPONSES)

STREAM = b'{"model":"m","stream":true}'
STREAM_WITH_USAGE = b'{"model":"m","stream":true,"stream_options":{"include_usage":true}}'


@dataclass(frozen=True)
class Heard:
    """What the client got, what is known, and whether the dialect's own end was seen before the bytes ended."""

    client: bytes
    turn: Turn
    ended: bool

    @property
    def usage(self) -> Usage:
        """The usage, which is expected to be there."""
        assert self.turn.usage
        return self.turn.usage


def transcript(text: str) -> bytes:
    """An answer that is written down, with indentation and an empty line before it."""
    return dedent(text).removeprefix("\n").encode()


def hear(reader: Reader, pieces: Iterable[bytes]) -> Heard:
    """Feed a reader piece by piece, to the end."""
    client = b"".join([reader.feed(piece) for piece in pieces])
    ended = reader.ended
    return Heard(client + reader.close(), reader.turn, ended)


def stream_reader(dialect: Dialect, request: bytes = STREAM_WITH_USAGE) -> Reader:
    """The reader of the answer to a request for a stream."""
    return dialect.stream_reader(dialect.parse(request))


def streamed(dialect: Dialect, answer: bytes, request: bytes = STREAM_WITH_USAGE) -> Heard:
    """Hear a stream that comes at once."""
    return hear(stream_reader(dialect, request), [answer])


def whole(dialect: Dialect, answer: bytes, status: int = 200) -> Heard:
    """Hear an answer that is one document."""
    return hear(dialect.document_reader(dialect.parse(b'{"model":"m"}'), status), [answer])


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    """Bytes in pieces, cut at some places; some pieces may be empty."""
    ends = [0, *sorted(min(place, len(data)) for place in places), len(data)]
    return [data[begin:end] for begin, end in pairwise(ends)]


def one_by_one(data: bytes) -> list[bytes]:
    """Bytes, each alone."""
    return [data[at : at + 1] for at in range(len(data))]

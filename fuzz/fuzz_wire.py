"""Fuzzes everything that reads bytes of others: requests, answers, events, content codings.

The first byte of an input chooses the target, and with it the dialect; the second how long the pieces are that the
rest comes in. Held against each target:
nothing but the declared errors is raised, and how the bytes are cut changes neither what is known nor what the client
gets. Run by `scripts/fuzz`.
"""

from __future__ import annotations

import json
import struct
import sys
from contextlib import suppress
from zlib import crc32

import atheris

with atheris.instrument_imports(include=["aibridge.wire"]):
    from aibridge.errors import Fault
    from aibridge.wire import sse
    from aibridge.wire.bedrock import answers, requests
    from aibridge.wire.chat_completions import ChatCompletions
    from aibridge.wire.content_coding import CodingError, decoded, decoder_for
    from aibridge.wire.dialect import Dialect, Reader, Turn
    from aibridge.wire.messages import Messages
    from aibridge.wire.responses import Responses

DIALECTS: tuple[Dialect, ...] = (Messages(), ChatCompletions(), Responses())
PLAIN = ChatCompletions().parse(b'{"model":"m"}')
WITHHOLDING = ChatCompletions().parse(b'{"model":"m","stream":true}')


def pieces(data: bytes, size: int) -> list[bytes]:
    """The bytes in pieces of a size."""
    return [data[at : at + size] for at in range(0, len(data), size)]


def fuzz_request(dialect: Dialect, data: bytes, size: int) -> None:
    """A body is read, or refused by a fault; it is sent on as it came, but for the usage that is asked for."""
    with suppress(Fault):
        request = dialect.parse(data)
        assert request.body == data or request.withholds_usage
        if request.withholds_usage:
            again = dialect.parse(request.body)
            assert not again.withholds_usage
            assert (again.model, again.prompt) == (request.model, request.prompt)


def heard(reader: Reader, pieces: list[bytes]) -> tuple[bytes, Turn]:
    """What the client gets of an answer, and what is known of it."""
    client = b"".join([reader.feed(piece) for piece in pieces])
    return client + reader.close(), reader.turn


def fuzz_stream(dialect: Dialect, data: bytes, size: int) -> None:
    """A stream is read, whatever it is."""
    for request in (PLAIN, WITHHOLDING):
        at_once = heard(dialect.stream_reader(request), [data])
        assert heard(dialect.stream_reader(request), pieces(data, size)) == at_once
        assert dialect.stream_reader(request).rewrites or at_once[0] == data


def fuzz_document(dialect: Dialect, data: bytes, size: int) -> None:
    """A document, or the body of an error, is read, whatever it is."""
    for status in (200, 500):
        at_once = heard(dialect.document_reader(PLAIN, status), [data])
        assert heard(dialect.document_reader(PLAIN, status), pieces(data, size)) == at_once
        assert at_once[0] == data


def split(pieces: list[bytes]) -> list[bytes]:
    """The events of a stream, and what is left of it."""
    splitter = sse.EventSplitter()
    return [*(event for piece in pieces for event in splitter.feed(piece)), splitter.rest()]


def fuzz_events(dialect: Dialect, data: bytes, size: int) -> None:
    """Events are the same ones, and no byte of them is lost."""
    at_once = split([data])
    assert b"".join(at_once) == data
    assert split(pieces(data, size)) == at_once
    for event in at_once:
        sse.data_of(event)


def fuzz_codings(dialect: Dialect, data: bytes, size: int) -> None:
    """What can be unpacked is, within the limit; the rest is refused."""
    for coding in ("gzip", "deflate", "br", "zstd", "gzip, br"):
        with suppress(CodingError):
            unpacked = decoded(data, coding, 1 << 20)
            if unpacked is not None:
                decoder = decoder_for(coding)
                assert decoder
                assert b"".join([out for piece in pieces(data, size) for out in decoder.feed(piece)]) == unpacked


def framed(data: bytes) -> bytes:
    """A frame of an AWS event stream with the right checksums; the first byte says how much of the rest is headers."""
    size = data[0] % len(data)
    prelude = struct.pack(">II", 16 + len(data) - 1, size)
    body = prelude + struct.pack(">I", crc32(prelude)) + data[1:]
    return body + struct.pack(">I", crc32(body))


def fuzz_frames(dialect: Dialect, data: bytes, size: int) -> None:
    """A stream of frames is put into events as far as it goes, whatever it is."""

    def told(pieces: list[bytes]) -> tuple[bytes, str | None]:
        frames = answers.EventFrames("bedrock", [], "")
        text = b"".join([frames.feed(piece) for piece in pieces]) + frames.close()
        return text, frames.fault and frames.fault.message

    for stream in (data, framed(data) + framed(data[::-1])):
        assert told(pieces(stream, size)) == told([stream])
        sse.EventSplitter().feed(told([stream])[0])


def fuzz_invocation(dialect: Dialect, data: bytes, size: int) -> None:
    """A request that is one is put into Bedrock's form: JSON still, without what says where it goes."""
    with suppress(Fault):
        request = requests.asked(data)
        put = requests.invocation(data, request, "anthropic.claude-sonnet-4-5", ["effort-2025-11-24"])
        with suppress(UnicodeDecodeError, RecursionError):
            members = json.loads(put)
            assert members["anthropic_version"] == "bedrock-2023-05-31"
            assert not members.keys() & {"model", "stream", "metadata"}
    for document in (answers.ErrorDocument([], 400, "", ""), answers.CountDocument([])):
        b"".join([document.feed(piece) for piece in pieces(data, size)]) + document.close()


TARGETS = (fuzz_request, fuzz_stream, fuzz_document, fuzz_events, fuzz_codings, fuzz_frames, fuzz_invocation)


def one_input(data: bytes) -> None:
    """Try one input."""
    if len(data) > 2:
        target, dialect = data[0] % len(TARGETS), data[0] // len(TARGETS) % len(DIALECTS)
        TARGETS[target](DIALECTS[dialect], data[2:], 1 + data[1] % 64)


if __name__ == "__main__":
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()

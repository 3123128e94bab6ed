"""Exchanges recorded from the real providers, where a checkout of them lies beside the project's own."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from aibridge.wire.dialect import Dialect

from .hearing import (
    CHAT,
    MESSAGES,
    RESPONSES,
    STREAM,
    STREAM_WITH_USAGE,
    cut,
    hear,
    one_by_one,
    stream_reader,
    streamed,
    whole,
)

ARCHIVES = Path(__file__).parents[3] / "shared" / "wire"
FOLDERS = {"anthropic": MESSAGES, "openai/chatcompletions": CHAT, "openai/responses": RESPONSES}
FOUND = [
    pytest.param(path, dialect, id=path.relative_to(ARCHIVES).as_posix())
    for folder, dialect in FOLDERS.items()
    for path in sorted((ARCHIVES / folder).rglob("*.txtar"))
]

pytestmark = pytest.mark.skipif(not FOUND, reason="no recorded exchanges lie beside the project")
every_archive = pytest.mark.parametrize(("path", "dialect"), FOUND)


def sections(path: Path) -> dict[str, bytes]:
    """The files of a txtar archive."""
    text = path.read_bytes()
    marks = [*re.finditer(rb"(?m)^-- (.+) --\n", text)]
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    return {mark[1].decode(): text[mark.end() : end] for mark, end in zip(marks, ends, strict=True)}


@every_archive
def test_a_request_is_read_and_sent_on(path: Path, dialect: Dialect) -> None:
    body = sections(path)["request"]
    request = dialect.parse(body)
    assert request.model.encode() in body
    assert request.prompt
    assert request.body == body or request.withholds_usage


@every_archive
def test_a_stream_shows_the_same_however_it_is_cut(path: Path, dialect: Dialect) -> None:
    for name, stream in sections(path).items():
        if not name.startswith("streaming") or stream.startswith(b"HTTP/"):
            continue
        for request in (STREAM_WITH_USAGE, STREAM):
            at_once = streamed(dialect, stream, request)
            assert at_once.turn.complete or at_once.turn.error
            assert at_once.turn.response_id
            for step in (1, 7, 64, 1000):
                pieces = cut(stream, range(step, len(stream), step)) if step > 1 else one_by_one(stream)
                assert hear(stream_reader(dialect, request), pieces) == at_once
        assert streamed(dialect, stream).client == stream


@every_archive
def test_a_document_shows_what_was_used_or_what_went_wrong(path: Path, dialect: Dialect) -> None:
    for name, body in sections(path).items():
        if body.startswith(b"HTTP/"):
            head, _, body = body.partition(b"\n\n")
            heard = whole(dialect, body, int(head.split()[1]))
            assert heard.turn.error
            assert heard.turn.error.message
        elif name.startswith("non-streaming"):
            heard = whole(dialect, body)
            assert heard.turn.complete
            assert heard.usage.input + heard.usage.cache_read > 0

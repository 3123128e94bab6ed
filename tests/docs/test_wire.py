"""docs/wire.md has the headers, signs of life and errors that the code has."""

from __future__ import annotations

import re
from pathlib import Path

import aibridge
from aibridge.bridge.headers import HOP_BY_HOP
from aibridge.errors import SAID, Kind
from aibridge.providers.credential import CREDENTIAL_HEADERS
from aibridge.wire.chat_completions import ChatCompletions
from aibridge.wire.messages import Messages
from aibridge.wire.responses import Responses

from .pages import code, page, rows, section


def test_headers_that_do_not_pass() -> None:
    told = {name.lower() for name in code(section(page("wire.md"), "Requests"))}
    assert told >= HOP_BY_HOP | CREDENTIAL_HEADERS
    assert told >= {"host", "content-length", "expect", "accept-encoding"}


def test_signs_of_life() -> None:
    told = {name: "\n".join(code(what)) for name, what in rows(section(page("wire.md"), "Answers"))}
    sent = {
        "Messages": Messages().keep_alive,
        "Chat Completions": ChatCompletions().keep_alive,
        "Responses": Responses().keep_alive,
    }
    assert told == {name: event.decode().strip() for name, event in sent.items()}


def test_errors() -> None:
    told = {}
    for kind, status, *types, _ in rows(section(page("wire.md"), "The gateway's own errors")):
        told[Kind[code(kind)[0].upper()]] = (int(status), *(code(cell)[0] if code(cell) else None for cell in types))
    assert told == {kind: tuple(SAID[kind]) for kind in told}
    source = Path(aibridge.__file__).parent
    raised = {name for path in source.rglob("*.py") for name in re.findall(r"Fault\(\s*Kind\.(\w+)", path.read_text())}
    assert {kind.name for kind in told} >= raised

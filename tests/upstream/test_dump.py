"""With a dump folder, each exchange with a provider can be read afterwards, and nobody's key with it."""

from __future__ import annotations

import asyncio
import json
import logging
import resource
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from aibridge import AnthropicProvider, CopilotProvider, OpenAIProvider, RequestBridge
from aibridge.records import InterceptionEnded
from aibridge.upstream.dump import Dump
from aibridge.upstream.upstream import Upstream, UpstreamRequest
from support.client import ask, begun
from support.dialects import MESSAGES, Dialect
from support.provider import CLOSE, Provider, chunked, document, error, events, raw
from support.recorder import ListRecorder
from support.serving import asked_by, serving
from support.waiting import until

KEY = "sk-of-the-harbour-master-0123456789"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The dump folder; it is not there yet."""
    return tmp_path / "deep" / "dump"


@asynccontextmanager
async def dumping(folder: Path, provider: Provider, recorder: ListRecorder) -> AsyncIterator[str]:
    """The URL of a bridge that dumps."""
    types = (
        AnthropicProvider(provider.url, api_key=KEY, max_retries=1),
        OpenAIProvider(provider.url + "/v1", api_key=KEY, max_retries=1),
        CopilotProvider(provider.url, max_retries=1),
    )
    async with RequestBridge(types, recorder, dump_dir=folder) as bridge, serving(asked_by("ada", bridge)) as url:
        yield url


@pytest.fixture
async def bridge(folder: Path, provider: Provider, recorder: ListRecorder) -> AsyncIterator[str]:
    async with dumping(folder, provider, recorder) as url:
        yield url


def files(folder: Path) -> list[Path]:
    """All files below a folder, by name."""
    return sorted((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.name)


def parts(path: Path) -> tuple[list[str], bytes]:
    """The lines of a dump's head, and its body."""
    head, _, body = path.read_bytes().partition(b"\r\n\r\n")
    return head.decode().split("\r\n"), body


@pytest.mark.parametrize("stream", [True, False])
async def test_an_exchange_is_kept_as_it_went_over_the_wire(
    stream: bool, dialect: Dialect, folder: Path, bridge: str, provider: Provider
) -> None:
    whole = dialect.stream if stream else dialect.document
    provider.says(events(*dialect.events) if stream else document(dialect.document))
    body = dialect.request(stream=stream, model="maker/tide-1", kept=1)
    body = body.replace(b'"kept": 1', b'"tide": 1.50, "big": 123456789012345678901234567890, "name": "\\u00e9"')
    answer = await ask(bridge + dialect.path + "?beta=true", body)
    assert answer.status == 200

    asked, told = files(folder)
    assert asked.parent == told.parent == folder / dialect.path.split("/")[1] / "maker-tide-1"
    moment, _, rest = asked.name.partition("-")
    assert moment.isdigit()
    assert len(moment) == 13, "milliseconds"
    assert rest == f"{answer.id}.req.txt"
    assert told.name == f"{moment}-{answer.id}.resp.txt"

    head, laid_out = parts(asked)
    assert head[0] == f"POST {dialect.upstream_path}?beta=true HTTP/1.1"
    assert f"Host: {provider.url.removeprefix('http://')}" in head
    assert f"Content-Length: {len(provider.last.body)}" in head
    sent = {
        f"{name}: {value}"
        for name, value in provider.last.headers
        if name.lower() not in ("authorization", "x-api-key")
    }
    assert sent <= set(head)
    assert json.loads(laid_out) == json.loads(provider.last.body)
    assert list(json.loads(laid_out)) == list(json.loads(provider.last.body))
    assert b'\n  "tide": 1.50,\n  "big": 123456789012345678901234567890,\n  "name": "\\u00e9"' in laid_out

    head, body = parts(told)
    assert head[0] == "HTTP/1.1 200 Scripted"
    assert f"Content-Type: {'text/event-stream' if stream else 'application/json'}" in head
    assert body == whole


async def test_nobodys_secret_is_kept(folder: Path, bridge: str, provider: Provider) -> None:
    challenge = 'Bearer realm="the-secret-of-the-lock"'
    cookies = [("Set-Cookie", "upstream=cookie-0123456789"), ("WWW-Authenticate", challenge)]
    provider.says(document(MESSAGES.document, headers=cookies))
    own = "oauth-of-the-client-9876543210"
    for headers in ({}, {"Authorization": f"Bearer {own}"}, {"X-Api-Key": own}):
        given = {"Cookie": "session=own-cookie-of-the-client", "X-Auth-Token": own, "X-Amz-Security-Token": own}
        await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False), given | headers)
    await ask(bridge + "/openai/v1/models", headers={"Authorization": f"Bearer {own}"}, method="GET")
    kept = [path.read_bytes().decode() for path in files(folder)]
    assert len(kept) == 8
    for secret in (KEY, own, "own-cookie", "cookie-0123456789", "secret-of-the-lock"):
        assert not any(secret in text for text in kept), f"{secret} can be read in a dump"
    assert any("X-Api-Key: sk-o...6789\r\n" in text for text in kept), "which key it was can not be seen"
    assert any("Authorization: Bearer oaut...3210\r\n" in text for text in kept)


async def test_files_are_for_their_owner_alone(folder: Path, bridge: str, provider: Provider) -> None:
    provider.says(document(MESSAGES.document))
    await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False))
    await ask(bridge + "/anthropic/v1/models", method="GET")
    assert len(files(folder)) == 4
    for path in files(folder):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for parent in path.parents[:3]:
            assert stat.S_IMODE(parent.stat().st_mode) == 0o700


async def test_an_answer_can_be_read_while_it_streams(folder: Path, bridge: str, provider: Provider) -> None:
    go_on = asyncio.Event()
    provider.says(events(MESSAGES.events[0], go_on, *MESSAGES.events[1:]))
    async with begun(bridge + MESSAGES.path, MESSAGES.request()) as answer:
        await answer.until(MESSAGES.events[0])
        assert parts(files(folder)[1])[1] == MESSAGES.events[0]
        go_on.set()
        await answer.rest()
    assert parts(files(folder)[1])[1] == MESSAGES.stream


async def test_an_answer_that_breaks_off_is_kept_as_far_as_it_came(
    folder: Path, bridge: str, provider: Provider
) -> None:
    provider.says(events(MESSAGES.events[0], CLOSE))
    await ask(bridge + MESSAGES.path, MESSAGES.request())
    assert parts(files(folder)[1])[1] == MESSAGES.events[0]


async def test_why_no_answer_came_is_kept(folder: Path, bridge: str, provider: Provider) -> None:
    provider.says(raw(CLOSE))
    answer = await ask(bridge + MESSAGES.path, MESSAGES.request())
    asked, told = files(folder)
    assert [asked.name.partition("-")[2], told.name.partition("-")[2]] == [
        f"{answer.id}.req.txt",
        f"{answer.id}.req_error.txt",
    ]
    assert told.read_text() == "anthropic closed the connection before its answer was complete\n"


async def test_a_client_that_left_is_told_of(
    folder: Path, bridge: str, provider: Provider, recorder: ListRecorder
) -> None:
    provider.says(raw(asyncio.Event()))
    asking = asyncio.create_task(ask(bridge + MESSAGES.path, MESSAGES.request()))
    await until(lambda: provider.asked, "the provider was asked")
    asking.cancel()
    await until(lambda: recorder.all(InterceptionEnded), "the end was recorded")
    _, told = files(folder)
    assert told.name.endswith(".req_error.txt")
    assert "the client left" in told.read_text()


async def test_of_several_attempts_the_last_is_kept(folder: Path, bridge: str, provider: Provider) -> None:
    provider.says(error(529, headers=[("retry-after-ms", "1")]), document(MESSAGES.document))
    await ask(bridge + MESSAGES.path, MESSAGES.request(stream=False))
    _, told = files(folder)
    assert parts(told)[1] == MESSAGES.document


async def test_a_compressed_request_can_be_read(folder: Path, bridge: str, provider: Provider) -> None:
    """Codex compresses what it sends."""
    provider.says(document(MESSAGES.document))
    body = zstandard.compress(MESSAGES.request(stream=False))
    await ask(bridge + MESSAGES.path, body, {"Content-Encoding": "zstd"})
    assert provider.last.body == body
    head, laid_out = parts(files(folder)[0])
    assert "content-encoding: zstd" in [line.lower() for line in head]
    assert json.loads(laid_out) == json.loads(MESSAGES.request(stream=False))


async def test_a_passthrough_is_kept_beside_the_models(folder: Path, bridge: str, provider: Provider) -> None:
    provider.says(chunked([b"not ", b"\xff JSON"], []))
    await ask(bridge + "/anthropic/v1/messages/count_tokens", b"nor \xff this")
    asked, told = files(folder)
    assert asked.parent == folder / "anthropic" / "passthrough"
    moment, *path, mark = asked.name.removesuffix(".req.txt").split("-")
    assert (moment.isdigit(), path) == (True, ["v1", "messages", "count_tokens"])
    assert len(bytes.fromhex(mark)) == 2
    assert told.name == asked.name.replace(".req.", ".resp.")
    assert (parts(asked)[1], parts(told)[1]) == (b"nor \xff this", b"not \xff JSON")


async def test_headers_of_a_provider_of_ones_own_are_masked_too(
    folder: Path, provider: Provider, recorder: ListRecorder
) -> None:
    """Whatever is configured to be sent is taken for a secret, as it is in the settings."""
    provider.says(document(MESSAGES.document))
    headers = {"X-Quay-Pass": "pass-of-the-quay-0123456789"}
    harbour = AnthropicProvider(provider.url, api_key=KEY, key_header="X-Harbour-Key", headers=headers)
    bridge = RequestBridge([harbour], recorder, dump_dir=folder)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        await ask(url + MESSAGES.path, MESSAGES.request(stream=False), {"X-Plain": "as it is"})
    assert provider.last.header("X-Harbour-Key") == KEY
    head, _ = parts(files(folder)[0])
    assert {"X-Harbour-Key: sk-o...6789", "x-quay-pass: pass...6789", "x-plain: as it is"} <= set(head)


async def test_without_a_folder_nothing_is_written(tmp_path: Path, provider: Provider, recorder: ListRecorder) -> None:
    provider.says(document(MESSAGES.document))
    bridge = RequestBridge([AnthropicProvider(provider.url)], recorder)
    async with bridge, serving(asked_by("ada", bridge)) as url:
        await ask(url + MESSAGES.path, MESSAGES.request(stream=False))
    assert not files(tmp_path)


REQUEST = UpstreamRequest("harbour", "POST", "http://127.0.0.1/", [], b"", exchange_id="id", model="tide-1")


@given(
    model=st.text()
    | st.sampled_from(["", ".", "..", "...", "../..", "/etc", "a/../../b", "nul\0", "x" * 5000, "é" * 300])
)
def test_a_model_can_not_lead_out_of_the_folder(model: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Models are named by clients."""
    folder = tmp_path_factory.mktemp("around")
    asyncio.run(_dump(folder / "dump", replace(REQUEST, model=model)))
    asyncio.run(_dump(folder / "dump", replace(REQUEST, model=None, endpoint=f"/v1/models/{model}")))
    assert list(folder.iterdir()) == [folder / "dump"]
    for path in files(folder):
        assert path.parent.parent == folder / "dump" / "harbour"
    assert len(files(folder)) == 4


async def _dump(folder: Path, request: UpstreamRequest) -> None:
    dumped = await Dump(folder).begin(request)
    dumped.ended(whole=False)


async def test_later_turns_have_files_of_their_own(folder: Path) -> None:
    for turn in (1, 2, 3):
        await _dump(folder, replace(REQUEST, turn=turn))
    names = {path.name.partition("-")[2] for path in files(folder)}
    assert {"id.req.txt", "id-2.req.txt", "id-3.req.txt"} < names


class TestTrouble:
    """A dump that can not be written harms no exchange."""

    async def test_a_folder_that_can_not_be_made(
        self, tmp_path: Path, provider: Provider, recorder: ListRecorder, caplog: pytest.LogCaptureFixture
    ) -> None:
        (tmp_path / "dump").write_text("a file is in the way")
        provider.says(events(*MESSAGES.events))
        async with dumping(tmp_path / "dump", provider, recorder) as url:
            answers = [await ask(url + MESSAGES.path, MESSAGES.request()) for _ in range(3)]
        assert [(answer.body, answer.complete) for answer in answers] == [(MESSAGES.stream, True)] * 3
        logged = [record for record in caplog.records if record.levelno >= logging.WARNING]
        assert [record.message.partition(":")[0] for record in logged] == ["an exchange can not be dumped (told once)"]

    async def test_a_disk_that_is_full_in_the_middle_of_an_answer(
        self, folder: Path, bridge: str, provider: Provider, caplog: pytest.LogCaptureFixture
    ) -> None:
        go_on = asyncio.Event()
        provider.says(events(MESSAGES.events[0], go_on, *MESSAGES.events[1:]))
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        async with begun(bridge + MESSAGES.path, MESSAGES.request()) as answer:
            await answer.until(MESSAGES.events[0])
            told = files(folder)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (told.stat().st_size, hard))
            try:
                go_on.set()
                assert (await answer.rest()).complete
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert answer.body == MESSAGES.stream
        assert parts(told)[1] == MESSAGES.events[0]
        assert "can not be dumped" in caplog.text


async def test_an_upstream_that_dumps_can_be_left_at_any_time(folder: Path, provider: Provider) -> None:
    provider.says(document(MESSAGES.document))
    upstream = Upstream(dump=Dump(folder))
    asking = asyncio.create_task(upstream.send(replace(REQUEST, url=provider.url)))
    await asyncio.sleep(0)
    asking.cancel()
    assert isinstance((await asyncio.gather(asking, return_exceptions=True))[0], asyncio.CancelledError)
    assert not provider.asked
    await upstream.aclose()

"""The gateway as a process, seen through its port, its database, its log and its metrics."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from aibridge.server import simulated_upstream
from support.client import ID, ask, begun, say
from support.dialects import CHAT, MESSAGES, PROMPT, RESPONSES, Dialect
from support.process import ACTOR, KEY, Gateway, running
from support.provider import Provider, document, error, events
from support.waiting import until


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests that only ask; behind it stands the simulated upstream."""
    with simulated_upstream.serve() as upstream, running(tmp_path_factory.mktemp("gateway"), upstream) as started:
        yield started


async def test_it_is_alive_and_ready(gateway: Gateway) -> None:
    alive = await ask(f"{gateway.url}/healthz", method="GET")
    assert (alive.status, alive.json()) == (200, {"status": "alive"})
    ready = await ask(f"{gateway.url}/readyz", method="GET")
    assert (ready.status, ready.json()) == (200, {"status": "ready"})


async def test_what_was_asked_is_in_the_database(gateway: Gateway, dialect: Dialect) -> None:
    """A moment after the client has its answer."""
    answer = await ask(gateway.url + dialect.path, dialect.request(), ACTOR)
    assert (answer.status, answer.complete) == (200, True)

    def of(table: str) -> list[dict[str, object]]:
        column = "id" if table == "interceptions" else "interception_id"
        return [row for row in gateway.rows(table) if row[column] == answer.id]

    await until(lambda: any(row["ended_at"] for row in of("interceptions")), "the interception is stored")
    [row] = of("interceptions")
    assert (row["initiator_id"], row["status"], row["http_status"]) == ("ada", "completed", 200)
    assert (row["credential_kind"], row["credential_hint"]) == ("centralized", "sk-o...6789")
    assert row["route"] == dialect.path[dialect.path.index("/", 1) :]
    assert [each["prompt"] for each in of("user_prompts")] == [PROMPT]
    [tokens] = of("token_usages")
    assert isinstance(tokens["output_tokens"], int)
    assert tokens["output_tokens"] > 0


async def test_who_asks_may_be_told_in_a_header_of_its_own(provider: Provider, tmp_path: Path) -> None:
    """So that `Authorization` is free for a subscription: the provider gets that, and nothing of the other."""
    token = "sk-ant-oat01-of-the-plan-ABCDEFGH"
    provider.says(events(MESSAGES.stream))
    with running(tmp_path, provider.url, AUTH_HEADER="X-AIBridge-Token") as gateway:
        headers = {"X-AIBridge-Token": "ada", "Authorization": f"Bearer {token}"}
        assert (await ask(gateway.url + MESSAGES.path, MESSAGES.request(), headers)).complete
        assert (await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)).status == 401
        await until(gateway.ended, "the interception is stored")
        [row] = gateway.rows("interceptions")
    assert (row["initiator_id"], row["credential_kind"]) == ("ada", "byok")
    assert row["metadata"]["subscription"] == "claude"
    [asked] = provider.asked
    assert (asked.header("authorization"), asked.header("x-aibridge-token")) == (f"Bearer {token}", None)


async def test_every_answer_names_an_interception(gateway: Gateway) -> None:
    """By it, a user's complaint is found in the log and the records."""
    upgrade = f"GET {RESPONSES.path} HTTP/1.1\r\nHost: g\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    CHAT.request(messages=[_user("[[fail 400]]")])
    answers = {
        "a document": await ask(gateway.url + CHAT.path, CHAT.request(stream=False), ACTOR),
        "a stream": await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR),
        "passthrough": await ask(f"{gateway.url}/openai/v1/models", b"", ACTOR, "GET"),
        "the provider's error": await ask(
            gateway.url + CHAT.path, CHAT.request(messages=[_user("[[fail 400]]")]), ACTOR
        ),
        "no request": await ask(gateway.url + MESSAGES.path, b"{", ACTOR),
        "no actor": await ask(gateway.url + MESSAGES.path, MESSAGES.request()),
        "no route": await ask(f"{gateway.url}/openai/v1/engines", b"{}", ACTOR),
        "no provider": await ask(f"{gateway.url}/nobody", b"{}", ACTOR),
        "too long": await ask(gateway.url + CHAT.path, bytes(2 << 20), ACTOR),
        "a probe": await ask(f"{gateway.url}/anthropic/api/hello", method="HEAD"),
        "websocket": await say(gateway.url, upgrade.encode()),
    }
    statuses = [answer.status for answer in answers.values()]
    assert statuses == [200, 200, 200, 400, 400, 401, 404, 404, 413, 200, 426]
    assert len({answer.header(ID) for answer in answers.values()} - {None}) == len(answers)


@pytest.mark.parametrize(
    "headers",
    [[], ["X-User-ID: "], ["X-User-ID: ada", "X-User-ID: mallory"], ["x-user-id: mallory", "X-USER-ID: ada"]],
    ids=["none", "empty", "two", "two in other letters"],
)
async def test_who_is_not_named_once_is_nobody(gateway: Gateway, headers: list[str]) -> None:
    """A client may add a name of its own to that which the proxy in front has set."""
    body = MESSAGES.request()
    lines = [f"POST {MESSAGES.path} HTTP/1.1", "Host: g", f"Content-Length: {len(body)}", *headers, "", ""]
    answer = await say(gateway.url, "\r\n".join(lines).encode() + body)
    assert answer.status == 401
    assert MESSAGES.error_in(answer.body)[0] == "authentication_error"


async def test_metrics_tell_what_happened(gateway: Gateway) -> None:
    model = "gpt-5.5-of-the-metrics-test"
    before = gateway.total("interceptions_total", model=model)
    body = CHAT.request(stream=False, model=model, messages=[_user('[[call read_tides {"a": 1}]]')], tools=[_TOOL])
    await ask(gateway.url + CHAT.path, body, ACTOR)
    assert before == 0
    labels = {"provider": "openai", "model": model}
    assert gateway.total("interceptions_total", **labels, status="completed", initiator_id="ada") == 1
    assert gateway.total("interceptions_inflight", **labels) == 0
    assert gateway.total("interceptions_duration_seconds_count", **labels) == 1
    assert gateway.total("prompts_total", **labels) == 1
    assert gateway.total("tokens_total", **labels, type="output") > 0
    assert gateway.total("non_injected_tool_selections_total", **labels) == 1


async def test_the_log_has_a_line_for_each_interception(gateway: Gateway) -> None:
    answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)

    def told() -> list[dict[str, Any]]:
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines()]
        return [line for line in lines if line.get("interception_id") == answer.id]

    await until(told, "the line is written, for which no client waits")
    [line] = told()
    assert (line["message"], line["actor"], line["model"]) == ("interception completed", "ada", "claude-tidal-5")
    assert line["duration_ms"] >= line["overhead_ms"] >= 0


async def test_a_head_without_end_is_not_kept(gateway: Gateway) -> None:
    """Before a head is whole nobody is known who could be held to account for the memory that it takes."""
    head = b"POST /anthropic/v1/messages HTTP/1.1\r\nHost: g\r\n"
    for endless in (b"X-More: 1\r\n" * 100_000, b"X-More: " + b"x" * (1 << 20)):
        answer = await say(gateway.url, head + endless)
        assert answer.status in (400, 431)
    assert gateway.status("/healthz") == 200


async def test_secrets_are_nowhere(provider: Provider, tmp_path: Path) -> None:
    """Not in the database, the journal, the log, the metrics or the dump; a masked hint is all there is."""
    own, token = "sk-ant-of-the-client-ABCDEFGH", "gho_of-the-client-IJKLMNOP"
    dump = tmp_path / "dump"
    provider.says(events(MESSAGES.stream), error(401, f"bad key {own}"), error(403, f"not with {KEY}"))
    with running(tmp_path, provider.url, UPSTREAM_DUMP_DIR=str(dump), LOG_LEVEL="debug") as gateway:
        headers = ACTOR | {"X-Api-Key": own, "Authorization": f"Bearer {token}", "Cookie": "s=of-the-session-QRST"}
        for sent in (headers, headers, ACTOR):
            await ask(gateway.url + MESSAGES.path, MESSAGES.request(), sent)
        await ask(f"{gateway.url}/openai/v1/models", b"", headers, "GET")
        await ask(f"{gateway.url}/openai/v1/nowhere?key={token}", b"", headers, "GET")
        await until(lambda: len(gateway.ended()) == 3, "the interceptions are stored")
        metrics = (await ask(f"{gateway.url}/metrics", method="GET")).body
        hints = [row["credential_hint"] for row in gateway.rows("interceptions")]
        gateway.kill()  # what is in the journal stays there
    assert hints == ["sk-a...EFGH", "sk-a...EFGH", "sk-o...6789"]
    places = _files(tmp_path) | {Path("metrics"): metrics}
    assert len(places) > 6
    for secret in (own, token, KEY, "of-the-session-QRST"):
        assert [path for path, text in places.items() if secret.encode() in text] == []


class TestWithoutAJournal:
    """The directory of the journal can not be made, since there is a file in its place."""

    async def test_nothing_is_carried_and_readyz_says_why(self, provider: Provider, tmp_path: Path) -> None:
        (tmp_path / "journal").write_text("in the way")
        provider.says(document(MESSAGES.document))
        with running(tmp_path, provider.url, ready=False) as gateway:
            ready = await ask(f"{gateway.url}/readyz", method="GET")
            assert ready.status == 503
            assert "journal" in str(ready.json()["problems"])
            answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)
            assert answer.status == 503
            assert int(answer.header("Retry-After") or 0) > 0
            assert MESSAGES.error_in(answer.body)[0] == "api_error"
            assert not provider.asked
            (tmp_path / "journal").unlink()
            await until(lambda: gateway.status("/readyz") == 200, "it is ready once the cause is gone")
            answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(stream=False), ACTOR)
            assert answer.status == 200
            await until(lambda: gateway.ended(), "the interception is stored")

    async def test_it_is_carried_and_counted_where_recording_is_not_required(
        self, provider: Provider, tmp_path: Path
    ) -> None:
        (tmp_path / "journal").write_text("in the way")
        provider.says(document(MESSAGES.document))
        with running(tmp_path, provider.url, ready=False, STORAGE_REQUIRED="false") as gateway:
            answer = await ask(gateway.url + MESSAGES.path, MESSAGES.request(stream=False), ACTOR)
            assert (answer.status, answer.body) == (200, MESSAGES.document)
            assert gateway.total("unrecorded_total") == 2  # an interception and its prompt


async def test_a_start_that_can_not_be_ends_with_the_reason(tmp_path: Path) -> None:
    gateway = Gateway(tmp_path, "http://127.0.0.1:9", STORAGE_URL="mysql://nobody@127.0.0.1/x")
    with pytest.raises(AssertionError, match="the gateway ended"):
        gateway.start()
    assert "storage.url" in gateway.log.read_text()
    assert "Traceback" not in gateway.log.read_text()


async def test_a_port_that_is_taken_ends_the_start(gateway: Gateway, tmp_path: Path) -> None:
    port = gateway.url.rpartition(":")[2]
    second = Gateway(tmp_path, "http://127.0.0.1:9", SERVER_PORT=port)
    with pytest.raises(AssertionError, match="the gateway ended"):
        second.start()
    assert second.process
    assert second.process.returncode != 0
    assert "address already in use" in second.log.read_text()


async def test_streams_are_kept_alive_and_given_up_as_the_settings_say(provider: Provider, tmp_path: Path) -> None:

    provider.says(events(MESSAGES.before(), asyncio.Event()))
    with running(tmp_path, provider.url, UPSTREAM_KEEPALIVE_INTERVAL="100ms", UPSTREAM_IDLE_TIMEOUT="500ms") as gateway:
        async with begun(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR) as answer:
            await answer.until(MESSAGES.before() + MESSAGES.wire.keep_alive)
            await answer.rest()
        assert not answer.complete
        assert "idle limit of 0.5 s" in MESSAGES.error_event_in(answer.body)


def _files(folder: Path) -> dict[Path, bytes]:
    """What stands in all files; of an answer in the dump its head, for its body is the provider's own words."""
    found = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    for path in found:
        if path.name.endswith(".resp.txt"):
            found[path] = found[path].partition(b"\r\n\r\n")[0]
    return found


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


_TOOL = {"type": "function", "function": {"name": "read_tides", "parameters": {"type": "object"}}}

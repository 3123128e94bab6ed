"""Several workers on one port, and gateways that are stopped or killed in the middle of exchanges."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

from support.client import Answer, ask, begun
from support.dialects import DIALECTS, MESSAGES, Dialect
from support.process import ACTOR, Gateway, running
from support.provider import Provider, Reply, document, events
from support.waiting import until

ENDED_WELL = (0, -signal.SIGTERM)
"""A single worker ends by the signal that it was told to end by, once it has done its duty."""


def _half(dialect: Dialect, turn: asyncio.Event) -> Reply:
    """A stream that waits in the middle."""
    return events(dialect.before(), turn, b"".join(dialect.events[dialect.spoken + 1 :]))


async def _are_stored(gateway: Gateway, ids: set[str]) -> None:
    """Each of these interceptions is in the database once, ended, with its prompt, tokens and tool calls."""
    await until(lambda: ids <= {row["id"] for row in gateway.ended()}, "the interceptions are stored")
    for table in ("user_prompts", "token_usages", "tool_usages"):
        found = Counter(row["interception_id"] for row in gateway.rows(table))
        assert {each: found[each] for each in ids} == dict.fromkeys(ids, 1), table


def _totals(gateway: Gateway) -> tuple[float, ...]:
    """What metrics say of completed interceptions, tokens that were put out, and interceptions that run."""
    return (
        gateway.total("interceptions_total", status="completed"),
        gateway.total("tokens_total", type="output"),
        gateway.total("interceptions_inflight"),
    )


async def test_workers_share_a_port_a_database_and_a_page_of_metrics(provider: Provider, tmp_path: Path) -> None:
    with running(tmp_path, provider.url, workers=3) as gateway:
        assert len(gateway.workers()) == 3
        ids: set[str] = set()
        for dialect in DIALECTS:
            provider.says(events(dialect.stream))
            asking = (ask(gateway.url + dialect.path, dialect.request(), ACTOR) for _ in range(20))
            answers = await asyncio.gather(*asking)
            assert {(answer.status, answer.body) for answer in answers} == {(200, dialect.for_client)}
            ids |= {answer.id for answer in answers}
        await _are_stored(gateway, ids)
        assert len(gateway.rows("interceptions")) == 60
        await until(lambda: _totals(gateway) == (60, 60 * 41, 0), "the workers have told each other what they did")
        assert [_totals(gateway) for _ in range(8)] == [(60, 60 * 41, 0)] * 8  # whichever worker answers
        assert gateway.stop() in ENDED_WELL


async def test_what_a_worker_counted_outlives_it(provider: Provider, tmp_path: Path) -> None:
    """Workers that are told to stop at once after exchanges still tell of them, to those that take their place."""
    provider.says(events(MESSAGES.stream))
    with running(tmp_path, provider.url, workers=2) as gateway:
        for answer in await asyncio.gather(
            *(ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR) for _ in range(9))
        ):
            assert answer.complete
        before = gateway.workers()
        for pid in before:
            os.kill(pid, signal.SIGTERM)
        await until(
            lambda: len(gateway.workers()) == 2 and not {*gateway.workers()} & {*before}, "new workers are there"
        )
        await until(lambda: gateway.status("/readyz") == 200, "the gateway is ready again")
        assert _totals(gateway) == (9, 9 * 41, 0)


async def test_workers_that_are_killed_lose_nothing(provider: Provider, tmp_path: Path) -> None:
    """What they had recorded is stored by those that take their place, and what was running is no longer counted."""
    turn = asyncio.Event()
    with running(tmp_path, provider.url, workers=2) as gateway:
        provider.says(events(MESSAGES.stream))
        done = {(await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)).id for _ in range(6)}
        provider.says(_half(MESSAGES, turn))
        async with AsyncExitStack() as stack:
            cut = [await stack.enter_async_context(_asked(gateway)) for _ in range(6)]
            for answer in cut:
                await answer.until(MESSAGES.said)
            before = gateway.workers()
            for pid in before:
                os.kill(pid, signal.SIGKILL)
            for answer in cut:
                assert not (await answer.rest()).complete
        await until(
            lambda: len(gateway.workers()) == 2 and not {*gateway.workers()} & {*before}, "new workers are there"
        )
        await until(lambda: gateway.status("/readyz") == 200, "the gateway is ready again")
        provider.says(events(MESSAGES.stream))
        after = await ask(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)
        assert after.body == MESSAGES.for_client
        await _are_stored(gateway, done | {after.id})
        rows = {row["id"]: row for row in gateway.rows("interceptions")}
        assert rows.keys() == done | {after.id} | {answer.id for answer in cut}
        assert [rows[answer.id]["ended_at"] for answer in cut] == [None] * 6
        await until(lambda: gateway.total("interceptions_inflight") == 0, "nothing is told to be in flight")
        turn.set()


async def test_a_gateway_that_is_killed_loses_nothing_and_repeats_nothing(provider: Provider, tmp_path: Path) -> None:
    """Killed twice, in the middle of exchanges: who has a whole answer is recorded, once."""
    ids: set[str] = set()
    cut: set[str] = set()
    with running(tmp_path, provider.url) as gateway:
        for _ in range(2):
            for dialect in DIALECTS:
                provider.says(events(dialect.stream))
                asking = (ask(gateway.url + dialect.path, dialect.request(), ACTOR) for _ in range(10))
                ids |= {answer.id for answer in await asyncio.gather(*asking)}
            provider.says(_half(MESSAGES, asyncio.Event()))
            async with _asked(gateway) as answer:
                await answer.until(MESSAGES.said)
                gateway.kill()
                assert not (await answer.rest()).complete
            cut.add(answer.id)
            gateway.start()
        await _are_stored(gateway, ids)
        assert {row["id"] for row in gateway.rows("interceptions")} == ids | cut
        assert sum(row["interception_id"] in ids for row in gateway.rows("token_usages")) == 60
        assert gateway.stop() in ENDED_WELL
    assert not [path for path in (tmp_path / "journal").iterdir() if path.is_file() and path.stat().st_size]


async def test_a_gateway_that_is_told_to_stop_lets_exchanges_finish(provider: Provider, tmp_path: Path) -> None:
    turn = asyncio.Event()
    for workers in (1, 2):
        folder = tmp_path / str(workers)
        folder.mkdir()
        turn.clear()
        provider.says(_half(MESSAGES, turn))
        with running(folder, provider.url, workers=workers) as gateway:
            async with _asked(gateway) as answer:
                await answer.until(MESSAGES.said)
                gateway.send_signal(signal.SIGTERM)
                await until(lambda: gateway.status("/healthz") is None, "nobody else is let in")
                turn.set()
                assert (await answer.rest()).body == MESSAGES.for_client
                assert answer.complete
            assert await asyncio.to_thread(gateway.wait) in ENDED_WELL
            await _are_stored(gateway, {answer.id})
            assert f'"interception_id":"{answer.id}"' in gateway.log.read_text()


async def test_a_gateway_that_can_not_wait_any_longer_cuts_and_says_so(provider: Provider, tmp_path: Path) -> None:
    provider.says(_half(MESSAGES, asyncio.Event()))
    with running(tmp_path, provider.url, grace="1s", tracebacks=True) as gateway:
        async with _asked(gateway) as answer:
            await answer.until(MESSAGES.said)
            gateway.send_signal(signal.SIGTERM)
            await answer.rest()
            assert not answer.complete
            assert "stopping" in MESSAGES.error_event_in(answer.body)
        assert await asyncio.to_thread(gateway.wait) in ENDED_WELL
        [row] = gateway.ended()
        assert (row["id"], row["status"], row["error_type"]) == (answer.id, "failed", "shutting_down")
        [tokens] = gateway.rows("token_usages")
        assert (tokens["input_tokens"], tokens["metadata"]["partial"]) == (23, True)


async def test_a_client_that_left_is_in_the_database(provider: Provider, tmp_path: Path) -> None:
    provider.says(_half(MESSAGES, asyncio.Event()))
    with running(tmp_path, provider.url) as gateway:
        async with _asked(gateway) as answer:
            await answer.until(MESSAGES.said)
        await until(gateway.ended, "the end is stored")
        [row] = gateway.ended()
        assert (row["id"], row["status"], row["http_status"]) == (answer.id, "cancelled", 200)
        await until(provider.last.left.is_set, "the upstream request was ended")
        provider.says(document(MESSAGES.document))
        assert (await ask(gateway.url + MESSAGES.path, MESSAGES.request(stream=False), ACTOR)).status == 200


def _asked(gateway: Gateway) -> AbstractAsyncContextManager[Answer]:
    return begun(gateway.url + MESSAGES.path, MESSAGES.request(), ACTOR)
